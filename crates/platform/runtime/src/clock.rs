//! The only place that reads the time of day. Rules take `now` as an argument and do not use it.
//!
//! Deadlines do not use it: they run on the monotonic clock of [`crate::deadline`].

use jiff::{SignedDuration, Timestamp};

/// Returns the time of day, optionally shifted, so that a demonstration or a test can run on another date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    offset: SignedDuration,
}

impl Clock {
    /// The machine's clock, or the clock of the simulation in this process, see `runtime::simulation`.
    #[must_use]
    pub fn system() -> Self {
        Self { offset: SignedDuration::ZERO }
    }

    /// The machine's clock plus `offset`, which may be negative.
    #[must_use]
    pub fn shifted(offset: SignedDuration) -> Self {
        Self { offset }
    }

    /// The present instant. A shift beyond the range of a timestamp ends at its first or last instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        #[allow(clippy::disallowed_methods, reason = "the one place that reads the time of day")]
        let real = Timestamp::now();
        #[cfg(feature = "testing")]
        let real = crate::simulation::now().unwrap_or(real);
        let limit = if self.offset.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
        real.checked_add(self.offset).unwrap_or(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_moves_the_date_and_never_overflows() {
        let day = SignedDuration::from_hours(24);
        assert!(Clock::shifted(day).now() > Clock::system().now() + SignedDuration::from_hours(23));
        assert_eq!(Clock::shifted(SignedDuration::MAX).now(), Timestamp::MAX);
        assert_eq!(Clock::shifted(SignedDuration::MIN).now(), Timestamp::MIN);
    }
}
