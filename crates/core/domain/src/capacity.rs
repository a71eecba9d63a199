//! Places: slots, the claims that hold them, and what admins change about slots.
//!
//! Capacity is a set of claims, not a counter: a slot's `booked` is the size of its ACTIVE set, so taking or giving
//! back the same claim twice counts once. A claim goes (none) -> ACTIVE -> RELEASED | REVOKED. It goes (none) ->
//! RELEASED if its release arrives before its reserve: that row is a tombstone. RELEASED and REVOKED never change.
//!
//! Where no place is left, a claim may go (none) -> WAITING -> ACTIVE | RELEASED | REVOKED. A slot's queue is the set
//! of its WAITING claims in the order of their tickets. A place that becomes free passes to the first of them in the
//! same transaction and is counted as taken all the time.
//!
//! Functions take the stored state and return the new state with the fact that reports it. The caller serialises the
//! changes of one slot. Whether a caller may make them is decided elsewhere.

mod booking;
mod claim;
mod offering;
mod slot;

pub use booking::{Offer, Venue, judge_booking, judge_joining, slot_full};
pub use claim::{
    Claim, ClaimState, MAX_BATCHED_CALLS, RevokeReason, Step, Ticket, claim_not_found, release, reserve, revoke,
    serve_queue,
};
pub use offering::{Administered, CapacityChange, reopen_slot, set_capacity};
pub(crate) use slot::require_on_sale;
pub use slot::{MAX_CAPACITY, Slot, SlotState, close_slot, open_slot, slot_not_found, state_fact, withdraw_slot};

pub use crate::event::Fact;

use fault::{Fault, Reason, Violation};

/// Refuses a field because of a rule that needs the stored state.
pub(crate) fn field_invalid(field: &str, description: String) -> Fault {
    let message = format!("{field}: {description}");
    let violation = Violation { field: field.to_owned(), reason: Reason::FieldInvalid, description };
    Fault::new(Reason::FieldInvalid, message).with("field", field).violating(vec![violation])
}

#[cfg(test)]
mod tests;
