//! Recovery of a service that lost its own past: its rows are rebuilt from what the other services know.
//!
//! Functions take the rows that are left and the facts that are known, and return the rows to store. The greatest
//! version wins, as in every fold. Nothing is invented: if too little is known of a row, it is not made and the caller
//! lists it.

use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use crate::capacity::{Claim, ClaimState, RevokeReason, Slot, SlotState, Ticket};
use crate::demand::Places;
use crate::ids::{ClaimId, CustomerId, ScreeningId, SlotId};
use crate::request::RequestKey;
use crate::screening::{FIRST_GENERATION, Party, Queued, Revocation, Screening, State, Terms};
use crate::screening_fact::BookingFact;

/// How far a rebuilt slot's version jumps beyond the greatest known one. It is more than the changes that can have been
/// announced and lost, so that whoever knows a version of the lost past does not take a later change for an older one.
pub const VERSION_HEADROOM: i64 = 1_000_000;

/// The facts about a booking that a service, or an event, knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBooking {
    /// The booking's id.
    pub screening: ScreeningId,
    /// The version that these facts are from.
    pub version: i64,
    /// The customer who booked.
    pub customer: CustomerId,
    /// The date of the booked slot.
    pub date: Date,
    /// The booked slot, if it is known.
    pub slot: Option<SlotId>,
    /// The generation of the claim on it, if it is known.
    pub generation: Option<i32>,
    /// The hospital's display name; empty if it is not known.
    pub hospital_display_name: String,
    /// The hospital's IANA time zone; empty if it is not known.
    pub time_zone: String,
    /// The booking's state at this version.
    pub state: State,
    /// Its place in the queue, where it waits or waited in vain, if that is known.
    pub queued: Option<Queued>,
    /// The code of why it is in this state; may be empty.
    pub reason: String,
    /// The message that a person gave for it; may be empty.
    pub message: String,
    /// When the booking was made, if that is known.
    pub create_time: Option<Timestamp>,
    /// When the booking changed to this version.
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
            generation: Some(fact.generation).filter(|generation| *generation >= FIRST_GENERATION),
            hospital_display_name: fact.hospital_display_name.clone(),
            time_zone: fact.time_zone.clone(),
            state: fact.state,
            queued: fact.queued,
            reason: fact.reason.clone(),
            message: fact.message.clone(),
            create_time: (fact.version == 1).then_some(fact.occur_time),
            update_time: fact.occur_time,
        }
    }
}

impl KnownBooking {
    /// Merges the facts from two sources: those of the greater version, completed from the other. A source that does
    /// not know the slot is of a time before bookings could move.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (newer, older) = if self.version >= other.version { (self, other) } else { (other, self) };
        let same_hospital = match (&newer.slot, &older.slot) {
            (Some(newer), Some(older)) => newer.hospital == older.hospital,
            (None, _) | (_, None) => true,
        };
        let text = |newer: String, older: String| if newer.is_empty() && same_hospital { older } else { newer };
        // between two versions the booking may have moved away and come back
        let same_version = newer.version == older.version;
        let generation = newer.generation.or_else(|| older.generation.filter(|_| same_version));
        let queued = newer.queued.or_else(|| older.queued.filter(|_| same_version));
        let earliest = newer.create_time.into_iter().chain(older.create_time).min();
        Self {
            slot: newer.slot.or(older.slot),
            generation,
            queued,
            hospital_display_name: text(newer.hospital_display_name, older.hospital_display_name),
            time_zone: text(newer.time_zone, older.time_zone),
            create_time: earliest,
            ..newer
        }
    }
}

/// A call that was answered, rebuilt from the booking that it made or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The key of the call's request record.
    pub key: RequestKey,
    /// The screening that the call made or changed.
    pub screening: ScreeningId,
    /// When the call took effect.
    pub time: Timestamp,
}

