//! What becomes of a service that lost its own past: its rows, made again from what the others know.
//!
//! Functions take what is left and what is known, and return what is to be stored. The greatest version of anything wins, as
//! in every fold. Nothing is invented: a row of which too little is known is not made, and whoever asks lists it.

use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use crate::capacity::{Claim, ClaimState, RevokeReason, Slot, SlotState};
use crate::demand::Places;
use crate::ids::{ClaimId, CustomerId, ScreeningId, SlotId};
use crate::request::RequestKey;
use crate::screening::{FIRST_GENERATION, Party, Revocation, Screening, State, Terms};
use crate::screening_fact::BookingFact;

/// How far the versions of slots go on beyond the greatest one that is known: more than was ever announced and forgotten. Whoever
/// holds a version of the lost past must not take a later change for an older one.
pub const VERSION_HEADROOM: i64 = 1_000_000;

/// What somebody knows of a booking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBooking {
    /// Which one.
    pub screening: ScreeningId,
    /// As of which version.
    pub version: i64,
    /// Whose.
    pub customer: CustomerId,
    /// For which date.
    pub date: Date,
    /// Of which slot, where that is known.
    pub slot: Option<SlotId>,
    /// How the hospital is called; empty where that is not known.
    pub hospital_display_name: String,
    /// Its time zone; empty where that is not known.
    pub time_zone: String,
    /// Where it stands.
    pub state: State,
    /// Why, as a code.
    pub reason: String,
    /// Why, in a person's words.
    pub message: String,
    /// When it was made, where that is known.
    pub create_time: Option<Timestamp>,
    /// When it came to this version.
    pub update_time: Timestamp,
}

impl From<&BookingFact> for KnownBooking {
    fn from(fact: &BookingFact) -> Self {
        Self {
            screening: fact.screening,
            version: fact.version,
            customer: fact.customer.clone(),
            date: fact.slot.date,
            slot: Some(fact.slot.clone()),
            hospital_display_name: fact.hospital_display_name.clone(),
            time_zone: fact.time_zone.clone(),
            state: fact.state,
            reason: fact.reason.clone(),
            message: fact.message.clone(),
            create_time: (fact.version == 1).then_some(fact.occur_time),
            update_time: fact.occur_time,
        }
    }
}

impl KnownBooking {
    /// What two know together: the greater version, with whatever of the other one never changes.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (newer, older) = if self.version >= other.version { (self, other) } else { (other, self) };
        let text = |newer: String, older: String| if newer.is_empty() { older } else { newer };
        let earliest = newer.create_time.into_iter().chain(older.create_time).min();
        Self {
            slot: newer.slot.or(older.slot),
            hospital_display_name: text(newer.hospital_display_name, older.hospital_display_name),
            time_zone: text(newer.time_zone, older.time_zone),
            create_time: earliest,
            ..newer
        }
    }
}

/// A call that was answered, as far as what it led to tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Its scope.
    pub key: RequestKey,
    /// What it made or changed.
    pub screening: ScreeningId,
    /// When.
    pub time: Timestamp,
}

impl Answered {
    /// The call that brought a booking into a state; none where no call does that.
    #[must_use]
    pub fn of(
        screening: ScreeningId,
        state: State,
        actor: &str,
        request_id: Option<Uuid>,
        time: Timestamp,
    ) -> Option<Self> {
        let method = match state {
            State::Pending | State::Confirmed => "CreateScreening",
            State::Cancelled => "CancelScreening",
            State::Completed => "CompleteScreening",
            State::NoShow => "MarkNoShow",
            State::Rejected | State::ForceCancelled => return None,
        };
        let key = RequestKey { caller: actor.to_owned(), method, id: request_id? };
        Some(Self { key, screening, time })
    }

    /// The call that an event tells of.
    #[must_use]
    pub fn of_fact(fact: &BookingFact) -> Option<Self> {
        Self::of(fact.screening, fact.state, &fact.actor, fact.request_id, fact.occur_time)
    }
}

/// The row of a booking, made from what is left of it, what is known, the claim Hospital has of it and what Hospital says along
/// with a place; `None` where nobody knows the slot.
#[must_use]
pub fn screening(
    held: Option<&Screening>,
    known: &KnownBooking,
    claim: Option<(ClaimId, SlotId)>,
    offered: Option<Terms>,
) -> Option<Screening> {
    let claimed = claim.as_ref().map(|(_, slot)| slot);
    let slot = known.slot.as_ref().or_else(|| held.map(|held| &held.slot)).or(claimed).cloned()?;
    let left = held.map(|held| held.terms.clone()).unwrap_or_default();
    let offered = offered.unwrap_or_default();
    let first = |texts: [&String; 3]| texts.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default();
    Some(Screening {
        id: known.screening,
        customer: Some(known.customer.clone()),
        customer_display_name: held.map(|held| held.customer_display_name.clone()).unwrap_or_default(),
        terms: Terms {
            hospital_display_name: first([
                &known.hospital_display_name,
                &left.hospital_display_name,
                &offered.hospital_display_name,
            ]),
            time_zone: first([&known.time_zone, &left.time_zone, &offered.time_zone]),
            cancellation_close_time: left.cancellation_close_time.or(offered.cancellation_close_time),
        },
        slot,
        state: known.state,
        state_reason: known.reason.clone(),
        state_message: known.message.clone(),
        given_up: None,
        generation: held
            .map(|held| held.generation)
            .or_else(|| claim.map(|(claim, _)| claim.generation))
            .unwrap_or(FIRST_GENERATION),
        version: known.version,
        create_time: held.map(|held| held.create_time).or(known.create_time).unwrap_or(known.update_time),
        update_time: known.update_time,
    })
}

