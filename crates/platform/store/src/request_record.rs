//! Answered request ids, written in the transaction of the effect.

use std::collections::HashMap;

use domain::request::RequestKey;
use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::DbBackend;
use sea_orm::entity::prelude::*;

use crate::rows::{among, insert_all, insert_missing};
use crate::time::micros;
use crate::transaction::Transaction;

/// The row of a [`Record`].
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "request")]
pub struct Model {
    /// The request_id; first in the key, because it alone nearly identifies the row.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Who called.
    #[sea_orm(primary_key, auto_increment = false)]
    pub caller: String,
    /// What was called.
    #[sea_orm(primary_key, auto_increment = false)]
    pub method: String,
    /// What the content was.
    pub fingerprint: Vec<u8>,
    /// What the call made or changed.
    pub resource: String,
    /// Microseconds since 1970.
    pub create_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// One answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its scope.
    pub key: RequestKey,
    /// Its content, for [`domain::request::Request::matches`]; empty where nobody knows it any more.
    pub fingerprint: Vec<u8>,
    /// The resource that answers a replay, as it is then.
    pub resource: String,
    /// When it was answered.
    pub time: Timestamp,
}

/// The records of those keys that have one, in one statement.
///
/// # Errors
/// What the database says.
pub async fn find(
    connection: &impl ConnectionTrait,
    keys: &[&RequestKey],
) -> Result<HashMap<RequestKey, Record>, DbErr> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let ids = among(connection, Column::Id, keys.iter().map(|key| key.id));
    let rows = Entity::find().filter(ids).all(connection).await?;
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

/// Makes sure that nobody answered one of these requests since `found` was read. Call it once the rows that the batch is about
/// are locked: another replica may have answered the same request while this one waited for them, and what it changed would
/// be mistaken for somebody else's change.
///
/// # Errors
/// One that has the batch run again, with the new records in view; and what the database says.
pub async fn ensure_unanswered(
    transaction: &Transaction,
    keys: &[&RequestKey],
    found: &HashMap<RequestKey, Record>,
) -> Result<(), DbErr> {
    if transaction.get_database_backend() != DbBackend::Postgres {
        // one process writes to a file
        return Ok(());
    }
    if find(transaction, keys).await?.len() == found.len() {
        return Ok(());
    }
    Err(DbErr::Custom("another replica has just answered one of these requests".into()))
}

/// Keeps records of which only is known what they led to, where there are none: without a fingerprint, see
/// [`domain::request::Request::continues`].
///
/// # Errors
/// What the database says.
pub async fn restore(transaction: &impl ConnectionTrait, records: Vec<Record>) -> Result<(), DbErr> {
    insert_missing(transaction, rows(records)).await
}

/// Keeps records.
///
/// # Errors
/// What the database says; a key that has a record already is one.
pub async fn insert(transaction: &impl ConnectionTrait, records: Vec<Record>) -> Result<(), DbErr> {
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

/// Forgets what was answered before `limit`; says how many.
///
/// # Errors
/// What the database says.
pub async fn purge(transaction: &impl ConnectionTrait, limit: Timestamp) -> Result<u64, DbErr> {
    let deleted = Entity::delete_many().filter(Column::CreateTime.lt(micros(limit))).exec(transaction).await?;
    Ok(deleted.rows_affected)
}