impl Answered {
    /// The call that brought a booking into a state; `None` if no call does that. `reason` is the code of the reason: a
    /// booking that is CONFIRMED with one was moved.
    #[must_use]
    pub fn of(
        screening: ScreeningId,
        (state, reason): (State, &str),
        actor: &str,
        request_id: Option<Uuid>,
        time: Timestamp,
    ) -> Option<Self> {
        let method = match state {
            State::Confirmed if !reason.is_empty() => "RescheduleScreening",
            State::Pending | State::Confirmed | State::Waitlisted => "CreateScreening",
            State::Cancelled => "CancelScreening",
            State::Completed => "CompleteScreening",
            State::NoShow => "MarkNoShow",
            State::Rejected | State::ForceCancelled | State::Expired => return None,
        };
        let key = RequestKey { caller: actor.to_owned(), method, id: request_id? };
        Some(Self { key, screening, time })
    }

    /// The call that an event reports; `None` if no call caused the event.
    #[must_use]
    pub fn of_fact(fact: &BookingFact) -> Option<Self> {
        Self::of(fact.screening, (fact.state, &fact.reason), &fact.actor, fact.request_id, fact.occur_time)
    }
}

/// The slot of a booking: the one that is reported, else that of the row that is left, else that of the claim which
/// holds its place or held it last. `None` if nobody knows it.
#[must_use]
pub fn booked_slot<'a>(
    held: Option<&'a Screening>,
    known: &'a KnownBooking,
    claims: &'a [Claim],
) -> Option<&'a SlotId> {
    let claimed = claims.iter().max_by_key(|claim| (claim.state == ClaimState::Active, claim.id.generation));
    known.slot.as_ref().or_else(|| held.map(|held| &held.slot)).or_else(|| claimed.map(|claim| &claim.slot))
}

/// The generation of a booking's claim on its slot, where nobody reports it. If no claim there is known, a move took it
/// and all is forgotten but the slot: its generation was above all those before.
fn generation_on(slot: &SlotId, held: Option<&Screening>, claims: &[Claim]) -> i32 {
    let claimed = claims.iter().filter(|claim| claim.slot == *slot).map(|claim| claim.id.generation);
    let here = claimed.chain(held.filter(|held| held.slot == *slot).map(|held| held.generation)).max();
    here.unwrap_or_else(|| {
        let next = claims.iter().map(|claim| claim.id.generation + 1);
        next.chain(held.map(|held| held.next_claim().generation)).max().unwrap_or(FIRST_GENERATION)
    })
}

/// The place in the queue of a booking that waits, or that ended without another state after its wait, where nobody
/// reports it.
fn queued(held: Option<&Screening>, known: &KnownBooking, claims: &[Claim]) -> Option<Queued> {
    let ticket = |claim: &Claim| match claim.state {
        ClaimState::Waiting(ticket) => Some(Queued { position: 1, closes_at: ticket.closes_at }),
        ClaimState::Active | ClaimState::Released | ClaimState::Revoked(_) => None,
    };
    if known.state != State::Waitlisted {
        let ended = matches!(known.state, State::Cancelled | State::ForceCancelled | State::Expired);
        let waited = held.filter(|held| held.state == State::Waitlisted && held.version + 1 == known.version);
        return waited.filter(|_| ended).and_then(|held| held.queued);
    }
    let left = held.and_then(|held| held.queued).or_else(|| claims.iter().find_map(ticket));
    // without a time it expires as soon as Hospital has been asked
    left.or(Some(Queued { position: 1, closes_at: known.update_time }))
}

/// The row of a booking, made from the row that is left, the known facts, all of Hospital's claims for it and the terms
/// that Hospital offers. `None` if nobody knows the slot.
#[must_use]
pub fn screening(
    held: Option<&Screening>,
    known: &KnownBooking,
    claims: &[Claim],
    offered: Option<Terms>,
) -> Option<Screening> {
    let slot = booked_slot(held, known, claims)?.clone();
    let at_this_hospital = held.filter(|held| held.slot.hospital == slot.hospital);
    let left = at_this_hospital.map(|held| held.terms.clone()).unwrap_or_default();
    let offered = offered.unwrap_or_default();
    // the cut-off is that of the slot; a booking that has moved has another one
    let generation = known.generation.unwrap_or_else(|| generation_on(&slot, held, claims));
    let (known_moves, known_generation) =
        held.map_or((0, FIRST_GENERATION), |held| (held.reschedule_count, held.generation));
    let left_close = left.cancellation_close_time.filter(|_| held.is_some_and(|held| held.slot == slot));
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
            cancellation_close_time: left_close.or(offered.cancellation_close_time),
            reschedule_limit: left.reschedule_limit.or(offered.reschedule_limit),
            customer_limit: None,
        },
        generation,
        fenced_generation: held.map_or(0, |held| held.fenced_generation),
        // each generation after the first is that of a move; one that was cut off counts like the others
        reschedule_count: known_moves + (generation - known_generation).max(0),
        joins_waitlist: known.state == State::Waitlisted || held.is_some_and(|held| held.joins_waitlist),
        queued: known.queued.or_else(|| queued(held, known, claims)),
        slot,
        state: known.state,
        state_reason: known.reason.clone(),
        state_message: known.message.clone(),
        given_up: None,
        version: known.version,
        create_time: held.map(|held| held.create_time).or(known.create_time).unwrap_or(known.update_time),
        update_time: known.update_time,
    })
}

