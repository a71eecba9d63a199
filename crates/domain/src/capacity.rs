//! Places: slots, the claims that hold them, and what admins change about slots.
//!
//! Capacity is a set of claims, not a counter: a slot's `booked` is the size of its ACTIVE set, so taking or giving back one
//! claim twice counts once. (none) -> ACTIVE -> RELEASED | REVOKED, or (none) -> RELEASED, the tombstone of a release that
//! came before its reserve; RELEASED and REVOKED never change.
//!
//! Functions take what is stored and return what is to be stored with the fact that reports it. Whoever calls them
//! serialises the changes of one slot; who may call is decided elsewhere.

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    CapacityReleased, CapacityReserved, CapacityRevoked, SlotCapacityChanged, SlotClosed, SlotOpened,
};
use contract::hospital::v1 as message;
use fault::{Fault, Reason, Violation};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::civil::{encode_date, time_zone};
use crate::hospital::{Hospital, HospitalState, hospital_deleted, hospital_not_found};
use crate::ids::{CapacityRequestId, ClaimId, SlotId};
use crate::token::check_etag;
use crate::window::{BookingPolicy, refuse_past};

/// The largest capacity a slot may have.
pub const MAX_CAPACITY: i32 = 100_000;

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

/// Whether a date is on sale. The numbers are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum SlotState {
    /// On sale.
    Open = message::slot::State::Open as i32,
    /// Taken off sale by an admin.
    Closed = message::slot::State::Closed as i32,
    /// Its hospital is being or has been deleted.
    Deleted = message::slot::State::Deleted as i32,
}

impl SlotState {
    /// The state with this number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Open, Self::Closed, Self::Deleted].into_iter().find(|state| *state as i32 == number)
    }
}

/// The places a hospital offers on one date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Which one.
    pub id: SlotId,
    /// How many places there are.
    pub capacity: i32,
    /// How many ACTIVE claims there are; never more than `capacity`.
    pub booked: i32,
    /// Whether it is on sale.
    pub state: SlotState,
    /// Counts every change, bookings included.
    pub version: i64,
    /// Counts what admins changed: the version of its events, and its etag.
    pub admin_version: i64,
    /// When it was opened first.
    pub create_time: Timestamp,
    /// When an admin changed it last.
    pub update_time: Timestamp,
}

impl Slot {
    /// How many places are left.
    #[must_use]
    pub fn remaining(&self) -> i32 {
        self.capacity - self.booked
    }

    /// The slot after a change by an admin.
    fn administered(&self, now: Timestamp) -> Self {
        Self { version: self.version + 1, admin_version: self.admin_version + 1, update_time: now, ..self.clone() }
    }

    /// The slot with one claim more or less.
    fn counting(&self, difference: i32) -> Self {
        Self { version: self.version + 1, booked: self.booked + difference, ..self.clone() }
    }

    fn fact(&self, payload: Payload) -> Fact {
        Fact { aggregate: self.id.to_string(), version: self.admin_version, payload }
    }

    fn opened(&self) -> Fact {
        self.fact(Payload::SlotOpened(SlotOpened {
            slot: self.id.to_string(),
            date: Some(encode_date(self.id.date)),
            capacity: self.capacity,
            slot_version: self.version,
            booked_count: self.booked,
        }))
    }

    fn require_hospital(&self) -> Result<(), Fault> {
        match self.state {
            SlotState::Open | SlotState::Closed => Ok(()),
            SlotState::Deleted => Err(hospital_deleted(&self.id.hospital)),
        }
    }
}

/// Why a claim was revoked. The numbers are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum RevokeReason {
    /// The hospital was deleted.
    HospitalDeleted = message::capacity_claim::RevokeReason::HospitalDeleted as i32,
    /// The slot was closed and its bookings cancelled.
    SlotCancelled = message::capacity_claim::RevokeReason::SlotCancelled as i32,
}

