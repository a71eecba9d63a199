//! Failures of every step of a transaction, repeated and in any order.

use std::sync::Arc;
use std::time::Duration;

use fault::Reason;
use futures::future::join_all;
use store::{Nemesis, Stage};
use tokio::time::Instant;

use super::{Failing, STAGES, soon, start, stored, write};
use crate::backends;
use crate::tables::{Command, TestDatabase, amounts};

#[tokio::test]
async fn what_is_acknowledged_is_stored_whatever_failed_and_how_often() {
    let mut cases = Vec::new();
    for times in [1, 2, 10] {
        for stage in STAGES {
            cases.extend(backends().await.into_iter().map(|backend| acknowledged_is_stored(backend, stage, times)));
        }
    }
    join_all(cases).await;
}

async fn acknowledged_is_stored(backend: TestDatabase, stage: Stage, times: usize) {
    let case = format!("{} {stage:?} {times}", backend.name);
    // A ROLLBACK is reached only after something else has failed.
    let around = if stage == Stage::Rollback { vec![Stage::Statement, stage] } else { vec![stage] };
    let failing = Failing::at(around.iter().copied().cycle().take(times * around.len()));
    let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
    let acknowledged = write(&start(&database), &failing).await;
    let read = amounts(&database).await;
    assert!(*database.writable().borrow(), "{case}");
    let stored = stored(&backend).await;
    assert_eq!(read, stored, "what is served is what is stored: {case}");
    for row in acknowledged {
        assert!(stored.contains(&row), "{row:?} was acknowledged: {case}");
    }
}

#[tokio::test]
async fn every_order_of_faults_is_survived() {
    use proptest::prelude::*;
    let orders = proptest::collection::vec(proptest::sample::select(STAGES.to_vec()), 1..12);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() });
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        runner
            .run(&orders, |order| {
                handle.block_on(async {
                    let backend = crate::sqlite().await;
                    let failing = Failing::at(order.clone());
                    let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
                    let writer = start(&database);
                    let mut acknowledged = Vec::new();
                    for id in 0..12 {
                        let puts = (0..3).map(|part| writer.submit(Command::Put(id * 3 + part, id), soon()));
                        for (part, answer) in join_all(puts).await.into_iter().enumerate() {
                            if answer.is_ok() {
                                acknowledged.push((id * 3 + part as i64, id));
                            }
                        }
                    }
                    let stored = stored(&backend).await;
                    for row in acknowledged {
                        prop_assert!(stored.contains(&row), "{row:?} was acknowledged");
                    }
                    Ok(())
                })
            })
            .expect("nothing acknowledged is lost");
    })
    .await
    .expect("joined");
}

#[tokio::test]
async fn a_connection_that_is_trusted_loses_what_was_acknowledged() {
    // The planted bug. PostgreSQL tolerates it, because a ROLLBACK outside a transaction is only a warning.
    let backend = crate::sqlite().await;
    let failing = Failing::trusting([Stage::Commit, Stage::CommitStaysOpen]);
    let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
    let writer = start(&database);
    let answers = join_all((0..3).map(|id| writer.submit(Command::Put(id, id), soon()))).await;
    assert!(answers.iter().all(Result::is_ok), "it acknowledges: {answers:?}");
    drop(writer);
    assert!(amounts(&database).await.is_empty(), "and has stored nothing that another connection sees");
}

#[tokio::test]
async fn unwritable_storage_is_said_once_refused_quickly_and_healed_without_a_command() {
    for backend in backends().await {
        let failing = Failing::at(std::iter::repeat_n(Stage::Commit, 9));
        let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
        let writer = start(&database);
        let mut writable = database.writable();
        let refused = writer.submit(Command::Put(1, 1), soon()).await.expect_err("seven runs fail");
        assert_eq!(refused.reason(), Reason::StorageUnavailable, "{}", backend.name);
        assert!(refused.retry_delay().is_some() && refused.message().contains("unknown"), "{refused:?}");
        assert!(!*writable.borrow_and_update());
        // From now on each batch gets one run: the eighth commit fails here, the ninth in the probe.
        let begin = Instant::now();
        writer.submit(Command::Put(2, 2), soon()).await.expect_err("one run fails");
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        tokio::time::timeout(Duration::from_secs(20), writable.wait_for(|writable| *writable))
            .await
            .expect("healed")
            .expect("there");
        writer.submit(Command::Put(3, 3), soon()).await.expect("stored").expect("put");
        assert_eq!(stored(&backend).await.last(), Some(&(3, 3)), "{}", backend.name);
    }
}
