//! The lease of the relay: one process at a time publishes a service's events. It is a row with a term and an epoch.
//!
//! The lease keeps several relays from publishing everything twice. It need not be strict, because a repeated event is
//! recognised. The marks that events are published must be strict, and each is bound to the epoch. A process that lost
//! its lease unnoticed can mark nothing any more, so events that its successor decided to publish again stay
//! unpublished. Terms are judged by the database's clock, which all processes share.

use std::time::Duration;

use crate::rows::NoRelation as Relation;
use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::{DbBackend, IntoActiveModel, QueryOrder, QuerySelect, Statement};

use crate::database::Database;
use crate::outbox;
use crate::rows::array;
use crate::simulation::step;
use crate::statement::{Connection, Fetch as _, Run as _};
use crate::time::micros;
use crate::transaction::Transaction;

/// The key of the only row.
pub(crate) const ONLY_ROW: i32 = 1;

/// The only row of the table.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "relay_lease")]
pub struct Model {
    /// The key, which is always the same.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// The relay that has the lease, or had it last.
    pub holder: Option<Uuid>,
    /// The number of the lease's holder, which grows.
    pub epoch: i64,
    /// When the lease expires, in microseconds since 1970.
    pub expire_time: i64,
    /// The identity of the stream that the marks in the outbox refer to; empty before the first mark.
    pub stream: String,
    /// The greatest sequence that this stream has acknowledged.
    pub sequence: i64,
    /// The event with that sequence.
    pub event_id: Option<Uuid>,
}

impl ActiveModelBehavior for ActiveModel {}

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The number of its holder.
    pub epoch: i64,
    /// The identity of the stream that the marks refer to; empty before the first mark.
    pub stream: String,
    /// The greatest sequence that this stream has acknowledged, and its event; `None` before the first.
    pub newest: Option<(u64, Uuid)>,
}

/// An event that a stream acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The event's position in the outbox.
    pub position: i64,
    /// The id of the event.
    pub event_id: Uuid,
    /// The event's sequence in the stream.
    pub sequence: u64,
}

/// Takes the lease if it is free, or renews it if `holder` has it; `None` if another process has it. `now` is this
/// process's clock, which is used only if the database has none.
///
/// # Errors
/// The error that the database returns.
pub async fn acquire(
    database: &Database,
    holder: Uuid,
    term: Duration,
    now: Timestamp,
) -> Result<Option<Lease>, DbErr> {
    step(async {
        let transaction = database.begin_outside_writer().await?;
        let Some(row) = locked(&transaction).await? else { return Ok(None) };
        let now = clock(&transaction, now).await?;
        let own = row.holder == Some(holder);
        if !own && row.expire_time > now {
            transaction.rollback().await?;
            return Ok(None);
        }
        let epoch = if own { row.epoch } else { row.epoch + 1 };
        let newest = row.event_id.and_then(|id| Some((u64::try_from(row.sequence).ok()?, id)));
        let lease = Lease { epoch, stream: row.stream.clone(), newest };
        let mut row = row.into_active_model();
        row.holder = Set(Some(holder));
        row.epoch = Set(epoch);
        row.expire_time = Set(now.saturating_add(i64::try_from(term.as_micros()).unwrap_or(i64::MAX)));
        Entity::update(row).validate()?.run(&transaction).await?;
        database.commit(transaction).await?;
        Ok(Some(lease))
    })
    .await
}

/// The stream to which events were published, and its greatest acknowledged sequence. Empty and 0 before the first
/// event.
///
/// # Errors
/// The error that the database returns.
pub async fn published(connection: &dyn Connection) -> Result<(String, u64), DbErr> {
    let row = Entity::find_by_id(ONLY_ROW).fetch_one(connection).await?;
    Ok(row.map_or_else(Default::default, |row| (row.stream, u64::try_from(row.sequence).unwrap_or(0))))
}

/// Releases the lease before its term ends, so that a successor need not wait.
///
/// # Errors
/// The error that the database returns; the lease then ends with its term.
pub async fn release(database: &Database, epoch: i64) -> Result<(), DbErr> {
    in_epoch(database, epoch, async |_, row| {
        row.holder = Set(None);
        row.expire_time = Set(0);
        Ok(())
    })
    .await
    .map(drop)
}

/// Marks events as published in `stream`. False if the epoch is over; nothing is marked then.
///
/// # Errors
/// The error that the database returns.
pub async fn mark(database: &Database, epoch: i64, stream: &str, events: &[Published]) -> Result<bool, DbErr> {
    let Some(newest) = events.iter().max_by_key(|event| event.sequence) else { return Ok(true) };
    in_epoch(database, epoch, async |transaction, row| {
        for chunk in events.chunks(MARKS_PER_STATEMENT) {
            mark_chunk(transaction, chunk).await?;
        }
        let sequence = i64::try_from(newest.sequence).unwrap_or(i64::MAX);
        // A repeated event is acknowledged with its first sequence.
        if row.stream.as_ref() != stream || row.event_id.as_ref().is_none() || *row.sequence.as_ref() < sequence {
            row.stream = Set(stream.to_owned());
            row.sequence = Set(sequence);
            row.event_id = Set(Some(newest.event_id));
        }
        Ok(())
    })
    .await
}