impl RevokeReason {
    /// The reason with this number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::HospitalDeleted, Self::SlotCancelled].into_iter().find(|reason| *reason as i32 == number)
    }

    /// Its name in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HospitalDeleted => message::capacity_claim::RevokeReason::HospitalDeleted.as_str_name(),
            Self::SlotCancelled => message::capacity_claim::RevokeReason::SlotCancelled.as_str_name(),
        }
    }
}

/// Whether a claim holds a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimState {
    /// It does.
    Active,
    /// Given back, perhaps before it was taken; final.
    Released,
    /// Taken away; final.
    Revoked(RevokeReason),
}

impl ClaimState {
    /// The contract's state.
    #[must_use]
    pub fn message(self) -> message::capacity_claim::State {
        match self {
            Self::Active => message::capacity_claim::State::Active,
            Self::Released => message::capacity_claim::State::Released,
            Self::Revoked(_) => message::capacity_claim::State::Revoked,
        }
    }
}

/// One place on a slot, or what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The id that the caller chose.
    pub id: ClaimId,
    /// On which slot.
    pub slot: SlotId,
    /// Whether it holds its place.
    pub state: ClaimState,
    /// The slot's version right after the claim's last change.
    pub slot_version: i64,
    /// Counts its own changes: the version of its events.
    pub version: i64,
    /// When it changed last.
    pub update_time: Timestamp,
}

impl Claim {
    fn fact(&self, payload: Payload) -> Fact {
        Fact { aggregate: format!("{}/claims/{}", self.slot, self.id), version: self.version, payload }
    }

    fn ended(&self, state: ClaimState, slot: &Slot, now: Timestamp) -> Self {
        Self { state, slot_version: slot.version, version: self.version + 1, update_time: now, ..self.clone() }
    }

    fn terminated(&self) -> Fault {
        let state = self.state.message().as_str_name();
        Fault::new(Reason::ClaimTerminated, format!("the claim {} is {state} and never becomes active again", self.id))
            .with("claimId", self.id)
            .with("state", state)
    }

    fn require_slot(&self, slot: &SlotId) -> Result<(), Fault> {
        if self.slot == *slot {
            return Ok(());
        }
        Err(field_invalid("slot", format!("the claim {} belongs to {}", self.id, self.slot)))
    }
}

/// What a command does to a claim. Without a fact it changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The claim as it is now.
    pub claim: Claim,
    /// The slot, where it changed too.
    pub slot: Option<Slot>,
    /// What happened.
    pub fact: Option<Fact>,
}

impl Step {
    fn unchanged(claim: &Claim) -> Self {
        Self { claim: claim.clone(), slot: None, fact: None }
    }
}

/// NOT_FOUND for a slot.
#[must_use]
pub fn slot_not_found(slot: &SlotId) -> Fault {
    Fault::new(Reason::SlotNotFound, format!("{slot} does not exist")).with("slot", slot).about("Slot", slot)
}

/// NOT_FOUND for a claim.
#[must_use]
pub fn claim_not_found(claim: &ClaimId) -> Fault {
    Fault::new(Reason::ClaimNotFound, format!("the claim {claim} does not exist"))
        .with("claimId", claim)
        .about("CapacityClaim", claim)
}

/// The refusal of one field by a rule that needs the stored state.
pub(crate) fn field_invalid(field: &str, description: String) -> Fault {
    let message = format!("{field}: {description}");
    let violation = Violation { field: field.to_owned(), reason: Reason::FieldInvalid, description };
    Fault::new(Reason::FieldInvalid, message).with("field", field).violating(vec![violation])
}

fn slot_closed(slot: &SlotId) -> Fault {
    Fault::new(Reason::SlotClosed, format!("{slot} is not on sale")).with("slot", slot).about("Slot", slot)
}

/// A hospital, as far as a booking is judged by it.
#[derive(Debug, Clone)]
pub struct Venue {
    /// Whether it is open for business.
    pub active: bool,
    /// The zone of its dates.
    pub time_zone: TimeZone,
    /// Its policy.
    pub policy: BookingPolicy,
}

