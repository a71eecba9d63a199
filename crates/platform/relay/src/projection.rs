//! Projections: tables that a service folds from events.
//!
//! Every projection works alike. An event is decoded into a fact, the inbox admits it or knows it already, facts are folded
//! into tables, the tables are saved, and rows that no longer count are removed. A service says what an event means to it
//! and how its tables change: that is [`Projection`]. The rest is [`Projector`]: consumers, inbox, dead letters, how long
//! a batch waits for its commit, and rounds of removal.
//!
//! The generic part ends at [`Typed`], which hands facts over as boxed values. Everything behind it is compiled once, in this
//! crate, because an async function is compiled where it is polled, and a generic writer once more in every crate that names it.

mod batch;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::Malformed;
use fault::Fault;
use jiff::Timestamp;
use runtime::clock::Clock;
use store::dead_letter::DeadLetter;
use store::inbox::InboxKey;
use store::{Database, DbErr, Transaction, Writer, WriterOptions};
use tokio::time::{Instant, sleep};

use crate::consume::{Consumer, Handler, Incoming};
use crate::projection::batch::{Arrived, Batch, Command};

/// Whether an event that comes again has to be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// An event may be folded only once: the inbox remembers each of them.
    Once,
    /// Folding a fact again changes nothing: the inbox keeps the cursors of ordered sources and remembers no single event.
    Repeatable,
}

/// What a service makes of events. `domain` folds; this loads, folds and saves.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// What an event says, decoded.
    type Fact: Send + Sync + 'static;

    /// Whether an event that comes again has to be recognised.
    const ADMISSION: Admission;

    /// Reads an event; `None` where it does not concern this projection.
    ///
    /// # Errors
    /// Where the event should concern it and cannot be read. The event is blamed and becomes a dead letter in the end.
    fn decode(event: &Incoming) -> Result<Option<Self::Fact>, Malformed>;

    /// Folds facts into the tables, in this order. There is at least one. It runs in the transaction that admitted their
    /// events, and again from the start where the outcome of that is unknown.
    ///
    /// # Errors
    /// What the database says; nothing of the batch is then applied.
    async fn fold(&self, transaction: &Transaction, facts: Vec<&Self::Fact>) -> Result<(), DbErr>;

    /// Removes a chunk of the rows that no longer count at `now`; true where there may be more. `now` stays the same for all
    /// chunks of a round. Unless a projection says otherwise, every row counts for ever.
    ///
    /// # Errors
    /// What the database says.
    async fn prune(&self, transaction: &Transaction, now: Timestamp) -> Result<bool, DbErr> {
        let _ = (transaction, now);
        Ok(false)
    }

    /// Called with the facts of a batch once its outcome is known or its wait has ended. The batch may have been committed also
    /// where it failed, because its outcome may be unknown, and a committed batch that comes again changes nothing.
    fn after_batch(&self, facts: &[&Self::Fact]) {
        let _ = facts;
    }
}

/// A future that was boxed, and so compiled, in this crate.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A fact whose type only [`Typed`] knows.
type AnyFact = dyn Any + Send + Sync;

type Done<'a, T> = Pin<Box<dyn Future<Output = Result<T, DbErr>> + Send + 'a>>;

/// A [`Projection`] without the type of its facts.
trait Untyped: Send + Sync {
    fn admission(&self) -> Admission;
    fn decode(&self, event: &Incoming) -> Result<Option<Box<AnyFact>>, Malformed>;
    fn fold<'a>(&'a self, transaction: &'a Transaction, facts: &[&'a AnyFact]) -> Done<'a, ()>;
    fn prune<'a>(&'a self, transaction: &'a Transaction, now: Timestamp) -> Done<'a, bool>;
    fn after_batch(&self, facts: &[&AnyFact]);
}

/// Knows the type of the facts.
struct Typed<P>(P);

impl<P: Projection> Typed<P> {
    /// The facts that this made; `None` where one is another projection's.
    fn own<'a>(facts: &[&'a AnyFact]) -> Option<Vec<&'a P::Fact>> {
        facts.iter().map(|fact| fact.downcast_ref()).collect()
    }
}

impl<P: Projection> Untyped for Typed<P> {
    fn admission(&self) -> Admission {
        P::ADMISSION
    }