/// What Hospital's claims say of a booking that is CONFIRMED or WAITLISTED as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// It has its place or waits for one, or Hospital does not know its claim.
    Kept,
    /// It waited and has its place.
    Promoted,
    /// Its place was given back, and it has the place of this later claim.
    Moved(&'a Claim),
    /// Its claim has ended in this state.
    Ended(ClaimState),
}

/// Finds out what became of the place of a booking, from all of Hospital's claims for it. A place that was
/// given back, while a later claim holds another, was left by a move. A cancellation that only Hospital heard of,
/// beside a move that was never committed, looks the same; the caller reports it. A claim that was revoked ended the
/// booking, whatever else was under way.
#[must_use]
pub fn place<'a>(row: &Screening, claims: &'a [Claim]) -> Place<'a> {
    let own = claims.iter().find(|claim| claim.id == row.claim()).map(|claim| claim.state);
    let later = |claim: &&Claim| claim.state == ClaimState::Active && claim.id.generation > row.generation;
    match (row.state, own) {
        (State::Confirmed | State::Waitlisted, Some(ClaimState::Released)) => {
            let taken = claims.iter().filter(later).max_by_key(|claim| claim.id.generation);
            taken.map_or(Place::Ended(ClaimState::Released), Place::Moved)
        }
        (State::Waitlisted, Some(ClaimState::Active)) => Place::Promoted,
        (State::Confirmed | State::Waitlisted, Some(own @ ClaimState::Revoked(_))) => Place::Ended(own),
        _ => Place::Kept,
    }
}

/// The row of a booking that got a place from the queue, which nobody but Hospital remembers.
#[must_use]
pub fn promoted(row: &Screening, now: Timestamp) -> Screening {
    Screening {
        state: State::Confirmed,
        queued: None,
        version: row.version + 1,
        update_time: row.update_time.max(now),
        ..row.clone()
    }
}

/// The row of a booking that was moved to the slot of this claim, which nobody but Hospital remembers. One that waited
/// as far as is known got its place before.
#[must_use]
pub fn moved(row: &Screening, claim: ClaimId, slot: &SlotId, offered: Terms) -> Screening {
    Screening {
        slot: slot.clone(),
        generation: claim.generation,
        terms: offered,
        state: State::Confirmed,
        queued: None,
        state_reason: Party::Customer.code().to_owned(),
        state_message: String::new(),
        version: row.version + if row.state == State::Waitlisted { 3 } else { 2 },
        ..row.clone()
    }
}

/// The row of a booking that a person must have given up, because its place was given back or its customer has another
/// booking on that date since.
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

/// The row of a booking of which only the end of its claim is known.
#[must_use]
pub fn without_place(row: &Screening, claim: ClaimState) -> Screening {
    let ClaimState::Revoked(reason) = claim else { return given_up(row) };
    let cause = match reason {
        RevokeReason::HospitalDeleted => Revocation::HospitalDeleted,
        RevokeReason::SlotCancelled => Revocation::SlotCancelled,
    };
    Screening { state: State::ForceCancelled, state_reason: cause.name().to_owned(), ..given_up(row) }
}

