//! The loop of a writer: batches, transactions, and what follows a failure. See the table in [`crate::writer`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use fault::Fault;
use futures::FutureExt as _;
use sea_orm::DbErr;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::{BatchHandler, Job, deadline_exceeded, gather};
use crate::database::Database;
use crate::failure::{Failure, is_content, is_full};
use crate::room::Room;
use crate::simulation::step;

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

pub(super) struct Worker<H: BatchHandler> {
    pub(super) name: &'static str,
    pub(super) handler: Arc<H>,
    pub(super) database: Database,
    pub(super) waiting: mpsc::Receiver<Job<H>>,
    pub(super) max: usize,
    pub(super) room: Room,
}

impl<H: BatchHandler> Worker<H> {
    pub(super) async fn run(mut self) {
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
