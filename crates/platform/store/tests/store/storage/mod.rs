//! Storage that fails: at every step of a transaction, once, twice and ten times in a row, and without room.
//! Acknowledged writes are stored, refused writes are not stored in part, and the writer recovers by itself.

mod room;
mod stages;
mod statements;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fault::Reason;
use store::{Database, Nemesis, Stage, Writer, WriterOptions};
use tokio::time::Instant;

use crate::tables::{Accountant, Command, Migrator, TestDatabase, amounts};

const STAGES: [Stage; 5] = [Stage::Begin, Stage::Statement, Stage::Commit, Stage::CommitStaysOpen, Stage::Rollback];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Storage that fails at these stages, in this order, and then works.
#[derive(Default)]
struct Failing {
    stages: Mutex<VecDeque<Stage>>,
    trusting: AtomicBool,
}

impl Failing {
    fn at(stages: impl IntoIterator<Item = Stage>) -> Arc<Self> {
        Arc::new(Self { stages: Mutex::new(stages.into_iter().collect()), ..Self::default() })
    }

    /// The same with the planted bug that a connection is used again.
    fn trusting(stages: impl IntoIterator<Item = Stage>) -> Arc<Self> {
        let failing = Self::at(stages);
        failing.trusting.store(true, Ordering::Relaxed);
        failing
    }

    fn left(&self) -> usize {
        self.stages.lock().expect("stages").len()
    }
}

impl Nemesis for Failing {
    fn storage_fails(&self, stage: Stage) -> bool {
        let mut stages = self.stages.lock().expect("stages");
        let due = stages.front() == Some(&stage);
        if due {
            stages.pop_front();
        }
        due
    }

    fn trusts_connections(&self) -> bool {
        self.trusting.load(Ordering::Relaxed)
    }
}

fn start(database: &Database) -> Writer<Accountant> {
    let (writer, run) = Writer::new("test", Accountant, database.clone(), WriterOptions::default());
    drop(tokio::spawn(run));
    writer
}

/// Opens the database again, as a restarted process does, and returns its content.
async fn stored(backend: &TestDatabase) -> Vec<(i64, i64)> {
    let again = Database::open::<Migrator>(&backend.location).await.expect("a database");
    let stored = amounts(&again).await;
    again.close().await;
    stored
}

/// Writes one command after the other until all faults have occurred and two more writes succeeded; returns the
/// acknowledged ones.
async fn write(writer: &Writer<Accountant>, failing: &Failing) -> Vec<(i64, i64)> {
    let mut acknowledged = Vec::new();
    let mut after = 0;
    for id in 0_i64.. {
        match writer.submit(Command::Put(id, id), soon()).await {
            Ok(answer) => {
                answer.expect("put");
                acknowledged.push((id, id));
                after += usize::from(failing.left() == 0);
            }
            Err(fault) => assert_eq!(fault.reason(), Reason::StorageUnavailable, "{fault:?}"),
        }
        if after > 2 {
            break;
        }
        assert!(id < 100, "the storage is well, and the writer is not");
    }
    acknowledged
}
