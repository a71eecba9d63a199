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

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fault::{Fault, Reason};
use futures::FutureExt as _;
use sea_orm::DbErr;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::database::Database;
use crate::failure::{Failure, is_content, is_full};
use crate::room::Room;
use crate::simulation::step;
use crate::thread;
use crate::transaction::Transaction;

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

/// How often a batch is run before the storage counts as unwritable. With the pauses between the runs this is the time
/// that a database server takes to return from a crash.
const STORAGE_ATTEMPTS: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// How often unwritable storage is tried while no batch arrives.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// How often a batch is run before one of its commands is blamed. If other processes write too, each run may meet
/// another of their rows.
const CONTENT_ATTEMPTS: u32 = 2;
const SHARED_CONTENT_ATTEMPTS: u32 = 4;
/// How long one run of a batch may take on a database across a network. It is longer than the server's own limits on a
/// statement.
const RUN_TIMEOUT: Duration = Duration::from_secs(6);

struct Worker<H: BatchHandler> {
    name: &'static str,
    handler: Arc<H>,
    database: Database,
    waiting: mpsc::Receiver<Job<H>>,
    max: usize,
    room: Room,
}

impl<H: BatchHandler> Worker<H> {
    async fn run(mut self) {
        let depth = metrics::gauge!("checkup_writer_queue_depth", "service" => self.name);
        let sizes = metrics::histogram!("checkup_writer_batch_size", "service" => self.name);
        let seconds = metrics::histogram!("checkup_writer_batch_seconds", "service" => self.name);
        metrics::gauge!("checkup_store_writable", "service" => self.name).set(1.0);
        let mut jobs = Vec::with_capacity(self.max);
        while self.next_batch(&mut jobs).await > 0 {
            depth.set(self.waiting.len() as f64);
            let batch = take_live(&mut jobs);
            if batch.is_empty() {
                continue;
            }
            sizes.record(batch.len() as f64);
            let begin = Instant::now();
            self.settle(batch).await;
            seconds.record(begin.elapsed().as_secs_f64());
            self.room.keep(&self.database).await;
        }
    }

    /// Waits for the next commands, and tries unwritable storage while none arrive. Returns 0 once there will be no
    /// more.
    async fn next_batch(&mut self, jobs: &mut Vec<Job<H>>) -> usize {
        while !self.database.is_writable() {
            match timeout(PROBE_INTERVAL, self.waiting.recv_many(jobs, self.max)).await {
                Ok(count) => return count,
                Err(_) => match step(self.probe()).await {
                    Ok(()) => self.storage_takes_writes(),
                    Err(cause) => {
                        tracing::debug!(service = self.name, %cause, "the storage still takes no writes");
                        self.make_room(&cause).await;
                    }
                },
            }
        }
        gather(&mut self.waiting, jobs, self.max).await
    }

    /// Commits a write that changes nothing. SQLite skips a row that stays the same, but always writes the head of its
    /// file.
    async fn probe(&self) -> Result<(), DbErr> {
        let transaction = self.database.begin().await?;
        let write = if self.database.is_shared() {
            "UPDATE seaql_migrations SET applied_at = applied_at"
        } else {
            "PRAGMA user_version = 0"
        };
        if let Err(cause) = transaction.execute_text(write).await {
            drop(transaction.rollback().await);
            return Err(cause);
        }
        self.database.commit(transaction).await
    }

    fn storage_takes_writes(&self) {
        if self.database.set_writable(true) {
            metrics::gauge!("checkup_store_writable", "service" => self.name).set(1.0);
            tracing::info!(service = self.name, "the storage takes writes again");
        }
    }

    fn storage_takes_no_writes(&self, cause: &DbErr) {
        if self.database.set_writable(false) {
            metrics::gauge!("checkup_store_writable", "service" => self.name).set(0.0);
            tracing::error!(service = self.name, %cause, "the storage takes no writes; they are refused until it does");
        }
    }

    /// Cuts the log after a write found no room, because the room that the log has taken may be enough.
    async fn make_room(&mut self, cause: &DbErr) {
        if is_full(cause) {
            self.room.make(&self.database).await;
        }
    }

