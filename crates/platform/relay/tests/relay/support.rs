//! A producer, a consumer, and a broker in memory that loses events on request.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bus::{Error, Outbound, Publish, StreamState};
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, ScreeningRefused};
use domain::frame::Opened;
use fault::{Fault, Reason};
use relay::{Handler, Incoming};
use runtime::clock::Clock;
use sea_orm::DbErr;
use store::dead_letter::{self, DeadLetter};
use store::inbox::{self, InboxKey};
use store::migration::{MigrationTrait, MigratorTrait, common};
use store::{BatchHandler, Database, Location, Transaction, Writer, WriterOptions, outbox};
use tempfile::TempDir;
use testkit::eventually;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        common()
    }
}

/// A command of the producer, or of the consumer, whose effect is one row in its own outbox per admitted event.
pub(crate) enum Command {
    /// Writes each event as a frame of its own.
    Produce(Vec<EventEnvelope>),
    /// Writes the events as one transaction does.
    ProduceTogether(Vec<EventEnvelope>),
    Consume(Vec<Incoming>),
    StoreDeadLetter(DeadLetter, InboxKey),
}

pub(crate) struct NumberHandler {
    /// Whether poison events fail.
    poisonous: Arc<AtomicBool>,
}

/// The aggregate of an event that cannot be applied while [`Applier::poisonous`] is set.
pub(crate) const POISON: &str = "poison";

#[async_trait]
impl BatchHandler for NumberHandler {
    type Command = Command;
    type Answer = ();

    async fn execute(&self, transaction: &Transaction, batch: &[&Command]) -> Result<Vec<()>, DbErr> {
        for command in batch {
            match command {
                Command::Produce(events) => {
                    for event in events {
                        outbox::append(transaction, std::slice::from_ref(event)).await?;
                    }
                }
                Command::ProduceTogether(events) => outbox::append(transaction, events).await?,
                Command::Consume(events) => {
                    let inbox_keys: Vec<_> = events.iter().map(|event| &event.inbox_key).collect();
                    let fresh = inbox::admit(transaction, "ledger", &inbox_keys).await?;
                    let effects =
                        events.iter().zip(fresh).filter(|(_, fresh)| *fresh).map(|(event, _)| event.envelope.clone());
                    let effects: Vec<_> = effects.collect();
                    let harms = self.poisonous.load(Ordering::Relaxed);
                    if harms && effects.iter().any(|event| event.aggregate == POISON) {
                        return Err(DbErr::Custom("poison".into()));
                    }
                    outbox::append(transaction, &effects).await?;
                }
                Command::StoreDeadLetter(dead_letter, inbox_key) => {
                    if inbox::admit(transaction, "ledger", &[inbox_key]).await? == [true] {
                        dead_letter::put(transaction, dead_letter).await?;
                    }
                }
            }
        }
        Ok(batch.iter().map(|_| ()).collect())
    }
}

pub(crate) struct Applier {
    pub(crate) writer: Writer<NumberHandler>,
    /// How often the store refuses, as if in trouble, before it works.
    pub(crate) troubles: AtomicU32,
    /// How often an event alone was refused because it is malformed.
    pub(crate) refusals: Arc<AtomicU32>,
}

/// The aggregate of an event that the handler refuses before it asks the inbox.
pub(crate) const MALFORMED: &str = "malformed";

#[async_trait]
impl Handler for Applier {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        if self.troubles.load(Ordering::Relaxed) > 0 {
            self.troubles.fetch_sub(1, Ordering::Relaxed);
            return Err(Fault::new(Reason::NotReady, "not now"));
        }
        if batch.iter().any(|event| event.envelope.aggregate == MALFORMED) {
            self.refusals.fetch_add(u32::from(batch.len() == 1), Ordering::Relaxed);
            return Err(Fault::internal("malformed"));
        }
        self.writer.submit(Command::Consume(batch.to_vec()), soon()).await
    }

    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault> {
        self.writer.submit(Command::StoreDeadLetter(dead_letter, inbox_key), soon()).await
    }
}

/// The number of the first event of the frame with this id.
fn number(frame_id: Uuid) -> u128 {
    const VERSION: u128 = 0xf << 76;
    frame_id.as_u128() & !VERSION
}

/// The numbers of the events in these frames, in order.
pub(crate) fn numbers(rows: &[outbox::Model]) -> Vec<u128> {
    let events = rows.iter().flat_map(|row| Opened::new(&row.payload).decode().expect("events"));
    events.map(|event| Uuid::try_parse(&event.event_id).expect("an id").as_u128()).collect()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) struct Side {
    pub(crate) database: Database,
    pub(crate) writer: Writer<NumberHandler>,
    /// Whether poison events fail on this side.
    pub(crate) poisonous: Arc<AtomicBool>,
    _folder: Option<TempDir>,
}

