//! Copies of files that are written to meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::ConnectionTrait;
use store::backup::{Copy, copy_all};
use store::{Database, Location, outbox};

use crate::pages::{envelope, writing};
use crate::sqlite;
use crate::tables::Migrator;

const ROUNDS: u32 = 20;

/// The first and the last file are written alternately, so at every instant the first has as many rows as the last, or
/// one more. Read one after the other, the last one often has many more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_of_one_instant_whatever_is_written_meanwhile() {
    let mut files = Vec::new();
    for _ in 0..5 {
        files.push(sqlite().await);
    }
    let (first, last) = (writing(&files[0]).await, writing(&files[4]).await);
    for connection in [&first, &last] {
        connection.execute_unprepared("PRAGMA synchronous = OFF").await.expect("fast commits");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                for connection in [&first, &last] {
                    outbox::append(connection, &[envelope(1)]).await.expect("it waits for no more than a moment");
                }
            }
        })
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut grown = 0;
    for round in 0..ROUNDS {
        let copies = files.iter().enumerate().map(|(index, file)| {
            let Location::Sqlite(source) = &file.location else { panic!("a file") };
            Copy { source: source.clone(), target: folder.path().join(format!("{round}-{index}.db")) }
        });
        let copies: Vec<Copy> = copies.collect();
        let mut copied = 0;
        let heads = copy_all(&copies, |_| copied += 1).await.expect("copied");
        assert_eq!(copied, 5);
        assert!((0..=1).contains(&(heads[0] - heads[4])), "not of one instant: {heads:?}");
        assert!(heads[0] >= grown);
        grown = heads[0];
        // A copy is a normal database, and its log continues where it ended.
        let copy = Location::Sqlite(copies[0].target.clone());
        let database = Database::open::<Migrator>(&copy).await.expect("it opens");
        outbox::take_back(&database, vec![]).await.expect("it takes writes");
        assert_eq!(outbox::read_after(database.reader(), 0, 1_000_000).await.expect("its rows").len() as i64, heads[0]);
        database.close().await;
    }
    assert!(grown > 0, "something was written meanwhile");
    stop.store(true, Ordering::Relaxed);
    writing.await.expect("the writer");
}
