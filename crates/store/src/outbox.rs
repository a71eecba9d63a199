//! Events on their way out, written in the transaction of the change they report.
//!
//! Positions grow in commit order where one writer owns the file, which is what lets an embedded consumer keep a cursor.
//! Rows are kept: they are the log that a consumer added later reads from its first event.

use contract::event::v1::EventEnvelope;
use prost::Message;
use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, QueryOrder, QuerySelect};

use crate::query::insert_all;
use crate::time::micros;

/// One event.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox")]
pub struct Model {
    /// Where in this service's history.
    #[sea_orm(primary_key)]
    pub position: i64,
    /// Its identity on every road.
    pub event_id: Uuid,
    /// What it reports, for filters: see `domain::event::subject`.
    pub subject: String,
    /// The encoded envelope.
    pub payload: Vec<u8>,
    /// Microseconds since 1970.
    pub occur_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// Appends events in this order.
///
/// # Errors
/// What the database says, and an envelope without a UUID as id.
pub async fn append(transaction: &impl ConnectionTrait, envelopes: Vec<EventEnvelope>) -> Result<(), DbErr> {
    let mut rows = Vec::with_capacity(envelopes.len());
    for envelope in envelopes {
        let event_id = Uuid::try_parse(&envelope.event_id).map_err(|error| DbErr::Custom(error.to_string()))?;
        let occurred = envelope.occur_time.as_ref().and_then(domain::civil::decode_time).unwrap_or_default();
        rows.push(ActiveModel {
            position: ActiveValue::NotSet,
            event_id: ActiveValue::Set(event_id),
            subject: ActiveValue::Set(domain::event::subject(&envelope)),
            payload: ActiveValue::Set(envelope.encode_to_vec()),
            occur_time: ActiveValue::Set(micros(occurred)),
        });
    }
    insert_all(transaction, rows).await
}

/// The events after a position, oldest first.
///
/// # Errors
/// What the database says.
pub async fn read_after(connection: &impl ConnectionTrait, position: i64, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::Position.gt(position))
        .order_by_asc(Column::Position)
        .limit(limit)
        .all(connection)
        .await
}

/// The position of the newest event, 0 where there is none.
///
/// # Errors
/// What the database says.
pub async fn head(connection: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let newest = Entity::find().select_only().column(Column::Position).order_by_desc(Column::Position).into_tuple();
    Ok(newest.one(connection).await?.unwrap_or(0))
}
