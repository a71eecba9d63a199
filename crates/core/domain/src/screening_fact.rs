//! The content of a Screening event about one booking, typed, for the two folds over bookings: the ledger and my-page.
//!
//! It decodes and judges nothing. Each fold decides whether a fact is newer than what it holds.

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    EventEnvelope, ScreeningAttendanceRecorded, ScreeningCancelled, ScreeningConfirmed, ScreeningForceCancelled,
    ScreeningPending, ScreeningRejected, ScreeningRescheduled, ScreeningSnapshot, ScreeningWaitlistEnded,
    ScreeningWaitlisted,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::civil::decode_time;
use crate::event::subject_filter;
use crate::ids::{CustomerId, Malformed, ScreeningId, SlotId};
use crate::screening::{Queued, State};

/// What one event says about one version of a screening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreeningFact {
    /// A booking, with the full state it has at this version.
    Booking(Box<BookingFact>),
    /// A row that only bars a claim that nobody booked. It has no customer and is never shown.
    Fence {
        /// The screening's id.
        screening: ScreeningId,
        /// The version of the screening.
        version: i64,
    },
}

/// A booking as it is after the change that the event reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookingFact {
    /// The screening's id.
    pub screening: ScreeningId,
    /// The version of the screening, from 1.
    pub version: i64,
    /// The customer who booked.
    pub customer: CustomerId,
    /// The slot that is booked.
    pub slot: SlotId,
    /// The generation of the claim that the booking holds or held; 0 in an event that does not say it.
    pub generation: i32,
    /// The hospital's display name; empty where Hospital was never reached.
    pub hospital_display_name: String,
    /// The hospital's IANA time zone; empty where Hospital was never reached.
    pub time_zone: String,
    /// The booking's state at this version.
    pub state: State,
    /// Its place in the queue, where it waits or waited in vain. Of one that waited in vain only that is known.
    pub queued: Option<Queued>,
    /// The code of why it is in this state; may be empty.
    pub reason: String,
    /// The message that a person gave for it; may be empty.
    pub message: String,
    /// The actor who caused the change.
    pub actor: String,
    /// The id of the event.
    pub event_id: Uuid,
    /// When the change happened, by Screening's clock.
    pub occur_time: Timestamp,
    /// The W3C traceparent of the change; may be empty.
    pub traceparent: String,
    /// The request_id of the call that caused the change, if it had one.
    pub request_id: Option<Uuid>,
}

/// The subjects of all events that [`ScreeningFact::decode`] reads.
#[must_use]
pub fn subjects() -> Vec<String> {
    let facts = [
        "screening_pending",
        "screening_confirmed",
        "screening_rejected",
        "screening_cancelled",
        "screening_force_cancelled",
        "screening_rescheduled",
        "screening_attendance_recorded",
        "screening_waitlisted",
        "screening_waitlist_ended",
    ];
    facts.iter().map(|fact| subject_filter("screening", fact)).collect()
}

/// The parts in which the payloads differ.
struct FactParts<'a> {
    snapshot: Option<&'a ScreeningSnapshot>,
    state: State,
    reason: &'a str,
    message: &'a str,
}

/// The place in the queue that a payload reports.
fn queued(payload: &Payload, occur_time: Timestamp) -> Option<Queued> {
    match payload {
        Payload::ScreeningWaitlisted(ScreeningWaitlisted { screening: _, position, promotion_close_time }) => {
            let closes_at = promotion_close_time.as_ref().and_then(decode_time).unwrap_or(occur_time);
            Some(Queued { position: *position, closes_at })
        }
        Payload::ScreeningWaitlistEnded(_) => Some(Queued { position: 0, closes_at: occur_time }),
        _ => None,
    }
}