impl From<&Hospital> for Venue {
    fn from(hospital: &Hospital) -> Self {
        let active = hospital.state() == HospitalState::Active;
        Self { active, time_zone: hospital.time_zone.clone(), policy: hospital.policy }
    }
}

impl Venue {
    /// Reads what GetHospital answered; `None` where it is not as the contract says.
    #[must_use]
    pub fn from_message(hospital: &message::Hospital) -> Option<Self> {
        let offset = |duration: Option<prost_types::Duration>, default| match duration {
            None => Some(default),
            Some(duration) => jiff::SignedDuration::try_from(std::time::Duration::try_from(duration).ok()?).ok(),
        };
        let policy = hospital.booking_policy.unwrap_or_default();
        let default = BookingPolicy::default();
        Some(Self {
            active: hospital.state() == message::hospital::State::Active,
            time_zone: time_zone(&hospital.time_zone)?,
            policy: BookingPolicy {
                min_notice: offset(policy.min_notice, default.min_notice)?,
                max_advance: offset(policy.max_advance, default.max_advance)?,
                cancellation_cutoff: offset(policy.cancellation_cutoff, default.cancellation_cutoff)?,
            },
        })
    }
}

/// A slot, as far as a booking is judged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Whether it is on sale.
    pub open: bool,
    /// How many places are left.
    pub remaining: i32,
}

impl From<&Slot> for Offer {
    fn from(slot: &Slot) -> Self {
        Self { open: slot.state == SlotState::Open, remaining: slot.remaining() }
    }
}

impl From<&message::Slot> for Offer {
    fn from(slot: &message::Slot) -> Self {
        Self { open: slot.state() == message::slot::State::Open, remaining: slot.remaining_count }
    }
}

/// Whether a place on a slot can be taken now; the one place that knows the order of refusals. `None` stands for a hospital
/// or a slot that does not exist.
///
/// # Errors
/// HOSPITAL_NOT_FOUND, HOSPITAL_DELETED, SLOT_NOT_FOUND, DATE_IN_PAST, OUTSIDE_BOOKING_WINDOW, SLOT_CLOSED or SLOT_FULL.
pub fn judge_booking(slot: &SlotId, venue: Option<&Venue>, offer: Option<Offer>, now: Timestamp) -> Result<(), Fault> {
    let venue = venue.ok_or_else(|| hospital_not_found(&slot.hospital))?;
    if !venue.active {
        return Err(hospital_deleted(&slot.hospital));
    }
    let offer = offer.ok_or_else(|| slot_not_found(slot))?;
    venue.policy.judge(slot.date, &venue.time_zone, now)?;
    if !offer.open {
        return Err(slot_closed(slot));
    }
    if offer.remaining <= 0 {
        return Err(Fault::new(Reason::SlotFull, format!("{slot} has no place left"))
            .with("slot", slot)
            .with("remaining", offer.remaining)
            .about("Slot", slot));
    }
    Ok(())
}

/// Takes a place. A claim that exists answers before any rule: the caller repeats a call whose answer it did not hear.
///
/// # Errors
/// CLAIM_TERMINATED; FIELD_INVALID where the id is ACTIVE on another slot; those of [`judge_booking`].
pub fn reserve(
    slot_id: &SlotId,
    claim_id: ClaimId,
    existing: Option<&Claim>,
    hospital: Option<&Hospital>,
    slot: Option<&Slot>,
    now: Timestamp,
) -> Result<Step, Fault> {
    if let Some(claim) = existing {
        if claim.state != ClaimState::Active {
            return Err(claim.terminated());
        }
        claim.require_slot(slot_id)?;
        return Ok(Step::unchanged(claim));
    }
    judge_booking(slot_id, hospital.map(Venue::from).as_ref(), slot.map(Offer::from), now)?;
    let slot = slot.ok_or_else(|| slot_not_found(slot_id))?.counting(1);
    let claim = Claim {
        id: claim_id,
        slot: slot_id.clone(),
        state: ClaimState::Active,
        slot_version: slot.version,
        version: 1,
        update_time: now,
    };
    let fact = claim.fact(Payload::CapacityReserved(CapacityReserved {
        slot: slot_id.to_string(),
        claim_id: claim_id.to_string(),
        remaining_count: slot.remaining(),
        slot_version: slot.version,
        capacity: slot.capacity,
        booked_count: slot.booked,
    }));
    Ok(Step { claim, slot: Some(slot), fact: Some(fact) })
}

