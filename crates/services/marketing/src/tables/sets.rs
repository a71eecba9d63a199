//! The bookings and refusals of the last seven days, one row each, so that a repeated event counts once. They are
//! counted when demand is read.

use std::collections::HashMap;

use domain::ids::SlotId;
use jiff::Timestamp;
use sea_orm::QuerySelect;
use sea_orm::entity::prelude::{ColumnTrait, DbErr, EntityTrait, QueryFilter, Uuid};
use sea_orm::sea_query::{Alias, ExprTrait};
use store::micros;
use store::rows::{among, insert_missing};
use store::{Connection, Fetch as _};

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod booking {
    //! One row per booking that got its place.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "booking")]
    pub struct Model {
        /// The id under which the booking counts on the slot: after a move not its own.
        #[sea_orm(primary_key, auto_increment = false)]
        pub screening: Uuid,
        pub slot: String,
        pub time: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod refusal {
    //! One row per report of refusals.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "refusal")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub event_id: Uuid,
        pub slot: String,
        pub number: i64,
        pub time: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) fn booking_row(id: Uuid, slot: &SlotId, time: Timestamp) -> booking::Model {
    booking::Model { screening: id, slot: slot.to_string(), time: micros(time) }
}

pub(crate) fn refusal_row(event_id: Uuid, slot: &SlotId, count: i64, time: Timestamp) -> refusal::Model {
    refusal::Model { event_id, slot: slot.to_string(), number: count, time: micros(time) }
}

/// Inserts those bookings that are not older than `since`.
pub(crate) async fn save_bookings(
    transaction: &dyn Connection,
    mut rows: Vec<booking::Model>,
    since: i64,
) -> Result<(), DbErr> {
    use booking::ActiveModel;
    // in the order of the keys, so that replicas that consume the same events cannot deadlock
    rows.sort_unstable_by_key(|row| row.screening);
    let late = rows.into_iter().filter(|row| row.time >= since).map(ActiveModel::from);
    insert_missing(transaction, late.collect()).await
}

/// Inserts those reports that are not older than `since`.
pub(crate) async fn save_refusals(
    transaction: &dyn Connection,
    mut rows: Vec<refusal::Model>,
    since: i64,
) -> Result<(), DbErr> {
    use refusal::ActiveModel;
    rows.sort_unstable_by_key(|row| row.event_id);
    let late = rows.into_iter().filter(|row| row.time >= since).map(ActiveModel::from);
    insert_missing(transaction, late.collect()).await
}

/// How many bookings each of these slots got since `since`. A slot without any is missing in the map.
pub(crate) async fn count_bookings(
    connection: &dyn Connection,
    slots: &[String],
    since: i64,
) -> Result<HashMap<String, i64>, DbErr> {
    use booking::{Column, Entity};
    let counted = Entity::find()
        .select_only()
        .column(Column::Slot)
        .column_as(Column::Screening.count(), "number")
        .filter(among(connection, Column::Slot, slots.to_vec()))
        .filter(Column::Time.gte(since))
        .group_by(Column::Slot);
    Ok(counted.fetch_values::<(String, i64)>(connection).await?.into_iter().collect())
}

/// How many requests each of these slots refused since `since`. A slot without any is missing in the map.
pub(crate) async fn count_refusals(
    connection: &dyn Connection,
    slots: &[String],
    since: i64,
) -> Result<HashMap<String, i64>, DbErr> {
    use refusal::{Column, Entity};
    let counted = Entity::find()
        .select_only()
        .column(Column::Slot)
        // without the cast, some databases return a sum of integers as a decimal
        .column_as(Column::Number.sum().cast_as(Alias::new("bigint")), "number")
        .filter(among(connection, Column::Slot, slots.to_vec()))
        .filter(Column::Time.gte(since))
        .group_by(Column::Slot);
    Ok(counted.fetch_values::<(String, i64)>(connection).await?.into_iter().collect())
}

/// Removes a chunk of the bookings before `older_than`. Returns whether there may be more.
pub(crate) async fn prune_bookings(transaction: &dyn Connection, older_than: i64) -> Result<bool, DbErr> {
    super::prune::<booking::Entity, _>(transaction, booking::Column::Time, older_than).await
}

/// Removes a chunk of the reports before `older_than`. Returns whether there may be more.
pub(crate) async fn prune_refusals(transaction: &dyn Connection, older_than: i64) -> Result<bool, DbErr> {
    super::prune::<refusal::Entity, _>(transaction, refusal::Column::Time, older_than).await
}
