//! The tables, and the conversion between rows and domain values. Nothing is decided here.

use domain::ids::{HospitalId, SlotId};
use sea_orm::DbErr;

pub(crate) mod capacity_request;
pub(crate) mod claim;
pub(crate) mod hospital;
pub(crate) mod read;
pub(crate) mod revocation;
pub(crate) mod slot;
pub(crate) mod versions;
pub(crate) mod watch;

/// The most keys in one `IN` list, well below every database's limit on bound values.
pub(crate) const KEYS: usize = 8_192;

/// The key of a slot, `{hospital}/{last segment of its name}`. Claims refer to slots by it.
pub(crate) fn slot_key(slot: &SlotId) -> String {
    format!("{}/{}", slot.hospital.segment(), slot.segment())
}

/// Reads [`slot_key`] back.
pub(crate) fn slot_id(key: &str) -> Result<SlotId, DbErr> {
    let parsed = key
        .split_once('/')
        .and_then(|(hospital, segment)| SlotId::from_segment(HospitalId::from_segment(hospital).ok()?, segment));
    parsed.ok_or_else(|| corrupt("slot key", key))
}

/// The error of a row that this code cannot have written.
pub(crate) fn corrupt(what: &str, value: impl std::fmt::Display) -> DbErr {
    DbErr::Custom(format!("the database holds the {what} {value}, which no rule allows"))
}

/// Parses the segment of a hospital's name.
pub(crate) fn hospital_id(segment: &str) -> Result<HospitalId, DbErr> {
    HospitalId::from_segment(segment).map_err(|_| corrupt("hospital id", segment))
}
