//! Reads that find no connection: the refusal that callers get, and how soon.

use std::time::Duration;

use fault::Reason;
use futures::future::join_all;
use mesh::Postgres;
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::Query;
use store::read::failed;
use store::{Database, Location, Reader};
use testkit::eventually;
use tokio::time::Instant;

use crate::backends;
use crate::tables::Migrator;

/// More than the reading connections of any backend.
const MORE_THAN_READERS: usize = 64;

/// Reads one row; returns the reason if the read is refused.
async fn read(reader: &Reader) -> Result<(), Reason> {
    let statement = Query::select().expr(1).to_owned();
    reader.query_one(&statement).await.map(drop).map_err(|error| failed(error).reason())
}

#[tokio::test]
async fn a_page_that_finds_every_connection_busy_is_told_to_back_off_and_a_row_is_read() {
    for backend in backends().await {
        let mut held = Vec::new();
        let begun = Instant::now();
        let busy = loop {
            match backend.database.snapshot().await {
                Ok(snapshot) => held.push(snapshot),
                Err(busy) => break busy,
            }
            assert!(held.len() < MORE_THAN_READERS, "{}: readers without end", backend.name);
        };
        assert!(begun.elapsed() < Duration::from_secs(3), "{}: {:?}", backend.name, begun.elapsed());
        let refusal = failed(busy);
        assert_eq!(refusal.reason(), Reason::Overloaded, "{}: {refusal:?}", backend.name);
        assert!(refusal.retry_delay().is_some());
        assert_eq!(read(backend.database.pages()).await, Err(Reason::Overloaded), "{}", backend.name);
        assert_eq!(read(backend.database.reader()).await, Ok(()), "{}: pages leave a connection", backend.name);
        drop(held);
        assert_eq!(read(backend.database.pages()).await, Ok(()), "{}", backend.name);
    }
}

/// A server that accepts no connections is not reported as busy, however many reads wait.
#[tokio::test]
async fn reads_of_a_server_that_is_down_are_told_so() {
    let Some(mut server) = mesh::for_tests::or_skip("PostgreSQL", Postgres::start().await) else { return };
    server.create_database("down").await.expect("a database");
    let location = Location::Postgres(server.url("down"));
    Database::migrate::<Migrator>(&location).await.expect("migrated");
    let database = Database::open::<Migrator>(&location).await.expect("a database");
    join_all((0..MORE_THAN_READERS).map(|_| read(database.reader())))
        .await
        .into_iter()
        .for_each(|read| assert_eq!(read, Ok(())));
    // First with connections that break, then with none.
    server.stop_immediate().await.expect("stopped");
    for round in 0..2 {
        let begun = Instant::now();
        let rows = (0..MORE_THAN_READERS).map(|_| read(database.reader()));
        let pages = (0..MORE_THAN_READERS).map(|_| read(database.pages()));
        let (rows, pages) = tokio::join!(join_all(rows), join_all(pages));
        for read in rows.into_iter().chain(pages) {
            assert_eq!(read, Err(Reason::StorageUnavailable), "round {round}");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    server.restart().await.expect("started again");
    eventually("rows to be read again", async || read(database.reader()).await.map_err(|why| format!("{why:?}"))).await;
}