/// A side with a database of its own, in a file.
pub(crate) async fn side() -> Side {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::Sqlite(folder.path().join("s.db"));
    let database = Database::open::<Migrator>(&location).await.expect("opened");
    Side::on(database, Some(folder))
}

/// Two replicas on one database of the test's PostgreSQL server; `None` if there is no server.
pub(crate) async fn replicas() -> Option<[Side; 2]> {
    let server = mesh::for_tests::or_skip("PostgreSQL", mesh::for_tests::postgres().await)?;
    let location = Location::Postgres(server.database("relay").await.expect("an empty database"));
    Box::pin(Database::migrate::<Migrator>(&location)).await.expect("migrated");
    let open = || Database::open::<Migrator>(&location);
    let (one, other) = (Box::pin(open()).await, Box::pin(open()).await);
    Some([one, other].map(|database| Side::on(database.expect("opened"), None)))
}

impl Side {
    fn on(database: Database, folder: Option<TempDir>) -> Self {
        let poisonous = Arc::new(AtomicBool::new(true));
        let handler = NumberHandler { poisonous: Arc::clone(&poisonous) };
        let (writer, run) = Writer::new("test", handler, database.clone(), WriterOptions::default());
        drop(tokio::spawn(run));
        Self { database, writer, poisonous, _folder: folder }
    }

    pub(crate) async fn produce(&self, events: impl IntoIterator<Item = u128>) {
        self.append(events.into_iter().map(event).collect()).await;
    }

    pub(crate) async fn append(&self, events: Vec<EventEnvelope>) {
        self.writer.submit(Command::Produce(events), soon()).await.expect("produced");
    }
}

/// An event that occurs now; the events of [`event`] occur in 1970.
pub(crate) fn event_of_now(number: u128) -> EventEnvelope {
    let occur_time = Some(domain::civil::encode_time(Clock::system().now()));
    EventEnvelope { occur_time, ..event(number) }
}

pub(crate) fn event(number: u128) -> EventEnvelope {
    EventEnvelope {
        event_id: Uuid::from_u128(number).to_string(),
        aggregate: format!("hospitals/h{number}"),
        payload: Some(Payload::ScreeningRefused(ScreeningRefused::default())),
        ..EventEnvelope::default()
    }
}

/// The state of the broker: the id of each event by sequence.
#[derive(Default)]
struct Held {
    identity: u64,
    /// Sequences below this one are gone.
    first: u64,
    /// How long it keeps events; zero for no limit.
    max_age: Duration,
    /// The ids by sequence; empty for a lost event.
    ids: Vec<String>,
    /// How often `renumbered` was called.
    renumbered: usize,
    /// Every acknowledged id in order, lost ones included.
    history: Vec<String>,
    away: bool,
    /// How many events to lose right before others are stored, and after how many more calls.
    losing: (usize, usize),
}

impl Held {
    fn gaps(&self) -> impl Iterator<Item = u64> {
        let sequences = (1..).zip(&self.ids);
        sequences.filter(|(sequence, id)| *sequence >= self.first && id.is_empty()).map(|(sequence, _)| sequence)
    }
}

/// A broker that keeps its events in memory.
#[derive(Clone)]
pub(crate) struct Broker {
    held: Arc<Mutex<Held>>,
    connections: Arc<watch::Sender<u64>>,
    /// Each publish takes a permit after the broker has stored everything and before it acknowledges.
    pub(crate) gate: Arc<Semaphore>,
}

impl Broker {
    pub(crate) fn new() -> Self {
        let held = Held { first: 1, ..Held::default() };
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { held: Arc::new(Mutex::new(held)), connections: Arc::new(watch::Sender::new(0)), gate }
    }

    /// The same broker, with acknowledgements that wait for the gate.
    pub(crate) fn that_waits(&self) -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..self.clone() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of the events that it holds, by sequence.
    pub(crate) fn events(&self) -> Vec<u128> {
        self.held()
            .ids
            .iter()
            .filter(|id| !id.is_empty())
            .map(|id| number(Uuid::try_parse(id).expect("an id")))
            .collect()
    }

    /// How many events it has acknowledged in total.
    pub(crate) fn acknowledged(&self) -> usize {
        self.held().history.len()
    }

    /// Returns empty, as another stream.
    pub(crate) fn wipe(&self) {
        let mut held = self.held();
        held.identity += 1;
        held.ids.clear();
        held.first = 1;
        drop(held);
        self.connections.send_modify(|count| *count += 1);
    }

