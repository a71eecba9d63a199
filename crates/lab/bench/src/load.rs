//! Load: callers that wait for each answer, or calls at fixed times whatever the answers do.
//!
//! A closed loop measures throughput: a number of callers, each with one call at a time. An open loop measures latency:
//! every call is due at a time from which its latency counts. A call that had to wait to be sent is as late as its
//! customer would find it (no coordinated omission).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tonic::Status;

use crate::Error;

/// How often an open loop checks which calls are due. The runtime's timers are no finer.
const TICK: Duration = Duration::from_millis(1);
/// The most calls of an open loop that run at the same time. With more, the service is far behind the rate.
const MAX_IN_FLIGHT: usize = 4_000;

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The call had its effect.
    Done,
    /// The call was refused by a rule or for lack of capacity, which is allowed.
    Refused,
}

/// A call that can be repeated.
pub(crate) trait Work: Send + Sync + 'static {
    /// Makes one call. An error is a status that must not happen, and ends the measurement.
    fn call(&self, caller: usize) -> impl Future<Output = Result<Answer, Status>> + Send;
}

/// The result of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// The time that was measured.
    pub(crate) took: Duration,
    /// The number of calls that had their effect in that time.
    pub(crate) done: u64,
    /// The number of calls that were refused in that time.
    pub(crate) refused: u64,
    /// The number of calls that had their effect, warm-up included: the work of the services.
    pub(crate) worked: u64,
    /// The latency in microseconds of the calls in `done`.
    pub(crate) latency: Histogram<u64>,
    /// Calls of an open loop that were not sent because too many were running.
    pub(crate) unsent: u64,
}

impl Measured {
    fn none(took: Duration) -> Self {
        Self { took, done: 0, refused: 0, worked: 0, latency: histogram(), unsent: 0 }
    }

    fn count(&mut self, answer: Answer, latency: Duration, counts: bool) {
        self.worked += u64::from(answer == Answer::Done);
        match answer {
            Answer::Done if counts => {
                self.done += 1;
                record(&mut self.latency, latency);
            }
            Answer::Refused if counts => self.refused += 1,
            Answer::Done | Answer::Refused => {}
        }
    }

    fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.worked += other.worked;
        self.unsent += other.unsent;
        // Cannot fail: both histograms have the same bounds.
        let _ = self.latency.add(&other.latency);
    }

    /// Calls per second that had their effect.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency at a quantile in milliseconds; NaN if no call had its effect.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        milliseconds(&self.latency, quantile)
    }
}

/// The value at a quantile in milliseconds, from microseconds; NaN if there is none.
pub(crate) fn milliseconds(micros: &Histogram<u64>, quantile: f64) -> f64 {
    if micros.is_empty() { f64::NAN } else { micros.value_at_quantile(quantile) as f64 / 1_000.0 }
}

/// Records a time in microseconds. A time beyond the bounds counts as the bound.
pub(crate) fn record(micros: &mut Histogram<u64>, time: Duration) {
    micros.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

/// A histogram of microseconds up to two minutes, with three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).unwrap_or_else(|_| unreachable!("the bounds are in order"))
}

/// Runs `callers` callers, each with one call at a time, for `span` after the warm-up.
pub(crate) async fn closed<W: Work>(
    work: &Arc<W>,
    callers: usize,
    warm_up: Duration,
    span: Duration,
) -> Result<Measured, Error> {
    let begin = Instant::now() + warm_up;
    let end = begin + span;
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let work = Arc::clone(work);
        tasks.spawn(async move {
            let mut measured = Measured::none(span);
            loop {
                let since = Instant::now();
                if since >= end {
                    return Ok(measured);
                }
                let answer = work.call(caller).await?;
                let now = Instant::now();
                // Only calls that are answered within the span count. That gives the rate of a long run.
                measured.count(answer, now - since, now >= begin && now <= end);
            }
        });
    }
    gather(tasks, Measured::none(span)).await
}

/// Makes `calls` calls by `callers` callers, each with one call at a time, however long that takes.
pub(crate) async fn all<W: Work>(work: &Arc<W>, callers: usize, calls: usize) -> Result<Measured, Error> {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (work, next) = (Arc::clone(work), Arc::clone(&next));
        tasks.spawn(async move {
            let mut measured = Measured::none(Duration::ZERO);
            while next.fetch_add(1, Ordering::Relaxed) < calls {
                let since = Instant::now();
                let answer = work.call(caller).await?;
                measured.count(answer, since.elapsed(), true);
            }
            Ok(measured)
        });
    }
    let mut measured = gather(tasks, Measured::none(Duration::ZERO)).await?;
    measured.took = begin.elapsed();
    Ok(measured)
}