/// A booking of which only follows that a person gave it up: its place was given back, or its customer has another one on that
/// date since.
#[must_use]
pub fn given_up(row: &Screening) -> Screening {
    Screening {
        state: State::Cancelled,
        state_reason: Party::Customer.code().to_owned(),
        state_message: String::new(),
        version: row.version + 1,
        ..row.clone()
    }
}

/// A booking of which is known that its claim ended, and nothing else.
#[must_use]
pub fn without_place(row: &Screening, claim: ClaimState) -> Screening {
    let ClaimState::Revoked(reason) = claim else { return given_up(row) };
    let cause = match reason {
        RevokeReason::HospitalDeleted => Revocation::HospitalDeleted,
        RevokeReason::SlotCancelled => Revocation::SlotCancelled,
    };
    Screening { state: State::ForceCancelled, state_reason: cause.name().to_owned(), ..given_up(row) }
}

/// The claim that a booking says there is or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedClaim {
    /// Which one.
    pub claim: ClaimId,
    /// On which slot.
    pub slot: SlotId,
    /// Where it has to stand.
    pub state: ClaimState,
    /// What the booking says of its hospital.
    pub terms: Terms,
}

impl ExpectedClaim {
    /// The claim of a booking; none of one that still waits for its place.
    #[must_use]
    pub fn of(row: &Screening) -> Option<Self> {
        let state = match row.state {
            State::Pending => return None,
            State::Confirmed | State::Completed | State::NoShow => ClaimState::Active,
            State::Cancelled | State::Rejected => ClaimState::Released,
            State::ForceCancelled => ClaimState::Revoked(match Revocation::from_name(&row.state_reason) {
                Some(Revocation::SlotCancelled) => RevokeReason::SlotCancelled,
                Some(Revocation::HospitalDeleted) | None => RevokeReason::HospitalDeleted,
            }),
        };
        Some(Self { claim: row.claim(), slot: row.slot.clone(), state, terms: row.terms.clone() })
    }

    /// What becomes of a claim by it; `None` where it stands as it has to. Claims that ended stay as they are, and one that was
    /// released without being there is not missed.
    #[must_use]
    pub fn make(&self, held: Option<&Claim>, now: Timestamp) -> Option<Claim> {
        match (held.map(|claim| claim.state), self.state) {
            (None, ClaimState::Released) => None,
            (None, state) => Some(Claim {
                id: self.claim,
                slot: self.slot.clone(),
                state,
                slot_version: 0,
                version: if state == ClaimState::Active { 1 } else { 2 },
                update_time: now,
            }),
            (Some(ClaimState::Active), ClaimState::Released | ClaimState::Revoked(_)) => held.map(|claim| Claim {
                state: self.state,
                version: claim.version + 1,
                update_time: now,
                ..claim.clone()
            }),
            (Some(_), _) => None,
        }
    }
}

/// A slot with so many ACTIVE claims, made from what is left of it and what somebody knows of its places: the newest capacity, but
/// room for all who hold a place.
#[must_use]
pub fn slot(
    id: &SlotId,
    held: Option<&Slot>,
    known: Option<&Places>,
    active: i32,
    state: Option<SlotState>,
    now: Timestamp,
) -> Slot {
    let version = held.map_or(0, |slot| slot.version);
    let newer = known.filter(|known| known.slot_version > version);
    let capacity = newer.map(|known| known.capacity).or_else(|| held.map(|slot| slot.capacity)).unwrap_or(active);
    Slot {
        id: id.clone(),
        capacity: capacity.max(active),
        booked: active,
        state: state.or_else(|| held.map(|slot| slot.state)).unwrap_or(SlotState::Open),
        version: newer.map_or(version, |known| known.slot_version) + VERSION_HEADROOM,
        admin_version: held.map_or(0, |slot| slot.admin_version) + VERSION_HEADROOM,
        create_time: held.map_or(now, |slot| slot.create_time),
        update_time: now,
    }
}

#[cfg(test)]
mod tests;
