//! Whether a producer's log still has the events that others have read from it.
//!
//! A database that was put back to an earlier time has lost the end of its log, and with it what its service did. The
//! readers of the log can show that: they name a position that the log does not have, or one with another event. Once
//! the service has recovered its lost past, its log continues after every position that anybody has read. The gap is
//! stored, so that positions in it no longer contradict the log.

use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::{DbBackend, QueryOrder, QuerySelect, Statement};

use crate::database::Database;
use crate::gap;
pub use crate::gap::{Gap, close, may_have_had, removed_before};
use crate::inbox::ReadPosition;
use crate::outbox;
use crate::simulation::step;
use crate::statement::{Connection, Fetch as _};

/// How a log contradicts a reader's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// The log ends before the reader's position.
    Shorter {
        /// The newest position of the log; 0 if it is empty.
        head: i64,
    },
    /// The log has another event at that position, or none, although it continues after it.
    Other,
}

/// Compares this log with a reader's position; `None` if they agree.
///
/// # Errors
/// The error that the database returns.
pub async fn contradiction(
    connection: &dyn Connection,
    read_position: &ReadPosition,
) -> Result<Option<Contradiction>, DbErr> {
    let at = outbox::Entity::find_by_id(read_position.position).select_only().column(outbox::Column::EventId);
    if let Some(event_id) = at.fetch_value::<Uuid>(connection).await? {
        let same = read_position.event_id.is_none_or(|known| known == event_id);
        return Ok((!same).then_some(Contradiction::Other));
    }
    let gap = gap::Entity::find()
        .filter(gap::Column::AfterPosition.lt(read_position.position))
        .filter(gap::Column::LastPosition.gte(read_position.position));
    if gap.fetch_one(connection).await?.is_some() {
        return Ok(None);
    }
    let head = outbox::head(connection).await?;
    if read_position.position > head {
        return Ok(Some(Contradiction::Shorter { head }));
    }
    // Old events are removed.
    let oldest = outbox::Entity::find().select_only().column(outbox::Column::Position);
    let oldest: Option<i64> = oldest.order_by_asc(outbox::Column::Position).fetch_value(connection).await?;
    Ok(oldest.is_some_and(|oldest| oldest < read_position.position).then_some(Contradiction::Other))
}

/// The position and id of the newest event of this log; `None` if there is none.
///
/// # Errors
/// The error that the database returns.
pub async fn newest(connection: &dyn Connection) -> Result<Option<(i64, Uuid)>, DbErr> {
    let newest = outbox::Entity::find().select_only().columns([outbox::Column::Position, outbox::Column::EventId]);
    newest.order_by_desc(outbox::Column::Position).fetch_value(connection).await
}

/// Makes the log continue after a position, unless it already does. Only [`close`] records that the positions up to
/// there are not missed.
///
/// # Errors
/// The error that the database returns.
pub async fn advance_log(transaction: &dyn Connection, read: i64) -> Result<(), DbErr> {
    if read <= outbox::head(transaction).await? {
        return Ok(());
    }
    let backend = transaction.backend();
    let statements: &[&str] = match backend {
        DbBackend::Postgres => &["SELECT setval(pg_get_serial_sequence('outbox', 'position'), $1)"],
        _ => &[
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'outbox', 0 \
             WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'outbox')",
            "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'outbox'",
        ],
    };
    for sql in statements {
        let values: Vec<sea_orm::Value> =
            if sql.contains("$1") || sql.contains('?') { vec![read.into()] } else { vec![] };
        transaction.execute(Statement::from_sql_and_values(backend, *sql, values)).await?;
    }
    Ok(())
}

/// [`advance_log`] and [`close`] for a service that restores nothing itself, because it only repeats what it has read.
///
/// # Errors
/// The error that the database returns.
pub async fn skip(database: &Database, read: i64, gap: Option<Gap>, now: Timestamp) -> Result<(), DbErr> {
    step(async {
        let transaction = database.begin_outside_writer().await?;
        advance_log(&transaction, read).await?;
        if let Some(gap) = gap {
            close(&transaction, gap, now).await?;
        }
        database.commit(transaction).await
    })
    .await
}
