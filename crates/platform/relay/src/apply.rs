//! From deliveries to effects: whole batches if that works, else single events, and dead letters at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bus::{Delivery, Position};
use contract::event::v1::EventEnvelope;
use fault::{Code, Fault};
use prost::Message as _;
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use store::dead_letter::{DeadLetter, seen_as};
use store::inbox::InboxKey;
use uuid::Uuid;

use crate::consumer::{ConsumeOptions, Consumer, Incoming};

/// Applies the deliveries of one consumer.
pub(crate) struct Applier {
    pub(crate) consumer: Consumer,
    options: ConsumeOptions,
    clock: Clock,
    /// How often each postponed event was tried. The broker's count of deliveries is not used, because a delivery may
    /// end without a try.
    tries: HashMap<Uuid, i32>,
}

/// Deliveries to repeat, each after a pause.
pub(crate) type Later = Vec<(Delivery, Duration)>;

/// Deliveries with the decoded event of each.
struct Batch<'a> {
    deliveries: Vec<&'a Delivery>,
    events: Vec<Incoming>,
}

impl<'a> Batch<'a> {
    fn with_capacity(capacity: usize) -> Self {
        Self { deliveries: Vec::with_capacity(capacity), events: Vec::with_capacity(capacity) }
    }

    fn push(&mut self, delivery: &'a Delivery, event: Incoming) {
        self.deliveries.push(delivery);
        self.events.push(event);
    }

    fn clear(&mut self) {
        self.deliveries.clear();
        self.events.clear();
    }
}

impl Applier {
    pub(crate) fn new(consumer: Consumer, options: ConsumeOptions, clock: Clock) -> Self {
        Self { consumer, options, clock, tries: HashMap::new() }
    }

    /// Applies every delivery or stores it as a dead letter; returns those to repeat later.
    pub(crate) async fn apply(&mut self, deliveries: &[Delivery]) -> Later {
        let mut later = Later::new();
        let mut batch = Batch::with_capacity(deliveries.len());
        for delivery in deliveries {
            match decode(delivery) {
                Ok(Some(incoming)) => batch.push(delivery, incoming),
                Ok(None) => {
                    // A fact of a newer producer, which this version cannot know: it is counted and skipped.
                    metrics::counter!("checkup_consumer_unknown_total", "consumer" => self.consumer.name).increment(1);
                }
                Err(error) => {
                    // The events before the broken one are applied before it is marked as seen, because inbox keys move
                    // in order.
                    self.apply_decoded(&batch, &mut later).await;
                    batch.clear();
                    self.store_dead_letter(delivery, &error, 1).await;
                }
            }
        }
        self.apply_decoded(&batch, &mut later).await;
        later
    }

    async fn apply_decoded(&mut self, batch: &Batch<'_>, later: &mut Later) {
        let whole = 0..batch.events.len();
        let mut todo = vec![whole];
        while let Some(range) = todo.pop() {
            match &batch.events[range.clone()] {
                [] => {}
                [alone] => {
                    let delivery = batch.deliveries[range.start];
                    match delivery.position {
                        Position::Ordered { .. } => self.apply_in_order(delivery, alone).await,
                        Position::Unordered { .. } => later.extend(self.try_once(delivery, alone).await),
                    }
                }
                events => {
                    if self.attempt(events).await.is_err() {
                        let middle = range.start + range.len() / 2;
                        todo.extend([middle..range.end, range.start..middle]);
                    }
                }
            }
        }
    }

    /// Tries one event until it is applied or stored as a dead letter, because later events must not overtake it.
    async fn apply_in_order(&self, delivery: &Delivery, event: &Incoming) {
        for attempt in 1..=self.options.attempts {
            let Err(fault) = self.attempt(std::slice::from_ref(event)).await else { return };
            self.warn(event, &fault, attempt);
            if attempt == self.options.attempts {
                self.store_dead_letter(delivery, &format!("{fault:?}"), attempt).await;
            } else {
                tokio::time::sleep(self.pause(attempt)).await;
            }
        }
    }

    /// Tries one event. If that fails, the event is repeated later, or stored as a dead letter after its last try.
    async fn try_once(&mut self, delivery: &Delivery, event: &Incoming) -> Option<(Delivery, Duration)> {
        let Err(fault) = self.attempt(std::slice::from_ref(event)).await else {
            self.tries.remove(&event.event_id);
            return None;
        };
        let attempt = self.tries.entry(event.event_id).and_modify(|tries| *tries += 1).or_insert(1);
        let attempt = *attempt;
        self.warn(event, &fault, attempt);
        if attempt < self.options.attempts {
            return Some((delivery.clone(), self.pause(attempt)));
        }
        self.store_dead_letter(delivery, &format!("{fault:?}"), attempt).await;
        self.tries.remove(&event.event_id);
        None
    }

