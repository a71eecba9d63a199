//! The bundle of handles every component of a process is given.

use tokio::sync::watch;

use crate::clock::Clock;
use crate::lifecycle::{Drain, Readiness};
use crate::tasks::{Kind, Tasks};

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

    /// Is unready while the storage of a service takes no writes: calls are served all the same, as far as they can be.
    pub fn ready_while_writable(&self, service: &str, writable: watch::Receiver<bool>) {
        let following = self.readiness.clone().follow(format!("the storage of {service} to take writes"), writable);
        self.tasks.spawn(Kind::Helper, "writable", following);
    }
}
