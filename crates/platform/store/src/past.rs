//! Whether a producer's log still has what others have read of it.
//!
//! A database that was put back to an earlier time has lost the end of its log, and with it what its service did. Those who read
//! the log know better: they name a position that it does not have, or one at which another event stands by now. Once the
//! service has been told what it forgot, its log goes on behind everything that anybody has read, and the gap is kept, so that
//! what was read in it speaks against the log no more.

use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::{DbBackend, QueryOrder, QuerySelect, Statement};

use crate::database::Database;
use crate::inbox::ReadPosition;
use crate::outbox;
use crate::rows::insert_missing;
use crate::simulation::step;
use crate::time::micros;

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod gap {
    use sea_orm::entity::prelude::*;

    /// Positions that were lost and are never used again.
    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "log_gap")]
    pub struct Model {
        /// The last of them.
        #[sea_orm(primary_key, auto_increment = false)]
        pub last_position: i64,
        /// The newest that was not lost.
        pub after_position: i64,
        pub close_time: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// How a log contradicts those who have read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// It ends before what they have read.
    Shorter {
        /// Its newest position.
        head: i64,
    },
    /// It went on with other events after its end was lost.
    Other,
}

/// What this log says to what somebody has read; `None` where it bears it out.
///
/// # Errors
/// What the database says.
pub async fn contradiction(
    connection: &impl ConnectionTrait,
    read_position: &ReadPosition,
) -> Result<Option<Contradiction>, DbErr> {
    let at = outbox::Entity::find_by_id(read_position.position).select_only().column(outbox::Column::EventId);
    if let Some(event_id) = at.into_tuple::<Uuid>().one(connection).await? {
        let same = read_position.event_id.is_none_or(|known| known == event_id);
        return Ok((!same).then_some(Contradiction::Other));
    }
    let gap = gap::Entity::find()
        .filter(gap::Column::AfterPosition.lt(read_position.position))
        .filter(gap::Column::LastPosition.gte(read_position.position));
    if gap.one(connection).await?.is_some() {
        return Ok(None);
    }
    let head = outbox::head(connection).await?;
    if read_position.position > head {
        return Ok(Some(Contradiction::Shorter { head }));
    }
    // where a broker is used, what was published long ago is removed
    let oldest = outbox::Entity::find().select_only().column(outbox::Column::Position);
    let oldest: Option<i64> = oldest.order_by_asc(outbox::Column::Position).into_tuple().one(connection).await?;
    Ok(oldest.is_some_and(|oldest| oldest < read_position.position).then_some(Contradiction::Other))
}

/// The newest event of this log, and where it stands; `None` where there is none.
///
/// # Errors
/// What the database says.
pub async fn newest(connection: &impl ConnectionTrait) -> Result<Option<(i64, Uuid)>, DbErr> {
    let newest = outbox::Entity::find().select_only().columns([outbox::Column::Position, outbox::Column::EventId]);
    newest.order_by_desc(outbox::Column::Position).into_tuple().one(connection).await
}

/// Has the log go on behind a position, where it does not yet. Only [`close`] says that what was read up to there is not missed.
///
/// # Errors
/// What the database says.
pub async fn advance_log(transaction: &impl ConnectionTrait, read: i64) -> Result<(), DbErr> {
    if read <= outbox::head(transaction).await? {
        return Ok(());
    }
    let backend = transaction.get_database_backend();
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
        transaction.execute_raw(Statement::from_sql_and_values(backend, *sql, values)).await?;
    }
    Ok(())
}

/// Positions that a log has lost and never uses again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The newest that was not lost.
    pub after: i64,
    /// The last that anybody has read.
    pub last: i64,
}

/// Keeps a gap: what was read in it speaks against the log no more. To be written once everything that was lost in it
/// is there again.
///
/// # Errors
/// What the database says.
pub async fn close(transaction: &impl ConnectionTrait, gap: Gap, now: Timestamp) -> Result<(), DbErr> {
    let row =
        gap::ActiveModel { last_position: Set(gap.last), after_position: Set(gap.after), close_time: Set(micros(now)) };
    insert_missing(transaction, vec![row]).await
}

/// Keeps that what is missing up to here was removed because it was old enough: no mark there speaks against the log. Publishing
/// leaves events out of turn, so older ones that nobody has published yet may still be there.
///
/// # Errors
/// What the database says.
pub(crate) async fn pruned(transaction: &impl ConnectionTrait, last: i64, limit: Timestamp) -> Result<(), DbErr> {
    let earlier = gap::Entity::delete_many().filter(gap::Column::AfterPosition.eq(0));
    earlier.filter(gap::Column::LastPosition.lt(last)).exec(transaction).await?;
    close(transaction, Gap { after: 0, last }, limit).await
}

/// [`advance_log`] and [`close`] for a service that has nothing of its own to mend: it only tells what it heard.
///
/// # Errors
/// What the database says.
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
