//! The loop that removes a service's old events, and repeats those that the state follows from: see
//! `domain::retention`.
//!
//! Each replica runs it. If two replicas take the same frames, the database lets one of them have them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use async_trait::async_trait;
use contract::event::v1::EventEnvelope;
use domain::event::subject;
use domain::frame::{self, Opened, Published};
use domain::retention::{Aggregate, is_repeated};
use jiff::{SignedDuration, Timestamp};
use prost::Message as _;
use runtime::clock::Clock;
use runtime::lifecycle::Drain;
use store::{Connection, Database, DbErr, outbox};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::chain;

/// The longest time between two rounds; a shorter retention shortens it.
const INTERVAL: Duration = Duration::from_secs(60);
/// How much of the retention may pass between two rounds at most.
const ROUNDS_PER_RETENTION: u32 = 20;
/// The shortest time between two rounds.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);

/// The newest versions of what a service's events report.
#[async_trait]
pub trait Versions: fmt::Debug + Send + Sync + 'static {
    /// The versions of those of these aggregates that there are: the greatest `aggregate_version` of their events.
    ///
    /// # Errors
    /// The error that the database returns.
    async fn of(
        &self,
        connection: &dyn Connection,
        aggregates: HashSet<Aggregate>,
    ) -> Result<HashMap<Aggregate, i64>, DbErr>;
}

/// Whose events are kept, and for how long.
#[derive(Clone)]
pub struct Retention {
    /// The service, as a label of metrics.
    pub service: &'static str,
    /// The database with the outbox.
    pub database: Database,
    /// The versions of the service's aggregates.
    pub versions: Arc<dyn Versions>,
    /// How long every event is kept. Zero: for ever.
    pub period: Duration,
    /// Whether a broker has to acknowledge a frame before it is removed.
    pub published: bool,
    /// The clock by which frames grow old.
    pub clock: Clock,
}

impl fmt::Debug for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retention")
            .field("service", &self.service)
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

/// What became of the events of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many events were removed.
    pub events: u64,
    /// How many of them were appended again.
    pub repeated: u64,
}

impl Retention {
    /// Runs until the drain is requested.
    #[boxed]
    pub async fn run(self, drain: Drain) {
        if self.period.is_zero() {
            return drain.requested().await;
        }
        let interval = (self.period / ROUNDS_PER_RETENTION).clamp(SHORTEST_INTERVAL, INTERVAL);
        tokio::select! {
            biased;
            () = drain.requested() => {}
            () = async {
                loop {
                    if let Err(error) = self.round().await {
                        tracing::warn!(service = self.service, error = chain(&error), "old events are removed later");
                    }
                    sleep(interval).await;
                }
            } => {}
        }
    }

    /// Removes every event that is due.
    ///
    /// # Errors
    /// The database's error. What was removed until then is removed.
    pub async fn round(&self) -> Result<Removed, DbErr> {
        let mut all = Removed::default();
        // Before anything can fail or take long, and once more in the end.
        self.report().await?;
        // What is appended from here on is none of this round's business, however old a clock makes it.
        let end = outbox::head(self.database.reader()).await?;
        let period = SignedDuration::try_from(self.period).unwrap_or(SignedDuration::MAX);
        loop {
            let begun = Instant::now();
            let now = self.clock.now();
            let limit = now.checked_sub(period).unwrap_or(Timestamp::MIN);
            let mut due = outbox::due(self.database.reader(), limit, self.published).await?;
            due.retain(|row| row.position <= end);
            if due.is_empty() {
                break;
            }
            let Some(removed) = self.replace(due, now, limit).await? else { break };
            metrics::counter!("checkup_events_removed_total", "service" => self.service).increment(removed.events);
            metrics::counter!("checkup_events_repeated_total", "service" => self.service).increment(removed.repeated);
            all.events += removed.events;
            all.repeated += removed.repeated;
            // So that other writes have at least every second turn.
            sleep(begun.elapsed()).await;
        }
        self.report().await?;
        Ok(all)
    }

    /// Removes frames, and repeats those of their events that the state follows from. `None` if another replica did.
    async fn replace(
        &self,
        due: Vec<outbox::Model>,
        now: Timestamp,
        limit: Timestamp,
    ) -> Result<Option<Removed>, DbErr> {
        let mut events: Vec<Published<'_>> = Vec::new();
        for row in &due {
            for bytes in Opened::new(&row.payload).events {
                // What cannot be read at all is not worth repeating: nobody could apply it.
                let readable = EventEnvelope::decode(bytes).ok();
                let readable = readable.filter(|envelope| Uuid::try_parse(&envelope.event_id).is_ok());
                events.extend(readable.map(|envelope| Published {
                    subject: subject_of(&envelope, row),
                    envelope,
                    bytes,
                }));
            }
        }
        let total = events.len() as u64;
        // An aggregate that changes meanwhile has a newer event by then, and consumers go by the version.
        let aggregates = events.iter().filter_map(|event| Aggregate::of(&event.envelope)).collect();
        let versions = self.versions.of(self.database.reader(), aggregates).await?;
        events.retain(|Published { envelope, .. }| {
            let newest = Aggregate::of(envelope).and_then(|aggregate| versions.get(&aggregate)).copied();
            is_repeated(envelope, newest, limit)
        });
        let frames = frame::repeated(&events, now).map_err(|malformed| DbErr::Custom(malformed.0))?;
        let positions: Vec<i64> = due.iter().map(|row| row.position).collect();
        let replaced = outbox::replace(&self.database, &positions, &frames, limit).await?;
        Ok(replaced.then_some(Removed { events: total, repeated: events.len() as u64 }))
    }

    /// Reports how much longer than it should the oldest frame has been kept.
    async fn report(&self) -> Result<(), DbErr> {
        let oldest = outbox::oldest(self.database.reader()).await?.map(store::timestamp);
        let age = oldest.map_or(0.0, |oldest| self.clock.now().duration_since(oldest).as_secs_f64());
        let overdue = (age - self.period.as_secs_f64()).max(0.0);
        metrics::gauge!("checkup_retention_overdue_seconds", "service" => self.service).set(overdue);
        Ok(())
    }
}

/// The subject of an event. Versions before had one for each aggregate, which the row still has; only the row knows
/// that of a fact of a newer version.
fn subject_of(envelope: &EventEnvelope, row: &outbox::Model) -> String {
    if envelope.payload.is_some() { subject(envelope) } else { row.subject.clone() }
}
