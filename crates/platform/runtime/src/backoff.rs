//! Pauses between tries. Each pause is twice as long as the one before, up to a maximum.
//!
//! The caller decides what is tried, how often, and whether the pause is cut short. Nothing here waits.

use std::time::Duration;

/// Counts the tries of one thing and returns the pause after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` up to `last`. `last` also limits the first pause.
    #[must_use]
    pub fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first.min(last) }
    }

    /// The pause before the next try. The following one is twice as long.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.last);
        pause
    }

    /// Starts again with the first pause.
    pub fn reset(&mut self) {
        *self = Self::new(self.first, self.last);
    }

    /// The pause after try number `attempt`, from 1, if the tries are counted elsewhere. For 0 it is the first pause.
    #[must_use]
    pub fn behind(first: Duration, last: Duration, attempt: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.saturating_sub(1));
        first.saturating_mul(factor).min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_millis(300);

    #[test]
    fn pauses_double_up_to_the_last_one_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(FIRST, LAST);
        let millis = |backoff: &mut Backoff| backoff.pause().as_millis();
        assert_eq!([(); 5].map(|()| millis(&mut backoff)), [50, 100, 200, 300, 300]);
        backoff.reset();
        assert_eq!([(); 2].map(|()| millis(&mut backoff)), [50, 100]);
    }

    #[test]
    fn the_pause_behind_a_counted_try_is_the_one_that_counting_along_gives() {
        let mut backoff = Backoff::new(FIRST, LAST);
        for attempt in 1..=6 {
            assert_eq!(Backoff::behind(FIRST, LAST, attempt), backoff.pause(), "{attempt}");
        }
    }

    #[test]
    fn no_pause_is_longer_than_the_last_one_and_none_overflows() {
        let mut backoff = Backoff::new(LAST, FIRST);
        assert_eq!(backoff.pause(), FIRST);
        backoff.reset();
        assert_eq!(backoff.pause(), FIRST);
        assert_eq!([0, 1].map(|attempt| Backoff::behind(LAST, FIRST, attempt)), [FIRST; 2]);
        assert_eq!(Backoff::behind(FIRST, Duration::MAX, u32::MAX), FIRST.saturating_mul(u32::MAX));
        assert_eq!(Backoff::behind(Duration::MAX, Duration::MAX, 2), Duration::MAX);
        let mut unbounded = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!([(); 2].map(|()| unbounded.pause()), [Duration::MAX; 2]);
    }
}
