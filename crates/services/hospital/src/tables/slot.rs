//! The table of slots.

use domain::capacity::{Slot, SlotState};
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::entity::prelude::*;
use store::rows::NoRelation as Relation;
use store::{micros, timestamp};

use super::{corrupt, slot_id, slot_key};

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "slot")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub hospital: String,
    pub date: String,
    pub capacity: i32,
    pub booked_count: i32,
    pub waitlisted_count: i32,
    pub state: i32,
    pub version: i64,
    pub admin_version: i64,
    pub create_time: i64,
    pub update_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

impl From<&Slot> for ActiveModel {
    fn from(slot: &Slot) -> Self {
        Self {
            id: Set(slot_key(&slot.id)),
            // these never change for a slot; unchanged columns leave their indexes alone
            hospital: Unchanged(slot.id.hospital.segment().to_owned()),
            date: Unchanged(slot.id.date.to_string()),
            capacity: Set(slot.capacity),
            booked_count: Set(slot.booked),
            waitlisted_count: Set(slot.waiting),
            state: Set(slot.state as i32),
            version: Set(slot.version),
            admin_version: Set(slot.admin_version),
            create_time: Set(micros(slot.create_time)),
            update_time: Set(micros(slot.update_time)),
        }
    }
}

impl TryFrom<Model> for Slot {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        Ok(Self {
            id: slot_id(&row.id)?,
            capacity: row.capacity,
            booked: row.booked_count,
            waiting: row.waitlisted_count,
            state: SlotState::from_number(row.state).ok_or_else(|| corrupt("slot state", row.state))?,
            version: row.version,
            admin_version: row.admin_version,
            create_time: timestamp(row.create_time),
            update_time: timestamp(row.update_time),
        })
    }
}