    fn warn(&self, event: &Incoming, fault: &Fault, attempt: i32) {
        tracing::warn!(consumer = self.consumer.name, event = %event.event_id, ?fault, attempt, "event not applied");
    }

    fn pause(&self, attempt: i32) -> Duration {
        Backoff::behind(self.options.first_pause, self.options.last_pause, attempt.unsigned_abs())
    }

    /// Reports how long the oldest event at hand has waited since it was written to its outbox; `None` reports 0.
    pub(crate) fn age(&self, oldest: Option<&Incoming>) {
        let occurred = oldest.and_then(|incoming| incoming.envelope.occur_time);
        let occurred = occurred.and_then(|time| domain::civil::decode_time(&time));
        let age = occurred.map_or(0.0, |occurred| self.clock.now().duration_since(occurred).as_secs_f64());
        metrics::gauge!("checkup_outbox_age_seconds", "consumer" => self.consumer.name).set(age.max(0.0));
    }

    /// Passes a batch to the handler, and repeats it until the handler applies it or blames the batch.
    async fn attempt(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let mut backoff = self.options.backoff();
        loop {
            self.age(batch.first());
            match self.consumer.handler.handle(batch).await {
                Ok(()) => {
                    batch.iter().for_each(|event| self.log(event));
                    return Ok(());
                }
                Err(fault) if fault.code() == Code::Internal => return Err(fault),
                Err(fault) => {
                    tracing::warn!(consumer = self.consumer.name, ?fault, "waiting to apply events");
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Logs the event under the trace of the call that caused it.
    fn log(&self, event: &Incoming) {
        let EventEnvelope { aggregate, aggregate_version, traceparent, .. } = &event.envelope;
        let trace = traceparent.split('-').nth(1).unwrap_or_default();
        let (consumer, event) = (self.consumer.name, event.event_id);
        tracing::debug!(consumer, %event, aggregate, version = aggregate_version, trace, "event applied");
    }

    async fn store_dead_letter(&self, delivery: &Delivery, error: &str, attempts: i32) {
        let payload = delivery.message.payload.as_slice();
        let event_id = EventEnvelope::decode(payload).map(|envelope| envelope.event_id).unwrap_or_default();
        let seen = match delivery.position {
            // A cursor is compared with the ids that can be parsed.
            Position::Ordered { .. } => Uuid::try_parse(&event_id).unwrap_or_default(),
            Position::Unordered { .. } => seen_as(&event_id, payload),
        };
        let dead_letter = DeadLetter {
            consumer: self.consumer.name.to_owned(),
            event_id,
            subject: delivery.message.subject.clone(),
            payload: delivery.message.payload.clone(),
            error: error.to_owned(),
            attempts,
            time: self.clock.now(),
        };
        tracing::error!(
            consumer = self.consumer.name,
            subject = dead_letter.subject,
            error,
            "event kept as a dead letter"
        );
        metrics::counter!("checkup_dead_letters_total", "consumer" => self.consumer.name).increment(1);
        let mut backoff = self.options.backoff();
        while let Err(fault) =
            self.consumer.handler.store_dead_letter(dead_letter.clone(), inbox_key(&delivery.position, seen)).await
        {
            tracing::warn!(consumer = self.consumer.name, ?fault, "waiting to keep a dead letter");
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// Reads a delivery; `None` for an envelope without a payload that this version knows.
fn decode(delivery: &Delivery) -> Result<Option<Incoming>, String> {
    read(&delivery.message.payload, |event_id| inbox_key(&delivery.position, event_id))
}

/// Reads an event; `None` for an envelope without a payload that this version knows.
pub(crate) fn read(payload: &[u8], inbox_key: impl FnOnce(Uuid) -> InboxKey) -> Result<Option<Incoming>, String> {
    let envelope = EventEnvelope::decode(payload).map_err(|error| format!("undecodable envelope: {error}"))?;
    if envelope.payload.is_none() {
        return Ok(None);
    }
    let event_id = Uuid::try_parse(&envelope.event_id).map_err(|error| format!("malformed event_id: {error}"))?;
    let inbox_key = inbox_key(event_id);
    Ok(Some(Incoming { envelope, event_id, inbox_key }))
}

fn inbox_key(position: &Position, event_id: Uuid) -> InboxKey {
    match position {
        Position::Ordered { source, position } => {
            InboxKey::Ordered { source: Arc::clone(source), position: *position, event_id }
        }
        Position::Unordered { .. } => InboxKey::Unordered { event_id },
    }
}
