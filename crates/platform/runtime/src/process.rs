//! The handles that every component of a process gets.

use tokio::sync::watch;

use crate::clock::Clock;
use crate::lifecycle::{Drain, Readiness};
use crate::tasks::{Kind, Tasks};

/// The handles of a process. A component gets a clone when it is built, and keeps the handles that it needs.
#[derive(Debug, Clone)]
pub struct Process {
    /// The time of day that rules are judged by.
    pub clock: Clock,
    /// The set in which components spawn background work.
    pub tasks: Tasks,
    /// Says whether the process is to stop.
    pub drain: Drain,
    /// The conditions that must hold before calls are served.
    pub readiness: Readiness,
}

impl Process {
    /// A bundle whose tasks end with `drain`.
    #[must_use]
    pub fn new(clock: Clock, drain: Drain) -> Self {
        Self { clock, tasks: Tasks::new(drain.clone()), drain, readiness: Readiness::new() }
    }

    /// Marks the process as unready while the storage of a service accepts no writes. Calls are still served as far as
    /// possible.
    pub fn ready_while_writable(&self, service: &str, writable: watch::Receiver<bool>) {
        let following = self.readiness.clone().follow(format!("the storage of {service} to take writes"), writable);
        self.tasks.spawn(Kind::Helper, "writable", following);
    }
}
