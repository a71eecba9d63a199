//! The table of claims.

use contract::capacity::v1::capacity_claim::State;
use domain::capacity::{Claim, ClaimState, RevokeReason};
use domain::ids::{ClaimId, ScreeningId};
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::entity::prelude::*;
use store::rows::NoRelation as Relation;
use store::{micros, timestamp};

use super::{corrupt, slot_id, slot_key};

/// One claim. Its id is the pair of screening and generation.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "claim")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub screening: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub generation: i32,
    pub slot: String,
    pub state: i32,
    pub revoke_reason: i32,
    pub slot_version: i64,
    pub version: i64,
    pub update_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

impl From<&Claim> for ActiveModel {
    fn from(claim: &Claim) -> Self {
        let revoke_reason = match claim.state {
            ClaimState::Active | ClaimState::Released => 0,
            ClaimState::Revoked(reason) => reason as i32,
        };
        Self {
            screening: Set(claim.id.screening.0),
            generation: Set(claim.id.generation),
            // the slot of a claim never changes; unchanged columns leave their indexes alone
            slot: Unchanged(slot_key(&claim.slot)),
            state: Set(claim.state.message() as i32),
            revoke_reason: Set(revoke_reason),
            slot_version: Set(claim.slot_version),
            version: Set(claim.version),
            update_time: Set(micros(claim.update_time)),
        }
    }
}

impl TryFrom<Model> for Claim {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let reason = || RevokeReason::from_number(row.revoke_reason);
        let state = match State::try_from(row.state) {
            Ok(State::Active) => Some(ClaimState::Active),
            Ok(State::Released) => Some(ClaimState::Released),
            Ok(State::Revoked) => reason().map(ClaimState::Revoked),
            Ok(State::Unspecified) | Err(_) => None,
        };
        Ok(Self {
            id: ClaimId { screening: ScreeningId(row.screening), generation: row.generation },
            slot: slot_id(&row.slot)?,
            state: state.ok_or_else(|| corrupt("claim state", row.state))?,
            slot_version: row.slot_version,
            version: row.version,
            update_time: timestamp(row.update_time),
        })
    }
}
