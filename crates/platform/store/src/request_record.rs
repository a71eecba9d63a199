//! The records of answered requests, written in the transaction of the effect.

use std::collections::HashMap;

use crate::rows::NoRelation as Relation;
use domain::request::RequestKey;
use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::DbBackend;
use sea_orm::entity::prelude::*;

use crate::rows::{among, insert_all, insert_missing};
use crate::statement::{Connection, Fetch as _, Run as _};
use crate::time::micros;
use crate::transaction::Transaction;

/// The row of a [`Record`].
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "request")]
pub struct Model {
    /// The request_id. It comes first in the key because it alone nearly identifies the row.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The caller as text, for example `customer:kim`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub caller: String,
    /// The bare name of the method.
    #[sea_orm(primary_key, auto_increment = false)]
    pub method: String,
    /// The fingerprint of the content; empty if it is not known.
    pub fingerprint: Vec<u8>,
    /// The name of the resource that the call made or changed.
    pub resource: String,
    /// When it was answered, in microseconds since 1970.
    pub create_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// A request that was answered, and what answers its replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The caller, the method and the request_id.
    pub key: RequestKey,
    /// The fingerprint of the content, for [`domain::request::Request::matches`]; empty if it is no longer known.
    pub fingerprint: Vec<u8>,
    /// The name of the resource that a replay answers, in its state at the replay.
    pub resource: String,
    /// When the request was answered.
    pub time: Timestamp,
}

/// The records of these keys, read in one statement. Keys without a record are not in the map.
///
/// # Errors
/// The error that the database returns.
pub async fn find(connection: &dyn Connection, keys: &[&RequestKey]) -> Result<HashMap<RequestKey, Record>, DbErr> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let ids = among(connection, Column::Id, keys.iter().map(|key| key.id));
    let rows = Entity::find().filter(ids).fetch(connection).await?;
    let mut found = HashMap::new();
    for row in rows {
        let key = keys.iter().find(|key| key.id == row.id && key.caller == row.caller && key.method == row.method);
        if let Some(key) = key {
            let time = crate::time::timestamp(row.create_time);
            let record = Record { key: (*key).clone(), fingerprint: row.fingerprint, resource: row.resource, time };
            found.insert((*key).clone(), record);
        }
    }
    Ok(found)
}

/// Checks that nobody has answered one of these requests since `found` was read. Call it once the rows that the batch
/// changes are locked. Another replica may have answered the same request while this one waited for the locks, and its
/// change would look like somebody else's.
///
/// # Errors
/// An error that makes the batch run again, with the new records in view; or the error that the database returns.
pub async fn ensure_unanswered(
    transaction: &Transaction,
    keys: &[&RequestKey],
    found: &HashMap<RequestKey, Record>,
) -> Result<(), DbErr> {
    if transaction.backend() != DbBackend::Postgres {
        // Only one process writes to a file.
        return Ok(());
    }
    if find(transaction, keys).await?.len() == found.len() {
        return Ok(());
    }
    Err(DbErr::Custom("another replica has just answered one of these requests".into()))
}

/// Inserts records that were rebuilt from their effects and have no fingerprint, see
/// [`domain::request::Request::continues`]. An existing record stays as it is.
///
/// # Errors
/// The error that the database returns.
pub async fn restore(transaction: &dyn Connection, records: Vec<Record>) -> Result<(), DbErr> {
    insert_missing(transaction, rows(records)).await
}

/// Inserts records of new keys.
///
/// # Errors
/// The error that the database returns, for example if a key has a record already.
pub async fn insert(transaction: &dyn Connection, records: Vec<Record>) -> Result<(), DbErr> {
    insert_all(transaction, rows(records)).await
}

fn rows(records: Vec<Record>) -> Vec<ActiveModel> {
    let row = |record: Record| ActiveModel {
        id: Set(record.key.id),
        caller: Set(record.key.caller),
        method: Set(record.key.method.to_owned()),
        fingerprint: Set(record.fingerprint),
        resource: Set(record.resource),
        create_time: Set(micros(record.time)),
    };
    records.into_iter().map(row).collect()
}

/// Deletes the records of requests answered before `limit`; returns how many.
///
/// # Errors
/// The error that the database returns.
pub async fn purge(transaction: &dyn Connection, limit: Timestamp) -> Result<u64, DbErr> {
    let deleted = Entity::delete_many().filter(Column::CreateTime.lt(micros(limit))).run(transaction).await?;
    Ok(deleted)
}
