//! From deliveries to effects: whole batches if that works, else single events, and dead letters at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bus::{Delivery, Position};
use contract::event::v1::EventEnvelope;
use domain::frame::Opened;
use fault::{Code, Fault};
use jiff::{SignedDuration, Timestamp};
use prost::Message as _;
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::spans::{self, Ended};
use runtime::trace::TraceContext;
use store::dead_letter::{DeadLetter, seen_as};
use store::inbox::{InboxKey, Part};
use tokio::time::Instant;
use uuid::Uuid;

use crate::consumer::{ConsumeOptions, Consumer, Incoming};

/// How old an event may be to have a span.
const OLDEST_SPAN: SignedDuration = SignedDuration::from_mins(10);

/// Applies the deliveries of one consumer.
pub(crate) struct Applier {
    pub(crate) consumer: Consumer,
    options: ConsumeOptions,
    clock: Clock,
    /// How often each event of a postponed frame was tried, by the frame and its place there; `attempts` once it is a
    /// dead letter. The broker's count of deliveries is not used, because a delivery may end without a try.
    tries: HashMap<(Uuid, u32), i32>,
    /// When the oldest event at hand was written to its outbox; `None` if there is none.
    oldest: Option<Timestamp>,
}

/// The delivery that an event came with, and the event's own bytes.
type Origin<'a> = (&'a Delivery, &'a [u8]);

/// What became of deliveries.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The deliveries to repeat, each after a pause. Of each, the events before the one that failed are applied.
    pub(crate) later: Vec<(Delivery, Duration)>,
    /// How many events need nothing more: applied now or before, unknown, or dead letters.
    pub(crate) done: u64,
}

impl Outcome {
    /// Whether this delivery is repeated later, so that no further event of it is applied now.
    fn holds(&self, delivery: &Delivery) -> bool {
        self.later.iter().any(|(held, _)| held.position == delivery.position)
    }
}

/// Decoded events, each with its delivery and its own bytes.
#[derive(Default)]
struct Batch<'a> {
    origins: Vec<Origin<'a>>,
    events: Vec<Incoming>,
}

impl Applier {
    pub(crate) fn new(consumer: Consumer, options: ConsumeOptions, clock: Clock) -> Self {
        Self { consumer, options, clock, tries: HashMap::new(), oldest: None }
    }

    /// Applies every event of these deliveries or stores it as a dead letter, except those to repeat later.
    pub(crate) async fn apply(&mut self, deliveries: &[Delivery]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut batch = Batch::default();
        self.oldest = deliveries.first().and_then(|delivery| write_time(&delivery.message.payload));
        for delivery in deliveries {
            for Event { bytes, inbox_key, content } in events(delivery) {
                match content {
                    Ok(Some((envelope, event_id))) => {
                        batch.origins.push((delivery, bytes));
                        batch.events.push(Incoming { envelope, event_id, inbox_key });
                    }
                    Ok(None) => {
                        // A fact of a newer producer, which this version cannot know: it is counted and skipped.
                        metrics::counter!("checkup_consumer_unknown_total", "consumer" => self.consumer.name)
                            .increment(1);
                        outcome.done += 1;
                    }
                    Err(error) => {
                        // The events before the broken one are applied before it is marked as seen, because inbox keys
                        // move in order.
                        self.apply_decoded(std::mem::take(&mut batch), &mut outcome).await;
                        if !outcome.holds(delivery) {
                            if !self.is_dead_letter(&inbox_key) {
                                self.store_dead_letter((delivery, bytes), inbox_key, &error, 1).await;
                            }
                            outcome.done += 1;
                        }
                    }
                }
            }
            if batch.events.len() >= self.options.batch {
                self.apply_decoded(std::mem::take(&mut batch), &mut outcome).await;
            }
        }
        self.apply_decoded(batch, &mut outcome).await;
        self.forget(deliveries, &outcome);
        outcome
    }

    /// Forgets the tries of events whose frames do not come again.
    fn forget(&mut self, deliveries: &[Delivery], outcome: &Outcome) {
        if self.tries.is_empty() {
            return;
        }
        for delivery in deliveries.iter().filter(|delivery| !outcome.holds(delivery)) {
            let settled = frame_id(&delivery.message.payload);
            self.tries.retain(|(frame_id, _), _| *frame_id != settled);
        }
    }

    /// Whether this event was stored as a dead letter before its frame came again. In order, a frame comes once.
    fn is_dead_letter(&self, inbox_key: &InboxKey) -> bool {
        let tries = place(inbox_key).and_then(|place| self.tries.get(&place));
        tries.is_some_and(|tries| *tries >= self.options.attempts)
    }