fn parts(payload: &Payload) -> Option<FactParts<'_>> {
    let parts = match payload {
        Payload::ScreeningWaitlisted(ScreeningWaitlisted { screening, position: _, promotion_close_time: _ }) => {
            FactParts { snapshot: screening.as_ref(), state: State::Waitlisted, reason: "", message: "" }
        }
        Payload::ScreeningWaitlistEnded(ScreeningWaitlistEnded { screening, state, reason, claim_id: _, message }) => {
            // whatever a later version calls it, the booking is over and had no place
            let ended = |state: &State| matches!(state, State::Cancelled | State::ForceCancelled);
            let state = State::from_name(state).filter(ended).unwrap_or(State::Expired);
            FactParts { snapshot: screening.as_ref(), state, reason, message }
        }
        Payload::ScreeningPending(ScreeningPending { screening }) => {
            FactParts { snapshot: screening.as_ref(), state: State::Pending, reason: "", message: "" }
        }
        Payload::ScreeningConfirmed(ScreeningConfirmed { screening, reason, message })
        | Payload::ScreeningRescheduled(ScreeningRescheduled {
            screening,
            previous_slot: _,
            previous_date: _,
            released_claim_id: _,
            reason,
            message,
        }) => FactParts { snapshot: screening.as_ref(), state: State::Confirmed, reason, message },
        Payload::ScreeningRejected(ScreeningRejected { screening, reason, claim_id: _ }) => {
            FactParts { snapshot: screening.as_ref(), state: State::Rejected, reason, message: "" }
        }
        Payload::ScreeningCancelled(ScreeningCancelled { screening, claim_id: _, reason, message }) => {
            FactParts { snapshot: screening.as_ref(), state: State::Cancelled, reason, message }
        }
        Payload::ScreeningForceCancelled(ScreeningForceCancelled { screening, reason, message }) => {
            FactParts { snapshot: screening.as_ref(), state: State::ForceCancelled, reason, message }
        }
        Payload::ScreeningAttendanceRecorded(ScreeningAttendanceRecorded { screening, attended }) => {
            let state = if *attended { State::Completed } else { State::NoShow };
            FactParts { snapshot: screening.as_ref(), state, reason: "", message: "" }
        }
        _ => return None,
    };
    Some(parts)
}

impl BookingFact {
    /// Whether the booking waited and ended without a place.
    #[must_use]
    pub fn waited_in_vain(&self) -> bool {
        self.state == State::Expired || (self.queued.is_some() && self.state != State::Waitlisted)
    }
}

impl ScreeningFact {
    /// Reads an envelope; `None` if it reports no change of a screening.
    ///
    /// # Errors
    /// [`Malformed`] if it reports a screening that cannot exist.
    pub fn decode(envelope: &EventEnvelope) -> Result<Option<Self>, Malformed> {
        let Some(parts) = envelope.payload.as_ref().and_then(parts) else { return Ok(None) };
        let missing = |what: &str| Malformed(format!("the event has no {what}"));
        let snapshot = parts.snapshot.ok_or_else(|| missing("screening"))?;
        // The slot's name contains the date.
        let ScreeningSnapshot {
            screening,
            customer,
            slot,
            date: _,
            hospital_display_name,
            time_zone,
            claim_generation,
        } = snapshot;
        let screening = ScreeningId::parse(screening)?;
        let version = envelope.aggregate_version;
        if version < 1 {
            return Err(missing("aggregate_version"));
        }
        if customer.is_empty() {
            return Ok(Some(Self::Fence { screening, version }));
        }
        let occur_time = envelope.occur_time.as_ref().and_then(decode_time).ok_or_else(|| missing("occur_time"))?;
        Ok(Some(Self::Booking(Box::new(BookingFact {
            screening,
            version,
            customer: CustomerId::parse(customer)?,
            slot: SlotId::parse(slot)?,
            generation: *claim_generation,
            hospital_display_name: hospital_display_name.clone(),
            time_zone: time_zone.clone(),
            state: parts.state,
            queued: envelope.payload.as_ref().and_then(|payload| queued(payload, occur_time)),
            reason: parts.reason.to_owned(),
            message: parts.message.to_owned(),
            actor: envelope.actor.clone(),
            event_id: Uuid::try_parse(&envelope.event_id).map_err(|_| missing("event_id"))?,
            occur_time,
            traceparent: envelope.traceparent.clone(),
            request_id: Uuid::try_parse(&envelope.request_id).ok(),
        }))))
    }

    /// The id of the screening that the event is about.
    #[must_use]
    pub fn screening(&self) -> ScreeningId {
        match self {
            Self::Booking(fact) => fact.screening,
            Self::Fence { screening, .. } => *screening,
        }
    }

    /// The version of the screening.
    #[must_use]
    pub fn version(&self) -> i64 {
        match self {
            Self::Booking(fact) => fact.version,
            Self::Fence { version, .. } => *version,
        }
    }
}

