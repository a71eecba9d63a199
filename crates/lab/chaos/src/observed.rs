//! What the customers of a run did, and the answers they got.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use testkit::{BookingHistory, Outcome};

use crate::pool::Ended;
use crate::series::Series;

/// How many complaints are kept.
const KEPT_COMPLAINTS: usize = 20;

/// A slot that customers book.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// The resource name of the slot.
    pub(crate) name: String,
    /// The number of its places.
    pub(crate) capacity: i32,
}

/// What the customers did, and the answers they got.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Every booking.
    pub(crate) history: BookingHistory,
    /// Definite answers, counted by time.
    pub(crate) answers: Series,
    /// Calls, each counted once however many attempts it took.
    pub(crate) calls: AtomicU64,
    /// Calls without a definite answer after all attempts of a well-behaved client.
    pub(crate) unknown: AtomicU64,
    /// Attempts beyond the first.
    pub(crate) retries: AtomicU64,
    /// The numbers of confirmed bookings, of cancellations, of moves and of bookings that wait.
    pub(crate) effects: [AtomicU64; 4],
    /// How often clients together held more places of a slot than it has.
    pub(crate) oversold: AtomicU64,
    slots: Vec<Slot>,
    /// Places per slot that clients hold now: from the confirmation until a client begins to cancel or to move.
    held: Vec<AtomicI64>,
    refusals: Mutex<BTreeMap<String, u64>>,
    complaints: Mutex<Vec<String>>,
}

impl Observed {
    /// Starts with no calls.
    #[must_use]
    pub(crate) fn new(slots: Vec<Slot>) -> Self {
        Self {
            history: BookingHistory::default(),
            answers: Series::default(),
            calls: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            effects: std::array::from_fn(|_| AtomicU64::new(0)),
            oversold: AtomicU64::new(0),
            held: slots.iter().map(|_| AtomicI64::new(0)).collect(),
            slots,
            refusals: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    /// The slots that customers book.
    #[must_use]
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Records a violation. Only the first [`KEPT_COMPLAINTS`] are kept.
    pub(crate) fn complain(&self, what: impl Into<String>) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < KEPT_COMPLAINTS {
            complaints.push(what.into());
        }
    }

    /// The violations that were recorded.
    #[must_use]
    pub(crate) fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }

    /// The number of refusals per reason.
    #[must_use]
    pub(crate) fn refusals(&self) -> BTreeMap<String, u64> {
        lock(&self.refusals).clone()
    }

    /// Counts a call and returns its outcome. A status that no client should see is a violation, and the
    /// outcome is unknown.
    pub(crate) fn note<T>(&self, ended: Result<Ended<T>, String>) -> Outcome<T> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let Ended { outcome, attempts } = ended.unwrap_or_else(|what| {
            self.complain(what);
            Ended { outcome: Outcome::Unknown, attempts: 1 }
        });
        self.retries.fetch_add(u64::from(attempts) - 1, Ordering::Relaxed);
        match &outcome {
            Outcome::Unknown => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Refused(reason) => {
                self.answers.count();
                *lock(&self.refusals).entry(reason.clone()).or_default() += 1;
            }
            Outcome::Done(_) => self.answers.count(),
        }
        outcome
    }

    /// Called once a client knows that its booking has a place there.
    pub(crate) fn takes(&self, slot: &str) {
        let Some(index) = self.slots.iter().position(|one| one.name == slot) else { return };
        let held = self.held[index].fetch_add(1, Ordering::SeqCst) + 1;
        let Slot { name, capacity } = &self.slots[index];
        if held > i64::from(*capacity) {
            self.oversold.fetch_add(1, Ordering::Relaxed);
            self.complain(format!("clients hold {held} places of {name}, which has {capacity}"));
        }
    }

    /// Called before a cancellation or a move is sent, because another customer may book the place as soon as it is
    /// served.
    pub(crate) fn gives_back(&self, slot: &str) {
        if let Some(index) = self.slots.iter().position(|one| one.name == slot) {
            self.held[index].fetch_sub(1, Ordering::SeqCst);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
