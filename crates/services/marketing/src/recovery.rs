//! Tells the recovery of Hospital what this service knows of places and hospitals.

use std::collections::BTreeMap;

use domain::demand::{Hospital, Places};
use domain::ids::{HospitalId, SlotId};
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};
use store::{Database, DbErr};

use crate::tables::corrupt;
use crate::tables::hospitals::hospital;
use crate::tables::signals::{Row, signal};
use store::Fetch as _;

/// The names of this service's durable consumers.
pub const CONSUMERS: &[&str] = &[crate::reactions::HOSPITAL, crate::reactions::SCREENING];

/// Reads the places of at most `limit` slots in the order of the slots' names, after `after`.
///
/// # Errors
/// Fails if the database does.
pub async fn places(database: &Database, after: Option<&SlotId>, limit: u64) -> Result<Vec<Places>, DbErr> {
    let mut select = signal::Entity::find().filter(signal::Column::SlotVersion.gt(0));
    if let Some(after) = after {
        select = select.filter(signal::Column::Slot.gt(after.to_string()));
    }
    let rows = select.order_by_asc(signal::Column::Slot).limit(limit).fetch(database.reader()).await?;
    let places = |row| {
        let signal = Row::try_from(row)?.signal;
        let domain::demand::Signal { slot, slot_version, capacity, booked, waiting, update_time } = signal;
        Ok(Places { slot, slot_version, capacity, booked, waiting, time: update_time })
    };
    rows.into_iter().map(places).collect()
}

/// Reads every known hospital.
///
/// # Errors
/// Fails if the database does.
pub async fn hospitals(database: &Database) -> Result<BTreeMap<HospitalId, Hospital>, DbErr> {
    let rows = hospital::Entity::find().fetch(database.reader()).await?;
    let read = |row: hospital::Model| {
        let id = HospitalId::parse(&row.hospital).map_err(|_| corrupt("hospital", &row.hospital))?;
        Ok((id, Hospital { time_zone: row.time_zone, gone: row.gone }))
    };
    rows.into_iter().map(read).collect()
}
