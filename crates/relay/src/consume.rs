//! The loop that brings events to one consumer.
//!
//! A batch is applied whole or not at all. A batch that fails because of an event in it is halved until that event stands
//! alone; it is tried again with growing pauses and, after its last try, kept as a dead letter so that the ones behind it
//! go on. A store that does not answer is waited for, however long it takes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bus::{Delivery, Place, Subscribe, Subscription};
use contract::event::v1::EventEnvelope;
use fault::{Code, Fault};
use prost::Message as _;
use runtime::clock::Clock;
use runtime::lifecycle::Drain;
use store::Database;
use store::dead_letter::DeadLetter;
use store::inbox::{self, Mark};
use tokio::time::Instant;
use uuid::Uuid;

/// One event on its way into a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// What happened.
    pub envelope: EventEnvelope,
    /// Its id, parsed.
    pub event_id: Uuid,
    /// What the inbox recognises it by.
    pub mark: Mark,
}

/// What a service does with events.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Applies a batch and its inbox marks in one transaction, in this order. It may come again, in part or in whole.
    ///
    /// # Errors
    /// A fault means that nothing of the batch was applied. An INTERNAL one blames the batch's content.
    async fn handle(&self, batch: Vec<Incoming>) -> Result<(), Fault>;

    /// Keeps an event that cannot be applied, and marks it as seen, in one transaction.
    ///
    /// # Errors
    /// A fault means that it was not kept.
    async fn bury(&self, letter: DeadLetter, mark: Mark) -> Result<(), Fault>;
}

/// A durable consumer, as a service declares it.
#[derive(Clone)]
pub struct Consumer {
    /// Its name for ever, for example `screening-capacity`.
    pub name: &'static str,
    /// The subjects it wants: see `domain::event::subject_filter`.
    pub filter: Vec<String>,
    /// What applies them.
    pub handler: Arc<dyn Handler>,
    /// Where its inbox is.
    pub database: Database,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name).field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// Patience of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// Events handed to the handler at once.
    pub batch: usize,
    /// Tries an event gets before it becomes a dead letter.
    pub attempts: i32,
    /// The pause after a first failure; it doubles up to `last_pause`.
    pub first_pause: Duration,
    /// The longest pause.
    pub last_pause: Duration,
}

impl Default for ConsumeOptions {
    fn default() -> Self {
        Self { batch: 256, attempts: 10, first_pause: Duration::from_millis(50), last_pause: Duration::from_secs(5) }
    }
}

/// Brings events to a consumer until the drain is requested.
pub async fn consume(
    consumer: Consumer,
    road: Arc<dyn Subscribe>,
    options: ConsumeOptions,
    clock: Clock,
    drain: Drain,
) {
    let stopped = drain.clone();
    let reader = Reader { consumer, options, clock, drain };
    // Whatever is cut off here was not committed, or is recognised by its mark when it comes again.
    tokio::select! {
        () = stopped.requested() => {}
        () = reader.run(road) => {}
    }
}

struct Reader {
    consumer: Consumer,
    options: ConsumeOptions,
    clock: Clock,
    drain: Drain,
}

/// How often the lag is measured while events flow.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

impl Reader {
    async fn run(&self, road: Arc<dyn Subscribe>) {
        let mut pause = self.options.first_pause;
        while !self.drain.is_requested() {
            match self.subscribe(&road).await {
                Ok(subscription) => self.read(subscription).await,
                Err(error) => tracing::warn!(consumer = self.consumer.name, error, "cannot subscribe"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.options.last_pause);
        }
    }

    async fn subscribe(&self, road: &Arc<dyn Subscribe>) -> Result<Box<dyn Subscription>, String> {
        let cursors = inbox::cursors(self.consumer.database.reader(), self.consumer.name).await;
        let cursors: HashMap<String, i64> = cursors.map_err(|error| error.to_string())?;
        let subscription = road.subscribe(self.consumer.name, &self.consumer.filter, cursors).await;
        subscription.map_err(|error| chain(&error))
    }

    /// Reads until the road fails; a new subscription then starts from what was committed.
    async fn read(&self, mut subscription: Box<dyn Subscription>) {
        let lag = metrics::gauge!("checkup_consumer_lag", "consumer" => self.consumer.name);
        self.age(None);
        let applied = metrics::counter!("checkup_consumer_events_total", "consumer" => self.consumer.name);
        let mut measured: Option<Instant> = None;
        loop {
            if measured.is_none_or(|at| at.elapsed() >= LAG_INTERVAL) {
                measured = Some(Instant::now());
                if let Ok(waiting) = subscription.lag().await {
                    lag.set(waiting as f64);
                }
            }
            let deliveries = match subscription.next(self.options.batch).await {
                Ok(deliveries) => deliveries,
                Err(error) => {
                    tracing::warn!(consumer = self.consumer.name, error = chain(&error), "cannot read events");
                    return;
                }
            };
            let count = deliveries.len() as u64;
            self.apply(&deliveries).await;
            applied.increment(count);
            if let Err(error) = subscription.acknowledge(&deliveries).await {
                tracing::warn!(consumer = self.consumer.name, error = chain(&error), "cannot acknowledge events");
                return;
            }
            if let Ok(0) = subscription.lag().await {
                lag.set(0.0);
                self.age(None);
            }
        }
    }

    /// Returns once every delivery has been applied or kept as a dead letter.
    async fn apply(&self, deliveries: &[Delivery]) {
        let mut batch = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match decode(delivery) {
                Ok(Some(incoming)) => batch.push((delivery, incoming)),
                Ok(None) => {
                    // A newer producer's fact: nothing here can know it, so it is counted and passed over.
                    metrics::counter!("checkup_consumer_unknown_total", "consumer" => self.consumer.name).increment(1);
                }
                Err(error) => {
                    // What stands before the broken event is applied before it is marked as seen: marks are in order.
                    self.apply_decoded(std::mem::take(&mut batch)).await;
                    self.bury(delivery, &error, 1).await;
                }
            }
        }
        self.apply_decoded(batch).await;
    }

