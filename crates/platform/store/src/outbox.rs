//! The outbox: a service's own events, written in the transaction of the change that they report. A row is a frame of
//! them: see `domain::frame`. Rows of earlier versions are single events.
//!
//! If one writer owns the file, positions grow in commit order, which lets an embedded consumer keep a cursor. Rows are
//! kept for a time, and those that the state follows from for ever: see `domain::retention`. So a consumer that is
//! added later learns the state of everything from them, and a broker that lost its data is refilled. If a broker is
//! used, a row carries a mark once the broker has acknowledged it.
//!
//! On a shared database a position is assigned before its transaction commits, so an event may appear below a position
//! that was already read. So unpublished events are found by the missing mark and never by a position.

use std::collections::HashSet;

use crate::rows::NoRelation as Relation;
use contract::event::v1::EventEnvelope;
use domain::frame::{self, Frame};
use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue, QueryOrder, QuerySelect};

use crate::database::Database;
use crate::gap;
pub use crate::recent::Entry;
use crate::rows::insert_all;
use crate::simulation::step;
use crate::statement::{Connection, Fetch as _, Run as _};
use crate::time::micros;

/// The row of one frame.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox")]
pub struct Model {
    /// The position in this service's log, from 1.
    #[sea_orm(primary_key)]
    pub position: i64,
    /// The frame's id, the same on every transport.
    pub event_id: Uuid,
    /// The subject of its events, for filters: see `domain::event::subject`.
    pub subject: String,
    /// The encoded frame, or the envelope that an earlier version of this software wrote.
    pub payload: Vec<u8>,
    /// When the newest of its events occurred, in microseconds since 1970; where the frame repeats events, when it
    /// does.
    pub occur_time: i64,
    /// The broker's sequence number, once it has acknowledged the frame.
    pub stream_sequence: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}

/// Appends events in this order, as frames.
///
/// # Errors
/// The error that the database returns, or an error for an envelope whose event_id is no UUID.
pub async fn append(transaction: &dyn Connection, envelopes: &[EventEnvelope]) -> Result<(), DbErr> {
    let frames = frame::frames(envelopes).map_err(|malformed| DbErr::Custom(malformed.0))?;
    append_frames(transaction, &frames).await
}

async fn append_frames(transaction: &dyn Connection, frames: &[Frame]) -> Result<(), DbErr> {
    let row = |frame: &Frame| ActiveModel {
        position: ActiveValue::NotSet,
        event_id: ActiveValue::Set(frame.id),
        subject: ActiveValue::Set(frame.subject.clone()),
        payload: ActiveValue::Set(frame.payload.clone()),
        occur_time: ActiveValue::Set(micros(frame.occur_time)),
        stream_sequence: ActiveValue::Set(None),
    };
    insert_all(transaction, frames.iter().map(row).collect()).await?;
    if !frames.is_empty() {
        transaction.appended(frames).await?;
    }
    Ok(())
}

/// At most `limit` frames after a position, oldest first: from memory, if this process has just committed them, else
/// from the table.
///
/// # Errors
/// The error that the database returns.
pub async fn entries_after(database: &Database, position: i64, limit: usize) -> Result<Vec<Entry>, DbErr> {
    if let Some(entries) = database.recent().after(position, limit) {
        return Ok(entries);
    }
    let rows = read_after(database.reader(), position, limit as u64).await?;
    let entry = |row: Model| Entry { position: row.position, subject: row.subject, payload: row.payload };
    Ok(rows.into_iter().map(entry).collect())
}

/// At most `limit` frames after a position, oldest first.
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

/// The position of the newest frame; 0 if there is none.
///
/// # Errors
/// The error that the database returns.
pub async fn head(connection: &dyn Connection) -> Result<i64, DbErr> {
    let newest = Entity::find().select_only().column(Column::Position).order_by_desc(Column::Position);
    Ok(newest.fetch_value(connection).await?.unwrap_or(0))
}

/// How many rows one statement reads in the search for a frame.
const SEARCH_BATCH: u64 = 5_000;
/// How much later, in microseconds, than a frame its predecessors in the log may have occurred, because the clocks of
/// processes differ.
const MAX_CLOCK_SKEW: i64 = 60 * 60 * 1_000_000;

/// Whether this log has, or once had, a frame that a broker holds; frames published long ago are removed. `occurred` is
/// when its newest event occurred, in microseconds since 1970.
///
/// # Errors
/// The error that the database returns.
pub async fn knows(connection: &dyn Connection, frame_id: Uuid, occurred: i64) -> Result<bool, DbErr> {
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
        if rows.iter().any(|(_, id, _)| *id == frame_id) {
            return Ok(true);
        }
        let Some((position, _, time)) = rows.last().copied() else {
            // All that is left is newer, by more than clocks differ.
            return Ok(oldest.is_some_and(|oldest| oldest > occurred + MAX_CLOCK_SKEW));
        };
        if rows.iter().all(|(_, _, time)| time + MAX_CLOCK_SKEW < occurred) {
            return Ok(false);
        }
        (before, oldest) = (position, Some(time));
    }
}

