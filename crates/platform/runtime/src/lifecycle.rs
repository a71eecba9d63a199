//! The states of a process: starting, ready, draining, stopped.
//!
//! Everything here is level-triggered: a late question gets the same answer as a wait. The server, the tasks and the
//! binary decide what happens in each state.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Requests the drain. Dropping the last trigger requests it too, because nobody could request it afterwards.
#[derive(Debug, Clone)]
pub struct DrainTrigger(watch::Sender<bool>);

/// Says whether the process is to stop.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

/// A trigger and the drain that it requests.
#[must_use]
pub fn drain_pair() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainTrigger(sender), Drain(receiver))
}

impl DrainTrigger {
    /// Requests the drain; this cannot be undone.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Waits until the drain is requested; returns at once if it already was.
    pub async fn requested(&self) {
        // An error means that the trigger is gone, which counts as a request.
        let _ = self.0.clone().wait_for(|requested| *requested).await;
    }

    /// Whether the drain was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Whether a process may serve. It has started once every latch is released, or at once without latches. It is ready
/// while it also has no trouble.
#[derive(Debug, Clone)]
pub struct Readiness {
    latches: Arc<watch::Sender<BTreeMap<String, Held>>>,
    /// What a started process lacks at the moment. It still serves what it can, but other replicas may serve better.
    troubles: Arc<watch::Sender<BTreeSet<String>>>,
}

/// The latches under one name.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    latches: usize,
    /// Whether the name is a sentence that callers get to read.
    shown: bool,
}

/// Holds readiness back until it is released.
#[derive(Debug)]
pub struct Latch {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// A readiness without latches.
    #[must_use]
    pub fn new() -> Self {
        Self { latches: Arc::default(), troubles: Arc::default() }
    }

    /// Takes a latch; `/ready` shows its `name`. Take latches before the server runs, because a later one makes the
    /// process unready again.
    #[must_use]
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        self.hold(name.into(), false)
    }

    /// Takes a latch for something that does not pass by itself. Callers get `why`, a sentence that says what to do.
    #[must_use]
    pub fn refuse(&self, why: impl Into<String>) -> Latch {
        self.hold(why.into(), true)
    }

    fn hold(&self, name: String, shown: bool) -> Latch {
        self.latches.send_modify(|held| {
            let held = held.entry(name.clone()).or_default();
            held.latches += 1;
            held.shown |= shown;
        });
        Latch { name, readiness: self.clone() }
    }

    /// The sentence for callers that are refused; `None` if the process is only starting.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.latches.borrow().iter().find(|(_, held)| held.shown).map(|(name, _)| name.clone())
    }

    /// Adds this trouble, or removes it.
    pub fn trouble(&self, name: &str, troubled: bool) {
        self.troubles.send_if_modified(
            |troubles| {
                if troubled { troubles.insert(name.to_owned()) } else { troubles.remove(name) }
            },
        );
    }

    /// Has the trouble `name` while `well` is false; ends when the sender of `well` is dropped.
    pub async fn follow(self, name: String, mut well: watch::Receiver<bool>) {
        loop {
            self.trouble(&name, !*well.borrow_and_update());
            if well.changed().await.is_err() {
                return self.trouble(&name, false);
            }
        }
    }

    /// Whether every latch is released, so that calls are accepted.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.latches.borrow().is_empty()
    }

    /// Whether every latch is released and there is no trouble.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.has_started() && self.troubles.borrow().is_empty()
    }

    /// Waits until [`Self::is_ready`].
    pub async fn ready(&self) {
        self.until(true).await;
    }

    /// Waits until [`Self::is_ready`] no longer holds.
    pub async fn unready(&self) {
        self.until(false).await;
    }

    async fn until(&self, wanted: bool) {
        let (mut latches, mut troubles) = (self.latches.subscribe(), self.troubles.subscribe());
        loop {
            // Both are marked as seen before either is waited for.
            let (started, untroubled) =
                (latches.borrow_and_update().is_empty(), troubles.borrow_and_update().is_empty());
            if (started && untroubled) == wanted {
                return;
            }
            // The senders live in self, so the channels cannot close while this waits.
            tokio::select! {
                _ = latches.changed() => {}
                _ = troubles.changed() => {}
            }
        }
    }

    /// The names of the latches that are not released, then of the troubles.
    #[must_use]
    pub fn awaited(&self) -> Vec<String> {
        self.latches.borrow().keys().chain(self.troubles.borrow().iter()).cloned().collect()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Latch {
    /// Releases the latch. A latch that is dropped without this holds readiness back for ever, because a part that
    /// failed to start must not look ready.
    pub fn release(self) {
        self.readiness.latches.send_modify(|held| {
            if let Some(named) = held.get_mut(&self.name) {
                named.latches -= 1;
                if named.latches == 0 {
                    held.remove(&self.name);
                }
            }
        });
    }
}

/// The two signals that ask a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Waits for either signal; returns its name and the exit status of a process that is ended by it.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + 15),
            _ = self.interrupt.recv() => ("SIGINT", 128 + 2),
        }
    }
}

/// Turns SIGTERM and SIGINT into a drain; a second signal ends the process at once with 143 or 130. The handlers are
/// installed when this returns. The returned future must be polled for as long as the process lives.
///
/// # Errors
/// The operating system's error if the handlers cannot be installed.
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

/// Locks also a poisoned mutex: its fields are still whole, because every critical section is a single assignment or
/// map operation.
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
    async fn what_does_not_pass_by_itself_is_told_until_it_has_passed() {
        let readiness = Readiness::new();
        let start = readiness.latch("the start");
        assert_eq!(readiness.refusal(), None);
        let lost = readiness.refuse("mend it");
        assert_eq!(readiness.refusal().as_deref(), Some("mend it"));
        lost.release();
        assert_eq!((readiness.refusal(), readiness.is_ready()), (None, false));
        start.release();
        assert!(readiness.is_ready());
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

    #[tokio::test]
    async fn trouble_makes_a_started_process_unready_and_goes_again() {
        let readiness = Readiness::new();
        let (well, watched) = watch::channel(true);
        let following = readiness.clone().follow("the storage".to_owned(), watched);
        let changing = async {
            well.send_replace(false);
            readiness.unready().await;
            assert_eq!((readiness.has_started(), readiness.awaited()), (true, vec!["the storage".to_owned()]));
            well.send_replace(true);
            readiness.ready().await;
            assert!(readiness.is_ready());
            drop(well);
        };
        tokio::join!(following, changing);
    }
}