    async fn apply_decoded(&mut self, batch: Batch<'_>, outcome: &mut Outcome) {
        let whole = 0..batch.events.len();
        let mut todo = vec![whole];
        while let Some(mut range) = todo.pop() {
            // The events behind one that is repeated later, in the same frame, follow at once.
            while range.start < range.end && outcome.holds(batch.origins[range.start].0) {
                range.start += 1;
            }
            match &batch.events[range.clone()] {
                [] => {}
                [alone] => {
                    let origin = batch.origins[range.start];
                    match origin.0.position {
                        Position::Ordered { .. } => self.apply_in_order(origin, alone).await,
                        Position::Unordered { .. } => {
                            let later = self.try_once(origin, alone).await;
                            outcome.done += u64::from(later.is_none());
                            outcome.later.extend(later);
                            continue;
                        }
                    }
                    outcome.done += 1;
                }
                events => {
                    if self.attempt(events).await.is_ok() {
                        outcome.done += events.len() as u64;
                    } else {
                        let middle = range.start + range.len() / 2;
                        todo.extend([middle..range.end, range.start..middle]);
                    }
                }
            }
        }
    }

    /// Tries one event until it is applied or stored as a dead letter, because later events must not overtake it.
    async fn apply_in_order(&mut self, origin: Origin<'_>, event: &Incoming) {
        for attempt in 1..=self.options.attempts {
            let Err(fault) = self.attempt(std::slice::from_ref(event)).await else { return };
            self.warn(event, &fault, attempt);
            if attempt == self.options.attempts {
                self.store_dead_letter(origin, event.inbox_key.clone(), &format!("{fault:?}"), attempt).await;
            } else {
                tokio::time::sleep(self.pause(attempt)).await;
            }
        }
    }

    /// Tries one event. If that fails, its delivery is repeated later, or the event is stored as a dead letter after
    /// its last try.
    async fn try_once(&mut self, origin: Origin<'_>, event: &Incoming) -> Option<(Delivery, Duration)> {
        let place = place(&event.inbox_key)?;
        if self.is_dead_letter(&event.inbox_key) {
            // Its frame came again because of an event behind it.
            return None;
        }
        let Err(fault) = self.attempt(std::slice::from_ref(event)).await else {
            self.tries.remove(&place);
            return None;
        };
        let attempt = self.tries.entry(place).and_modify(|tries| *tries += 1).or_insert(1);
        let attempt = *attempt;
        self.warn(event, &fault, attempt);
        if attempt < self.options.attempts {
            return Some((origin.0.clone(), self.pause(attempt)));
        }
        self.store_dead_letter(origin, event.inbox_key.clone(), &format!("{fault:?}"), attempt).await;
        None
    }

    fn warn(&self, event: &Incoming, fault: &Fault, attempt: i32) {
        tracing::warn!(consumer = self.consumer.name, event = %event.event_id, ?fault, attempt, "event not applied");
    }

    fn pause(&self, attempt: i32) -> Duration {
        Backoff::behind(self.options.first_pause, self.options.last_pause, attempt.unsigned_abs())
    }

    /// Reports that no event waits.
    pub(crate) fn settled(&mut self) {
        self.oldest = None;
        self.report_age();
    }

    /// Reports how long the oldest event at hand has waited since it was written to its outbox.
    fn report_age(&self) {
        let age = self.oldest.map_or(0.0, |oldest| self.clock.now().duration_since(oldest).as_secs_f64());
        metrics::gauge!("checkup_outbox_age_seconds", "consumer" => self.consumer.name).set(age.max(0.0));
    }