/// The claim that a booking implies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedClaim {
    /// The id of the claim, which names its screening.
    pub claim: ClaimId,
    /// The slot that the claim is on.
    pub slot: SlotId,
    /// The state that the claim must have.
    pub state: ClaimState,
    /// The hospital's terms, as the booking keeps them.
    pub terms: Terms,
    /// When the booking changed last. Claims that join a queue again do so in this order.
    pub since: Timestamp,
    /// No other claim of the booking up to this generation holds a place: the booking left it, or no move can use it.
    pub past_generation: i32,
}

impl ExpectedClaim {
    /// The claim of a booking; `None` for a PENDING one, which has no place yet.
    #[must_use]
    pub fn of(row: &Screening) -> Option<Self> {
        let state = match row.state {
            State::Pending => return None,
            State::Confirmed | State::Completed | State::NoShow => ClaimState::Active,
            State::Cancelled | State::Rejected | State::Expired => ClaimState::Released,
            // the slot gives the ticket
            State::Waitlisted => ClaimState::Waiting(Ticket { number: 0, closes_at: row.queued?.closes_at }),
            State::ForceCancelled => ClaimState::Revoked(match Revocation::from_name(&row.state_reason) {
                Some(Revocation::SlotCancelled) => RevokeReason::SlotCancelled,
                Some(Revocation::HospitalDeleted | Revocation::Other(_)) | None => RevokeReason::HospitalDeleted,
            }),
        };
        let past_generation = row.next_claim().generation - 1;
        let (slot, terms) = (row.slot.clone(), row.terms.clone());
        Some(Self { claim: row.claim(), slot, state, terms, since: row.update_time, past_generation })
    }

    /// Whether this is another claim of the booking, and it holds a place that was given back.
    #[must_use]
    pub fn has_left(&self, claim: &Claim) -> bool {
        claim.state == ClaimState::Active
            && claim.id.screening == self.claim.screening
            && claim.id != self.claim
            && claim.id.generation <= self.past_generation
    }

    /// The expectation of a claim that its booking has left.
    #[must_use]
    pub fn left(claim: &Claim) -> Self {
        Self {
            claim: claim.id,
            slot: claim.slot.clone(),
            state: ClaimState::Released,
            terms: Terms::default(),
            since: claim.update_time,
            past_generation: claim.id.generation,
        }
    }

    /// The claim to store; `None` if nothing needs to change. Claims that have ended stay as they are. A missing claim
    /// that would be RELEASED is not made. `ticket` is the number of the next ticket of the slot.
    #[must_use]
    pub fn make(&self, held: Option<&Claim>, ticket: i64, now: Timestamp) -> Option<Claim> {
        let state = match self.state {
            ClaimState::Waiting(waiting) => ClaimState::Waiting(Ticket { number: ticket, ..waiting }),
            state => state,
        };
        match (held.map(|claim| claim.state), state) {
            (None, ClaimState::Released) => None,
            (None, state) => Some(Claim {
                id: self.claim,
                slot: self.slot.clone(),
                state,
                slot_version: 0,
                version: if matches!(state, ClaimState::Active | ClaimState::Waiting(_)) { 1 } else { 2 },
                update_time: now,
            }),
            (Some(ClaimState::Waiting(_)), ClaimState::Active)
            | (Some(ClaimState::Active | ClaimState::Waiting(_)), ClaimState::Released | ClaimState::Revoked(_)) => {
                held.map(|claim| Claim { state, version: claim.version + 1, update_time: now, ..claim.clone() })
            }
            (Some(_), _) => None,
        }
    }
}

/// A slot with `active` ACTIVE and `waiting` WAITING claims, made from the row that is left and the places that another
/// service knows. It has the newest capacity known, but at least `active`.
#[must_use]
pub fn slot(
    id: &SlotId,
    held: Option<&Slot>,
    known: Option<&Places>,
    (active, waiting): (i32, i32),
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
        waiting,
        state: state.or_else(|| held.map(|slot| slot.state)).unwrap_or(SlotState::Open),
        version: newer.map_or(version, |known| known.slot_version) + VERSION_HEADROOM,
        admin_version: held.map_or(0, |slot| slot.admin_version) + VERSION_HEADROOM,
        create_time: held.map_or(now, |slot| slot.create_time),
        update_time: now,
    }
}

#[cfg(test)]
mod tests;
