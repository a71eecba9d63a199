//! The bundle of handles every component of a process is given.

use crate::clock::Clock;
use crate::lifecycle::{Drain, Readiness};
use crate::tasks::Tasks;

/// Cheap to clone; a component takes one when it is built and keeps what it needs.
#[derive(Debug, Clone)]
pub struct Process {
    /// The time of day rules are judged by.
    pub clock: Clock,
    /// Where background work is spawned.
    pub tasks: Tasks,
    /// Whether the process is to stop.
    pub drain: Drain,
    /// What still has to happen before calls are served.
    pub readiness: Readiness,
}

impl Process {
    /// A bundle whose tasks end with `drain`.
    #[must_use]
    pub fn new(clock: Clock, drain: Drain) -> Self {
        Self { clock, tasks: Tasks::new(drain.clone()), drain, readiness: Readiness::new() }
    }
}
