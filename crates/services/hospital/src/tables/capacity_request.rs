//! The table of capacity requests.

use domain::hospital::{CapacityRequest, RequestState};
use domain::ids::CapacityRequestId;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use store::rows::NoRelation as Relation;
use store::{micros, timestamp};

use super::{corrupt, hospital_id, slot_id, slot_key};

/// One capacity request. Expiry is not stored, because it follows from the time.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "capacity_request")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub hospital: String,
    pub slot: String,
    pub additional_capacity: i32,
    #[sea_orm(column_type = "Text")]
    pub justification: String,
    pub state: i32,
    #[sea_orm(column_type = "Text")]
    pub decision_note: String,
    pub version: i64,
    pub create_time: i64,
    pub expire_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

impl From<&CapacityRequest> for ActiveModel {
    fn from(request: &CapacityRequest) -> Self {
        Self {
            uid: Set(request.id.uid),
            hospital: Set(request.id.hospital.segment().to_owned()),
            slot: Set(slot_key(&request.slot)),
            additional_capacity: Set(request.additional),
            justification: Set(request.justification.clone()),
            state: Set(request.decision as i32),
            decision_note: Set(request.note.clone()),
            version: Set(request.version),
            create_time: Set(micros(request.create_time)),
            expire_time: Set(micros(request.expire_time)),
        }
    }
}

impl TryFrom<Model> for CapacityRequest {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        Ok(Self {
            id: CapacityRequestId { hospital: hospital_id(&row.hospital)?, uid: row.uid },
            slot: slot_id(&row.slot)?,
            additional: row.additional_capacity,
            justification: row.justification,
            decision: RequestState::from_number(row.state).ok_or_else(|| corrupt("request state", row.state))?,
            note: row.decision_note,
            version: row.version,
            create_time: timestamp(row.create_time),
            expire_time: timestamp(row.expire_time),
        })
    }
}