    /// Passes a batch to the handler, and repeats it until the handler applies it or blames the batch.
    async fn attempt(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let mut backoff = self.options.backoff();
        loop {
            self.report_age();
            let begin = Instant::now();
            match self.consumer.handler.handle(batch).await {
                Ok(()) => {
                    let elapsed = begin.elapsed();
                    batch.iter().for_each(|event| self.log(event, elapsed));
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

    /// Logs the event under the trace of the call that caused it, and exports a span of it. `elapsed` is the time of
    /// the transaction, which it may share with other events.
    fn log(&self, event: &Incoming, elapsed: Duration) {
        let Incoming { envelope, event_id, .. } = event;
        let EventEnvelope { aggregate, aggregate_version, traceparent, .. } = envelope;
        let trace = traceparent.split('-').nth(1).unwrap_or_default();
        let consumer = self.consumer.name;
        tracing::debug!(consumer, event = %event_id, aggregate, version = aggregate_version, trace, "event applied");
        if !spans::are_exported() {
            return;
        }
        // an event that is read again long after the call has no place in the call's trace
        let occurred = envelope.occur_time.as_ref().and_then(domain::civil::decode_time);
        let is_fresh = occurred.is_some_and(|time| self.clock.now().duration_since(time) < OLDEST_SPAN);
        let Some(caused) = TraceContext::parse(traceparent).filter(|_| is_fresh) else { return };
        spans::ended(&caused.child(), || {
            let fact = envelope.payload.as_ref().map_or("", |payload| domain::event::fact(payload).1);
            Ended {
                // `{service}-{what it consumes}`
                service: consumer.split('-').next().unwrap_or(consumer).to_owned(),
                name: format!("{consumer} {fact}"),
                call: false,
                elapsed,
                failure: None,
                attributes: vec![
                    ("messaging.operation.type", "process".to_owned()),
                    ("messaging.message.id", event_id.to_string()),
                    ("messaging.consumer.group.name", consumer.to_owned()),
                    ("checkup.aggregate", aggregate.clone()),
                    ("checkup.aggregate_version", aggregate_version.to_string()),
                ],
            }
        });
    }

    async fn store_dead_letter(&mut self, origin: Origin<'_>, inbox_key: InboxKey, error: &str, attempts: i32) {
        let (delivery, bytes) = origin;
        if let Some(place) = place(&inbox_key) {
            self.tries.insert(place, self.options.attempts);
        }
        let dead_letter = DeadLetter {
            consumer: self.consumer.name.to_owned(),
            event_id: EventEnvelope::decode(bytes).map(|envelope| envelope.event_id).unwrap_or_default(),
            subject: delivery.message.subject.clone(),
            payload: bytes.to_vec(),
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
        while let Err(fault) = self.consumer.handler.store_dead_letter(dead_letter.clone(), inbox_key.clone()).await {
            tracing::warn!(consumer = self.consumer.name, ?fault, "waiting to keep a dead letter");
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// The frame of an event and the event's place there, where frames come again.
fn place(inbox_key: &InboxKey) -> Option<(Uuid, u32)> {
    match inbox_key {
        InboxKey::Ordered { .. } => None,
        InboxKey::Unordered { frame_id, part } => Some((*frame_id, part.index)),
    }
}

/// When a frame was written to its outbox. An event that is repeated is as old as its repetition.
fn write_time(payload: &[u8]) -> Option<Timestamp> {
    let opened = Opened::new(payload);
    opened.repeat_time.or_else(|| {
        let first = EventEnvelope::decode(*opened.events.first()?).ok()?;
        first.occur_time.as_ref().and_then(domain::civil::decode_time)
    })
}

/// The id by which a frame is recognised where frames come again.
fn frame_id(payload: &[u8]) -> Uuid {
    Opened::new(payload).id().unwrap_or_else(|| seen_as("", payload))
}

/// One event of a delivery.
struct Event<'a> {
    bytes: &'a [u8],
    inbox_key: InboxKey,
    /// The decoded envelope and its id; `None` for an envelope without a payload that this version knows.
    content: Result<Option<(EventEnvelope, Uuid)>, String>,
}

/// The events of a delivery, in order.
fn events(delivery: &Delivery) -> Vec<Event<'_>> {
    let payload = delivery.message.payload.as_slice();
    let opened = Opened::new(payload);
    let frame_id = opened.id();
    let contents: Vec<_> = opened.events.iter().map(|bytes| read(bytes)).collect();
    // Behind this one there is nothing to apply.
    let last = contents.iter().rposition(|content| !matches!(content, Ok(None))).unwrap_or_default();
    let mut events = Vec::with_capacity(contents.len());
    for (index, (bytes, content)) in opened.events.into_iter().zip(contents).enumerate() {
        let part = Part { index: u32::try_from(index).unwrap_or(u32::MAX), is_last: index >= last };
        let inbox_key = match &delivery.position {
            Position::Ordered { source, position } => InboxKey::Ordered {
                source: Arc::clone(source),
                position: *position,
                // A cursor is compared with the ids that can be read.
                frame_id: frame_id.unwrap_or_default(),
                part,
            },
            Position::Unordered { .. } => {
                InboxKey::Unordered { frame_id: frame_id.unwrap_or_else(|| seen_as("", payload)), part }
            }
        };
        events.push(Event { bytes, inbox_key, content });
    }
    events
}

/// Reads an event; `None` for an envelope without a payload that this version knows.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(EventEnvelope, Uuid)>, String> {
    let envelope = EventEnvelope::decode(bytes).map_err(|error| format!("undecodable envelope: {error}"))?;
    if envelope.payload.is_none() {
        return Ok(None);
    }
    let event_id = Uuid::try_parse(&envelope.event_id).map_err(|error| format!("malformed event_id: {error}"))?;
    Ok(Some((envelope, event_id)))
}
