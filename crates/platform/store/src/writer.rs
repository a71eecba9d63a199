//! The coalescing writer: one loop that turns waiting commands into one transaction.
//!
//! While a batch commits, the next one forms. Before a batch is taken, tasks that are ready run first, because they may
//! be about to submit. There is no other delay, and none at all if no task is ready. All commands of a batch share one
//! durable commit, which makes a single busy row fast: see docs/measurements. A [`BatchHandler`] makes all decisions.
//!
//! A command is answered only after a commit that is known to have succeeded. The failures and the writer's reactions:
//!
//! | class | when | what the database may have done | what the writer does | what the caller gets |
//! |---|---|---|---|---|
//! | Content | a statement breaks a rule of the database, or the batch handler panics | nothing | rolls back; runs the batch again, then in halves until the failing command is alone | its own answer; the failing command INTERNAL |
//! | Storage | BEGIN or a statement fails for the storage's reasons: full, I/O error, out of reach | nothing | drops the connection if BEGIN or ROLLBACK failed; runs the batch again, seven times in about 3 s | its own answer, or STORAGE_UNAVAILABLE: nothing was done |
//! | Unknown | COMMIT fails, or a server does not answer in 6 s | all of it or nothing | drops the connection; runs the same batch again as often, because batch handlers are idempotent | its own answer, or STORAGE_UNAVAILABLE: the outcome is unknown |
//! | no failure | a ROLLBACK fails | nothing more | drops the connection, and with it the transaction | as for the failure that led to the ROLLBACK |
//!
//! If a file's disk is full, the file's log is copied into it and truncated before the next run: see `room.rs`.
//!
//! Giving up a batch makes the storage *unwritable* ([`Database::writable`]; one line in the log, the gauge
//! `checkup_store_writable`). From then on each batch gets one run, so that callers get the refusal quickly. While no
//! batch arrives, a small write is tried every half second. The first successful commit makes the storage writable
//! again.

mod worker;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fault::{Fault, Reason};
use sea_orm::DbErr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::database::Database;
use crate::room::Room;
use crate::thread;
use crate::transaction::Transaction;
use worker::Worker;

/// A service's work on a batch of commands.
#[async_trait]
pub trait BatchHandler: Send + Sync + 'static {
    /// One request to change something.
    type Command: Send + Sync + 'static;
    /// The answer to a command, sent once its batch has committed.
    type Answer: Send + 'static;

    /// Executes a whole batch in order, writes its effects in this transaction, and answers each command, in order. An
    /// error rolls the batch back. Executing a committed batch again must change nothing and give the same answers.
    async fn execute(&self, transaction: &Transaction, batch: &[&Self::Command]) -> Result<Vec<Self::Answer>, DbErr>;
}

/// The limits of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterOptions {
    /// The most commands that may wait; a further one is refused with OVERLOADED.
    pub queue: usize,
    /// The most commands per transaction.
    pub batch: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { queue: 4_096, batch: 256 }
    }
}

struct Job<H: BatchHandler> {
    command: H::Command,
    deadline: Instant,
    answer: oneshot::Sender<Result<H::Answer, Fault>>,
}

/// The handle for submitting commands.
///
/// ```no_run
/// use contract::event::v1::EventEnvelope;
/// use store::migration::{self, MigrationTrait, MigratorTrait};
/// use store::{BatchHandler, Database, DbErr, Location, Transaction, Writer, WriterOptions, outbox};
/// use tokio::time::{Duration, Instant};
///
/// struct Migrator;
///
/// impl MigratorTrait for Migrator {
///     fn migrations() -> Vec<Box<dyn MigrationTrait>> {
///         migration::common() // followed by those of the service's own tables
///     }
/// }
///
/// struct Announcing;
///
/// #[async_trait::async_trait]
/// impl BatchHandler for Announcing {
///     type Command = EventEnvelope;
///     type Answer = ();
///
///     async fn execute(&self, transaction: &Transaction, batch: &[&EventEnvelope]) -> Result<Vec<()>, DbErr> {
///         // a service loads rows here, decides by them, and saves them together with its events
///         let events: Vec<EventEnvelope> = batch.iter().copied().cloned().collect();
///         outbox::append(transaction, &events).await?;
///         Ok(vec![(); events.len()])
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), store::Error> {
/// let database = Database::open::<Migrator>(&Location::Sqlite("news.db".into())).await?;
/// let (writer, writing) = Writer::new("news", Announcing, database, WriterOptions::default());
/// tokio::spawn(writing); // a service spawns it as an essential task of its process
/// let answer = writer.submit(EventEnvelope::default(), Instant::now() + Duration::from_secs(1)).await;
/// assert!(answer.is_ok(), "committed");
/// # Ok(())
/// # }
/// ```
pub struct Writer<H: BatchHandler> {
    queue: mpsc::Sender<Job<H>>,
}

impl<H: BatchHandler> Clone for Writer<H> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<H: BatchHandler> fmt::Debug for Writer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("free", &self.queue.capacity()).finish()
    }
}

