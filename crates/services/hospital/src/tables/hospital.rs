//! The table of hospitals.

use domain::civil;
use domain::hospital::{Deletion, Hospital, HospitalState};
use domain::window::{BookingPolicy, zone_name};
use jiff::SignedDuration;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use store::rows::NoRelation as Relation;
use store::{micros, timestamp};

use super::{corrupt, hospital_id};

/// One hospital. The offsets of its policy are whole nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "hospital")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub uid: Uuid,
    #[sea_orm(column_type = "Text")]
    pub display_name: String,
    pub time_zone: String,
    pub min_notice: i64,
    pub max_advance: i64,
    pub cancellation_cutoff: i64,
    pub waitlist_limit: i32,
    pub promotion_min_notice: i64,
    pub reschedule_limit: i32,
    pub customer_limit: Option<i32>,
    pub state: i32,
    pub delete_time: Option<i64>,
    pub claims_to_revoke: i64,
    pub version: i64,
    pub create_time: i64,
    pub update_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

pub(crate) fn nanos(offset: SignedDuration) -> i64 {
    i64::try_from(offset.as_nanos()).unwrap_or(i64::MAX)
}

impl From<&Hospital> for ActiveModel {
    fn from(hospital: &Hospital) -> Self {
        Self {
            id: Set(hospital.id.segment().to_owned()),
            uid: Set(hospital.uid),
            display_name: Set(hospital.display_name.clone()),
            time_zone: Set(zone_name(&hospital.time_zone).to_owned()),
            min_notice: Set(nanos(hospital.policy.min_notice)),
            max_advance: Set(nanos(hospital.policy.max_advance)),
            cancellation_cutoff: Set(nanos(hospital.policy.cancellation_cutoff)),
            waitlist_limit: Set(hospital.policy.waitlist_limit),
            promotion_min_notice: Set(nanos(hospital.policy.promotion_min_notice)),
            reschedule_limit: Set(hospital.policy.reschedule_limit),
            customer_limit: Set(hospital.policy.customer_limit),
            state: Set(hospital.state() as i32),
            delete_time: Set(hospital.deletion.map(|deletion| micros(deletion.time))),
            claims_to_revoke: Set(hospital.deletion.map_or(0, |deletion| deletion.claims)),
            version: Set(hospital.version),
            create_time: Set(micros(hospital.create_time)),
            update_time: Set(micros(hospital.update_time)),
        }
    }
}

impl TryFrom<Model> for Hospital {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let state = HospitalState::from_number(row.state).ok_or_else(|| corrupt("hospital state", row.state))?;
        let deletion = row.delete_time.map(|time| Deletion {
            time: timestamp(time),
            claims: row.claims_to_revoke,
            complete: state == HospitalState::Deleted,
        });
        Ok(Self {
            id: hospital_id(&row.id)?,
            uid: row.uid,
            display_name: row.display_name,
            time_zone: civil::time_zone(&row.time_zone).ok_or_else(|| corrupt("time zone", &row.time_zone))?,
            policy: BookingPolicy {
                min_notice: SignedDuration::from_nanos(row.min_notice),
                max_advance: SignedDuration::from_nanos(row.max_advance),
                cancellation_cutoff: SignedDuration::from_nanos(row.cancellation_cutoff),
                waitlist_limit: row.waitlist_limit,
                promotion_min_notice: SignedDuration::from_nanos(row.promotion_min_notice),
                reschedule_limit: row.reschedule_limit,
                customer_limit: row.customer_limit,
            },
            deletion,
            version: row.version,
            create_time: timestamp(row.create_time),
            update_time: timestamp(row.update_time),
        })
    }
}
