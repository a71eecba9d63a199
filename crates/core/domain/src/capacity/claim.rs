//! Claims: taking a place, giving it back, taking it away.

use contract::capacity::v1 as message;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{CapacityReleased, CapacityReserved, CapacityRevoked, CapacityWaitlisted};
use fault::{Fault, Reason};
use jiff::Timestamp;

use super::booking::{Offer, Venue, judge_booking, judge_joining};
use super::slot::{Slot, SlotState, slot_not_found};
use super::{Fact, field_invalid};
use crate::civil::{encode_date, encode_time};
use crate::hospital_state::Hospital;
use crate::ids::{ClaimId, SlotId};

/// The most ReserveCapacity calls of one BatchReserveCapacity.
pub const MAX_BATCHED_CALLS: usize = 128;

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
    /// The reason with this number, or `None` if there is none.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::HospitalDeleted, Self::SlotCancelled].into_iter().find(|reason| *reason as i32 == number)
    }

    /// The reason's name in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HospitalDeleted => message::capacity_claim::RevokeReason::HospitalDeleted.as_str_name(),
            Self::SlotCancelled => message::capacity_claim::RevokeReason::SlotCancelled.as_str_name(),
        }
    }
}

/// The position of a claim in the queue of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Promotion goes by it, smallest first. It is the slot's version at which the claim joined, so no other claim of
    /// the slot ever has it.
    pub number: i64,
    /// The instant from which the claim gets no place any more. A later change of the policy does not move it.
    pub closes_at: Timestamp,
}

/// Whether a claim holds a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimState {
    /// It holds a place.
    Active,
    /// It holds no place and waits for one.
    Waiting(Ticket),
    /// Released by Screening, perhaps before it was reserved; final.
    Released,
    /// Taken away by Hospital; final.
    Revoked(RevokeReason),
}

