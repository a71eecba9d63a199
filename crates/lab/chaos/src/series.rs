//! The throughput of a run: answered calls per tenth of a second.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The width of a column.
const COLUMN_WIDTH: Duration = Duration::from_millis(100);
/// The number of columns: half an hour.
const COLUMNS: usize = 18_000;
/// The number of columns that a rate is taken over. A single column is mostly noise.
const RATE_COLUMNS: usize = 10;
/// The share of the rate before a fault that counts as recovered.
const RECOVERED_SHARE: f64 = 0.9;

/// Answers by time. Answers after the first half hour are not counted.
#[derive(Debug)]
pub(crate) struct Series {
    start: Instant,
    steps: Vec<AtomicU32>,
}

impl Default for Series {
    fn default() -> Self {
        Self { start: Instant::now(), steps: (0..COLUMNS).map(|_| AtomicU32::new(0)).collect() }
    }
}

impl Series {
    /// Counts an answer now.
    pub(crate) fn count(&self) {
        if let Some(step) = self.steps.get(self.step(Instant::now())) {
            step.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn step(&self, at: Instant) -> usize {
        let steps = at.saturating_duration_since(self.start).as_millis() / COLUMN_WIDTH.as_millis();
        usize::try_from(steps).unwrap_or(COLUMNS).min(COLUMNS)
    }

    /// Answers per second between two moments; zero if they are less than a tenth of a second apart.
    #[must_use]
    pub(crate) fn rate(&self, from: Instant, to: Instant) -> f64 {
        self.rate_of(self.step(from)..self.step(to))
    }

    fn rate_of(&self, steps: Range<usize>) -> f64 {
        if steps.is_empty() {
            return 0.0;
        }
        let (count, width) = (steps.len() as f64, COLUMN_WIDTH.as_secs_f64());
        let answers: u64 = self.steps[steps].iter().map(|step| u64::from(step.load(Ordering::Relaxed))).sum();
        answers as f64 / (count * width)
    }

    /// The time from `from` to the first second with at least nine tenths of `rate`; `None` if no such second ends
    /// before `until`.
    #[must_use]
    pub(crate) fn back_after(&self, rate: f64, from: Instant, until: Instant) -> Option<Duration> {
        let (first, end) = (self.step(from), self.step(until));
        let back = (first..end.saturating_sub(RATE_COLUMNS))
            .find(|at| self.rate_of(*at..at + RATE_COLUMNS) >= RECOVERED_SHARE * rate)?;
        Some(COLUMN_WIDTH * u32::try_from(back - first).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dip_is_measured_from_the_fault_to_the_first_good_second() {
        let series = Series::default();
        for (index, step) in series.steps.iter().enumerate().take(60) {
            step.store(if (20..35).contains(&index) { 0 } else { 10 }, Ordering::Relaxed);
        }
        let at = |tenths: u32| series.start + COLUMN_WIDTH * tenths;
        assert_eq!(series.rate(at(0), at(20)), 100.0);
        assert_eq!(series.back_after(100.0, at(20), at(60)), Some(Duration::from_millis(1_400)));
        assert_eq!(series.back_after(100.0, at(0), at(60)), Some(Duration::ZERO));
        assert_eq!(series.back_after(100.0, at(20), at(30)), None);
        assert_eq!(series.rate(at(5), at(5)), 0.0);
    }
}
