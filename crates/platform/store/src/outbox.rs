//! The outbox: a service's own events, written in the transaction of the change that they report.
//!
//! If one writer owns the file, positions grow in commit order, which lets an embedded consumer keep a cursor. Rows are
//! kept: a consumer that is added later reads them from the first event, and a broker that lost its data is refilled
//! from them. If a broker is used, a row carries a mark once the broker has acknowledged it.
//!
//! On a shared database a position is assigned before its transaction commits, so an event may appear below a position
//! that was already read. So unpublished events are found by the missing mark and never by a position.

use std::collections::HashSet;

use crate::rows::NoRelation as Relation;
use contract::event::v1::EventEnvelope;
use jiff::Timestamp;
use prost::Message;
use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, QueryOrder, QuerySelect};

use crate::database::Database;
use crate::past;
use crate::rows::insert_all;
use crate::simulation::step;
use crate::statement::{Connection, Fetch as _, Run as _};
use crate::time::micros;

/// The row of one event.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox")]
pub struct Model {
    /// The position in this service's log, from 1.
    #[sea_orm(primary_key)]
    pub position: i64,
    /// The event's id, the same on every transport.
    pub event_id: Uuid,
    /// The event's subject, for filters: see `domain::event::subject`.
    pub subject: String,
    /// The encoded event envelope.
    pub payload: Vec<u8>,
    /// When the event occurred, in microseconds since 1970.
    pub occur_time: i64,
    /// The broker's sequence number, once it has acknowledged the event.
    pub stream_sequence: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}

/// Appends events in this order.
///
/// # Errors
/// The error that the database returns, or an error for an envelope whose event_id is no UUID.
pub async fn append(transaction: &dyn Connection, envelopes: Vec<EventEnvelope>) -> Result<(), DbErr> {
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
            stream_sequence: ActiveValue::Set(None),
        });
    }
    insert_all(transaction, rows).await
}

/// At most `limit` events after a position, oldest first.
///
/// # Errors
/// The error that the database returns.
pub async fn read_after(connection: &dyn Connection, position: i64, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::Position.gt(position))
        .order_by_asc(Column::Position)
        .limit(limit)
        .fetch(connection)
        .await
}

/// The position of the newest event; 0 if there is none.
///
/// # Errors
/// The error that the database returns.
pub async fn head(connection: &dyn Connection) -> Result<i64, DbErr> {
    let newest = Entity::find().select_only().column(Column::Position).order_by_desc(Column::Position);
    Ok(newest.fetch_value(connection).await?.unwrap_or(0))
}

/// How many rows one statement reads in the search for an event.
const SEARCH_BATCH: u64 = 5_000;
/// How much later, in microseconds, than an event its predecessors in the log may have occurred, because the clocks of
/// processes differ.
const MAX_CLOCK_SKEW: i64 = 60 * 60 * 1_000_000;

/// Whether this log has, or once had, an event that a broker holds; events published long ago are removed. `occurred`
/// is when the event occurred, in microseconds since 1970.
///
/// # Errors
/// The error that the database returns.
pub async fn knows(connection: &dyn Connection, event_id: Uuid, occurred: i64) -> Result<bool, DbErr> {
    let mut before = i64::MAX;
    let mut oldest = None;
    loop {
        let rows: Vec<(i64, Uuid, i64)> = Entity::find()
            .select_only()
            .columns([Column::Position, Column::EventId, Column::OccurTime])
            .filter(Column::Position.lt(before))
            .order_by_desc(Column::Position)
            .limit(SEARCH_BATCH)
            .fetch_values(connection)
            .await?;
        if rows.iter().any(|(_, id, _)| *id == event_id) {
            return Ok(true);
        }
        let Some((position, _, time)) = rows.last().copied() else {
            // All remaining events are newer.
            return Ok(oldest.is_some_and(|oldest| oldest > occurred));
        };
        if rows.iter().all(|(_, _, time)| time + MAX_CLOCK_SKEW < occurred) {
            return Ok(false);
        }
        (before, oldest) = (position, Some(time));
    }
}

/// The ids of all events in the log.
///
/// # Errors
/// The error that the database returns.
pub async fn ids(connection: &dyn Connection) -> Result<HashSet<Uuid>, DbErr> {
    let (mut ids, mut after) = (HashSet::new(), 0);
    loop {
        let rows: Vec<(i64, Uuid)> = Entity::find()
            .select_only()
            .columns([Column::Position, Column::EventId])
            .filter(Column::Position.gt(after))
            .order_by_asc(Column::Position)
            .limit(SEARCH_BATCH)
            .fetch_values(connection)
            .await?;
        let Some((last, _)) = rows.last() else { return Ok(ids) };
        after = *last;
        ids.extend(rows.into_iter().map(|(_, id)| id));
    }
}