/// How many events one statement marks, well below the limit on bound values.
const MARKS_PER_STATEMENT: usize = 1_000;

async fn mark_chunk(transaction: &Transaction, events: &[Published]) -> Result<(), DbErr> {
    if transaction.backend() == DbBackend::Postgres {
        return mark_all(transaction, events).await;
    }
    let marks = events.iter().flat_map(|event| {
        let sequence = i64::try_from(event.sequence).unwrap_or(i64::MAX);
        [sequence.into(), event.position.into()]
    });
    let sql = "UPDATE outbox SET stream_sequence = ? WHERE position = ?";
    transaction.execute_each(sql.to_owned(), 2, marks.collect()).await
}

/// The same in one statement with a constant text, so that the server parses and plans it once.
async fn mark_all(transaction: &Transaction, events: &[Published]) -> Result<(), DbErr> {
    const SQL: &str = "UPDATE outbox SET stream_sequence = mark.sequence \
                       FROM unnest($1::bigint[], $2::bigint[]) AS mark(position, sequence) \
                       WHERE outbox.position = mark.position";
    let positions = array(events.iter().map(|event| event.position));
    let sequences = array(events.iter().map(|event| i64::try_from(event.sequence).unwrap_or(i64::MAX)));
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, SQL, [positions, sequences]);
    transaction.execute(statement).await.map(drop)
}

/// How many marks one transaction removes.
const UNMARKS_PER_TRANSACTION: u64 = 10_000;

/// Removes all marks, so that everything the outbox still holds is published again, into `stream`. False if the epoch
/// is over. If it is interrupted, it starts again, because the lease names the new stream only at the end.
///
/// # Errors
/// The error that the database returns.
pub async fn publish_again(database: &Database, epoch: i64, stream: &str) -> Result<bool, DbErr> {
    use outbox::Column as Outbox;
    loop {
        let mut left = false;
        let current = in_epoch(database, epoch, async |transaction, row| {
            let marked: Vec<i64> = outbox::Entity::find()
                .select_only()
                .column(Outbox::Position)
                .filter(Outbox::StreamSequence.is_not_null())
                .order_by_desc(Outbox::Position)
                .limit(UNMARKS_PER_TRANSACTION)
                .fetch_values(transaction)
                .await?;
            left = marked.len() as u64 == UNMARKS_PER_TRANSACTION;
            if let (Some(last), Some(first)) = (marked.first(), marked.last()) {
                outbox::Entity::update_many()
                    .col_expr(Outbox::StreamSequence, Expr::val(Option::<i64>::None))
                    .filter(Outbox::Position.between(*first, *last))
                    .run(transaction)
                    .await?;
            }
            if !left {
                row.stream = Set(stream.to_owned());
                row.sequence = Set(0);
                row.event_id = Set(None);
            }
            Ok(())
        });
        if !current.await? {
            return Ok(false);
        }
        if !left {
            return Ok(true);
        }
    }
}

/// Removes the marks of these positions, so that their events are published again into the same stream. False if the
/// epoch is over.
///
/// # Errors
/// The error that the database returns.
pub async fn unmark(database: &Database, epoch: i64, positions: &[i64]) -> Result<bool, DbErr> {
    in_epoch(database, epoch, async |transaction, _| {
        for chunk in positions.chunks(MARKS_PER_STATEMENT) {
            outbox::Entity::update_many()
                .col_expr(outbox::Column::StreamSequence, Expr::val(Option::<i64>::None))
                .filter(outbox::Column::Position.is_in(chunk.iter().copied()))
                .run(transaction)
                .await?;
        }
        Ok(())
    })
    .await
}

/// Does something that only the holder of this epoch may do. False if another process has the lease by now.
async fn in_epoch(
    database: &Database,
    epoch: i64,
    act: impl AsyncFnOnce(&Transaction, &mut ActiveModel) -> Result<(), DbErr>,
) -> Result<bool, DbErr> {
    step(async {
        let transaction = database.begin_outside_writer().await?;
        // A process that takes the lease over waits for this lock, so the epoch holds until the commit.
        let row = locked(&transaction).await?.filter(|row| row.epoch == epoch);
        let Some(row) = row else {
            transaction.rollback().await?;
            return Ok(false);
        };
        let mut row = row.into_active_model();
        act(&transaction, &mut row).await?;
        if row.is_changed() {
            Entity::update(row).validate()?.run(&transaction).await?;
        }
        database.commit(transaction).await?;
        Ok(true)
    })
    .await
}

async fn locked(transaction: &Transaction) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(ONLY_ROW).lock_exclusive().fetch_one(transaction).await
}

/// The current time by the clock that all holders share.
async fn clock(transaction: &Transaction, now: Timestamp) -> Result<i64, DbErr> {
    if transaction.backend() != DbBackend::Postgres {
        return Ok(micros(now));
    }
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let rows = transaction.query(Statement::from_string(DbBackend::Postgres, sql)).await?;
    rows.into_iter().next().map_or_else(|| Ok(micros(now)), |mut row| row.take(0))
}