    /// Returns without its newest events, and stores others in their place.
    pub(crate) fn lose_tail(&self, count: usize, others: usize) {
        let mut held = self.held();
        let left = held.ids.len() - count;
        held.ids.truncate(left);
        held.ids.extend((0..others).map(|number| Uuid::from_u128(1 << 100 | number as u128).to_string()));
        drop(held);
        self.connections.send_modify(|count| *count += 1);
    }

    /// Loses its newest events unnoticed, right before it stores the next ones.
    pub(crate) fn lose_unnoticed(&self, count: usize) {
        self.lose_later(count, 0);
    }

    /// Like [`Self::lose_unnoticed`], but only after this many more windows.
    pub(crate) fn lose_later(&self, count: usize, windows: usize) {
        self.held().losing = (count, windows);
    }

    /// Sets the age limit, and counts events below a sequence as dropped by age. Tests still see those.
    pub(crate) fn age(&self, first: u64, max_age: Duration) {
        let mut held = self.held();
        (held.first, held.max_age) = (first, max_age);
    }

    /// Loses the events with these sequences and nothing else.
    pub(crate) fn lose(&self, sequences: std::ops::RangeInclusive<u64>) {
        let mut held = self.held();
        for sequence in sequences {
            held.ids[usize::try_from(sequence).expect("a sequence") - 1] = String::new();
        }
        let lost = held.ids.iter().take_while(|id| id.is_empty()).count() as u64;
        held.first = held.first.max(lost + 1);
        drop(held);
        self.connections.send_modify(|count| *count += 1);
    }

    /// How often `renumbered` was called.
    pub(crate) fn renumbered(&self) -> usize {
        self.held().renumbered
    }

    /// Stops answering, or answers again.
    pub(crate) fn away(&self, away: bool) {
        self.held().away = away;
    }

    /// Waits until it holds exactly these events, in any order, besides those of others.
    pub(crate) async fn holds(&self, expected: impl IntoIterator<Item = u128>) {
        let mut expected: Vec<u128> = expected.into_iter().collect();
        expected.sort_unstable();
        eventually("the events", async || {
            let mut events = self.events();
            events.retain(|event| *event < 1 << 100);
            events.sort_unstable();
            if events == expected { Ok(()) } else { Err(format!("{} of {}", events.len(), expected.len())) }
        })
        .await;
    }
}

#[async_trait]
impl Publish for Broker {
    async fn publish(&self, events: &[Outbound], _deadline: Instant) -> Vec<Result<u64, Error>> {
        let results = {
            let mut held = self.held();
            let away = held.away;
            held.losing = match held.losing {
                (count, 0) => {
                    let left = held.ids.len() - count;
                    held.ids.truncate(left);
                    (0, 0)
                }
                (count, windows) => (count, windows - 1),
            };
            events
                .iter()
                .map(|event| {
                    if away {
                        return Err(Error::new("memory", "away"));
                    }
                    let known = held.ids.iter().position(|id| *id == event.id);
                    let at = known.unwrap_or_else(|| {
                        held.ids.push(event.id.clone());
                        held.ids.len() - 1
                    });
                    held.history.push(event.id.clone());
                    Ok(at as u64 + 1)
                })
                .collect()
        };
        drop(self.gate.acquire().await);
        results
    }

    async fn state(&self) -> Result<StreamState, Error> {
        let held = self.held();
        if held.away {
            return Err(Error::new("memory", "away"));
        }
        let gaps = held.gaps().count() as u64;
        let (identity, last) = (held.identity.to_string(), held.ids.len() as u64);
        Ok(StreamState {
            identity,
            origin: 1,
            first: held.first,
            last,
            gaps,
            max_age: held.max_age,
            bytes: 0,
            max_bytes: None,
        })
    }

    async fn gaps(&self) -> Result<Vec<std::ops::RangeInclusive<u64>>, Error> {
        Ok(self.held().gaps().map(|sequence| sequence..=sequence).collect())
    }

    async fn renumbered(&self) -> Result<(), Error> {
        self.held().renumbered += 1;
        Ok(())
    }

    async fn id_at(&self, sequence: u64) -> Result<Option<String>, Error> {
        let held = self.held();
        let index = usize::try_from(sequence).ok().and_then(|sequence| sequence.checked_sub(1));
        let id = index.filter(|_| sequence >= held.first).and_then(|index| held.ids.get(index));
        Ok(id.filter(|id| !id.is_empty()).cloned())
    }

    fn connections(&self) -> watch::Receiver<u64> {
        self.connections.subscribe()
    }
}