/// An event that a broker still has and its own service has lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// The event's id, the same on every transport.
    pub event_id: Uuid,
    /// The subject of the event.
    pub subject: String,
    /// The encoded event envelope.
    pub payload: Vec<u8>,
    /// When the event occurred, in microseconds since 1970.
    pub occur_time: i64,
    /// The event's sequence in the broker's stream.
    pub sequence: u64,
}

/// Appends events that were lost to the log, in this order, as published.
///
/// # Errors
/// The error that the database returns.
pub async fn take_back(database: &Database, events: Vec<Returned>) -> Result<(), DbErr> {
    step(async {
        let rows = events.into_iter().map(|event| ActiveModel {
            position: ActiveValue::NotSet,
            event_id: ActiveValue::Set(event.event_id),
            subject: ActiveValue::Set(event.subject),
            payload: ActiveValue::Set(event.payload),
            occur_time: ActiveValue::Set(event.occur_time),
            stream_sequence: ActiveValue::Set(i64::try_from(event.sequence).ok()),
        });
        let rows = rows.collect();
        let transaction = database.begin_outside_writer().await?;
        insert_all(&transaction, rows).await?;
        database.commit(transaction).await
    })
    .await
}

/// At most `limit` of the oldest events without a mark.
///
/// # Errors
/// The error that the database returns.
pub async fn unpublished(connection: &dyn Connection, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::StreamSequence.is_null())
        .order_by_asc(Column::Position)
        .limit(limit)
        .fetch(connection)
        .await
}

/// An event with a mark, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkedEvent {
    /// The position in this service's log.
    pub position: i64,
    /// When the event occurred, in microseconds since 1970.
    pub occur_time: i64,
    /// The sequence with which the broker acknowledged it.
    pub sequence: i64,
}

/// The events with a mark after a position, oldest first, and the position of the last row read; `None` if there is no
/// further row. Reads at most `limit` rows, with or without a mark.
///
/// # Errors
/// The error that the database returns.
pub async fn marked_after(
    connection: &dyn Connection,
    position: i64,
    limit: u64,
) -> Result<Option<(i64, Vec<MarkedEvent>)>, DbErr> {
    let rows: Vec<(i64, i64, Option<i64>)> = Entity::find()
        .select_only()
        .columns([Column::Position, Column::OccurTime, Column::StreamSequence])
        .filter(Column::Position.gt(position))
        .order_by_asc(Column::Position)
        .limit(limit)
        .fetch_values(connection)
        .await?;
    let Some(last) = rows.last().map(|(position, ..)| *position) else { return Ok(None) };
    let marked = |(position, occur_time, sequence): (i64, i64, Option<i64>)| {
        sequence.map(|sequence| MarkedEvent { position, occur_time, sequence })
    };
    Ok(Some((last, rows.into_iter().filter_map(marked).collect())))
}

/// How many events have no mark, and when the oldest of them occurred, in microseconds since 1970. The number is the
/// distance from the oldest of them to the newest event. It may be a few too high, but its cost does not depend on how
/// many wait.
///
/// # Errors
/// The error that the database returns.
pub async fn backlog(connection: &dyn Connection) -> Result<(i64, Option<i64>), DbErr> {
    let waiting = Entity::find()
        .select_only()
        .columns([Column::Position, Column::OccurTime])
        .filter(Column::StreamSequence.is_null())
        .order_by_asc(Column::Position);
    let oldest: Option<(i64, i64)> = waiting.fetch_value(connection).await?;
    let Some((position, occurred)) = oldest else { return Ok((0, None)) };
    Ok((head(connection).await? - position + 1, Some(occurred)))
}

/// How many rows one call of [`prune`] reads.
const PRUNE_BATCH: u64 = 5_000;

/// Removes a chunk of the oldest events: those that were published and occurred before `limit`. True if there may be
/// more.
///
/// # Errors
/// The error that the database returns.
pub async fn prune(database: &Database, limit: Timestamp) -> Result<bool, DbErr> {
    step(async {
        let oldest: Vec<(i64, i64, Option<i64>)> = Entity::find()
            .select_only()
            .columns([Column::Position, Column::OccurTime, Column::StreamSequence])
            .order_by_asc(Column::Position)
            .limit(PRUNE_BATCH)
            .fetch_values(database.reader())
            .await?;
        let (limit, time_limit) = (micros(limit), limit);
        let looked_at = oldest.len() as u64;
        let due = oldest.into_iter().filter(|(_, occurred, published)| *occurred < limit && published.is_some());
        let due: Vec<i64> = due.map(|(position, ..)| position).collect();
        if due.is_empty() {
            return Ok(false);
        }
        let all = due.len() as u64 == looked_at && looked_at == PRUNE_BATCH;
        let transaction = database.begin_outside_writer().await?;
        let last = due.iter().copied().max();
        Entity::delete_many().filter(Column::Position.is_in(due)).run(&transaction).await?;
        if let Some(last) = last {
            past::pruned(&transaction, last, time_limit).await?;
        }
        database.commit(transaction).await?;
        Ok(all)
    })
    .await
}