    async fn apply_decoded(&self, batch: Vec<(&Delivery, Incoming)>) {
        let mut todo = vec![batch];
        while let Some(mut batch) = todo.pop() {
            let Some((first, _)) = batch.first() else { continue };
            let first = *first;
            let events: Vec<_> = batch.iter().map(|(_, incoming)| incoming.clone()).collect();
            if let [alone] = events.as_slice() {
                self.insist(first, alone).await;
            } else if self.attempt(events).await.is_err() {
                let second = batch.split_off(batch.len() / 2);
                todo.push(second);
                todo.push(batch);
            }
        }
    }

    /// Tries one event until it is applied or buried.
    async fn insist(&self, delivery: &Delivery, event: &Incoming) {
        let mut pause = self.options.first_pause;
        for attempt in 1..=self.options.attempts {
            let Err(fault) = self.attempt(vec![event.clone()]).await else { return };
            tracing::warn!(consumer = self.consumer.name, event = %event.event_id, ?fault, attempt, "event not applied");
            if attempt == self.options.attempts {
                self.bury(delivery, &format!("{fault:?}"), attempt).await;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(self.options.last_pause);
            }
        }
    }

    /// How long the oldest event at hand has waited since it was put into its outbox; none waits where there is none.
    fn age(&self, oldest: Option<&Incoming>) {
        let occurred = oldest.and_then(|incoming| incoming.envelope.occur_time);
        let occurred = occurred.and_then(|time| domain::civil::decode_time(&time));
        let age = occurred.map_or(0.0, |occurred| self.clock.now().duration_since(occurred).as_secs_f64());
        metrics::gauge!("checkup_outbox_age_seconds", "consumer" => self.consumer.name).set(age.max(0.0));
    }

    /// Hands a batch to the handler; waits out every fault that does not blame the batch.
    async fn attempt(&self, batch: Vec<Incoming>) -> Result<(), Fault> {
        let mut pause = self.options.first_pause;
        loop {
            self.age(batch.first());
            match self.consumer.handler.handle(batch.clone()).await {
                Ok(()) => {
                    batch.iter().for_each(|event| self.log(event));
                    return Ok(());
                }
                Err(fault) if fault.code() == Code::Internal => return Err(fault),
                Err(fault) => {
                    tracing::warn!(consumer = self.consumer.name, ?fault, "waiting to apply events");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(self.options.last_pause);
                }
            }
        }
    }

    /// Leaves a mark in the log under the trace of the call that began it all.
    fn log(&self, event: &Incoming) {
        let EventEnvelope { aggregate, aggregate_version, traceparent, .. } = &event.envelope;
        let trace = traceparent.split('-').nth(1).unwrap_or_default();
        let (consumer, event) = (self.consumer.name, event.event_id);
        tracing::debug!(consumer, %event, aggregate, version = aggregate_version, trace, "event applied");
    }

    async fn bury(&self, delivery: &Delivery, error: &str, attempts: i32) {
        let payload = delivery.message.payload.as_slice();
        let event_id = EventEnvelope::decode(payload).map(|envelope| envelope.event_id).unwrap_or_default();
        // What has no readable id is recognised by its bytes.
        let seen = Uuid::try_parse(&event_id).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, payload));
        let letter = DeadLetter {
            consumer: self.consumer.name.to_owned(),
            event_id,
            subject: delivery.message.subject.clone(),
            payload: delivery.message.payload.clone(),
            error: error.to_owned(),
            attempts,
            time: self.clock.now(),
        };
        tracing::error!(consumer = self.consumer.name, subject = letter.subject, error, "event kept as a dead letter");
        metrics::counter!("checkup_dead_letters_total", "consumer" => self.consumer.name).increment(1);
        let mut pause = self.options.first_pause;
        while let Err(fault) = self.consumer.handler.bury(letter.clone(), mark(delivery, seen)).await {
            tracing::warn!(consumer = self.consumer.name, ?fault, "waiting to keep a dead letter");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.options.last_pause);
        }
    }
}

/// Reads a delivery; `None` for an envelope without a payload this version knows.
fn decode(delivery: &Delivery) -> Result<Option<Incoming>, String> {
    let envelope = EventEnvelope::decode(delivery.message.payload.as_slice());
    let envelope = envelope.map_err(|error| format!("undecodable envelope: {error}"))?;
    if envelope.payload.is_none() {
        return Ok(None);
    }
    let event_id = Uuid::try_parse(&envelope.event_id).map_err(|error| format!("malformed event_id: {error}"))?;
    let mark = mark(delivery, event_id);
    Ok(Some(Incoming { envelope, event_id, mark }))
}

fn mark(delivery: &Delivery, event_id: Uuid) -> Mark {
    match &delivery.place {
        Place::Ordered { source, position } => Mark::Ordered { source: source.clone(), position: *position },
        Place::Unordered { .. } => Mark::Unordered { event_id },
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