/// Gives a place back. Of a claim never seen it leaves a tombstone, on whatever slot the caller names: the reserve may be
/// still on its way.
///
/// # Errors
/// FIELD_INVALID where the claim belongs to another slot.
pub fn release(
    slot_id: &SlotId,
    claim_id: ClaimId,
    existing: Option<&Claim>,
    slot: Option<&Slot>,
    now: Timestamp,
) -> Result<Step, Fault> {
    let (claim, changed) = match existing {
        None => {
            let slot_version = slot.map_or(0, |slot| slot.version);
            let (slot, state) = (slot_id.clone(), ClaimState::Released);
            (Claim { id: claim_id, slot, state, slot_version, version: 1, update_time: now }, None)
        }
        Some(claim) => {
            claim.require_slot(slot_id)?;
            if claim.state != ClaimState::Active {
                return Ok(Step::unchanged(claim));
            }
            let slot =
                slot.ok_or_else(|| Fault::internal(format!("the slot of the active claim {claim_id} is gone")))?;
            let slot = slot.counting(-1);
            (claim.ended(ClaimState::Released, &slot, now), Some(slot))
        }
    };
    let after = changed.as_ref().or(slot);
    let fact = claim.fact(Payload::CapacityReleased(CapacityReleased {
        slot: slot_id.to_string(),
        claim_id: claim_id.to_string(),
        remaining_count: after.map_or(0, Slot::remaining),
        slot_version: claim.slot_version,
        capacity: after.map_or(0, |slot| slot.capacity),
        booked_count: after.map_or(0, |slot| slot.booked),
    }));
    Ok(Step { claim, slot: changed, fact: Some(fact) })
}

/// Takes a place away. `message` is what the admin gave as the reason. Claims that have ended stay as they are.
#[must_use]
pub fn revoke(claim: &Claim, slot: &Slot, reason: RevokeReason, message: &str, now: Timestamp) -> Step {
    if claim.state != ClaimState::Active {
        return Step::unchanged(claim);
    }
    let slot = slot.counting(-1);
    let claim = claim.ended(ClaimState::Revoked(reason), &slot, now);
    let fact = claim.fact(Payload::CapacityRevoked(CapacityRevoked {
        slot: slot.id.to_string(),
        claim_id: claim.id.to_string(),
        reason: reason.name().to_owned(),
        message: message.to_owned(),
        slot_version: slot.version,
        remaining_count: slot.remaining(),
        capacity: slot.capacity,
        booked_count: slot.booked,
    }));
    Step { claim, slot: Some(slot), fact: Some(fact) }
}

/// Opens a date.
///
/// # Errors
/// HOSPITAL_DELETED, DATE_IN_PAST or SLOT_ALREADY_EXISTS.
pub fn open_slot(
    hospital: &Hospital,
    date: jiff::civil::Date,
    capacity: i32,
    existing: Option<&Slot>,
    now: Timestamp,
) -> Result<(Slot, Fact), Fault> {
    hospital.require_active()?;
    refuse_past(date, &hospital.time_zone, now)?;
    let id = SlotId { hospital: hospital.id.clone(), date };
    if existing.is_some() {
        let fault = Fault::new(Reason::SlotAlreadyExists, format!("{id} exists already"));
        return Err(fault.with("slot", &id).about("Slot", &id));
    }
    let slot = Slot {
        id,
        capacity,
        booked: 0,
        state: SlotState::Open,
        version: 1,
        admin_version: 1,
        create_time: now,
        update_time: now,
    };
    let fact = slot.opened();
    Ok((slot, fact))
}

/// How a capacity is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapacityChange {
    /// To this.
    To(i32),
    /// By this.
    By(i32),
}

