//! The table of the last report number per slot. Reports are about refusals of full slots.

use std::collections::{BTreeMap, HashMap};

use domain::ids::SlotId;
use sea_orm::ActiveValue::Set;
use sea_orm::DbErr;
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};
use store::rows::NoRelation as Relation;
use store::rows::save_all;

use super::row;
use store::{Connection, Fetch as _};

/// The number of a slot's last report.
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

/// The numbers of the last reports of these slots. The result may contain other slots too. Where the database locks
/// rows, they are locked until the transaction ends.
pub(crate) async fn versions<'a>(
    connection: &dyn Connection,
    slots: impl IntoIterator<Item = &'a SlotId>,
) -> Result<HashMap<SlotId, i64>, DbErr> {
    let (hospitals, dates): (Vec<_>, Vec<_>) =
        slots.into_iter().map(|slot| (slot.hospital.segment(), slot.segment())).unzip();
    if hospitals.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = Entity::find()
        .filter(Column::Hospital.is_in(hospitals))
        .filter(Column::SlotDate.is_in(dates))
        .order_by_asc(Column::Hospital)
        .order_by_asc(Column::SlotDate)
        .lock_exclusive()
        .fetch(connection)
        .await?;
    rows.into_iter().map(|row| Ok((row::slot(&row.hospital, &row.slot_date)?, row.version))).collect()
}

/// Stores the numbers of new reports. The flag says whether the slot had a report before.
pub(crate) async fn save(transaction: &dyn Connection, versions: &BTreeMap<SlotId, (bool, i64)>) -> Result<(), DbErr> {
    let rows = versions.iter().map(|(slot, (known, version))| {
        let row = ActiveModel {
            hospital: Set(slot.hospital.segment().to_owned()),
            slot_date: Set(slot.segment()),
            version: Set(*version),
        };
        (*known, row)
    });
    save_all(transaction, rows.collect::<Vec<_>>()).await
}