#[cfg(test)]
pub(crate) mod histories {
    //! Possible histories of a screening, and reordered and repeated deliveries of them, for the property tests of the
    //! folds.

    use proptest::prelude::*;

    use super::*;

    /// Every path through the states of a screening.
    const PATHS: &[&[State]] = &[
        &[State::Pending],
        &[State::Pending, State::Rejected],
        &[State::Pending, State::Cancelled],
        &[State::Pending, State::ForceCancelled],
        &[State::Pending, State::Confirmed],
        &[State::Pending, State::Confirmed, State::Cancelled],
        &[State::Pending, State::Confirmed, State::NoShow, State::Completed],
        &[State::Rejected],
        &[State::Confirmed],
        &[State::Confirmed, State::Cancelled],
        &[State::Confirmed, State::ForceCancelled],
        &[State::Confirmed, State::Completed],
        &[State::Confirmed, State::NoShow],
        &[State::Confirmed, State::NoShow, State::Completed],
        &[State::Waitlisted],
        &[State::Waitlisted, State::Confirmed, State::Cancelled],
        &[State::Waitlisted, State::Cancelled],
        &[State::Waitlisted, State::ForceCancelled],
        &[State::Waitlisted, State::Expired],
        &[State::Pending, State::Waitlisted, State::Confirmed],
        &[State::Pending, State::Waitlisted, State::Cancelled],
        &[State::Confirmed, State::Confirmed, State::Confirmed],
        &[State::Pending, State::Confirmed, State::Confirmed, State::Confirmed, State::Cancelled],
        &[State::Confirmed, State::Confirmed, State::Confirmed, State::Confirmed, State::Confirmed, State::NoShow],
    ];

    /// `moves` is how often the booking was moved before, each time to the next date. `waits` says that it waits or
    /// waited in vain.
    fn fact(version: i64, state: State, moves: i8, waits: bool) -> ScreeningFact {
        let second = 1_800_000_000 + version * 60;
        ScreeningFact::Booking(Box::new(BookingFact {
            screening: ScreeningId(Uuid::from_u128(7)),
            version,
            customer: CustomerId::from_segment("kim").unwrap(),
            slot: SlotId::parse(&format!("hospitals/seoul/slots/2027-01-0{}", 4 + moves)).unwrap(),
            generation: 1 + i32::from(moves),
            hospital_display_name: if state == State::Pending { String::new() } else { "Seoul".into() },
            time_zone: if state == State::Pending { String::new() } else { "Asia/Seoul".into() },
            state,
            queued: waits.then(|| Queued { position: 3, closes_at: Timestamp::from_second(second).unwrap() }),
            reason: format!("REASON_{version}"),
            message: String::new(),
            actor: "customer:kim".into(),
            event_id: Uuid::from_u128(100 + u128::from(version.unsigned_abs())),
            occur_time: Timestamp::from_second(second).unwrap(),
            traceparent: String::new(),
            request_id: None,
        }))
    }

    /// Every other CONFIRMED after the first one is a move, which is followed by a confirmation of the same place.
    fn history(path: &[State]) -> Vec<ScreeningFact> {
        let (mut confirmed, mut waits) = (0, false);
        let facts = (1..).zip(path).map(|(version, state)| {
            confirmed += i8::from(*state == State::Confirmed);
            waits = (waits || *state == State::Waitlisted) && *state != State::Confirmed;
            fact(version, *state, confirmed / 2, waits)
        });
        facts.collect()
    }

    /// A history in order, and a delivery of it: every event at least once, some of them repeated, in any order.
    pub(crate) fn delivered() -> impl Strategy<Value = (Vec<ScreeningFact>, Vec<ScreeningFact>)> {
        (prop::sample::select(PATHS), any::<bool>(), prop::collection::vec(any::<prop::sample::Index>(), 0..6))
            .prop_flat_map(|(path, fenced, again)| {
                let mut history = history(path);
                if fenced && path == [State::Rejected] {
                    history = vec![ScreeningFact::Fence { screening: ScreeningId(Uuid::from_u128(7)), version: 1 }];
                }
                let mut delivery = history.clone();
                delivery.extend(again.iter().map(|index| index.get(&history).clone()));
                (Just(history), Just(delivery).prop_shuffle())
            })
    }
}

#[cfg(test)]
mod tests;
