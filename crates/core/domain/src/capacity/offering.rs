//! Changes by admins that free places: those go to the queue first.

use contract::event::v1::SlotCapacityChanged;
use contract::event::v1::event_envelope::Payload;
use fault::{Fault, Reason};
use jiff::Timestamp;

use super::claim::{Claim, Step, pass_on, promote};
use super::slot::{MAX_CAPACITY, Slot, SlotState};
use super::{Fact, field_invalid};
use crate::civil::encode_date;
use crate::hospital_state::Hospital;
use crate::ids::CapacityRequestId;

/// A change of a slot's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapacityChange {
    /// Set the capacity to this number.
    To(i32),
    /// Add this number, which may be negative.
    By(i32),
}

/// A change of a slot by an admin.
#[derive(Debug, Clone, PartialEq)]
pub struct Administered {
    /// The slot after the change.
    pub slot: Slot,
    /// The fact that reports the change. The places that it frees for who waits are taken in it already.
    pub fact: Fact,
    /// The claims that get those places, in the order of their tickets; the slot after all is in the last one.
    pub promoted: Vec<Step>,
}

impl Administered {
    /// The change that leads to this slot, which frees places. `fact` reports it once they are counted as taken by the
    /// first of the queue.
    fn freeing(slot: Slot, queue: &[Claim], now: Timestamp, fact: impl Fn(&Slot) -> Fact) -> Self {
        let (slot, next) = pass_on(slot, queue, now);
        Self { fact: fact(&slot), promoted: promote(&slot, next, now), slot }
    }
}

/// Sets or shifts a capacity; `None` if nothing would change. `request` is the capacity request that asked for the
/// change. New places go to the claims of `queue`, the slot's WAITING ones in the order of their tickets.
///
/// # Errors
/// HOSPITAL_DELETED, DATE_IN_PAST, ETAG_MISMATCH, FIELD_INVALID if the result is no valid capacity, or
/// CAPACITY_BELOW_BOOKED.
pub fn set_capacity(
    hospital: &Hospital,
    slot: &Slot,
    change: CapacityChange,
    etag: &str,
    request: Option<&CapacityRequestId>,
    queue: &[Claim],
    now: Timestamp,
) -> Result<Option<Administered>, Fault> {
    slot.require_change(hospital, etag, now)?;
    let (field, wanted) = match change {
        CapacityChange::To(capacity) => ("capacity", i64::from(capacity)),
        CapacityChange::By(delta) => ("delta", i64::from(slot.capacity) + i64::from(delta)),
    };
    let capacity = i32::try_from(wanted).ok().filter(|capacity| (0..=MAX_CAPACITY).contains(capacity));
    let field = if request.is_some() { "name" } else { field };
    let Some(capacity) = capacity else {
        return Err(field_invalid(
            field,
            format!("would lead to a capacity of {wanted}; it must be 0..{MAX_CAPACITY}"),
        ));
    };
    if capacity < slot.booked {
        let message = format!("{} has {} places booked, more than the capacity of {capacity}", slot.id, slot.booked);
        return Err(Fault::new(Reason::CapacityBelowBooked, message)
            .with("slot", &slot.id)
            .with("bookedCount", slot.booked)
            .with("requestedCapacity", capacity)
            .about("Slot", &slot.id));
    }
    if capacity == slot.capacity {
        return Ok(None);
    }
    let fact = |changed: &Slot| {
        changed.fact(Payload::SlotCapacityChanged(SlotCapacityChanged {
            slot: slot.id.to_string(),
            old_capacity: slot.capacity,
            new_capacity: capacity,
            booked_count: changed.booked,
            capacity_request: request.map(ToString::to_string).unwrap_or_default(),
            slot_version: changed.version,
            date: Some(encode_date(slot.id.date)),
            on_sale: Some(slot.state == SlotState::Open),
            waitlisted_count: changed.waiting,
        }))
    };
    Ok(Some(Administered::freeing(Slot { capacity, ..slot.administered(now) }, queue, now, fact)))
}

/// Puts a closed date on sale again; `None` if nothing would change. `revoking` says that its claims are still being
/// revoked; a new booking could not be told from those. Free places go to the claims of `queue`, as in
/// [`set_capacity`].
///
/// # Errors
/// HOSPITAL_DELETED, DATE_IN_PAST, ETAG_MISMATCH, or REVOCATION_IN_PROGRESS while its bookings are being cancelled.
pub fn reopen_slot(
    hospital: &Hospital,
    slot: &Slot,
    etag: &str,
    revoking: bool,
    queue: &[Claim],
    now: Timestamp,
) -> Result<Option<Administered>, Fault> {
    slot.require_change(hospital, etag, now)?;
    if slot.state == SlotState::Open {
        return Ok(None);
    }
    if revoking {
        let message =
            format!("the bookings of {} are still being cancelled, {} places are taken yet", slot.id, slot.booked);
        return Err(Fault::new(Reason::RevocationInProgress, message)
            .with("slot", &slot.id)
            .with("bookedCount", slot.booked)
            .about("Slot", &slot.id));
    }
    let opened = Slot { state: SlotState::Open, ..slot.administered(now) };
    Ok(Some(Administered::freeing(opened, queue, now, Slot::opened)))
}
