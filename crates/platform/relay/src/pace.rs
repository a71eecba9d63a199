//! How far apart batches begin.

use std::time::Duration;

/// What a batch's own time is multiplied with: as long as it took, its loop rests.
const SPACING_FACTOR: u32 = 2;
/// The longest time between the beginnings of two batches that comes of it.
const MAX_SPACING: Duration = Duration::from_millis(100);

/// How long after the beginning of a batch that took so long the next one begins at the earliest: `pace`, or more where the batch was
/// slow. A batch is slow where the machine is busy, and what it costs beside its rows, which is statements, a commit and wake-ups, is
/// then taken from callers: fewer and larger ones leave them more.
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
