//! The progress of a run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

/// The progress that all participants share. They poll it, because they live on different runtimes whose clocks the
/// simulation moves.
#[derive(Debug)]
pub(crate) struct Stage {
    slots: Mutex<Option<Vec<String>>>,
    busy: AtomicUsize,
    healed: AtomicBool,
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Stage {
    /// A run with this many callers.
    pub(crate) fn new(callers: usize) -> Self {
        Self { slots: Mutex::default(), busy: AtomicUsize::new(callers), healed: AtomicBool::new(false) }
    }

    /// Announces the slots that can be booked.
    pub(crate) fn open(&self, slots: Vec<String>) {
        *self.slots.lock().unwrap_or_else(PoisonError::into_inner) = Some(slots);
    }

    /// Waits until there are slots, and returns them.
    pub(crate) async fn opened(&self) -> Vec<String> {
        loop {
            if let Some(slots) = self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return slots;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Records that a caller has finished.
    pub(crate) fn leave(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether all callers have finished.
    pub(crate) fn is_over(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    /// Records that all disruptions have ended.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    /// Whether all disruptions have ended.
    pub(crate) fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }
}
