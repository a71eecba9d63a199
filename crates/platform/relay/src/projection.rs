//! Projections: tables that a service folds from events.
//!
//! Every projection works alike. An event is decoded into a fact, the inbox admits it or already knows it, the facts
//! are folded into tables, the tables are saved, and rows that no longer count are removed. A service supplies the
//! meaning of events and the changes of its tables: that is [`Projection`]. [`Projector`] supplies the rest: consumers,
//! inbox, dead letters, the commit timeout, and the rounds of removal.
//!
//! The generic part ends at [`Typed`], which passes facts on as boxed values. Everything behind it is compiled once, in
//! this crate. Generic code would be compiled again in every crate that names it, because an async function is compiled
//! where it is polled.

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

use crate::consumer::{Consumer, Handler, Incoming};
use crate::projection::batch::{Arrived, Batch, Command};

/// Whether a repeated event must be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// An event may be folded only once, so the inbox remembers each event.
    Once,
    /// Folding a fact again changes nothing, so the inbox keeps only the cursors of ordered sources.
    Repeatable,
}

/// A service's part of a projection. `domain` folds; the implementation loads, folds and saves.
///
/// ```
/// use async_trait::async_trait;
/// use contract::event::v1::event_envelope::Payload;
/// use domain::event::subject_filter;
/// use domain::ids::Malformed;
/// use relay::{Admission, Consumer, Incoming, Projection, Projector, Task};
/// use runtime::clock::Clock;
/// use sea_orm::Statement;
/// use store::{Connection, Database, DbErr, Transaction};
///
/// struct Tally;
/// struct Confirmed;
///
/// #[async_trait]
/// impl Projection for Tally {
///     type Fact = Confirmed;
///
///     // an event that is counted twice makes the number wrong
///     const ADMISSION: Admission = Admission::Once;
///
///     fn decode(event: &Incoming) -> Result<Option<Confirmed>, Malformed> {
///         Ok(matches!(event.envelope.payload, Some(Payload::ScreeningConfirmed(_))).then_some(Confirmed))
///     }
///
///     async fn fold(&self, transaction: &Transaction, facts: Vec<&Confirmed>) -> Result<(), DbErr> {
///         let sql = "UPDATE tally SET confirmed = confirmed + $1";
///         let count = i64::try_from(facts.len()).unwrap_or(i64::MAX);
///         let add = Statement::from_sql_and_values(transaction.backend(), sql, [count.into()]);
///         transaction.execute(add).await.map(drop)
///     }
/// }
///
/// // the process spawns the task, and `relay::consume` brings the consumer its events
/// fn tally(database: Database) -> (Consumer, Task) {
///     let (projector, writing) = Projector::new("tally", Tally, database, Clock::system());
///     let subjects = vec![subject_filter("screening", "screening_confirmed")];
///     (projector.consumer("tally-confirmed", subjects, None), writing)
/// }
/// ```
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// The decoded content of an event.
    type Fact: Send + Sync + 'static;

    /// Whether a repeated event must be recognised.
    const ADMISSION: Admission;

    /// Reads an event; `None` if it does not concern this projection.
    ///
    /// # Errors
    /// [`Malformed`] if the event concerns the projection but cannot be read. After its last try it becomes a dead
    /// letter.
    fn decode(event: &Incoming) -> Result<Option<Self::Fact>, Malformed>;

    /// Folds facts into the tables, in this order; there is at least one. It runs in the transaction that admitted
    /// their events, and runs again from the start if the outcome of that transaction is unknown.
    ///
    /// # Errors
    /// The database's error; nothing of the batch is then applied.
    async fn fold(&self, transaction: &Transaction, facts: Vec<&Self::Fact>) -> Result<(), DbErr>;

    /// Removes a chunk of the rows that no longer count at `now`; returns whether there may be more. `now` is the same
    /// for all chunks of a round. By default no row is ever removed.
    ///
    /// # Errors
    /// The database's error; nothing of the chunk is then removed.
    async fn prune(&self, transaction: &Transaction, now: Timestamp) -> Result<bool, DbErr> {
        let _ = (transaction, now);
        Ok(false)
    }

    /// Called with the facts of a batch once its outcome is known or its wait has ended. The batch may be committed
    /// even if it seemed to fail, because its outcome may be unknown. A committed batch that is repeated changes
    /// nothing.
    fn after_batch(&self, facts: &[&Self::Fact]) {
        let _ = facts;
    }
}

/// A future that this crate boxed and therefore compiled.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A fact whose type is known only to [`Typed`].
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

/// A projection with its type of facts.
struct Typed<P>(P);

impl<P: Projection> Typed<P> {
    /// The facts with this projection's type; `None` if one has another type.
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

/// How long a batch of events, or a chunk of a removal, may wait for its commit. After that the batch is submitted
/// again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A command is a whole batch of events, so a few of them fill a transaction.
const WRITER: WriterOptions = WriterOptions { queue: 64, batch: 4 };

/// A running projection; a cheap handle. Its writer ends once every handle and every consumer of it is dropped.
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
    /// Makes a handle, and the writer's loop, which the caller spawns. `service` labels the writer's metrics.
    #[must_use]
    pub fn new<P: Projection>(service: &'static str, projection: P, database: Database, clock: Clock) -> (Self, Task) {
        Self::start(service, Arc::new(Typed(projection)), database, clock)
    }

    fn start(service: &'static str, projection: Arc<dyn Untyped>, database: Database, clock: Clock) -> (Self, Task) {
        let batch = Batch::new(Arc::clone(&projection));
        let (writer, writing) = Writer::new(service, batch, database.clone(), WRITER);
        (Self { projection, writer, database, clock }, Box::pin(writing))
    }

    /// A durable consumer that feeds the projection. Its name must never change. Each consumer has an inbox of its own.
    #[must_use]
    pub fn consumer(&self, name: &'static str, filter: Vec<String>, pace: Option<Duration>) -> Consumer {
        let handler = Arc::new(Intake { consumer: name, projector: self.clone() });
        Consumer { name, filter, handler, database: self.database.clone(), pace }
    }

    /// Removes rows that no longer count once per `interval`, with one transaction per chunk, so that no other write
    /// waits long. The task ends only when it is dropped. `failure` is the log message for a round that failed.
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
        let command = Command::StoreDeadLetter { consumer: self.consumer, dead_letter, inbox_key };
        self.projector.submit(command).await.map(drop)
    }
}