/// Makes `rate` calls per second for `span` after the warm-up. A call that is due in the span counts, however late.
pub(crate) async fn open<W: Work>(
    work: &Arc<W>,
    rate: f64,
    warm_up: Duration,
    span: Duration,
) -> Result<Measured, Error> {
    open_until(work, rate, warm_up, span, &AtomicBool::new(false)).await
}

/// The same as [`open`], but stops early once `over` is set.
pub(crate) async fn open_until<W: Work>(
    work: &Arc<W>,
    rate: f64,
    warm_up: Duration,
    span: Duration,
    over: &AtomicBool,
) -> Result<Measured, Error> {
    let start = Instant::now();
    let (begin, end) = (start + warm_up, start + warm_up + span);
    let due = |index: usize| start + Duration::from_secs_f64(index as f64 / rate.max(0.1));
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut tasks, mut index, mut measured) = (JoinSet::new(), 0, Measured::none(span));
    while due(index) < end && !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        while let Some(ended) = tasks.try_join_next() {
            let (answer, latency, counts) = outcome(ended)?;
            measured.count(answer, latency, counts);
        }
        while due(index) <= Instant::now() && due(index) < end {
            let (work, at, caller) = (Arc::clone(work), due(index), index);
            index += 1;
            if tasks.len() >= MAX_IN_FLIGHT {
                measured.unsent += u64::from(at >= begin);
                continue;
            }
            tasks.spawn(async move {
                // The latency counts from the time the call was due, not from the time it was sent.
                work.call(caller).await.map(|answer| (answer, at.elapsed(), at >= begin))
            });
        }
    }
    if !over.load(Ordering::Relaxed) {
        sleep_until(end).await;
    }
    while let Some(ended) = tasks.join_next().await {
        let (answer, latency, counts) = outcome(ended)?;
        measured.count(answer, latency, counts);
    }
    // If the last answers are late, the rate was not reached.
    measured.took = begin.elapsed();
    Ok(measured)
}

async fn gather(mut tasks: JoinSet<Result<Measured, Status>>, mut measured: Measured) -> Result<Measured, Error> {
    while let Some(ended) = tasks.join_next().await {
        measured.add(&outcome(ended)?);
    }
    Ok(measured)
}

fn outcome<T>(ended: Result<Result<T, Status>, JoinError>) -> Result<T, Error> {
    let ended = ended.map_err(|error| Error::failed(format!("a caller did not end: {error}")))?;
    ended.map_err(Error::call("a measured call"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one call at a time, each after ten milliseconds.
    struct Slow(tokio::sync::Mutex<()>);

    impl Work for Slow {
        async fn call(&self, _: usize) -> Result<Answer, Status> {
            let _turn = self.0.lock().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(Answer::Done)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_counts_what_is_answered() {
        let work = Arc::new(Slow(tokio::sync::Mutex::new(())));
        let measured = closed(&work, 4, Duration::from_millis(95), Duration::from_secs(1)).await.unwrap();
        assert!((95..=105).contains(&measured.done), "{measured:?}");
        assert!(measured.worked > measured.done);
        assert!((35.0..45.0).contains(&measured.at(0.5)), "four wait for each other: {}", measured.at(0.5));
        assert_eq!(all(&work, 4, 100).await.unwrap().done, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_counts_from_the_time_a_call_was_due() {
        let work = Arc::new(Slow(tokio::sync::Mutex::new(())));
        // Twice the possible rate: calls that wait in the queue are late.
        let measured = open(&work, 200.0, Duration::ZERO, Duration::from_secs(1)).await.unwrap();
        assert_eq!(measured.done, 200);
        assert!(measured.at(1.0) > 900.0, "the last one waited for all others: {}", measured.at(1.0));
        let idle = open(&work, 20.0, Duration::ZERO, Duration::from_secs(1)).await.unwrap();
        assert!(idle.at(1.0) < 15.0, "{}", idle.at(1.0));
    }
}