impl ClaimState {
    /// The state as the contract's enum.
    #[must_use]
    pub fn message(self) -> message::capacity_claim::State {
        match self {
            Self::Active => message::capacity_claim::State::Active,
            Self::Waiting(_) => message::capacity_claim::State::Waiting,
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
    /// The slot that the claim is on.
    pub slot: SlotId,
    /// Whether it holds its place.
    pub state: ClaimState,
    /// The slot's version right after the claim's last change.
    pub slot_version: i64,
    /// 1 when the claim is stored, one more per change. It is the version of its events.
    pub version: i64,
    /// When the claim last changed.
    pub update_time: Timestamp,
}

impl Claim {
    fn fact(&self, payload: Payload) -> Fact {
        Fact { aggregate: format!("{}/claims/{}", self.slot, self.id), version: self.version, payload }
    }

    fn becoming(&self, state: ClaimState, slot: &Slot, now: Timestamp) -> Self {
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

/// The result of a command on a claim. Without a fact nothing changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The claim after the command.
    pub claim: Claim,
    /// The slot after the command, if it changed too.
    pub slot: Option<Slot>,
    /// The fact to publish, if the claim changed.
    pub fact: Option<Fact>,
}

impl Step {
    pub(super) fn unchanged(claim: &Claim) -> Self {
        Self { claim: claim.clone(), slot: None, fact: None }
    }
}

/// The refusal of a call that names a claim that does not exist.
#[must_use]
pub fn claim_not_found(claim: &ClaimId) -> Fault {
    Fault::new(Reason::ClaimNotFound, format!("the claim {claim} does not exist"))
        .with("claimId", claim)
        .about("CapacityClaim", claim)
}

/// Takes a place, or a ticket where no place is left and `allow_waitlist` is set. An existing claim is the answer
/// before any rule applies, because the caller may repeat a call whose answer was lost.
///
/// # Errors
/// CLAIM_TERMINATED; FIELD_INVALID if the id is ACTIVE or WAITING on another slot; the errors of [`judge_booking`], or
/// of [`judge_joining`] in place of SLOT_FULL.
pub fn reserve(
    slot_id: &SlotId,
    claim_id: ClaimId,
    existing: Option<&Claim>,
    hospital: Option<&Hospital>,
    slot: Option<&Slot>,
    allow_waitlist: bool,
    now: Timestamp,
) -> Result<Step, Fault> {
    if let Some(claim) = existing {
        return match claim.state {
            ClaimState::Active | ClaimState::Waiting(_) => {
                claim.require_slot(slot_id)?;
                Ok(Step::unchanged(claim))
            }
            ClaimState::Released | ClaimState::Revoked(_) => Err(claim.terminated()),
        };
    }
    let (venue, offer) = (hospital.map(Venue::from), slot.map(Offer::from));
    let full = judge_booking(slot_id, venue.as_ref(), offer, now).err();
    let (Some(slot), Some(venue), Some(offer)) = (slot, venue, offer) else {
        return Err(full.unwrap_or_else(|| slot_not_found(slot_id)));
    };
    match full {
        None => Ok(taken(claim_id, slot, now)),
        Some(full) if full.reason() == Reason::SlotFull && allow_waitlist => {
            Ok(joined(claim_id, slot, judge_joining(slot_id, &venue, offer, now)?, now))
        }
        Some(refusal) => Err(refusal),
    }
}

/// A new claim, stored with this change of the slot.
fn new_claim(id: ClaimId, state: ClaimState, slot: &Slot, now: Timestamp) -> Claim {
    Claim { id, slot: slot.id.clone(), state, slot_version: slot.version, version: 1, update_time: now }
}

fn taken(id: ClaimId, slot: &Slot, now: Timestamp) -> Step {
    let slot = slot.counting(1, 0);
    let claim = new_claim(id, ClaimState::Active, &slot, now);
    let fact = reserved(&claim, &slot, false);
    Step { claim, slot: Some(slot), fact: Some(fact) }
}

fn joined(id: ClaimId, slot: &Slot, closes_at: Timestamp, now: Timestamp) -> Step {
    let slot = slot.counting(0, 1);
    let ticket = Ticket { number: slot.version, closes_at };
    let claim = new_claim(id, ClaimState::Waiting(ticket), &slot, now);
    let fact = claim.fact(Payload::CapacityWaitlisted(CapacityWaitlisted {
        slot: slot.id.to_string(),
        claim_id: id.to_string(),
        waitlist_ticket: ticket.number,
        waitlisted_count: slot.waiting,
        slot_version: slot.version,
        date: Some(encode_date(slot.id.date)),
        remaining_count: slot.remaining(),
        capacity: slot.capacity,
        booked_count: slot.booked,
        promotion_close_time: Some(encode_time(closes_at)),
    }));
    Step { claim, slot: Some(slot), fact: Some(fact) }
}

fn reserved(claim: &Claim, slot: &Slot, from_waitlist: bool) -> Fact {
    claim.fact(Payload::CapacityReserved(CapacityReserved {
        slot: slot.id.to_string(),
        claim_id: claim.id.to_string(),
        remaining_count: slot.remaining(),
        slot_version: slot.version,
        capacity: slot.capacity,
        booked_count: slot.booked,
        date: Some(encode_date(slot.id.date)),
        from_waitlist,
        waitlisted_count: slot.waiting,
    }))
}

/// Counts free places of a slot as taken by the first claims of its queue that still may get one. They are to become
/// ACTIVE by [`promote`] in the same transaction, so no newcomer ever sees those places. `queue` is in the order of the
/// tickets.
pub(super) fn pass_on(slot: Slot, queue: &[Claim], now: Timestamp) -> (Slot, Vec<&Claim>) {
    if slot.state != SlotState::Open {
        return (slot, Vec::new());
    }
    let may_get_one = |claim: &&Claim| matches!(claim.state, ClaimState::Waiting(ticket) if now < ticket.closes_at);
    let free = usize::try_from(slot.remaining()).unwrap_or(0);
    let next: Vec<&Claim> = queue.iter().filter(may_get_one).take(free).collect();
    let booked = slot.booked + i32::try_from(next.len()).unwrap_or(i32::MAX);
    (Slot { booked, ..slot }, next)
}

/// Makes claims ACTIVE whose places [`pass_on`] has counted as taken.
pub(super) fn promote(slot: &Slot, next: Vec<&Claim>, now: Timestamp) -> Vec<Step> {
    let mut slot = slot.clone();
    let steps = next.into_iter().map(|claim| {
        slot = slot.counting(0, -1);
        let claim = claim.becoming(ClaimState::Active, &slot, now);
        let fact = reserved(&claim, &slot, true);
        Step { claim, slot: Some(slot.clone()), fact: Some(fact) }
    });
    steps.collect()
}

/// Gives the free places of a slot to its queue, as a change that frees them does. They are free beside a queue only
/// where rows were put back from a backup.
#[must_use]
pub fn serve_queue(slot: &Slot, queue: &[Claim], now: Timestamp) -> Vec<Step> {
    let (slot, next) = pass_on(slot.clone(), queue, now);
    promote(&slot, next, now)
}

/// Gives a place or a ticket back. The place passes to the first claim of `queue` that may get it: the slot's WAITING
/// claims in the order of their tickets. For an unknown claim it stores a tombstone on the slot that the caller names,
/// because the reserve may still be on its way. Returns what became of the claim, then what became of the one that gets
/// its place.
///
/// # Errors
/// FIELD_INVALID if the claim belongs to another slot.
pub fn release(
    slot_id: &SlotId,
    claim_id: ClaimId,
    existing: Option<&Claim>,
    slot: Option<&Slot>,
    queue: &[Claim],
    now: Timestamp,
) -> Result<(Step, Vec<Step>), Fault> {
    let (claim, changed, promoted) = match existing {
        None => {
            let slot_version = slot.map_or(0, |slot| slot.version);
            let (slot, state) = (slot_id.clone(), ClaimState::Released);
            (Claim { id: claim_id, slot, state, slot_version, version: 1, update_time: now }, None, Vec::new())
        }
        Some(claim) => {
            claim.require_slot(slot_id)?;
            let slot = || slot.ok_or_else(|| Fault::internal(format!("the slot of the claim {claim_id} is gone")));
            let (slot, next) = match claim.state {
                ClaimState::Active => pass_on(slot()?.counting(-1, 0), queue, now),
                ClaimState::Waiting(_) => (slot()?.counting(0, -1), Vec::new()),
                ClaimState::Released | ClaimState::Revoked(_) => return Ok((Step::unchanged(claim), Vec::new())),
            };
            let promoted = promote(&slot, next, now);
            (claim.becoming(ClaimState::Released, &slot, now), Some(slot), promoted)
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
        date: Some(encode_date(slot_id.date)),
        waitlisted_count: after.map_or(0, |slot| slot.waiting),
    }));
    Ok((Step { claim, slot: changed, fact: Some(fact) }, promoted))
}

/// Takes a place or a ticket away. `message` is the reason that the admin gave. A claim that has ended stays as it is.
/// The slot is off sale, so the place goes to nobody.
#[must_use]
pub fn revoke(claim: &Claim, slot: &Slot, reason: RevokeReason, message: &str, now: Timestamp) -> Step {
    let slot = match claim.state {
        ClaimState::Active => slot.counting(-1, 0),
        ClaimState::Waiting(_) => slot.counting(0, -1),
        ClaimState::Released | ClaimState::Revoked(_) => return Step::unchanged(claim),
    };
    let claim = claim.becoming(ClaimState::Revoked(reason), &slot, now);
    let fact = claim.fact(Payload::CapacityRevoked(CapacityRevoked {
        slot: slot.id.to_string(),
        claim_id: claim.id.to_string(),
        reason: reason.name().to_owned(),
        message: message.to_owned(),
        slot_version: slot.version,
        remaining_count: slot.remaining(),
        capacity: slot.capacity,
        booked_count: slot.booked,
        date: Some(encode_date(slot.id.date)),
        waitlisted_count: slot.waiting,
    }));
    Step { claim, slot: Some(slot), fact: Some(fact) }
}
