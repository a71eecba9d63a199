//! The simulated time that everything in the process reads.
//!
//! It does not move within a step of the simulation, whichever host computes: a database works on another runtime,
//! whose clock is real.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

static ELAPSED: AtomicU64 = AtomicU64::new(0);

/// The start of every simulation in seconds since 1970: 2027-01-01T00:00:00Z.
pub(crate) const EPOCH: i64 = 1_798_761_600;

/// Sets the time since the start.
pub(crate) fn set(elapsed: Duration) {
    ELAPSED.store(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The simulated time since the start.
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
