//! The conformance suite of the store: the guarantees of every backend, tested through the public API on real
//! databases.
//!
//! A new backend adds one line to [`backends`]; every test runs over all backends.
#![allow(clippy::disallowed_methods, reason = "a test owns what it spawns")]

mod busy;
mod copies;
mod lease;
mod pages;
mod past;
mod pooled;
mod rows;
mod schedules;
mod schema;
mod shared;
mod storage;
mod tables;
mod writer;

use store::{Database, Location};
use tables::{Migrator, TestDatabase};

/// Removes what was published and appended before `limit`, and repeats nothing.
async fn prune(database: &Database, limit: jiff::Timestamp) {
    let due = store::outbox::due(database.reader(), limit, true).await.expect("rows");
    let positions: Vec<i64> = due.iter().map(|row| row.position).collect();
    assert!(store::outbox::replace(database, &positions, &[], limit).await.expect("removed"));
}

/// A fresh database of every backend that this machine has.
async fn backends() -> Vec<TestDatabase> {
    let mut backends = vec![sqlite().await];
    backends.extend(postgres().await);
    backends
}

pub(crate) async fn sqlite() -> TestDatabase {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let location = Location::Sqlite(folder.path().join("test.db"));
    let database = Database::open::<Migrator>(&location).await.expect("a database");
    TestDatabase { name: "sqlite", database, location, _folder: Some(folder) }
}

/// A fresh database on the test's PostgreSQL server; `None` if there is no server.
async fn postgres() -> Option<TestDatabase> {
    let location = Location::Postgres(empty().await?);
    Database::migrate::<Migrator>(&location).await.expect("migrated");
    let database = Database::open::<Migrator>(&location).await.expect("a database");
    Some(TestDatabase { name: "postgres", database, location, _folder: None })
}

/// The address of an empty database on the test's PostgreSQL server; `None` if there is no server.
async fn empty() -> Option<String> {
    let server = mesh::for_tests::or_skip("PostgreSQL", mesh::for_tests::postgres().await)?;
    Some(server.database("store").await.expect("an empty database"))
}
