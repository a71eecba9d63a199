//! Looks for events that the stream of a mesh lacks.
//!
//! The relay publishes again what the broker lost, for as long as the outbox has it. So there are two kinds of loss:
//! events that an outbox marks as published and that the stream does not have, which the relay still owes; and events
//! that neither of them has, which nobody can publish any more. The second kind shows in the versions of an aggregate,
//! which its owner counts without gaps.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bus::jetstream::JetStream;
use contract::event::v1::EventEnvelope;
use domain::recovery::VERSION_HEADROOM;
use jiff::SignedDuration;
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use store::{Database, DbErr, Location, micros, outbox};
use tokio::time::Instant;
use uuid::Uuid;

use crate::assembly;
use crate::cli::ConfigArgs;
use crate::config::Sources;
use crate::exit::{Failure, chain};
use crate::past::{self, Published};
use crate::recover::Finding;
use crate::service::Service;
use crate::terminal::count;

/// The most rows of an outbox per read. A row has up to 128 KiB.
const ROWS_PER_READ: u64 = 128;
/// The first and the longest pause between two readings.
const POLL_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// As producer it stands for all of them, also in subjects of earlier versions, which end with another word.
const EVERY_PRODUCER: &str = "*";
/// A recovered slot or hospital goes on with a version that is so much greater; the versions between were never given.
const RECOVERY_JUMP: i64 = VERSION_HEADROOM / 2;

/// What the stream has, and what it lacks.
#[derive(Debug, Default)]
pub(super) struct StreamReport {
    pub(super) events: u64,
    /// How many sequences between the first and the last event have none. Most of them were published again.
    pub(super) empty: u64,
    pub(super) lacks: Vec<Finding>,
}

/// The broker of a mesh, and the databases with the outboxes.
pub(super) struct Mesh {
    broker: JetStream,
    clock: Clock,
    /// How long the stream holds an event; zero for no limit.
    max_age: Duration,
    databases: BTreeMap<Service, Database>,
}

impl Mesh {
    /// `None` if no configuration is given.
    ///
    /// # Errors
    /// Fails if the configuration is wrong or names no broker, or a database cannot be opened.
    pub(super) async fn open(config: &ConfigArgs) -> Result<Option<Self>, Failure> {
        if config.config.is_none() && config.set.is_empty() {
            return Ok(None);
        }
        let settings = Sources::of_process(config).settings()?;
        let Some(options) = settings.events else {
            return Err(Failure::usage(
                "the configuration names no broker (events.nats), so there is no stream to verify",
            ));
        };
        let (max_age, clock) = (options.max_age, Clock::shifted(settings.clock_offset));
        let broker = JetStream::connect(options).await.map_err(|error| Failure::usage(chain(&error)))?;
        let mut locations = settings.databases;
        // A file belongs to one process, and to open it would make it. My-page, which has one, publishes nothing.
        locations.retain(|_, location| matches!(location, Location::Postgres(_)));
        let databases = assembly::open_all(&locations).await?;
        Ok(Some(Self { broker, clock, max_age, databases }))
    }

    /// Reads until nothing is missing or the time is over: the relay may be publishing it.
    ///
    /// # Errors
    /// Fails if a database or the broker does.
    pub(super) async fn verify(&self, settle: Duration) -> Result<StreamReport, Failure> {
        let end = Instant::now() + settle;
        let mut backoff = Backoff::new(POLL_PAUSES.0, POLL_PAUSES.1);
        loop {
            let report = self.read().await?;
            if report.lacks.is_empty() || Instant::now() >= end {
                return Ok(report);
            }
            tokio::time::sleep(backoff.pause().min(end.saturating_duration_since(Instant::now()))).await;
        }
    }

    pub(super) async fn close(self) {
        assembly::close_all(self.databases).await;
        self.broker.close().await;
    }

    async fn read(&self) -> Result<StreamReport, Failure> {
        // the outboxes are read before the stream, so it must have what they mark
        let (mut versions, mut owed, mut removed) = (Versions::default(), Owed::new(), BTreeMap::new());
        for (service, database) in &self.databases {
            let failed = |error| Failure::failed(unread("a database", &error));
            owed.insert(service.name(), versions.read_outbox(database).await.map_err(failed)?);
            if let Some(limit) = store::past::removed_before(database.reader()).await.map_err(failed)? {
                removed.insert(service.name(), limit);
            }
        }
        let (mut sequences, mut events_in_stream) = (Sequences::default(), 0);
        let broken = |error: bus::Error| Failure::failed(unread("the broker", &error));
        if let Some(mut events) = self.broker.events_of(EVERY_PRODUCER, "", 0).await.map_err(broken)? {
            loop {
                let next = events.next().await.map_err(broken)?;
                if next.is_empty() {
                    break;
                }
                for (sequence, message) in next {
                    sequences.count(sequence);
                    let Some(published) = past::read(&message.payload) else { continue };
                    events_in_stream += published.events.len() as u64;
                    let producer = published.events.first().map(|event| event.producer.as_str());
                    if let Some(marked) = producer.and_then(|producer| owed.get_mut(producer)) {
                        marked.remove(&published.frame_id);
                        versions.add(published);
                    }
                }
            }
        }
        // what the stream dropped by age while it was read is not missing
        let oldest = self.oldest();
        for marked in owed.values_mut() {
            marked.retain(|_, (_, occurred)| oldest.is_none_or(|oldest| *occurred >= oldest));
        }
        let lacks = versions.gone(&removed).into_iter().chain(findings(&owed)).collect();
        Ok(StreamReport { events: events_in_stream, empty: sequences.empty(), lacks })
    }
}

