//! The conformance suite of the store: what every backend has to do, driven through the public API on real databases.
//!
//! A backend joins by one more line in [`backends`]; every test runs over all of them.
#![allow(clippy::disallowed_methods, reason = "a test owns what it spawns")]

mod pages;
mod tables;
mod writer;

use store::{Database, Location};
use tables::{Migrator, TestDatabase};

/// A fresh database of every backend this machine has.
async fn backends() -> Vec<TestDatabase> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let location = Location::Sqlite(folder.path().join("test.db"));
    let database = Database::open::<Migrator>(&location).await.expect("a database");
    vec![TestDatabase { name: "sqlite", database, location, _folder: folder }]
}
