//! Copies of several SQLite files at one common instant, while they are in use.
//!
//! While the write locks of all files are held, nothing is committed anywhere: that is the common instant. A read
//! transaction is begun on each file meanwhile. Then the locks are released, and the state that the transactions see is
//! copied, however long that takes.

use std::path::{Path, PathBuf};

use async_recursion::async_recursion as boxed;
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait,
};

use crate::settings::ACQUIRE_TIMEOUT;

/// A file and the path of its copy, where no file exists yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The file to copy.
    pub source: PathBuf,
    /// The path of the copy.
    pub target: PathBuf,
}

/// A copy in progress. Its connection has the copy open, with the source attached.
struct Copying {
    connection: DatabaseConnection,
    reading: DatabaseTransaction,
}

/// Copies files in their state at one instant; returns the newest outbox position of each. `copied` is called for every
/// finished file.
///
/// # Errors
/// The error that the database returns. Parts of copies may exist then.
pub async fn copy_all(copies: &[Copy], mut copied: impl FnMut(&Copy)) -> Result<Vec<i64>, DbErr> {
    let mut connections = Vec::with_capacity(copies.len());
    for copy in copies {
        let connection = open(&copy.target, true).await?;
        let path = copy.source.to_string_lossy().into_owned();
        let attach = Statement::from_sql_and_values(DbBackend::Sqlite, "ATTACH DATABASE ? AS source", [path.into()]);
        connection.execute_raw(attach).await?;
        connections.push(connection);
    }
    let mut begun = Vec::with_capacity(copies.len());
    for copying in cut(copies, connections).await? {
        begun.push(copying);
    }
    let mut heads = Vec::with_capacity(copies.len());
    for (copy, Copying { connection, reading }) in copies.iter().zip(begun) {
        fill(&reading).await?;
        heads.push(head(&reading).await?);
        reading.commit().await?;
        connection.close().await?;
        let done = std::fs::File::open(&copy.target).and_then(|file| file.sync_all());
        done.map_err(|error| DbErr::Custom(format!("cannot sync {}: {error}", copy.target.display())))?;
        copied(copy);
    }
    Ok(heads)
}

/// Begins to read all sources at one instant.
#[boxed]
async fn cut(copies: &[Copy], connections: Vec<DatabaseConnection>) -> Result<Vec<Copying>, DbErr> {
    let mut locks = Vec::with_capacity(copies.len());
    for copy in copies {
        let connection = open(&copy.source, false).await?;
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let lock = connection.begin_with_options(options).await?;
        locks.push((connection, lock));
    }
    let mut begun = Vec::with_capacity(copies.len());
    for connection in connections {
        let reading = connection.begin().await?;
        // A transaction reads the state at its first statement.
        reading.query_one_raw(select("SELECT count(*) FROM source.sqlite_master")).await?;
        begun.push(Copying { connection, reading });
    }
    for (connection, lock) in locks {
        lock.rollback().await?;
        connection.close().await?;
    }
    Ok(begun)
}

#[boxed]
async fn open(path: &Path, new: bool) -> Result<DatabaseConnection, DbErr> {
    let path = path.to_owned();
    let mut options = ConnectOptions::new("sqlite::memory:");
    options.map_sqlx_sqlite_opts(move |sqlite| {
        let sqlite = sqlite
            .in_memory(false)
            .shared_cache(false)
            .filename(&path)
            .create_if_missing(new)
            .busy_timeout(ACQUIRE_TIMEOUT)
            .foreign_keys(false);
        // An incomplete copy is discarded, and a complete one is synced at its end.
        if new { sqlite.pragma("journal_mode", "OFF").pragma("synchronous", "OFF") } else { sqlite }
    });
    options.map_sqlx_sqlite_pool_opts(|pool| pool.idle_timeout(None).max_lifetime(None));
    options.max_connections(1).min_connections(1).sqlx_logging(false);
    sea_orm::Database::connect(options).await
}

/// The newest position of the outbox.
async fn head(reading: &DatabaseTransaction) -> Result<i64, DbErr> {
    let row = reading.query_one_raw(select("SELECT coalesce(max(position), 0) FROM outbox")).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index(0))
}

fn select(sql: &str) -> Statement {
    Statement::from_string(DbBackend::Sqlite, sql)
}

/// Copies the schema and every row. Indexes are made after the rows.
#[boxed]
async fn fill(reading: &DatabaseTransaction) -> Result<(), DbErr> {
    let entries = select(
        "SELECT type, name, sql FROM source.sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    );
    let (mut tables, mut others) = (Vec::new(), Vec::new());
    for row in reading.query_all_raw(entries).await? {
        let (kind, name, sql): (String, String, String) =
            (row.try_get_by_index(0)?, row.try_get_by_index(1)?, row.try_get_by_index(2)?);
        if kind == "table" { tables.push((name, sql)) } else { others.push(sql) }
    }
    for (name, sql) in &tables {
        reading.execute_unprepared(sql).await?;
        let name = name.replace('"', "\"\"");
        reading.execute_unprepared(&format!("INSERT INTO main.\"{name}\" SELECT * FROM source.\"{name}\"")).await?;
    }
    for sql in &others {
        reading.execute_unprepared(sql).await?;
    }
    let counted = "SELECT 1 FROM source.sqlite_master WHERE name = 'sqlite_sequence'";
    if reading.query_one_raw(select(counted)).await?.is_some() {
        reading.execute_unprepared("DELETE FROM main.sqlite_sequence").await?;
        reading.execute_unprepared("INSERT INTO main.sqlite_sequence SELECT * FROM source.sqlite_sequence").await?;
    }
    Ok(())
}