impl Mesh {
    /// When the oldest events occurred that the stream must still have, in microseconds since 1970; `None` if it keeps
    /// all. An hour is for clocks that differ.
    fn oldest(&self) -> Option<i64> {
        let age = SignedDuration::try_from(self.max_age).ok().filter(|age| !age.is_zero())?;
        let age = age.checked_sub(SignedDuration::from_hours(1))?;
        self.clock.now().checked_sub(age).ok().map(micros)
    }
}

fn unread(what: &str, error: &dyn std::error::Error) -> String {
    format!("cannot find out what the stream lacks: {what} does not answer: {}", chain(error))
}

/// Sequences of the stream, in ascending order.
#[derive(Debug, Default)]
struct Sequences {
    first: Option<u64>,
    last: u64,
    count: u64,
}

impl Sequences {
    fn count(&mut self, sequence: u64) {
        self.first.get_or_insert(sequence);
        self.last = self.last.max(sequence);
        self.count += 1;
    }

    /// How many between the first and the last are missing.
    fn empty(&self) -> u64 {
        self.first.map_or(0, |first| (self.last + 1 - first).saturating_sub(self.count))
    }
}

/// The frames of each service that its outbox marks as published and that were not found in the stream.
type Owed = BTreeMap<&'static str, Marked>;

/// How many events each frame has, and when the newest occurred, in microseconds since 1970.
type Marked = HashMap<Uuid, (u64, i64)>;

fn findings(owed: &Owed) -> impl Iterator<Item = Finding> {
    owed.iter().filter(|(_, marked)| !marked.is_empty()).map(|(producer, marked)| {
        let events = number(marked.values().map(|(events, _)| events).sum());
        let detail = format!("{events} that the outbox marks as published and the stream does not have");
        Finding { subject: (*producer).to_owned(), detail: format!("{detail}; the relay has to publish them again") }
    })
}

/// The versions that outboxes and the stream have of each producer's aggregates, with the microseconds since 1970 at
/// which they occurred.
#[derive(Debug, Default)]
struct Versions(HashMap<(String, String), Vec<(i64, i64)>>);

impl Versions {
    /// Adds the events of a frame. All count as old as the newest, because they are dropped together.
    fn add(&mut self, Published { events, occur_time, .. }: Published) {
        for EventEnvelope { producer, aggregate, aggregate_version, .. } in events {
            self.0.entry((producer, aggregate)).or_default().push((aggregate_version, occur_time));
        }
    }

    /// Reads an outbox. Returns the frames that it marks as published.
    async fn read_outbox(&mut self, database: &Database) -> Result<Marked, DbErr> {
        let (mut marked, mut after) = (Marked::new(), 0);
        loop {
            let rows = outbox::read_after(database.reader(), after, ROWS_PER_READ).await?;
            let Some(last) = rows.last() else { return Ok(marked) };
            after = last.position;
            for row in rows {
                let published = past::read(&row.payload);
                if row.stream_sequence.is_some() {
                    let events = published.as_ref().map_or(1, |published| published.events.len() as u64);
                    marked.insert(row.event_id, (events, row.occur_time));
                }
                if let Some(published) = published {
                    self.add(published);
                }
            }
        }
    }

    /// What neither an outbox nor the stream has. `removed` says before which time each producer has removed events by
    /// age, in microseconds since 1970.
    fn gone(self, removed: &BTreeMap<&str, i64>) -> Vec<Finding> {
        let mut gone: BTreeMap<String, (u64, String)> = BTreeMap::new();
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_unstable();
        for ((producer, aggregate), mut versions) in all {
            versions.sort_unstable();
            for version in missing(&versions, removed.get(producer.as_str()).copied()) {
                let first = || (0, format!("version {version} of {aggregate}"));
                gone.entry(producer.clone()).or_insert_with(first).0 += 1;
            }
        }
        let finding = |(subject, (events, first)): (String, (u64, String))| {
            let detail = format!("{} that neither the stream nor the outbox has", number(events));
            Finding { subject, detail: format!("{detail}, so nobody can publish them again; the first is {first}") }
        };
        gone.into_iter().map(finding).collect()
    }
}

fn number(events: u64) -> String {
    if events == 1 { "1 event".to_owned() } else { format!("{} events", count(events)) }
}

/// The versions that are missing between those in ascending order, from 1. What may have been removed by age, before
/// `removed`, and what a recovery skipped is left out.
fn missing(versions: &[(i64, i64)], removed: Option<i64>) -> impl Iterator<Item = i64> {
    let before = std::iter::once((0, i64::MIN)).chain(versions.iter().copied());
    before.zip(versions).flat_map(move |((before, occurred), (version, _))| {
        let aged = removed.is_some_and(|limit| occurred < limit);
        let skipped = version - before > RECOVERY_JUMP;
        if aged || skipped { 0..0 } else { before + 1..*version }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_nobody_gave_or_that_were_too_old_are_not_missing() {
        let found = |versions: &[(i64, i64)], oldest| missing(versions, oldest).collect::<Vec<_>>();
        assert_eq!(found(&[(1, 10), (2, 20), (2, 21), (4, 40), (7, 70)], None), [3, 5, 6]);
        assert_eq!(found(&[(3, 30), (5, 50)], None), [1, 2, 4]);
        assert_eq!(found(&[(3, 30), (5, 50), (7, 70)], Some(40)), [6], "an older one may have been dropped");
        assert_eq!(found(&[(1, 10), (1 + VERSION_HEADROOM, 20)], None), [0; 0]);
        assert_eq!(found(&[], None), [0; 0]);
    }

    #[test]
    fn sequences_are_counted_from_the_first_one() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.empty(), 0);
        for sequence in [4, 5, 9] {
            sequences.count(sequence);
        }
        assert_eq!((sequences.count, sequences.empty()), (3, 3));
    }
}
