//! The behaviour after a failed statement, in a transaction of the writer and in one outside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fault::Fault;
use futures::future::join_all;
use sea_orm::{DbErr, Statement};
use store::{BatchHandler, Connection as _, Database, Nemesis, Stage, Transaction, Writer, WriterOptions};
use store::{dead_letter, inbox, lease};
use uuid::Uuid;

use super::{Failing, STAGES, soon, start, stored};
use crate::backends;
use crate::tables::Command;

/// A batch handler that ignores a failed statement.
struct Careless;

#[async_trait::async_trait]
impl BatchHandler for Careless {
    type Command = i64;
    type Answer = ();

    async fn execute(&self, transaction: &Transaction, batch: &[&i64]) -> Result<Vec<()>, DbErr> {
        for id in batch {
            let sql = format!("INSERT INTO account (id, amount, label) VALUES ({id}, 1, '')");
            let statement = Statement::from_string(transaction.backend(), sql);
            drop(transaction.execute(statement).await);
        }
        Ok(vec![(); batch.len()])
    }
}

/// Storage that fails at the first statement of every transaction, and at no other.
#[derive(Default)]
struct FirstStatement(AtomicBool);

impl Nemesis for FirstStatement {
    fn storage_fails(&self, stage: Stage) -> bool {
        match stage {
            Stage::Begin => {
                self.0.store(true, Ordering::Relaxed);
                false
            }
            Stage::Statement => self.0.swap(false, Ordering::Relaxed),
            Stage::Commit | Stage::CommitStaysOpen | Stage::Rollback => false,
        }
    }
}

#[tokio::test]
async fn nothing_is_committed_after_a_statement_that_failed() {
    for backend in backends().await {
        let database = backend.database.clone().with_nemesis(Arc::new(FirstStatement::default()));
        let (writer, run) = Writer::new("test", Careless, database, WriterOptions::default());
        drop(tokio::spawn(run));
        let answers: Vec<Result<(), Fault>> = join_all((0..3).map(|id| writer.submit(id, soon()))).await;
        assert!(answers.iter().all(Result::is_err), "{} {answers:?}", backend.name);
        drop(writer);
        assert!(stored(&backend).await.is_empty(), "{}", backend.name);
    }
}

/// Every write outside the writer leaves only connections that the writer can use.
#[tokio::test]
async fn writes_beside_the_writer_leave_no_bad_connection_behind() {
    for stage in STAGES {
        for backend in backends().await {
            let failing = Failing::at([]);
            let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
            let writer = start(&database);
            for beside in 0..5 {
                failing.stages.lock().expect("stages").push_back(stage);
                drop(beside_the_writer(&database, beside).await);
                failing.stages.lock().expect("stages").clear();
                writer.submit(Command::Put(beside, 1), soon()).await.expect("stored").expect("put");
            }
            assert_eq!(stored(&backend).await.len(), 5, "{} {stage:?}", backend.name);
        }
    }
}

async fn beside_the_writer(database: &Database, which: i64) -> Result<(), DbErr> {
    let now = jiff::Timestamp::from_second(1_800_000_000).expect("a time");
    match which {
        0 => lease::acquire(database, Uuid::from_u128(1), Duration::from_secs(1), now).await.map(drop),
        1 => dead_letter::ask_for_replay(database, 1, now).await.map(drop),
        2 => dead_letter::keep(database, 1, "again").await,
        3 => dead_letter::remove(database, 1).await.map(drop),
        _ => {
            inbox::prune(database, "nobody", now).await?;
            lease::release(database, 1).await
        }
    }
}
