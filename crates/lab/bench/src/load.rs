//! Load: callers that each wait for their answer, or calls at their times whatever the answers do.
//!
//! A closed loop measures throughput: so many callers, each with one call under way. An open loop measures latency: every call
//! has its time, and its latency counts from that time, so that a call which had to wait to be sent is as late as its
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

/// How often an open loop looks which calls are due. The runtime's timers are not finer.
const TICK: Duration = Duration::from_millis(1);
/// Calls of an open loop that may be under way; where there would be more, the service is far behind the rate.
const MAX_IN_FLIGHT: usize = 4_000;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It did what it was to do.
    Done,
    /// It was refused by a rule or for want of room, as may happen.
    Refused,
}

/// Something that can be called again and again.
pub(crate) trait Work: Send + Sync + 'static {
    /// Calls once. A status is something that must not happen, and ends the measurement.
    fn call(&self, caller: usize) -> impl Future<Output = Result<Answer, Status>> + Send;
}

/// What was counted.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// How long it was counted for.
    pub(crate) took: Duration,
    /// Calls that did what they were to do, within that time.
    pub(crate) done: u64,
    /// Calls that were refused, within that time.
    pub(crate) refused: u64,
    /// Calls that did what they were to do, the warm-up included: what the services worked for.
    pub(crate) worked: u64,
    /// Microseconds of the calls that were counted and done.
    pub(crate) latency: Histogram<u64>,
    /// Calls of an open loop that could not even be sent: too many were under way.
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
        // both have the same bounds
        let _ = self.latency.add(&other.latency);
    }

    /// Calls done a second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Milliseconds at a quantile; not a number where no call was answered.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        milliseconds(&self.latency, quantile)
    }
}

/// Milliseconds at a quantile of microseconds; not a number where there is none.
pub(crate) fn milliseconds(micros: &Histogram<u64>, quantile: f64) -> f64 {
    if micros.is_empty() { f64::NAN } else { micros.value_at_quantile(quantile) as f64 / 1_000.0 }
}

/// Records a time in microseconds; one beyond the bounds as the bound.
pub(crate) fn record(micros: &mut Histogram<u64>, time: Duration) {
    micros.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

/// Microseconds up to two minutes, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).unwrap_or_else(|_| unreachable!("the bounds are in order"))
}

/// So many callers, each with one call under way, for a while after the warm-up.
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
                // what is answered inside counts: only so the rate is that of a long run
                measured.count(answer, now - since, now >= begin && now <= end);
            }
        });
    }
    gather(tasks, Measured::none(span)).await
}

/// So many calls by so many callers, each with one under way, however long that takes.
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

/// So many calls a second for a while after the warm-up. What is due inside counts, however late it is answered.
pub(crate) async fn open<W: Work>(
    work: &Arc<W>,
    rate: f64,
    warm_up: Duration,
    span: Duration,
) -> Result<Measured, Error> {
    open_until(work, rate, warm_up, span, &AtomicBool::new(false)).await
}

/// The same, until something is over if that is earlier.
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
                // its time is the one it was given, not the one it got
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
    // where the last answers came late, the rate was not kept
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

    /// Answers after a while, one at a time.
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
        // twice as much as is answered: what waits in the queue is late
        let measured = open(&work, 200.0, Duration::ZERO, Duration::from_secs(1)).await.unwrap();
        assert_eq!(measured.done, 200);
        assert!(measured.at(1.0) > 900.0, "the last one waited for all others: {}", measured.at(1.0));
        let idle = open(&work, 20.0, Duration::ZERO, Duration::from_secs(1)).await.unwrap();
        assert!(idle.at(1.0) < 15.0, "{}", idle.at(1.0));
    }
}
