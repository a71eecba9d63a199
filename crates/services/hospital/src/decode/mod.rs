//! From messages to what the use cases take: everything that is wrong with a request is found here, all at once. Rules
//! that need stored state are not known here.
//!
//! Every request is destructured in full, so that a new field does not compile until it is decided what it means.
//! Output-only fields are ignored, whatever they hold.

mod capacity;
mod hospital;
mod slot;

pub(crate) use capacity::{
    approve_capacity_request, claim, create_capacity_request, get_capacity_request, list_capacity_claims,
    list_capacity_requests, reject_capacity_request,
};
pub(crate) use hospital::{create_hospital, delete_hospital, get_hospital, list_hospitals, update_hospital};
#[cfg(test)]
pub(crate) use slot::MAX_SLOTS;
pub(crate) use slot::{
    batch_create_slots, close_slot, create_slot, get_slot, list_slots, reopen_slot, search_availability,
    set_slot_capacity,
};

use domain::civil::decode_date;
use domain::filter::Comparison;
use domain::ids::{HospitalId, SlotId};
use domain::page::Page;
use domain::text::{self, REMARK_MAX};
use fault::{Reason, Violations};
use jiff::civil::Date;
use uuid::Uuid;

use crate::command::Change;

/// A change that an admin of `hospital` may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Whose admin has to ask.
    pub(crate) hospital: HospitalId,
    /// The request_id the caller chose.
    pub(crate) request_id: Option<Uuid>,
    /// What to change.
    pub(crate) change: Change,
}

/// A list of something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List<P> {
    /// Of what.
    pub(crate) parent: P,
    /// Which of them.
    pub(crate) filter: Vec<Comparison>,
    /// Which page.
    pub(crate) page: Page,
}

fn required(violations: &mut Violations, field: &str) {
    violations.add(field, Reason::FieldInvalid, "is required");
}

fn remark(violations: &mut Violations, field: &str, text: &mut String) {
    text::check(violations, field, text, 0, REMARK_MAX);
}

fn optional_date(
    violations: &mut Violations,
    field: &str,
    date: Option<contract::google::r#type::Date>,
) -> Option<Date> {
    date.and_then(|date| decode_date(violations, field, Some(date)))
}

/// A slot's name with whose it is.
fn slot_name(violations: &mut Violations, field: &str, text: &str) -> Option<(HospitalId, SlotId)> {
    violations.name(field, text, SlotId::parse).map(|slot| (slot.hospital.clone(), slot))
}
