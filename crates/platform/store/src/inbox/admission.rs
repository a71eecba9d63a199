//! Which events are new to a consumer, and remembering them in the transaction of their effects.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{DbBackend, QueryOrder, QuerySelect, Statement};

use super::{InboxKey, Part, cursors, seen};
use crate::rows::{among, array, insert_all};
use crate::statement::{Connection, Fetch as _, Run as _};

/// Returns which of these events are new to the consumer, and remembers all of them. Call it first in the transaction
/// of the effect. An event that occurs twice in one call is new once. Events of a frame must come in its order.
///
/// # Errors
/// The error that the database returns.
pub async fn admit(transaction: &dyn Connection, consumer: &str, inbox_keys: &[&InboxKey]) -> Result<Vec<bool>, DbErr> {
    let mut fresh = vec![false; inbox_keys.len()];
    admit_ordered(transaction, consumer, inbox_keys, &mut fresh).await?;
    admit_unordered(transaction, consumer, inbox_keys, &mut fresh).await?;
    Ok(fresh)
}

/// Returns which of these events must be applied if applying an event again changes nothing: all except those up to the
/// cursor of an ordered source. Cursors move; no single event is remembered.
///
/// # Errors
/// The error that the database returns.
pub async fn admit_repeatable(
    transaction: &dyn Connection,
    consumer: &str,
    inbox_keys: &[&InboxKey],
) -> Result<Vec<bool>, DbErr> {
    let mut fresh: Vec<bool> =
        inbox_keys.iter().map(|inbox_key| matches!(inbox_key, InboxKey::Unordered { .. })).collect();
    admit_ordered(transaction, consumer, inbox_keys, &mut fresh).await?;
    Ok(fresh)
}

/// How many of a frame's first events are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Applied(u32);

impl Applied {
    const NOTHING: Self = Self(0);
    const WHOLE: Self = Self(u32::MAX);

    fn of_column(column: Option<i32>) -> Self {
        column.map_or(Self::WHOLE, |count| Self(u32::try_from(count).unwrap_or(0)))
    }

    fn to_column(self) -> Option<i32> {
        if self == Self::WHOLE { None } else { Some(i32::try_from(self.0).unwrap_or(i32::MAX)) }
    }

    /// Whether this part is still to be applied; if so, it counts as applied from here on.
    fn admit(&mut self, part: Part) -> bool {
        let is_new = part.index >= self.0;
        if is_new {
            *self = if part.is_last { Self::WHOLE } else { Self(part.index + 1) };
        }
        is_new
    }
}

/// How far a consumer has read a source: every frame before a position, and some or all events of the frame there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Cursor {
    position: i64,
    applied: Applied,
    /// The frame there; nil if its id is not known.
    frame_id: Uuid,
}

impl Cursor {
    /// Whether an event is still to be applied; if so, the cursor moves past it.
    fn admit(&mut self, position: i64, frame_id: Uuid, part: Part) -> bool {
        // A broker that lost its end gives positions out again. A frame that was read whole is beyond the end then and
        // noticed; one that was read in part is compared here.
        let in_part = position == self.position && self.applied != Applied::WHOLE;
        let is_another = in_part && !self.frame_id.is_nil() && self.frame_id != frame_id;
        if position > self.position || is_another {
            *self = Self { position, applied: Applied::NOTHING, frame_id };
        }
        position == self.position && self.applied.admit(part)
    }
}

async fn admit_ordered(
    transaction: &dyn Connection,
    consumer: &str,
    inbox_keys: &[&InboxKey],
    fresh: &mut [bool],
) -> Result<(), DbErr> {
    if !inbox_keys.iter().any(|inbox_key| matches!(inbox_key, InboxKey::Ordered { .. })) {
        return Ok(());
    }
    let known = cursors::Entity::find().filter(cursors::Column::Consumer.eq(consumer)).fetch(transaction).await?;
    let cursor = |row: &cursors::Model| Cursor {
        position: row.position,
        applied: Applied::of_column(row.applied),
        frame_id: row.event_id.unwrap_or_default(),
    };
    let known: HashMap<&str, Cursor> = known.iter().map(|row| (row.source.as_str(), cursor(row))).collect();
    let mut moved: HashMap<&str, Cursor> = HashMap::new();
    for (inbox_key, fresh) in inbox_keys.iter().zip(fresh) {
        if let InboxKey::Ordered { source, position, frame_id, part } = inbox_key {
            let known = || known.get(&**source).copied().unwrap_or_default();
            let mut cursor = moved.get(&**source).copied().unwrap_or_else(known);
            *fresh = cursor.admit(*position, *frame_id, *part);
            if *fresh {
                moved.insert(source, cursor);
            }
        }
    }
    let moved = moved.into_iter().map(|(source, cursor)| cursors::ActiveModel {
        consumer: Set(consumer.to_owned()),
        source: Set(source.to_owned()),
        position: Set(cursor.position),
        event_id: Set(Some(cursor.frame_id).filter(|id| !id.is_nil())),
        applied: Set(cursor.applied.to_column()),
    });
    let moved: Vec<_> = moved.collect();
    if moved.is_empty() {
        return Ok(());
    }
    let replace = OnConflict::columns([cursors::Column::Consumer, cursors::Column::Source])
        .update_columns([cursors::Column::Position, cursors::Column::EventId, cursors::Column::Applied])
        .to_owned();
    cursors::Entity::insert_many(moved).on_conflict(replace).run(transaction).await?;
    Ok(())
}