    fn decode(&self, event: &Incoming) -> Result<Option<Box<AnyFact>>, Malformed> {
        Ok(P::decode(event)?.map(|fact| Box::new(fact) as Box<AnyFact>))
    }

    fn fold<'a>(&'a self, transaction: &'a Transaction, facts: &[&'a AnyFact]) -> Done<'a, ()> {
        match Self::own(facts) {
            Some(facts) => self.0.fold(transaction, facts),
            None => Box::pin(async { Err(DbErr::Custom("a fact of another projection".into())) }),
        }
    }

    fn prune<'a>(&'a self, transaction: &'a Transaction, now: Timestamp) -> Done<'a, bool> {
        self.0.prune(transaction, now)
    }

    fn after_batch(&self, facts: &[&AnyFact]) {
        if let Some(facts) = Self::own(facts) {
            self.0.after_batch(&facts);
        }
    }
}

/// How long a batch of events, or a chunk of a removal, may wait for its commit. A batch is handed in again after that.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A command is a whole batch of events, so a few of them fill a transaction.
const WRITER: WriterOptions = WriterOptions { queue: 64, batch: 4 };

/// A projection at work; a cheap handle. Its writer ends once every handle and every consumer of it is dropped.
#[derive(Clone)]
pub struct Projector {
    projection: Arc<dyn Untyped>,
    writer: Writer<Batch>,
    database: Database,
    clock: Clock,
}

impl fmt::Debug for Projector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projector").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Projector {
    /// Makes a handle, and the writer's loop for whoever spawns it. `service` labels the writer's metrics.
    #[must_use]
    pub fn new<P: Projection>(service: &'static str, projection: P, database: Database, clock: Clock) -> (Self, Task) {
        Self::start(service, Arc::new(Typed(projection)), database, clock)
    }

    fn start(service: &'static str, projection: Arc<dyn Untyped>, database: Database, clock: Clock) -> (Self, Task) {
        let batch = Batch::new(Arc::clone(&projection));
        let (writer, writing) = Writer::new(service, batch, database.clone(), WRITER);
        (Self { projection, writer, database, clock }, Box::pin(writing))
    }

    /// A durable consumer that feeds the projection. Its name is for ever; several consumers have an inbox each.
    #[must_use]
    pub fn consumer(&self, name: &'static str, filter: Vec<String>, pace: Option<Duration>) -> Consumer {
        let handler = Arc::new(Intake { consumer: name, projector: self.clone() });
        Consumer { name, filter, handler, database: self.database.clone(), pace }
    }

    /// Removes what no longer counts after every `interval`, a chunk a transaction, so that nobody waits for it. Ends only by
    /// being dropped. `failure` is what the log says of a round that failed.
    #[must_use]
    pub fn prune_every(self, interval: Duration, failure: &'static str) -> Task {
        Box::pin(async move {
            loop {
                sleep(interval).await;
                if let Err(fault) = self.prune().await {
                    tracing::warn!(?fault, "{failure}");
                }
            }
        })
    }

    async fn prune(&self) -> Result<(), Fault> {
        let now = self.clock.now();
        while self.submit(Command::Prune(now)).await? {}
        Ok(())
    }

    async fn submit(&self, command: Command) -> Result<bool, Fault> {
        self.writer.submit(command, Instant::now() + COMMIT_TIMEOUT).await
    }
}

/// Hands the events of one consumer to the writer.
struct Intake {
    consumer: &'static str,
    projector: Projector,
}

#[async_trait]
impl Handler for Intake {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let Self { consumer, projector } = self;
        let projection = &projector.projection;
        let decode = |event: &Incoming| {
            let fact = projection.decode(event).map_err(|malformed| Fault::internal(malformed.0))?;
            Ok(Arrived { inbox_key: event.inbox_key.clone(), fact })
        };
        let events = batch.iter().map(decode).collect::<Result<Arc<[_]>, Fault>>()?;
        let outcome = projector.submit(Command::Consume { consumer, events: Arc::clone(&events) }).await;
        let facts: Vec<_> = events.iter().filter_map(|event| event.fact.as_deref()).collect();
        projection.after_batch(&facts);
        outcome.map(drop)
    }

    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault> {
        let command = Command::KeepDeadLetter { consumer: self.consumer, dead_letter, inbox_key };
        self.projector.submit(command).await.map(drop)
    }
}
