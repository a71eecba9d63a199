//! Behaviour on a database that several processes write to.

use std::time::Duration;

use fault::Reason;
use futures::future::join_all;
use mesh::Postgres;
use store::{Database, Location, Writer, WriterOptions};
use tokio::time::Instant;

use crate::tables::{Accountant, Command, Gate, Migrator, amounts};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

async fn open(location: &Location) -> (Database, Writer<Accountant>) {
    let database = Database::open::<Migrator>(location).await.expect("a database");
    let (writer, run) = Writer::new("test", Accountant, database.clone(), WriterOptions::default());
    drop(tokio::spawn(run));
    (database, writer)
}

/// Two replicas insert the same new rows at once: the second one finds the first one's rows, and nobody is blamed.
#[tokio::test]
async fn replicas_that_insert_the_same_rows_agree() {
    let Some(backend) = crate::postgres().await else { return };
    let (_, one) = open(&backend.location).await;
    let (_, other) = open(&backend.location).await;
    let inserts = (0..200).flat_map(|id| [(&one, id), (&other, id)]);
    let answers = join_all(inserts.map(|(writer, id)| writer.submit(Command::Insert(id), soon()))).await;
    for answer in answers {
        answer.expect("stored").expect("inserted or found");
    }
    assert_eq!(amounts(&backend.database).await.len(), 200);
}

/// A process that stops in the middle of a transaction keeps its row locks until the server ends it.
#[tokio::test]
async fn a_client_that_stops_in_mid_transaction_loses_its_locks() {
    let Some(backend) = crate::postgres().await else { return };
    static GATE: Gate = Gate::new();
    let (_, stopped) = open(&backend.location).await;
    let (_, writer) = open(&backend.location).await;
    writer.submit(Command::Put(1, 1), soon()).await.expect("stored").expect("put");
    let held = tokio::spawn(async move { stopped.submit(Command::Hold(1, 9, &GATE), soon()).await });
    GATE.arrived.acquire().await.expect("it holds the row").forget();
    let began = Instant::now();
    let answer = writer.submit(Command::Put(1, 2), soon()).await;
    answer.expect("the lock is given up").expect("put");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(amounts(&backend.database).await, [(1, 2)]);
    // The process wakes, finds its transaction gone, and repeats it: its caller was not told of a failure.
    GATE.open.add_permits(10);
    held.await.expect("a task").expect("stored").expect("put");
    assert_eq!(amounts(&backend.database).await, [(1, 9)]);
}

/// The server crashes and returns under load: every answered command is stored, every other command was refused
/// correctly.
#[tokio::test]
async fn a_crash_of_the_server_loses_nothing_that_was_answered() {
    let Some(mut server) = mesh::for_tests::or_skip("PostgreSQL", Postgres::start().await) else { return };
    server.create_database("crash").await.expect("a database");
    let location = Location::Postgres(server.url("crash"));
    Database::migrate::<Migrator>(&location).await.expect("migrated");
    let (database, writer) = open(&location).await;
    let (mut stored, mut next) = (Vec::new(), 0);
    for _ in 0..3 {
        let puts = (next..next + 300).map(|id| {
            let writer = writer.clone();
            tokio::spawn(async move { (id, writer.submit(Command::Put(id, 1), soon()).await) })
        });
        let puts: Vec<_> = puts.collect();
        next += 300;
        server.stop_immediate().await.expect("stopped");
        server.restart().await.expect("started again");
        for put in puts {
            match put.await.expect("a task") {
                (id, Ok(Ok(_))) => stored.push(id),
                (_, Ok(Err(fault)) | Err(fault)) => assert_eq!(fault.reason(), Reason::StorageUnavailable),
            }
        }
    }
    writer.submit(Command::Put(next, 1), soon()).await.expect("it works again").expect("put");
    let there: Vec<i64> = amounts(&database).await.into_iter().map(|(id, _)| id).collect();
    assert!(stored.iter().all(|id| there.contains(id)), "{} stored, {} there", stored.len(), there.len());
}

/// A text that PostgreSQL cannot store makes only its own command fail.
#[tokio::test]
async fn a_row_that_cannot_be_stored_fails_its_own_command_and_not_its_neighbours() {
    let Some(backend) = crate::postgres().await else { return };
    let (_, writer) = open(&backend.location).await;
    let (bad, good) =
        tokio::join!(writer.submit(Command::Label(1, "\0"), soon()), writer.submit(Command::Put(2, 2), soon()));
    assert_eq!(bad.expect_err("unstorable").reason(), Reason::Internal);
    good.expect("stored").expect("put");
    assert_eq!(amounts(&backend.database).await, [(2, 2)]);
}
