//! The next row after a transition, and the fact that reports it.

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    ScreeningAttendanceRecorded, ScreeningCancelled, ScreeningConfirmed, ScreeningForceCancelled, ScreeningPending,
    ScreeningRejected, ScreeningRescheduled, ScreeningSnapshot, ScreeningWaitlistEnded, ScreeningWaitlisted,
};
use jiff::Timestamp;

use super::{Booking, Event, Screening, State, Terms};
use crate::civil::{encode_date, encode_time};
use crate::ids::{ClaimId, SlotId};

/// The row after a transition that [`super::decide()`] allowed.
#[must_use]
pub fn apply(row: Option<&Screening>, event: &Event, now: Timestamp) -> Screening {
    let (mut next, state, reason, message) = match event {
        Event::Parked(booking, terms) => (booked(row, booking, terms, now), State::Pending, "", ""),
        Event::Confirmed(booking, terms) => {
            let next = Screening { queued: None, ..booked(row, booking, terms, now) };
            (next, State::Confirmed, "", "")
        }
        Event::Queued(booking, terms, queued) => {
            let next = Screening { queued: Some(*queued), ..booked(row, booking, terms, now) };
            (next, State::Waitlisted, "", "")
        }
        Event::Expired(why) => (expected(row), State::Expired, why.code(), ""),
        Event::Rejected(claim, slot, reason) => {
            (row.cloned().unwrap_or_else(|| fence(*claim, slot, now)), State::Rejected, reason.name(), "")
        }
        Event::ForceCancelled(claim, slot, cause, message) => {
            let next = row.cloned().unwrap_or_else(|| fence(*claim, slot, now));
            (next, State::ForceCancelled, cause.name(), message.as_str())
        }
        Event::Rescheduled { slot, generation, terms, by, message, .. } => {
            let next = Screening {
                slot: slot.clone(),
                generation: *generation,
                terms: kept(terms),
                reschedule_count: row.map_or(0, |row| row.reschedule_count) + 1,
                // the move is a version of its own, before that of the state
                version: row.map_or(0, |row| row.version) + 1,
                ..expected(row)
            };
            (next, State::Confirmed, by.code(), message.as_str())
        }
        Event::ClaimFenced(generation) => {
            let next = expected(row);
            return Screening { fenced_generation: next.fenced_generation.max(*generation), ..next };
        }
        Event::GivenUp(reason) => return Screening { given_up: Some(*reason), ..expected(row) },
        Event::Renamed(name) => {
            let next = Screening { customer_display_name: name.clone(), ..expected(row) };
            return Screening { update_time: next.update_time.max(now), ..next };
        }
        Event::Cancelled(by, message) => (expected(row), State::Cancelled, by.code(), message.as_str()),
        Event::AttendanceRecorded(true) => (expected(row), State::Completed, "", ""),
        Event::AttendanceRecorded(false) => (expected(row), State::NoShow, "", ""),
    };
    next.state = state;
    reason.clone_into(&mut next.state_reason);
    message.clone_into(&mut next.state_message);
    next.version += 1;
    // Clocks may differ between two processes; the times of a row never go back.
    next.update_time = next.update_time.max(now);
    next
}

/// What other services hear of an event, each fact with the version that it reports; `row` is the row after the event.
/// A move is two facts. The second one is that of a confirmation, so that a consumer that does not know the first ends
/// with the right slot.
#[must_use]
pub fn facts(row: &Screening, event: &Event) -> Vec<(i64, Payload)> {
    match event {
        Event::GivenUp(_) | Event::Renamed(_) | Event::ClaimFenced(_) => Vec::new(),
        Event::Rescheduled { by, message, previous, released, .. } => {
            let moved = Payload::ScreeningRescheduled(ScreeningRescheduled {
                screening: Some(snapshot(row)),
                previous_slot: previous.to_string(),
                previous_date: Some(encode_date(previous.date)),
                released_claim_id: released.to_string(),
                reason: by.code().to_owned(),
                message: message.clone(),
            });
            vec![(row.version - 1, moved), (row.version, state_fact(row))]
        }
        Event::Parked(..)
        | Event::Confirmed(..)
        | Event::Queued(..)
        | Event::Expired(_)
        | Event::Rejected(..)
        | Event::Cancelled(..)
        | Event::ForceCancelled(..)
        | Event::AttendanceRecorded(_) => vec![(row.version, state_fact(row))],
    }
}

