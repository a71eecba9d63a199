//! Gaps in the stream: the search through the outbox for frames that were acknowledged and are gone.
//!
//! A stream keeps its name, its age and its newest sequence when somebody purges it, deletes from it or tightens its
//! limits, or when one of its files is lost. Consumers that had not read those events would never get them. So whenever
//! the stream's first sequence or its number of gaps has changed, all marks of the outbox are compared with the stream,
//! one chunk at a time while publishing goes on. A frame whose sequence is gone loses its mark and is published again,
//! after all others. It does not matter who had read it: the broker does not know every consumer, and a repeated event
//! changes nothing.

use std::ops::RangeInclusive;
use std::time::Duration;

use bus::StreamState;
use jiff::{SignedDuration, Timestamp};
use store::outbox::{self, MarkedFrame};
use store::{DbErr, lease};
use tokio::time::Instant;

use super::Relay;
use crate::chain;

/// Marks that one step compares with the stream.
const MARKS_PER_STEP: u64 = 10_000;
/// Time between the starts of two searches if the stream drops events by age, because its first sequence then changes
/// all the time.
const AGEING_SEARCH_INTERVAL: Duration = Duration::from_secs(60);

/// The sequences that a stream does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Missing {
    /// Every sequence below this one is gone.
    first: i64,
    /// Further sequences that are gone, in ascending order.
    gaps: Vec<RangeInclusive<i64>>,
    /// Frames that occurred before this time, in microseconds since 1970, were dropped by age and are not missing.
    aged: i64,
}

impl Missing {
    fn new(state: &StreamState, gaps: Vec<RangeInclusive<u64>>, now: Timestamp) -> Self {
        let sequence = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX);
        let gaps = gaps.into_iter().map(|gap| sequence(*gap.start())..=sequence(*gap.end())).collect();
        let max_age = SignedDuration::try_from(state.max_age).unwrap_or(SignedDuration::MAX);
        let oldest = now.checked_sub(max_age).unwrap_or(Timestamp::MIN);
        let aged = if state.max_age.is_zero() { i64::MIN } else { oldest.as_microsecond() };
        Self { first: sequence(state.first), gaps, aged }
    }

    /// Whether the stream has lost this frame.
    fn has(&self, frame: &MarkedFrame) -> bool {
        let gone = frame.sequence < self.first || {
            let at = self.gaps.partition_point(|gap| *gap.end() < frame.sequence);
            self.gaps.get(at).is_some_and(|gap| gap.contains(&frame.sequence))
        };
        gone && frame.occur_time >= self.aged
    }
}

/// The stream's first sequence and its number of gaps; a change starts a search.
type Extent = (u64, u64);

/// The search during one term.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The extent of the last finished search.
    searched: Extent,
    begun: Option<Instant>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    extent: Extent,
    missing: Missing,
    /// The outbox position that the search has reached.
    after: i64,
    found: usize,
}

impl Search {
    /// Begins a search if the stream's extent has changed. Every acknowledged event is marked by now, so none is
    /// missed.
    pub(super) async fn begin_if_changed(&mut self, relay: &Relay, state: &StreamState) {
        let extent = (state.first, state.gaps);
        let whole = state.first <= state.origin && state.gaps == 0;
        if whole || extent == self.searched || self.running.is_some() {
            return;
        }
        if !state.max_age.is_zero() && self.begun.is_some_and(|begun| begun.elapsed() < AGEING_SEARCH_INTERVAL) {
            return;
        }
        let gaps = if state.gaps == 0 { Ok(Vec::new()) } else { relay.transport.gaps().await };
        match gaps {
            Ok(gaps) => {
                let missing = Missing::new(state, gaps, relay.clock.now());
                self.begun = Some(Instant::now());
                self.running = Some(Running { extent, missing, after: 0, found: 0 });
            }
            // Publishing goes on, and the next check of the stream tries again.
            Err(error) => {
                tracing::warn!(
                    service = relay.name,
                    why = chain(&error),
                    "the broker lost events and does not say which"
                );
            }
        }
    }

    /// Searches the next chunk, if a search is running. Returns false if the lease belongs to another process.
    pub(super) async fn step(&mut self, relay: &Relay, epoch: i64) -> Result<bool, DbErr> {
        let Some(running) = &mut self.running else { return Ok(true) };
        let chunk = outbox::marked_after(relay.database.reader(), running.after, MARKS_PER_STEP).await?;
        let Some((last, marked)) = chunk else {
            self.end(relay.name);
            return Ok(true);
        };
        let lost: Vec<i64> =
            marked.iter().filter(|frame| running.missing.has(frame)).map(|frame| frame.position).collect();
        if !lost.is_empty() && !lease::unmark(&relay.database, epoch, &lost).await? {
            return Ok(false);
        }
        running.after = last;
        running.found += lost.len();
        metrics::counter!("checkup_relay_refilled_total", "service" => relay.name).increment(lost.len() as u64);
        Ok(true)
    }

    fn end(&mut self, service: &'static str) {
        let Some(running) = self.running.take() else { return };
        self.searched = running.extent;
        if running.found > 0 {
            let (frames, first, gaps) = (running.found, running.extent.0, running.extent.1);
            let what = "the broker lost events in the middle of its stream; publishing them again";
            tracing::warn!(service, frames, first, gaps, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(first: u64, max_age: Duration) -> StreamState {
        StreamState { identity: "1".into(), origin: 1, first, last: 100, gaps: 4, max_age, bytes: 0, max_bytes: None }
    }

    fn frame(sequence: i64, occurred: i64) -> MarkedFrame {
        MarkedFrame { position: 1, occur_time: occurred * 1_000_000, sequence }
    }

    #[test]
    fn what_is_below_the_first_sequence_or_in_a_gap_is_missing() {
        let missing = Missing::new(&state(10, Duration::ZERO), vec![20..=22, 30..=30], Timestamp::UNIX_EPOCH);
        let gone: Vec<i64> = (1..=40).filter(|sequence| missing.has(&frame(*sequence, 0))).collect();
        assert_eq!(gone, (1..=9).chain(20..=22).chain([30]).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_older_than_the_stream_keeps_is_not_missing() {
        let now = Timestamp::from_second(1_000).expect("a time");
        let missing = Missing::new(&state(10, Duration::from_secs(300)), vec![20..=20], now);
        assert!(missing.has(&frame(5, 700)) && missing.has(&frame(20, 999)));
        assert!(!missing.has(&frame(5, 699)) && !missing.has(&frame(20, 1)) && !missing.has(&frame(10, 999)));
    }
}