/// Sets or shifts a capacity; `None` where that changes nothing. `request` is the capacity request that asked for it.
///
/// # Errors
/// HOSPITAL_DELETED, ETAG_MISMATCH, FIELD_INVALID where the outcome is not a capacity, or CAPACITY_BELOW_BOOKED.
pub fn set_capacity(
    slot: &Slot,
    change: CapacityChange,
    etag: &str,
    request: Option<&CapacityRequestId>,
    now: Timestamp,
) -> Result<Option<(Slot, Fact)>, Fault> {
    slot.require_hospital()?;
    check_etag(etag, slot.admin_version)?;
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
    let changed = Slot { capacity, ..slot.administered(now) };
    let fact = changed.fact(Payload::SlotCapacityChanged(SlotCapacityChanged {
        slot: slot.id.to_string(),
        old_capacity: slot.capacity,
        new_capacity: capacity,
        booked_count: changed.booked,
        capacity_request: request.map(ToString::to_string).unwrap_or_default(),
        slot_version: changed.version,
    }));
    Ok(Some((changed, fact)))
}

/// Takes a date off sale; `None` where that changes nothing. With `cancel_bookings` the caller revokes the slot's claims.
///
/// # Errors
/// HOSPITAL_DELETED or ETAG_MISMATCH.
pub fn close_slot(
    slot: &Slot,
    cancel_bookings: bool,
    reason: &str,
    etag: &str,
    now: Timestamp,
) -> Result<Option<(Slot, Fact)>, Fault> {
    slot.require_hospital()?;
    check_etag(etag, slot.admin_version)?;
    let cancels = cancel_bookings && slot.booked > 0;
    if slot.state == SlotState::Closed && !cancels {
        return Ok(None);
    }
    let closed = Slot { state: SlotState::Closed, ..slot.administered(now) };
    let fact = closed.fact(Payload::SlotClosed(SlotClosed {
        slot: slot.id.to_string(),
        bookings_cancelled: cancel_bookings,
        reason: reason.to_owned(),
        slot_version: closed.version,
        capacity: closed.capacity,
        booked_count: closed.booked,
    }));
    Ok(Some((closed, fact)))
}

/// Puts a closed date on sale again; `None` where that changes nothing. `revoking` says that its claims are still being
/// revoked: a place booked now could not be told from those.
///
/// # Errors
/// HOSPITAL_DELETED, ETAG_MISMATCH, or REQUEST_IN_PROGRESS while its bookings are being cancelled.
pub fn reopen_slot(slot: &Slot, etag: &str, revoking: bool, now: Timestamp) -> Result<Option<(Slot, Fact)>, Fault> {
    slot.require_hospital()?;
    check_etag(etag, slot.admin_version)?;
    if slot.state == SlotState::Open {
        return Ok(None);
    }
    if revoking {
        let message = format!("{} bookings of {} are still being cancelled", slot.booked, slot.id);
        return Err(Fault::new(Reason::RequestInProgress, message)
            .with("slot", &slot.id)
            .with("bookedCount", slot.booked)
            .about("Slot", &slot.id));
    }
    let opened = Slot { state: SlotState::Open, ..slot.administered(now) };
    let fact = opened.opened();
    Ok(Some((opened, fact)))
}

/// The slot of a hospital whose deletion begins. No event reports it but the hospital's own, so its event version stands.
#[must_use]
pub fn withdraw_slot(slot: &Slot, now: Timestamp) -> Slot {
    Slot { state: SlotState::Deleted, version: slot.version + 1, update_time: now, ..slot.clone() }
}

/// Refuses to approve more places for a date that is not on sale.
///
/// # Errors
/// HOSPITAL_DELETED or SLOT_CLOSED.
pub(crate) fn require_on_sale(slot: &Slot) -> Result<(), Fault> {
    slot.require_hospital()?;
    if slot.state == SlotState::Open { Ok(()) } else { Err(slot_closed(&slot.id)) }
}

#[cfg(test)]
mod tests;
