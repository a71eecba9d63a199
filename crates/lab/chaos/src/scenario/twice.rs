//! An outsider publishes to the stream: every event again, or messages that are no valid events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bus::jetstream::{JetStream, JetStreamOptions};
use bus::{Message, Outbound, Position, Publish, Subscribe, Subscription};
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{CapacityReserved, EventEnvelope, ScreeningConfirmed};
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};

const EVENTS_AT_ONCE: usize = 256;
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
const END_OF_STREAM_SILENCE: Duration = Duration::from_millis(300);
const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

async fn connect(run: &mut Run) -> Result<JetStream, Error> {
    let connected = JetStream::connect(JetStreamOptions::new(run.stage.nats().url_of("operator"))).await;
    connected.map_err(|error| Error::failed(format!("cannot connect to the broker: {error:?}")))
}

/// Publishes messages under new ids. Returns their sequences in the stream.
async fn publish(broker: &JetStream, messages: Vec<Message>) -> Result<Vec<u64>, Error> {
    let outbound = |message| Outbound { id: Uuid::new_v4().to_string(), message, headers: Vec::new() };
    let events: Vec<Outbound> = messages.into_iter().map(outbound).collect();
    let results = broker.publish(&events, Instant::now() + PUBLISH_TIMEOUT).await;
    let results: Result<Vec<u64>, bus::Error> = results.into_iter().collect();
    results.map_err(|error| Error::failed(format!("cannot publish: {error:?}")))
}

/// Publishes a copy of every event that others publish.
struct Copier {
    broker: JetStream,
    reading: Box<dyn Subscription>,
    /// The sequences of copies, which are not copied again.
    own: HashSet<i64>,
    copied: usize,
}

impl Copier {
    async fn new(run: &mut Run) -> Result<Self, Error> {
        let broker = connect(run).await?;
        let everything = ["checkup.v1.>".to_owned()];
        let reading = broker.ordered().subscribe("copier", &everything, HashMap::new()).await;
        let reading = reading.map_err(|error| Error::failed(format!("cannot read the stream: {error:?}")))?;
        Ok(Self { broker, reading, own: HashSet::new(), copied: 0 })
    }

    /// Copies until `end`; without an end, until the stream is silent.
    async fn copy_until(&mut self, end: Option<Instant>) -> Result<(), Error> {
        loop {
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(());
            }
            let Ok(read) = timeout(END_OF_STREAM_SILENCE, self.reading.next(EVENTS_AT_ONCE)).await else {
                if end.is_none() {
                    return Ok(());
                }
                continue;
            };
            let read = read.map_err(|error| Error::failed(format!("cannot read the stream: {error:?}")))?;
            let copies = read.into_iter().filter(|delivery| match &delivery.position {
                Position::Ordered { position, .. } => !self.own.remove(position),
                Position::Unordered { .. } => true,
            });
            let copies: Vec<Message> = copies.map(|delivery| Arc::unwrap_or_clone(delivery.message)).collect();
            self.copied += copies.len();
            let sequences = publish(&self.broker, copies).await?;
            self.own.extend(sequences.into_iter().filter_map(|sequence| i64::try_from(sequence).ok()));
        }
    }
}

/// Publishes every event a second time under another message id, which the broker does not recognise.
pub(super) async fn twice(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let mut copier = Copier::new(&mut run).await?;
    let begun = Instant::now();
    copier.copy_until(Some(begun + plan.fault)).await?;
    run.is_over(begun);
    run.goes_on(plan.after).await;
    run.stop_load().await;
    copier.copy_until(None).await?;
    let copied = copier.copied;
    if copied == 0 {
        return Err(Error::failed("there was nothing to publish twice"));
    }
    copier.broker.close().await;
    run.notes.push(format!("{copied} events twice"));
    run.finish(name, "every event published again under a new message id").await
}

/// Messages that are no envelopes, and envelopes whose facts are invalid.
fn nonsense() -> Vec<Message> {
    let facts = [
        ("screening.screening_confirmed", Payload::ScreeningConfirmed(ScreeningConfirmed::default())),
        ("claim.capacity_reserved", Payload::CapacityReserved(CapacityReserved::default())),
    ];
    let mut messages = Vec::new();
    for (index, (subject, payload)) in facts.into_iter().enumerate() {
        let subject = format!("checkup.v1.{subject}.poison_{index}");
        messages.push(Message { subject: subject.clone(), payload: b"\xff\xff not an envelope".to_vec() });
        let envelope = EventEnvelope {
            event_id: Uuid::new_v4().to_string(),
            aggregate: "nothing/there".to_owned(),
            aggregate_version: 1,
            producer: "nobody".to_owned(),
            payload: Some(payload),
            ..EventEnvelope::default()
        };
        messages.push(Message { subject, payload: envelope.encode_to_vec() });
    }
    messages
}

async fn dead_letters(run: &mut Run) -> Result<Vec<(String, u64)>, Error> {
    let mut dead_letters = Vec::new();
    for service in ["hospital", "screening", "reservation", "marketing"] {
        let count = run.stage.postgres().sql(service, "SELECT count(*) FROM dead_letter").await?;
        dead_letters.push((service.to_owned(), count.parse().unwrap_or(0)));
    }
    Ok(dead_letters)
}

/// Publishes invalid messages. They must become dead letters, and everything else must continue.
pub(super) async fn poison(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    const ATTEMPTS_SETTING: &str = "relay.attempts=4";
    let mut run =
        Run::start(plan, Setup { settings: vec![ATTEMPTS_SETTING.to_owned()], ..Setup::default() }, |_| {}).await?;
    let broker = connect(&mut run).await?;
    let messages = nonsense();
    let published = messages.len();
    run.strikes();
    publish(&broker, messages).await?;
    broker.close().await;
    let begun = Instant::now();
    // Reservation reads the screenings' events, so it must receive half of the messages.
    let dead_letters = loop {
        let dead_letters = dead_letters(&mut run).await?;
        if dead_letters.iter().any(|(service, count)| service == "reservation" && *count >= 2) {
            break dead_letters;
        }
        if begun.elapsed() > DEAD_LETTER_TIMEOUT {
            return Err(Error::failed(format!("after {DEAD_LETTER_TIMEOUT:?} the dead letters are {dead_letters:?}")));
        }
        sleep(POLL_INTERVAL).await;
    };
    let stored_after = begun.elapsed();
    run.goes_on(plan.fault).await;
    run.goes_on(plan.after).await;
    let dead_letters: Vec<String> = dead_letters
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(service, count)| format!("{service} {count}"))
        .collect();
    let stored_after = stored_after.as_secs_f64();
    run.notes.push(format!("dead letters within {stored_after:.1} s: {}", dead_letters.join(", ")));
    run.finish(name, format!("{published} events nobody can read or apply")).await
}