/// The ids of all frames in the log.
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

/// A frame that a broker still has and its own service has lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// The frame's id, the same on every transport.
    pub frame_id: Uuid,
    /// The subject of its events.
    pub subject: String,
    /// The bytes of the message.
    pub payload: Vec<u8>,
    /// When the newest of its events occurred, in microseconds since 1970.
    pub occur_time: i64,
    /// The frame's sequence in the broker's stream.
    pub sequence: u64,
}

/// Appends frames that were lost to the log, in this order, as published.
///
/// # Errors
/// The error that the database returns.
pub async fn take_back(database: &Database, frames: Vec<Returned>) -> Result<(), DbErr> {
    step(async {
        let rows = frames.into_iter().map(|frame| ActiveModel {
            position: ActiveValue::NotSet,
            event_id: ActiveValue::Set(frame.frame_id),
            subject: ActiveValue::Set(frame.subject),
            payload: ActiveValue::Set(frame.payload),
            occur_time: ActiveValue::Set(frame.occur_time),
            stream_sequence: ActiveValue::Set(i64::try_from(frame.sequence).ok()),
        });
        let rows = rows.collect();
        let transaction = database.begin_outside_writer().await?;
        insert_all(&transaction, rows).await?;
        // Before readers hear of the commit. Until this transaction ends, no other one adds to memory.
        database.recent().forget();
        database.commit(transaction).await
    })
    .await
}

/// At most `limit` of the oldest frames without a mark.
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

/// A frame with a mark, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkedFrame {
    /// The position in this service's log.
    pub position: i64,
    /// When the newest of its events occurred, in microseconds since 1970.
    pub occur_time: i64,
    /// The sequence with which the broker acknowledged it.
    pub sequence: i64,
}

/// The frames with a mark after a position, oldest first, and the position of the last row read; `None` if there is no
/// further row. Reads at most `limit` rows, with or without a mark.
///
/// # Errors
/// The error that the database returns.
pub async fn marked_after(
    connection: &dyn Connection,
    position: i64,
    limit: u64,
) -> Result<Option<(i64, Vec<MarkedFrame>)>, DbErr> {
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
        sequence.map(|sequence| MarkedFrame { position, occur_time, sequence })
    };
    Ok(Some((last, rows.into_iter().filter_map(marked).collect())))
}

/// How many frames have no mark, and when the oldest of them occurred, in microseconds since 1970. The number is the
/// distance from the oldest of them to the newest frame. It may be a few too high, but its cost does not depend on how
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

/// How many rows are looked through for frames that are due.
const SEARCHED_ROWS: u64 = 5_000;
/// The most frames that are removed at once. A frame has up to 128 KiB.
const FRAMES_PER_REMOVAL: usize = 128;

/// Some of the oldest frames: those whose time is before `limit` and, if `published` says so, that the broker has
/// acknowledged.
///
/// # Errors
/// The error that the database returns.
pub async fn due(connection: &dyn Connection, limit: Timestamp, published: bool) -> Result<Vec<Model>, DbErr> {
    let oldest: Vec<(i64, i64, Option<i64>)> = Entity::find()
        .select_only()
        .columns([Column::Position, Column::OccurTime, Column::StreamSequence])
        .order_by_asc(Column::Position)
        .limit(SEARCHED_ROWS)
        .fetch_values(connection)
        .await?;
    let limit = micros(limit);
    let due = oldest.into_iter().filter(|(_, time, mark)| *time < limit && (mark.is_some() || !published));
    let due: Vec<i64> = due.map(|(position, ..)| position).take(FRAMES_PER_REMOVAL).collect();
    if due.is_empty() {
        return Ok(Vec::new());
    }
    Entity::find().filter(Column::Position.is_in(due)).order_by_asc(Column::Position).fetch(connection).await
}

/// The time of the oldest frame, in microseconds since 1970; `None` if there is none.
///
/// # Errors
/// The error that the database returns.
pub async fn oldest(connection: &dyn Connection) -> Result<Option<i64>, DbErr> {
    let oldest = Entity::find().select_only().column(Column::OccurTime).order_by_asc(Column::Position);
    oldest.fetch_value(connection).await
}

/// Removes the frames at these positions, whose times are before `limit`, and appends those that repeat some of their
/// events. False if another process removed one of them first; then nothing has changed.
///
/// # Errors
/// The error that the database returns.
pub async fn replace(
    database: &Database,
    positions: &[i64],
    repeated: &[Frame],
    limit: Timestamp,
) -> Result<bool, DbErr> {
    let Some(last) = positions.iter().copied().max() else { return Ok(true) };
    step(async {
        let transaction = database.begin_outside_writer().await?;
        let removed =
            Entity::delete_many().filter(Column::Position.is_in(positions.iter().copied())).run(&transaction).await?;
        if removed != positions.len() as u64 {
            transaction.rollback().await?;
            return Ok(false);
        }
        gap::pruned(&transaction, last, limit).await?;
        append_frames(&transaction, repeated).await?;
        database.commit(transaction).await?;
        Ok(true)
    })
    .await
}
