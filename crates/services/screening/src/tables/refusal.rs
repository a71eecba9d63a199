//! The table that numbers the reports of refused demand, slot by slot.

use std::collections::{BTreeMap, HashMap};

use domain::ids::SlotId;
use sea_orm::ActiveValue::Set;
use sea_orm::DbErr;
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};
use store::rows::save_all;

use super::row;

/// How many reports a slot has had.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "refusal_report")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) hospital: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) slot_date: String,
    pub(crate) version: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// The versions of the last reports of these slots, and perhaps of others, locked until the transaction ends where the database
/// locks rows.
pub(crate) async fn versions<'a>(
    connection: &impl ConnectionTrait,
    slots: impl IntoIterator<Item = &'a SlotId>,
) -> Result<HashMap<SlotId, i64>, DbErr> {
    let (hospitals, dates): (Vec<_>, Vec<_>) =
        slots.into_iter().map(|slot| (slot.hospital.segment(), slot.date.to_string())).unzip();
    if hospitals.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = Entity::find()
        .filter(Column::Hospital.is_in(hospitals))
        .filter(Column::SlotDate.is_in(dates))
        .order_by_asc(Column::Hospital)
        .order_by_asc(Column::SlotDate)
        .lock_exclusive()
        .all(connection)
        .await?;
    rows.into_iter().map(|row| Ok((row::slot(&row.hospital, &row.slot_date)?, row.version))).collect()
}

/// Keeps the versions of reports that were made; of each, whether the slot had one before.
pub(crate) async fn save(
    transaction: &impl ConnectionTrait,
    versions: &BTreeMap<SlotId, (bool, i64)>,
) -> Result<(), DbErr> {
    let rows = versions.iter().map(|(slot, (known, version))| {
        let row = ActiveModel {
            hospital: Set(slot.hospital.segment().to_owned()),
            slot_date: Set(slot.date.to_string()),
            version: Set(*version),
        };
        (*known, row)
    });
    save_all(transaction, rows.collect::<Vec<_>>()).await
}