/// The fact that reports the current state of a row, for services that do not know it.
#[must_use]
pub fn state_fact(row: &Screening) -> Payload {
    let screening = Some(snapshot(row));
    let (reason, message, claim_id) = (row.state_reason.clone(), row.state_message.clone(), || row.claim().to_string());
    match row.state {
        State::Cancelled | State::ForceCancelled | State::Expired if row.waited_in_vain() => {
            let (state, claim_id) = (row.state.name().to_owned(), claim_id());
            let ended = ScreeningWaitlistEnded { screening, state, reason, claim_id, message };
            Payload::ScreeningWaitlistEnded(ended)
        }
        State::Waitlisted | State::Expired => Payload::ScreeningWaitlisted(ScreeningWaitlisted {
            screening,
            position: row.queued.map_or(0, |queued| queued.position),
            promotion_close_time: row.queued.map(|queued| encode_time(queued.closes_at)),
        }),
        State::Pending => Payload::ScreeningPending(ScreeningPending { screening }),
        State::Confirmed => Payload::ScreeningConfirmed(ScreeningConfirmed { screening, reason, message }),
        State::Rejected => Payload::ScreeningRejected(ScreeningRejected { screening, reason, claim_id: claim_id() }),
        State::Cancelled => {
            let claim_id = claim_id();
            Payload::ScreeningCancelled(ScreeningCancelled { screening, claim_id, reason, message })
        }
        State::ForceCancelled => {
            Payload::ScreeningForceCancelled(ScreeningForceCancelled { screening, reason, message })
        }
        State::Completed | State::NoShow => Payload::ScreeningAttendanceRecorded(ScreeningAttendanceRecorded {
            screening,
            attended: row.state == State::Completed,
        }),
    }
}

/// The part that all facts share. The customer of a fence is empty.
fn snapshot(row: &Screening) -> ScreeningSnapshot {
    ScreeningSnapshot {
        screening: row.id.to_string(),
        customer: row.customer.as_ref().map(ToString::to_string).unwrap_or_default(),
        slot: row.slot.to_string(),
        date: Some(encode_date(row.slot.date)),
        hospital_display_name: row.terms.hospital_display_name.clone(),
        time_zone: row.terms.time_zone.clone(),
        claim_generation: row.generation,
    }
}

/// The row of a booking before its first state is written into it.
fn booked(row: Option<&Screening>, booking: &Booking, terms: &Terms, now: Timestamp) -> Screening {
    let mut next = row.cloned().unwrap_or_else(|| Screening {
        customer_display_name: booking.customer_display_name.clone(),
        joins_waitlist: booking.joins_waitlist,
        ..fence(booking.claim(), &booking.slot, now)
    });
    // The name of a row that exists may have been corrected since the booking was asked for.
    next.customer = Some(booking.customer.clone());
    next.terms = kept(terms);
    next
}

/// The terms that a row keeps.
fn kept(terms: &Terms) -> Terms {
    Terms { customer_limit: None, ..terms.clone() }
}

fn fence(claim: ClaimId, slot: &SlotId, now: Timestamp) -> Screening {
    Screening {
        id: claim.screening,
        customer: None,
        customer_display_name: String::new(),
        slot: slot.clone(),
        terms: Terms::default(),
        state: State::Rejected,
        state_reason: String::new(),
        state_message: String::new(),
        given_up: None,
        joins_waitlist: false,
        queued: None,
        generation: claim.generation,
        fenced_generation: 0,
        reschedule_count: 0,
        version: 0,
        create_time: now,
        update_time: now,
    }
}

/// The row of a transition that needs an existing row; [`super::decide()`] never allows it without one.
fn expected(row: Option<&Screening>) -> Screening {
    row.cloned().expect("a transition of an existing screening")
}
