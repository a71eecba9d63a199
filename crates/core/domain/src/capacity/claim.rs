//! Claims: taking a place, giving it back, taking it away.

use contract::capacity::v1 as message;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{CapacityReleased, CapacityReserved, CapacityRevoked};
use fault::{Fault, Reason};
use jiff::Timestamp;

use super::booking::{Offer, Venue, judge_booking};
use super::slot::{Slot, slot_not_found};
use super::{Fact, field_invalid};
use crate::civil::encode_date;
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

/// Whether a claim holds a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimState {
    /// It holds a place.
    Active,
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

/// Takes a place. An existing claim is the answer before any rule applies, because the caller may repeat a call whose
/// answer was lost.
///
/// # Errors
/// CLAIM_TERMINATED; FIELD_INVALID if the id is ACTIVE on another slot; the errors of [`judge_booking`].
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
        date: Some(encode_date(slot_id.date)),
    }));
    Ok(Step { claim, slot: Some(slot), fact: Some(fact) })
}

/// Gives a place back. For an unknown claim it stores a tombstone on the slot that the caller names, because the
/// reserve may still be on its way.
///
/// # Errors
/// FIELD_INVALID if the claim belongs to another slot.
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
        date: Some(encode_date(slot_id.date)),
    }));
    Ok(Step { claim, slot: changed, fact: Some(fact) })
}

/// Takes a place away. `message` is the reason that the admin gave. A claim that has ended stays as it is.
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
        date: Some(encode_date(slot.id.date)),
    }));
    Step { claim, slot: Some(slot), fact: Some(fact) }
}
