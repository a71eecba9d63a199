//! Migrations of a shared database: who applies them, when, and beside which other version.

use store::migration::{MigratorTrait, common};
use store::{Database, Location};

use crate::tables::Migrator;
use crate::{backends, empty};

/// The migrations that an older version of the same service knows.
struct Older;

impl MigratorTrait for Older {
    fn migrations() -> Vec<Box<dyn store::migration::MigrationTrait>> {
        common()
    }
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_refused_with_what_to_do() {
    let Some(url) = empty().await else { return };
    let refused = Database::open::<Migrator>(&Location::Postgres(url)).await.expect_err("no tables");
    let said = refused.to_string();
    assert!(said.contains("test_0001_account") && said.contains("checkup migrate"), "{said}");
    assert!(!refused.is_unreachable());
}

#[tokio::test]
async fn many_may_migrate_at_once_and_again() {
    let Some(url) = empty().await else { return };
    let location = Location::Postgres(url);
    let racing = (0..4).map(|_| Database::migrate::<Migrator>(&location));
    let applied = futures::future::try_join_all(racing).await.expect("migrated");
    assert_eq!(applied.iter().filter(|applied| !applied.is_empty()).count(), 1, "{applied:?}");
    assert!(Database::migrate::<Migrator>(&location).await.expect("again").is_empty());
    Database::open::<Migrator>(&location).await.expect("a database");
}

#[tokio::test]
async fn an_older_version_goes_on_beside_a_newer_one_and_after_it() {
    for backend in backends().await {
        if backend.name == "sqlite" {
            // a file has one process at a time
            backend.database.close().await;
        }
        Database::open::<Older>(&backend.location).await.expect("opened by the older version");
        assert!(Database::migrate::<Older>(&backend.location).await.expect("nothing to do").is_empty());
    }
}

#[tokio::test]
async fn a_collation_that_would_disorder_lists_is_refused() {
    let Some(server) = mesh::for_tests::or_skip("PostgreSQL", mesh::for_tests::postgres().await) else { return };
    let url = server.database("collation").await.expect("an empty database");
    let name = format!("{}_und", url.rsplit('/').next().expect("a name"));
    let make = format!("CREATE DATABASE \"{name}\" TEMPLATE template0 LC_COLLATE 'en_US.UTF-8' LC_CTYPE 'en_US.UTF-8'");
    if server.sql(&url, &make).await.is_err() {
        println!("skipped: the collation en_US.UTF-8 is not on this machine");
        return;
    }
    let location = Location::Postgres(format!("{}/{name}", url.rsplit_once('/').expect("a path").0));
    Database::migrate::<Migrator>(&location).await.expect("migrated");
    let refused = Database::open::<Migrator>(&location).await.expect_err("refused");
    assert!(refused.to_string().contains("--locale C"), "{refused}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let location: Location = "postgres://kim:secret@127.0.0.1:1/hospital".parse().expect("a location");
    let refused = Database::open::<Migrator>(&location).await.expect_err("nobody listens");
    assert!(refused.is_unreachable());
    assert_eq!(refused.to_string(), "cannot open the database hospital on 127.0.0.1:1");
}
