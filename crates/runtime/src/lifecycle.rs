//! The states a process goes through: starting, ready, draining, gone.
//!
//! Everything here is level-triggered: who asks late gets the same answer as who waited. What happens in each state is
//! decided by the server, the tasks and the binary.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Asks for the drain. Dropping the last one asks too, for then nobody is left who could.
#[derive(Debug, Clone)]
pub struct DrainTrigger(watch::Sender<bool>);

/// Tells whether the process is to stop.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

/// A trigger and what it triggers.
#[must_use]
pub fn drain_pair() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Asks for the drain, once and for all.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Waits until the drain is requested; returns at once where it already was.
    pub async fn requested(&self) {
        // an error means that the trigger is gone, which counts as a request
        let _ = self.0.clone().wait_for(|requested| *requested).await;
    }

    /// Whether the drain was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Ready once every latch is released, and ready from the start where nobody takes one.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<BTreeMap<String, usize>>>);

/// Holds readiness back until it is released.
#[derive(Debug)]
pub struct Latch {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// Without latches.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }

    /// Takes a latch; `name` says on `/ready` what is awaited. Take latches before the server runs: one taken later makes
    /// the process unready again.
    #[must_use]
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let name = name.into();
        self.0.send_modify(|held| *held.entry(name.clone()).or_default() += 1);
        Latch { name, readiness: self.clone() }
    }

    /// Whether every latch is released.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Waits until every latch is released.
    pub async fn ready(&self) {
        // the sender lives in self, so the channel cannot close while this waits
        let _ = self.0.subscribe().wait_for(BTreeMap::is_empty).await;
    }

    /// What is still awaited.
    #[must_use]
    pub fn awaited(&self) -> Vec<String> {
        self.0.borrow().keys().cloned().collect()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Latch {
    /// Gives way. A latch that is dropped without this stays closed for ever: what failed to start must not look ready.
    pub fn release(self) {
        self.readiness.0.send_modify(|held| {
            if let Some(count) = held.get_mut(&self.name) {
                *count -= 1;
                if *count == 0 {
                    held.remove(&self.name);
                }
            }
        });
    }
}

/// Both signals that ask a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Waits for either; returns its name and the exit status of a process that dies of it.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + 15),
            _ = self.interrupt.recv() => ("SIGINT", 128 + 2),
        }
    }
}

/// Turns SIGTERM and SIGINT into a drain; the second one ends the process at once with 143 or 130. The handlers are in
/// place when this returns; the future it returns has to be polled for as long as the process lives.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn signals(trigger: DrainTrigger) -> io::Result<impl Future<Output = ()> + Send> {
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    Ok(async move {
        let (name, _) = signals.next().await;
        tracing::info!(signal = name, "draining; a second signal ends the process at once");
        trigger.request();
        let (name, exit_status) = signals.next().await;
        tracing::warn!(signal = name, "ending without waiting");
        std::process::exit(exit_status);
    })
}

/// The fields of a poisoned lock are still whole where every critical section is a single assignment or map operation.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_is_seen_by_those_who_ask_late() {
        let (trigger, drain) = drain_pair();
        assert!(!drain.is_requested());
        trigger.request();
        let late = drain.clone();
        late.requested().await;
        assert!(late.is_requested());
    }

    #[tokio::test]
    async fn a_lost_trigger_counts_as_a_request() {
        let (trigger, drain) = drain_pair();
        drop(trigger);
        drain.requested().await;
        assert!(drain.is_requested());
    }

    #[tokio::test]
    async fn readiness_waits_for_every_latch_and_a_dropped_one_never_opens() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (first, second, lost) = (readiness.latch("store"), readiness.latch("store"), readiness.latch("peer"));
        first.release();
        drop(lost);
        assert_eq!(readiness.awaited(), ["peer", "store"]);
        second.release();
        assert_eq!(readiness.awaited(), ["peer"]);
        assert!(!readiness.is_ready());
    }
}
