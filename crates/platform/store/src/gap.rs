//! The positions that a log has lost or removed, stored so that they do not contradict the log.

#![expect(unreachable_pub, reason = "the entity macro emits pub items")]

use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

use crate::rows::{NoRelation as Relation, insert_missing};
use crate::statement::{Connection, Fetch as _, Run as _};
use crate::time::micros;

/// Positions that were lost and are never used again.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "log_gap")]
pub struct Model {
    /// The last position of the gap.
    #[sea_orm(primary_key, auto_increment = false)]
    pub last_position: i64,
    /// The newest position before the gap.
    pub after_position: i64,
    /// When a recovery closed it. If its events were removed by age, the time before which they occurred. In
    /// microseconds since 1970.
    pub close_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// Positions that a log has lost and never uses again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The newest position that was not lost.
    pub after: i64,
    /// The last position that anybody has read.
    pub last: i64,
}

/// Stores a gap, so that positions in it no longer contradict the log. Call it once everything that was lost in the gap
/// is restored.
///
/// # Errors
/// The error that the database returns.
pub async fn close(transaction: &dyn Connection, gap: Gap, now: Timestamp) -> Result<(), DbErr> {
    let row =
        ActiveModel { last_position: Set(gap.last), after_position: Set(gap.after), close_time: Set(micros(now)) };
    insert_missing(transaction, vec![row]).await
}

/// Records that events missing up to here were removed by age, so that no mark there contradicts the log. Older events
/// may remain, because events are not always published in order.
///
/// # Errors
/// The error that the database returns.
pub(crate) async fn pruned(transaction: &dyn Connection, last: i64, limit: Timestamp) -> Result<(), DbErr> {
    let earlier = Entity::delete_many().filter(Column::AfterPosition.eq(0));
    earlier.filter(Column::LastPosition.lt(last)).run(transaction).await?;
    close(transaction, Gap { after: 0, last }, limit).await
}

/// Whether this log, which lacks an event, may have had it: events of that time were removed by age, or a recovery
/// restored all that was known of that time. `occurred` is when the event occurred, in microseconds since 1970.
///
/// # Errors
/// The error that the database returns.
pub async fn may_have_had(connection: &dyn Connection, occurred: i64) -> Result<bool, DbErr> {
    let later = Entity::find().filter(Column::AfterPosition.eq(0));
    let later = later.filter(Column::CloseTime.gt(occurred));
    Ok(later.fetch_one(connection).await?.is_some())
}

/// The time before which events may have been removed from this log by age, in microseconds since 1970. `None` if no
/// event was removed.
///
/// # Errors
/// The error that the database returns.
pub async fn removed_before(connection: &dyn Connection) -> Result<Option<i64>, DbErr> {
    let removed = Entity::find().select_only().column(Column::CloseTime);
    let removed = removed.filter(Column::AfterPosition.eq(0)).order_by_desc(Column::CloseTime);
    removed.fetch_value(connection).await
}