impl<H: BatchHandler> Writer<H> {
    /// Makes a handle and the loop that serves it and its clones. The loop ends once all of them are dropped and the
    /// queue is empty. `name` labels its metrics.
    pub fn new(
        name: &'static str,
        handler: H,
        database: Database,
        options: WriterOptions,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::channel(options.queue.max(1));
        let handler = Arc::new(handler);
        let room = Room::of(&database);
        let worker = Worker { name, handler, database, waiting, max: options.batch.max(1), room };
        let blocks = !worker.database.is_shared();
        (Self { queue }, thread::run(name, blocks, worker.run()))
    }

    /// Queues a command and waits for its answer. Dropping the wait, or its expiry, does not undo a command that was
    /// already taken into a batch.
    ///
    /// # Errors
    /// OVERLOADED if the queue is full, DEADLINE_EXCEEDED, STORAGE_UNAVAILABLE if the storage takes no writes (the
    /// outcome may then be unknown), NOT_READY if the writer has stopped, INTERNAL if this command fails alone again
    /// and again.
    pub async fn submit(&self, command: H::Command, deadline: Instant) -> Result<H::Answer, Fault> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Job { command, deadline, answer }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => not_ready("the writer has stopped"),
        })?;
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(not_ready("the writer dropped the command")),
            Err(_) => Err(deadline_exceeded()),
        }
    }
}

/// Runs one command without a running service, with the writer's usual handling of failures.
///
/// # Errors
/// The faults of [`Writer::submit`].
pub async fn run_once<H: BatchHandler>(
    name: &'static str,
    handler: H,
    database: Database,
    command: H::Command,
) -> Result<H::Answer, Fault> {
    /// The time limit of such a command, which may concern every row.
    const RUN_ONCE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
    let (writer, writing) = Writer::new(name, handler, database, WriterOptions { queue: 1, batch: 1 });
    let submitted = async move { writer.submit(command, Instant::now() + RUN_ONCE_TIMEOUT).await };
    // The loop ends when its handle is dropped.
    tokio::join!(submitted, writing).0
}

/// The retry delay for callers while the queue is full.
const OVERLOAD_RETRY_DELAY: Duration = Duration::from_millis(200);

/// The refusal of a full queue: nothing was done, so the same request may be sent again.
pub(crate) fn overloaded() -> Fault {
    Fault::new(Reason::Overloaded, "the service is overloaded; back off and send the same request again")
        .retry_after(OVERLOAD_RETRY_DELAY)
}

fn not_ready(cause: impl fmt::Display) -> Fault {
    Fault::new(Reason::NotReady, "the service does not write at the moment; send the same request again")
        .caused_by(cause)
}

fn deadline_exceeded() -> Fault {
    Fault::new(Reason::DeadlineExceeded, "the deadline passed before the request was done")
}

/// Waits for something, then yields to ready tasks for as long as that brings more. In a busy process most tasks that
/// are about to ask have not run yet when the first one has asked.
pub(crate) async fn gather<T>(waiting: &mut mpsc::Receiver<T>, taken: &mut Vec<T>, max: usize) -> usize {
    let mut count = waiting.recv_many(taken, max).await;
    while count > 0 && count < max {
        thread::let_others_run().await;
        let before = count;
        while count < max
            && let Ok(next) = waiting.try_recv()
        {
            taken.push(next);
            count += 1;
        }
        if count == before {
            break;
        }
    }
    count
}
