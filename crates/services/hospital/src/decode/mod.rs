//! Decodes messages into what the use cases take, and reports every violation of a request at once. Rules that need
//! stored state are checked later.
//!
//! Every request is destructured in full, so that a new field does not compile until somebody decides what it means.
//! Output-only fields are ignored.

mod calendar;
mod capacity;
mod dates;
mod hospital;
mod policy;
mod slot;

pub(crate) use calendar::{batch_close_slots, batch_create_slots, create_slot};
pub(crate) use capacity::{
    BatchedCall, Wanted, approve_capacity_request, batch, claim, create_capacity_request, get_capacity_request,
    list_capacity_claims, list_capacity_requests, reject_capacity_request, reserve,
};
pub(crate) use hospital::{create_hospital, delete_hospital, get_hospital, list_hospitals, update_hospital};
pub(crate) use slot::{
    Watch, close_slot, get_slot, list_slots, reopen_slot, search_availability, set_slot_capacity, watch_availability,
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

/// The most dates that one request opens or closes: a leap year.
pub(crate) const MAX_SLOTS: usize = 366;

/// A decoded change, which only an admin of `hospital` may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) hospital: HospitalId,
    /// The request_id, if the caller chose one.
    pub(crate) request_id: Option<Uuid>,
    pub(crate) change: Change,
}

/// A decoded list request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List<P> {
    /// The resource whose children are listed.
    pub(crate) parent: P,
    pub(crate) filter: Vec<Comparison>,
    pub(crate) page: Page,
}

fn required(violations: &mut Violations, field: &str) {
    violations.add(field, Reason::FieldInvalid, "is required");
}

/// Refuses a list that has more entries than one request may change dates.
fn too_many(violations: &mut Violations, list: &str, count: usize) -> bool {
    let too_many = count > MAX_SLOTS;
    if too_many {
        violations.add(list, Reason::FieldInvalid, format!("must have at most {MAX_SLOTS} entries, has {count}"));
    }
    too_many
}

/// Refuses a list whose rules name more dates than one request may change.
fn too_many_dates(violations: &mut Violations, list: &str, count: usize) -> bool {
    let is_too_many = count > MAX_SLOTS;
    if is_too_many {
        violations.add(list, Reason::FieldInvalid, format!("must name at most {MAX_SLOTS} dates, names {count}"));
    }
    is_too_many
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

/// Reads a slot's name. Returns its hospital too.
fn slot_name(violations: &mut Violations, field: &str, text: &str) -> Option<(HospitalId, SlotId)> {
    violations.name(field, text, SlotId::parse_requested).map(|slot| (slot.hospital.clone(), slot))
}