    /// Runs a batch until each of its commands has an answer.
    async fn settle(&mut self, batch: Vec<Job<H>>) {
        let mut todo = vec![batch];
        while let Some(mut jobs) = todo.pop() {
            match self.persist(&jobs).await {
                Ok(answers) => {
                    self.storage_takes_writes();
                    for (job, answer) in jobs.into_iter().zip(answers) {
                        // A caller that stopped waiting has dropped its receiver.
                        drop(job.answer.send(Ok(answer)));
                    }
                }
                Err(Failure::Content(cause)) if jobs.len() == 1 => {
                    tracing::error!(service = self.name, %cause, "a command cannot be stored");
                    fail(jobs, &Fault::internal(cause));
                }
                Err(Failure::Content(cause)) => {
                    tracing::warn!(service = self.name, %cause, commands = jobs.len(), "halving a failed batch");
                    let second = jobs.split_off(jobs.len() / 2);
                    // Batches are popped from the end, so the first half runs first.
                    todo.push(second);
                    todo.push(jobs);
                }
                Err(failure @ (Failure::Storage(_) | Failure::Unknown(_))) => {
                    let refusal = failure.refusal();
                    let (Failure::Content(cause) | Failure::Storage(cause) | Failure::Unknown(cause)) = failure;
                    self.storage_takes_no_writes(&cause);
                    fail(jobs, &refusal);
                }
            }
        }
    }

    /// Runs a batch again for as long as that can help.
    async fn persist(&mut self, jobs: &[Job<H>]) -> Result<Vec<H::Answer>, Failure> {
        let content_attempts = if self.database.is_shared() { SHARED_CONTENT_ATTEMPTS } else { CONTENT_ATTEMPTS };
        let attempts = if self.database.is_writable() { STORAGE_ATTEMPTS } else { 1 };
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let failure = match self.attempt_in_time(jobs).await {
                Ok(answers) => return Ok(answers),
                Err(failure) => failure,
            };
            match &failure {
                // Another replica may have written the same key just before; the next run then finds its row.
                Failure::Content(_) if attempt < content_attempts => {
                    attempt += 1;
                    continue;
                }
                Failure::Content(_) => return Err(failure),
                Failure::Storage(cause) | Failure::Unknown(cause) => self.make_room(cause).await,
            }
            if attempt >= attempts {
                return Err(failure);
            }
            tracing::debug!(service = self.name, ?failure, attempt, "running a batch again");
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }

    /// Runs a batch once, with a time limit if a server might not answer.
    async fn attempt_in_time(&self, jobs: &[Job<H>]) -> Result<Vec<H::Answer>, Failure> {
        let attempt = step(self.attempt(jobs));
        if !self.database.is_shared() {
            return attempt.await;
        }
        match timeout(RUN_TIMEOUT, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.database.reconnect().await;
                Err(Failure::Unknown(DbErr::Custom("the database server did not answer in time".into())))
            }
        }
    }

    async fn attempt(&self, jobs: &[Job<H>]) -> Result<Vec<H::Answer>, Failure> {
        let transaction = self.database.begin().await.map_err(Failure::Storage)?;
        let commands: Vec<&H::Command> = jobs.iter().map(|job| &job.command).collect();
        let executed = AssertUnwindSafe(self.handler.execute(&transaction, &commands)).catch_unwind().await;
        let executed = executed.unwrap_or_else(|_| Err(DbErr::Custom("the batch handler panicked".into())));
        let executed = executed.and_then(|answers| {
            let complete = answers.len() == jobs.len();
            complete
                .then_some(answers)
                .ok_or_else(|| DbErr::Custom("the batch handler did not answer every command".into()))
        });
        match executed {
            Ok(answers) => {
                self.database.commit(transaction).await.map_err(Failure::Unknown)?;
                Ok(answers)
            }
            Err(cause) => {
                // The error that stopped the batch is more useful than an error of the rollback, which costs only the
                // connection.
                drop(transaction.rollback().await);
                Err(if is_content(&cause) { Failure::Content(cause) } else { Failure::Storage(cause) })
            }
        }
    }
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

/// Takes the jobs that somebody still waits for; refuses those whose deadline has passed.
fn take_live<H: BatchHandler>(jobs: &mut Vec<Job<H>>) -> Vec<Job<H>> {
    let now = Instant::now();
    let mut live = Vec::with_capacity(jobs.len());
    for job in jobs.drain(..) {
        if job.deadline <= now {
            drop(job.answer.send(Err(deadline_exceeded())));
        } else if !job.answer.is_closed() {
            live.push(job);
        }
    }
    live
}

fn fail<H: BatchHandler>(jobs: Vec<Job<H>>, fault: &Fault) {
    for job in jobs {
        drop(job.answer.send(Err(fault.clone())));
    }
}
