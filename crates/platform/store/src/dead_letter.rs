//! Dead letters: events that a consumer could not apply, stored with their bytes and the error, and their replay.
//!
//! A request to apply a dead letter again is stored here. The consumer, in whichever process it runs, polls for such
//! requests and applies them.

use crate::rows::NoRelation as Relation;
use jiff::Timestamp;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::ExprTrait;
use sea_orm::{IntoActiveModel, QueryOrder, QuerySelect};

use crate::database::Database;
use crate::inbox;
use crate::simulation::step;
use crate::statement::{Connection, Fetch as _, Run as _};
use crate::time::micros;

/// The row of a [`DeadLetter`].
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "dead_letter")]
pub struct Model {
    /// The number of the dead letter, which grows.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// The consumer that could not apply the event.
    pub consumer: String,
    /// The event's id as text; empty if it could not be read.
    pub event_id: String,
    /// The subject of the event.
    pub subject: String,
    /// The bytes of the event, unchanged.
    pub payload: Vec<u8>,
    /// The error of the last try.
    pub error: String,
    /// How often the event was tried.
    pub attempts: i32,
    /// When it was given up, in microseconds since 1970.
    pub bury_time: i64,
    /// When somebody asked to apply it again, in microseconds since 1970.
    pub replay_time: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}

/// An event that could not be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The consumer that could not apply the event.
    pub consumer: String,
    /// The event's id as text; empty if it could not be read.
    pub event_id: String,
    /// The subject of the event.
    pub subject: String,
    /// The bytes of the event, unchanged.
    pub payload: Vec<u8>,
    /// The error of the last try.
    pub error: String,
    /// How often the event was tried.
    pub attempts: i32,
    /// When the event was given up.
    pub time: Timestamp,
}

/// Stores a dead letter.
///
/// # Errors
/// The error that the database returns.
pub async fn put(transaction: &dyn Connection, dead_letter: &DeadLetter) -> Result<(), DbErr> {
    let row = ActiveModel {
        id: NotSet,
        consumer: Set(dead_letter.consumer.clone()),
        event_id: Set(dead_letter.event_id.clone()),
        subject: Set(dead_letter.subject.clone()),
        payload: Set(dead_letter.payload.clone()),
        error: Set(dead_letter.error.clone()),
        attempts: Set(dead_letter.attempts),
        bury_time: Set(micros(dead_letter.time)),
        replay_time: Set(None),
    };
    Entity::insert(row).run(transaction).await?;
    Ok(())
}

/// How many dead letters are stored.
///
/// # Errors
/// The error that the database returns.
pub async fn count(connection: &dyn Connection) -> Result<u64, DbErr> {
    Entity::find().fetch_count(connection).await
}

/// At most `limit` dead letters with a greater id than `after`, oldest first.
///
/// # Errors
/// The error that the database returns.
pub async fn list(connection: &dyn Connection, after: i64, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find().filter(Column::Id.gt(after)).order_by_asc(Column::Id).limit(limit).fetch(connection).await
}

/// The dead letter with this id; `None` if there is none.
///
/// # Errors
/// The error that the database returns.
pub async fn get(connection: &dyn Connection, id: i64) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).fetch_one(connection).await
}

/// Asks the consumer to apply a dead letter again. From now on its inbox does not know the event. False if there is no
/// such dead letter.
///
/// # Errors
/// The error that the database returns.
pub async fn ask_for_replay(database: &Database, id: i64, now: Timestamp) -> Result<bool, DbErr> {
    step(async {
        let transaction = database.begin_outside_writer().await?;
        let Some(dead_letter) = Entity::find_by_id(id).lock_exclusive().fetch_one(&transaction).await? else {
            transaction.rollback().await?;
            return Ok(false);
        };
        inbox::forget(&transaction, &dead_letter.consumer, seen_as(&dead_letter.event_id, &dead_letter.payload))
            .await?;
        let mut dead_letter = dead_letter.into_active_model();
        dead_letter.replay_time = Set(Some(micros(now)));
        Entity::update(dead_letter).validate()?.run(&transaction).await?;
        database.commit(transaction).await?;
        Ok(true)
    })
    .await
}

/// The dead letters of a consumer that somebody asked to apply again, oldest first.
///
/// # Errors
/// The error that the database returns.
pub async fn asked_for(connection: &dyn Connection, consumer: &str, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::Consumer.eq(consumer))
        .filter(Column::ReplayTime.is_not_null())
        .order_by_asc(Column::Id)
        .limit(limit)
        .fetch(connection)
        .await
}

/// Keeps a dead letter whose replay failed, with the new error, until somebody asks again.
///
/// # Errors
/// The error that the database returns.
pub async fn keep(database: &Database, id: i64, error: &str) -> Result<(), DbErr> {
    step(async {
        let transaction = database.begin_outside_writer().await?;
        Entity::update_many()
            .col_expr(Column::ReplayTime, Expr::val(Option::<i64>::None))
            .col_expr(Column::Error, Expr::val(error))
            .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
            .filter(Column::Id.eq(id))
            .run(&transaction)
            .await?;
        database.commit(transaction).await
    })
    .await
}

/// Deletes a dead letter; false if there is none with this id.
///
/// # Errors
/// The error that the database returns.
pub async fn remove(database: &Database, id: i64) -> Result<bool, DbErr> {
    step(async {
        let transaction = database.begin_outside_writer().await?;
        let removed = Entity::delete_by_id(id).run(&transaction).await?;
        database.commit(transaction).await?;
        Ok(removed > 0)
    })
    .await
}

/// The id under which the inbox knows an event: its own or, if that cannot be parsed, a digest of its bytes.
#[must_use]
pub fn seen_as(event_id: &str, payload: &[u8]) -> Uuid {
    Uuid::try_parse(event_id).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, payload))
}
