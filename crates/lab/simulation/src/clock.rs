//! The simulated time, as everything in the process reads it.
//!
//! It stands still within a tick, whichever host computes: a database's step runs on another runtime whose clock is real.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

static ELAPSED: AtomicU64 = AtomicU64::new(0);

/// When every simulation begins: 2027-01-01T00:00:00Z.
const EPOCH: i64 = 1_798_761_600;

/// Moves it.
pub(crate) fn set(elapsed: Duration) {
    ELAPSED.store(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// How long the simulation has run.
#[must_use]
pub(crate) fn elapsed() -> Duration {
    Duration::from_micros(ELAPSED.load(Ordering::Relaxed))
}

/// The simulated instant.
#[must_use]
pub(crate) fn now() -> Timestamp {
    let begin = Timestamp::from_second(EPOCH).unwrap_or_default();
    let elapsed = SignedDuration::try_from(elapsed()).unwrap_or(SignedDuration::MAX);
    begin.checked_add(elapsed).unwrap_or(Timestamp::MAX)
}
