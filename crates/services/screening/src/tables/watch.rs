//! The table of claims that have no booking yet.

use std::collections::{BTreeMap, HashSet};

use domain::ids::{ClaimId, ScreeningId, SlotId};
use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::{DbErr, QueryOrder, QuerySelect};
use store::rows::NoRelation as Relation;
use store::rows::{among, insert_missing};
use store::{micros, timestamp};

use super::row;
use store::{Connection, Fetch as _, Run as _};

/// The row of an [`Orphan`].
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "orphan_watch")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) screening: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) generation: i32,
    pub(crate) hospital: String,
    pub(crate) slot_date: String,
    pub(crate) seen_time: i64,
    pub(crate) event_id: Uuid,
    pub(crate) traceparent: String,
}

impl ActiveModelBehavior for ActiveModel {}

/// A claim that had no booking when its event arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) claim: ClaimId,
    pub(crate) slot: SlotId,
    /// When the event arrived, by this service's clock.
    pub(crate) seen: Timestamp,
    /// The event that announced the claim.
    pub(crate) event_id: Uuid,
    /// The trace context of that event.
    pub(crate) traceparent: String,
}

/// Starts to watch claims. A claim that is watched already keeps its time.
pub(crate) async fn insert(transaction: &dyn Connection, orphans: &[Orphan]) -> Result<(), DbErr> {
    // in the order of the keys, so that replicas that consume the same events cannot deadlock
    let orphans: BTreeMap<ClaimId, &Orphan> = orphans.iter().map(|orphan| (orphan.claim, orphan)).collect();
    let rows = orphans.values().map(|orphan| ActiveModel {
        screening: Set(orphan.claim.screening.0),
        generation: Set(orphan.claim.generation),
        hospital: Set(orphan.slot.hospital.segment().to_owned()),
        slot_date: Set(orphan.slot.segment()),
        seen_time: Set(micros(orphan.seen)),
        event_id: Set(orphan.event_id),
        traceparent: Set(orphan.traceparent.clone()),
    });
    insert_missing(transaction, rows.collect()).await
}

/// Stops watching the claims of these screenings.
pub(crate) async fn delete(transaction: &dyn Connection, screenings: &HashSet<ScreeningId>) -> Result<(), DbErr> {
    if screenings.is_empty() {
        return Ok(());
    }
    let ids = screenings.iter().map(|id| id.0);
    Entity::delete_many().filter(among(transaction, Column::Screening, ids)).run(transaction).await?;
    Ok(())
}

/// At most `count` claims that have been watched since `limit` or longer, oldest first.
pub(crate) async fn due(connection: &dyn Connection, limit: Timestamp, count: u64) -> Result<Vec<Orphan>, DbErr> {
    let rows = Entity::find()
        .filter(Column::SeenTime.lte(micros(limit)))
        .order_by_asc(Column::SeenTime)
        .limit(count)
        .fetch(connection)
        .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Orphan {
                claim: ClaimId { screening: ScreeningId(row.screening), generation: row.generation },
                slot: row::slot(&row.hospital, &row.slot_date)?,
                seen: timestamp(row.seen_time),
                event_id: row.event_id,
                traceparent: row.traceparent,
            })
        })
        .collect()
}
