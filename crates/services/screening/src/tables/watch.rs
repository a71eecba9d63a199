//! The table of claims that no booking holds yet.

use std::collections::{BTreeMap, HashSet};

use domain::ids::{ClaimId, ScreeningId, SlotId};
use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait as _};
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

/// A claim that no booking held when its event arrived.
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

/// Stops watching these claims.
pub(crate) async fn delete(transaction: &dyn Connection, claims: &HashSet<ClaimId>) -> Result<(), DbErr> {
    // most claims are the first ones of their bookings, so this is one statement
    let mut screenings: BTreeMap<i32, Vec<Uuid>> = BTreeMap::new();
    for claim in claims {
        screenings.entry(claim.generation).or_default().push(claim.screening.0);
    }
    for (generation, screenings) in screenings {
        let delete = Entity::delete_many().filter(among(transaction, Column::Screening, screenings));
        delete.filter(Column::Generation.eq(generation)).run(transaction).await?;
    }
    Ok(())
}

/// At most `count` claims that have been watched since `limit` or longer, oldest first, after `after`.
pub(crate) async fn due(
    connection: &dyn Connection,
    limit: Timestamp,
    after: Option<&Orphan>,
    count: u64,
) -> Result<Vec<Orphan>, DbErr> {
    let mut select = Entity::find().filter(Column::SeenTime.lte(micros(limit)));
    if let Some(Orphan { claim, seen, .. }) = after {
        let position = [Column::SeenTime, Column::Screening, Column::Generation].map(Expr::col);
        let last = [Expr::val(micros(*seen)), Expr::val(claim.screening.0), Expr::val(claim.generation)];
        select = select.filter(Expr::tuple(position).gt(Expr::tuple(last)));
    }
    let rows = select
        .order_by_asc(Column::SeenTime)
        .order_by_asc(Column::Screening)
        .order_by_asc(Column::Generation)
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
