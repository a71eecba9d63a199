//! The events that the rules decided to ignore, stored to explain why.

#![expect(unreachable_pub, reason = "the entity macro emits pub items")]

use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;

use crate::rows::NoRelation as Relation;
use crate::statement::{Connection, Run as _};
use crate::time::micros;

/// An event that the rules decided to ignore.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ignored_event")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_id: Uuid,
    pub aggregate: String,
    pub reason: String,
    pub ignore_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// An event that the rules decided to ignore, stored to explain why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The id of the event.
    pub event_id: Uuid,
    /// The name of the resource that it would have changed.
    pub aggregate: String,
    /// Why it changed nothing.
    pub reason: String,
    /// When it was ignored.
    pub time: Timestamp,
}

/// Stores the events that the rules decided to ignore.
///
/// # Errors
/// The error that the database returns.
pub async fn record_ignored(transaction: &dyn Connection, events: Vec<Ignored>) -> Result<(), DbErr> {
    if events.is_empty() {
        return Ok(());
    }
    let rows = events.into_iter().map(|event| ActiveModel {
        event_id: Set(event.event_id),
        aggregate: Set(event.aggregate),
        reason: Set(event.reason),
        ignore_time: Set(micros(event.time)),
    });
    let keep = OnConflict::column(Column::EventId).do_nothing_on([Column::EventId]).to_owned();
    Entity::insert_many(rows).on_conflict(keep).run(transaction).await?;
    Ok(())
}
