//! How far a run has come.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

/// Looked at by polling: its users live on different runtimes, whose clocks the simulation moves.
#[derive(Debug)]
pub(crate) struct Stage {
    slots: Mutex<Option<Vec<String>>>,
    busy: AtomicUsize,
    healed: AtomicBool,
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Stage {
    /// With so many callers.
    pub(crate) fn new(callers: usize) -> Self {
        Self { slots: Mutex::default(), busy: AtomicUsize::new(callers), healed: AtomicBool::new(false) }
    }

    /// There are slots to book.
    pub(crate) fn open(&self, slots: Vec<String>) {
        *self.slots.lock().unwrap_or_else(PoisonError::into_inner) = Some(slots);
    }

    /// The slots, once there are any.
    pub(crate) async fn opened(&self) -> Vec<String> {
        loop {
            if let Some(slots) = self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                return slots;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// A caller is done.
    pub(crate) fn leave(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether all callers are done.
    pub(crate) fn is_over(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
    }

    /// Whether nothing goes wrong any more.
    pub(crate) fn is_healed(&self) -> bool {
        self.healed.load(Ordering::Relaxed)
    }
}