async fn admit_unordered(
    transaction: &dyn Connection,
    consumer: &str,
    inbox_keys: &[&InboxKey],
    fresh: &mut [bool],
) -> Result<(), DbErr> {
    // In order, so that replicas that remember the same frames cannot deadlock.
    let ids: BTreeSet<Uuid> = inbox_keys
        .iter()
        .filter_map(|inbox_key| match inbox_key {
            InboxKey::Unordered { frame_id, .. } => Some(*frame_id),
            InboxKey::Ordered { .. } => None,
        })
        .collect();
    if ids.is_empty() {
        return Ok(());
    }
    let before = match transaction.backend() {
        DbBackend::Postgres => remember_at_once(transaction, consumer, &ids).await?,
        _ => remember(transaction, consumer, &ids).await?,
    };
    // A frame that was new is remembered as applied whole.
    let mut written: BTreeMap<Uuid, Applied> = ids.iter().map(|id| (*id, Applied::WHOLE)).collect();
    written.extend(before.iter().map(|(id, applied)| (*id, *applied)));
    let mut now = before;
    for (inbox_key, fresh) in inbox_keys.iter().zip(fresh) {
        if let InboxKey::Unordered { frame_id, part } = inbox_key {
            *fresh = now.entry(*frame_id).or_default().admit(*part);
        }
    }
    now.retain(|id, applied| written.get(id) != Some(applied));
    correct(transaction, consumer, now).await
}

/// Stores how much of frames is applied, where that is not what their rows say. There are none unless an event failed.
async fn correct(transaction: &dyn Connection, consumer: &str, frames: BTreeMap<Uuid, Applied>) -> Result<(), DbErr> {
    use seen::{Column, Entity};
    for (id, applied) in frames {
        Entity::update_many()
            .col_expr(Column::Applied, Expr::val(applied.to_column()))
            .filter(Column::Consumer.eq(consumer))
            .filter(Column::EventId.eq(id))
            .run(transaction)
            .await?;
    }
    Ok(())
}

/// Remembers frames as applied whole; returns how much was applied of those that were known.
async fn remember(
    transaction: &dyn Connection,
    consumer: &str,
    ids: &BTreeSet<Uuid>,
) -> Result<BTreeMap<Uuid, Applied>, DbErr> {
    let known = known(transaction, consumer, ids.iter().copied()).await?;
    let new = ids.iter().filter(|id| !known.contains_key(id));
    let row =
        |id: &Uuid| seen::ActiveModel { consumer: Set(consumer.to_owned()), event_id: Set(*id), applied: Set(None) };
    insert_all(transaction, new.map(row).collect()).await?;
    Ok(known)
}

/// How much is applied of the frames that are known. On a server their rows stay locked.
async fn known(
    transaction: &dyn Connection,
    consumer: &str,
    ids: impl Iterator<Item = Uuid>,
) -> Result<BTreeMap<Uuid, Applied>, DbErr> {
    let rows: Vec<(Uuid, Option<i32>)> = seen::Entity::find()
        .select_only()
        .columns([seen::Column::EventId, seen::Column::Applied])
        .filter(seen::Column::Consumer.eq(consumer))
        .filter(among(transaction, seen::Column::EventId, ids))
        .order_by_asc(seen::Column::EventId)
        .lock_exclusive()
        .fetch_values(transaction)
        .await?;
    Ok(rows.into_iter().map(|(id, applied)| (id, Applied::of_column(applied))).collect())
}

/// Like [`remember`], in one statement whose text does not depend on the number of ids. It waits for any transaction
/// that is remembering one of them; if that commits, the frame is not new.
async fn remember_at_once(
    transaction: &dyn Connection,
    consumer: &str,
    ids: &BTreeSet<Uuid>,
) -> Result<BTreeMap<Uuid, Applied>, DbErr> {
    const SQL: &str = "INSERT INTO inbox (consumer, event_id) \
                       SELECT $1, event.id FROM unnest($2::uuid[]) AS event(id) \
                       ON CONFLICT DO NOTHING RETURNING event_id";
    let values = array(ids.iter().copied());
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, SQL, [consumer.into(), values]);
    let rows = transaction.query(statement).await?;
    let new = rows.into_iter().map(|mut row| row.take(0)).collect::<Result<BTreeSet<Uuid>, DbErr>>()?;
    let mut repeated = ids.difference(&new).copied().peekable();
    if repeated.peek().is_none() {
        return Ok(BTreeMap::new());
    }
    known(transaction, consumer, repeated).await
}
