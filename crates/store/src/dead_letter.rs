//! Events that a consumer could not apply, kept with their bytes and the error.

use jiff::Timestamp;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::PaginatorTrait;
use sea_orm::entity::prelude::*;

use crate::time::micros;

/// The row of a [`DeadLetter`].
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "dead_letter")]
pub struct Model {
    /// Counts up.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// Who could not apply it.
    pub consumer: String,
    /// Its id, as far as it could be read.
    pub event_id: String,
    /// Its subject.
    pub subject: String,
    /// Its bytes, unchanged.
    pub payload: Vec<u8>,
    /// The last error.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// Microseconds since 1970.
    pub bury_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// An event that could not be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Who could not apply it.
    pub consumer: String,
    /// Its id, as far as it could be read.
    pub event_id: String,
    /// Its subject.
    pub subject: String,
    /// Its bytes, unchanged.
    pub payload: Vec<u8>,
    /// The last error.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was given up.
    pub time: Timestamp,
}

/// Keeps one.
///
/// # Errors
/// What the database says.
pub async fn put(transaction: &impl ConnectionTrait, letter: &DeadLetter) -> Result<(), DbErr> {
    let row = ActiveModel {
        id: NotSet,
        consumer: Set(letter.consumer.clone()),
        event_id: Set(letter.event_id.clone()),
        subject: Set(letter.subject.clone()),
        payload: Set(letter.payload.clone()),
        error: Set(letter.error.clone()),
        attempts: Set(letter.attempts),
        bury_time: Set(micros(letter.time)),
    };
    Entity::insert(row).exec_without_returning(transaction).await?;
    Ok(())
}

/// How many there are.
///
/// # Errors
/// What the database says.
pub async fn count(connection: &impl ConnectionTrait) -> Result<u64, DbErr> {
    Entity::find().count(connection).await
}
