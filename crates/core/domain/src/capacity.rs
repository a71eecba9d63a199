//! Places: slots, the claims that hold them, and what admins change about slots.
//!
//! Capacity is a set of claims, not a counter: a slot's `booked` is the size of its ACTIVE set, so taking or giving back one
//! claim twice counts once. (none) -> ACTIVE -> RELEASED | REVOKED, or (none) -> RELEASED, the tombstone of a release that
//! came before its reserve; RELEASED and REVOKED never change.
//!
//! Functions take what is stored and return what is to be stored with the fact that reports it. Whoever calls them
//! serialises the changes of one slot; who may call is decided elsewhere.

mod booking;
mod claim;
mod slot;

pub use booking::{Offer, Venue, judge_booking};
pub use claim::{Claim, ClaimState, RevokeReason, Step, claim_not_found, release, reserve, revoke};
pub(crate) use slot::require_on_sale;
pub use slot::{
    CapacityChange, MAX_CAPACITY, Slot, SlotState, close_slot, open_slot, reopen_slot, set_capacity, slot_not_found,
    state_fact, withdraw_slot,
};

use contract::event::v1::event_envelope::Payload;
use fault::{Fault, Reason, Violation};

/// Something that happened, for an envelope: what it is about, the count of that thing's changes, and the payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The resource name of the one thing whose state it reports.
    pub aggregate: String,
    /// That thing's own version after it.
    pub version: i64,
    /// What happened.
    pub payload: Payload,
}

/// The refusal of one field by a rule that needs the stored state.
pub(crate) fn field_invalid(field: &str, description: String) -> Fault {
    let message = format!("{field}: {description}");
    let violation = Violation { field: field.to_owned(), reason: Reason::FieldInvalid, description };
    Fault::new(Reason::FieldInvalid, message).with("field", field).violating(vec![violation])
}

#[cfg(test)]
mod tests;
