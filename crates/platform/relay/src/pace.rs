//! The time between the starts of two batches.

use std::time::Duration;

/// A consumer rests as long as its last batch took: it is busy for at most half of the time.
const SPACING_FACTOR: u32 = 2;
/// The longest time between two starts that a slow batch causes.
const MAX_SPACING: Duration = Duration::from_millis(100);

/// The shortest time from the start of a batch that took `took` to the start of the next one: `pace`, or more after a
/// slow batch. A batch is slow because the machine is busy. The fixed costs of a batch (statements, a commit, wake-ups)
/// then compete with callers, so fewer and larger batches leave more for them.
pub(crate) fn spacing(pace: Duration, took: Duration) -> Duration {
    (took * SPACING_FACTOR).min(MAX_SPACING).max(pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_batches_are_further_apart_within_limits() {
        let millis = Duration::from_millis;
        assert_eq!(spacing(millis(10), millis(3)), millis(10));
        assert_eq!(spacing(millis(10), millis(20)), millis(40));
        assert_eq!(spacing(millis(10), millis(5_000)), MAX_SPACING);
        assert_eq!(spacing(millis(250), millis(5_000)), millis(250), "a longer pace is kept");
    }
}
