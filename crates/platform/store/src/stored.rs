//! Reads a database file from outside the process that serves it.

use async_recursion::async_recursion as boxed;
use std::path::Path;

use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, SqliteTransactionMode, Statement};
use sea_orm::{TransactionOptions, TransactionTrait as _};
use uuid::Uuid;

use crate::connection::{Opening, Purpose, connect};
use crate::location::Location;

/// Runs a query for an id and a number on a file; it sees the file's last commit.
///
/// # Errors
/// The error that the database returns.
#[boxed]
pub async fn numbers(file: &Path, query: &str) -> Result<Vec<(Uuid, i64)>, DbErr> {
    let connection =
        connect(&Location::Sqlite(file.to_owned()), Purpose::Read, Opening::Now(&Default::default())).await?;
    let rows = connection.query_all_raw(Statement::from_string(DbBackend::Sqlite, query)).await;
    connection.close().await?;
    rows?.iter().map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))).collect()
}

/// Whether a write to a file can begin within 5 s. A healthy service holds its file for milliseconds at a time. If one
/// transaction never ends, nothing that is acknowledged in it is stored. Writes nothing.
///
/// # Errors
/// The error that the database returns, except that it is busy.
#[boxed]
pub async fn is_free(file: &Path) -> Result<bool, DbErr> {
    let location = Location::Sqlite(file.to_owned());
    let connection = connect(&location, Purpose::Migrate, Opening::Now(&Default::default())).await?;
    let immediate = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let begun = match connection.begin_with_options(immediate).await {
        Ok(transaction) => transaction.rollback().await.map(|()| true),
        Err(error) if error.to_string().contains("locked") => Ok(false),
        Err(error) => Err(error),
    };
    connection.close().await?;
    begun
}
