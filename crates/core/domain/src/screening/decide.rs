//! What each command needs of the row, and what it leads to.

use fault::{Fault, Reason};
use jiff::Timestamp;
use jiff::civil::Date;

use super::checks::{check_row_etag, state_invalid, zone_of};
use super::reschedule::reschedule;
use super::{Booking, Command, Conflict, Decision, Event, Expiry, Party, Queued, Revocation, Screening, State, Terms};
use crate::civil::{last_zone, time_zone, today};
use crate::ids::{ClaimId, SlotId};
use crate::window::refuse_past;

/// Judges a command against the row it names; `None` if there is no row.
///
/// # Errors
/// The refusal that the caller gets; nothing changes then.
pub fn decide(row: Option<&Screening>, command: &Command, now: Timestamp) -> Result<Decision, Fault> {
    match command {
        Command::Confirm { booking, terms, conflict } => Ok(confirm(row, booking, terms, *conflict)),
        Command::Park { booking, terms, conflict } => park(row, booking, terms, *conflict, now),
        Command::Queue { booking, terms, queued, conflict } => Ok(queue(row, booking, terms, *queued, *conflict)),
        Command::Expire => Ok(expire(row, now)),
        Command::GiveUp { reason } => Ok(give_up(row, *reason)),
        Command::Reject => Ok(reject(row)),
        Command::Fence { claim, slot } => Ok(fence(row, *claim, slot)),
        Command::Cancel { by, message, etag } => cancel(existing(row)?, *by, message, etag, now),
        Command::Reschedule { asked, generation, terms, conflict } => {
            reschedule(existing(row)?, asked, *generation, terms, *conflict, now)
        }
        Command::Rename { name, etag } => rename(existing(row)?, name.as_deref(), etag),
        Command::Complete { etag } => complete(existing(row)?, etag, now),
        Command::MarkNoShow { etag } => mark_no_show(existing(row)?, etag, now),
        Command::Revoke { claim, slot, cause, message } => Ok(revoke(row, *claim, slot, cause.clone(), message)),
    }
}

/// The refusal of a booking that has no row. Its claim is given back by the event.
fn turned_away(booking: &Booking, conflict: Conflict) -> Decision {
    let given_back = Event::Rejected(booking.claim(), booking.slot.clone(), conflict.reason());
    Decision::Refuse(given_back, conflict.refusal(&booking.slot))
}

/// Only a PENDING or WAITLISTED row is confirmed; if there is no row, one is made. The booking may have been parked,
/// given up, ended or fenced since the claim was asked for. A WAITLISTED booking is not active, so its customer may
/// have booked elsewhere on that date meanwhile: the later of the two loses. It counted against the limit of its
/// hospital when it joined the queue; a PENDING one is judged now, when the limit is known.
fn confirm(row: Option<&Screening>, booking: &Booking, terms: &Terms, conflict: Option<Conflict>) -> Decision {
    let Some(row) = row else {
        return match conflict {
            None => Decision::Change(Event::Confirmed(booking.clone(), terms.clone())),
            Some(conflict) => turned_away(booking, conflict),
        };
    };
    if row.is_fence() {
        return Decision::Fenced;
    }
    let confirmed = || Decision::Change(Event::Confirmed(booking.clone(), terms.clone()));
    match (row.state, conflict) {
        (State::Waitlisted, Some(Conflict::Date(_))) => Decision::Change(Event::Expired(Expiry::CustomerDateConflict)),
        (State::Waitlisted, Some(Conflict::Limit(_)) | None) => confirmed(),
        (State::Pending, Some(Conflict::Limit(_))) if row.given_up.is_none() => {
            Decision::Change(Event::GivenUp(Reason::CustomerLimitReached))
        }
        (State::Pending, _) if row.given_up.is_none() => confirmed(),
        (
            State::Pending
            | State::Confirmed
            | State::Cancelled
            | State::ForceCancelled
            | State::Rejected
            | State::Completed
            | State::NoShow
            | State::Expired,
            _,
        ) => Decision::Keep,
    }
}

/// Only a PENDING row joins a queue; if there is no row, one is made. While the booking was PENDING, its customer may
/// have waited for the same slot already: the later of the two loses.
fn queue(
    row: Option<&Screening>,
    booking: &Booking,
    terms: &Terms,
    queued: Queued,
    conflict: Option<Conflict>,
) -> Decision {
    let join = || Decision::Change(Event::Queued(booking.clone(), terms.clone(), queued));
    match (row, conflict) {
        (None, None) => join(),
        (None, Some(conflict)) => turned_away(booking, conflict),
        (Some(row), _) if row.is_fence() => Decision::Fenced,
        (Some(row), _) if row.state != State::Pending || row.given_up.is_some() => Decision::Keep,
        (Some(_), None) => join(),
        (Some(_), Some(conflict)) => Decision::Change(Event::GivenUp(conflict.reason())),
    }
}

/// A claim that Hospital has lost is not waited for for ever, so the row's own time decides.
fn expire(row: Option<&Screening>, now: Timestamp) -> Decision {
    let waiting = row.filter(|row| row.state == State::Waitlisted);
    match waiting.and_then(|row| row.queued) {
        Some(queued) if now >= queued.closes_at => Decision::Change(Event::Expired(Expiry::PromotionClosed)),
        Some(_) => Decision::Ignore("the booking may still get a place"),
        None if row.is_some() => Decision::Keep,
        None => Decision::Ignore("there is no such screening"),
    }
}

fn park(
    row: Option<&Screening>,
    booking: &Booking,
    terms: &Terms,
    conflict: Option<Conflict>,
    now: Timestamp,
) -> Result<Decision, Fault> {
    match (row, conflict) {
        (Some(row), _) if row.is_fence() => Ok(Decision::Fenced),
        (Some(_), _) => Ok(Decision::Keep),
        // If a claim was taken after all, its own event reports it, as after any lost answer.
        (None, Some(conflict)) => Err(conflict.refusal(&booking.slot)),
        (None, None) => {
            // The hospital may not be known yet; then a date is over once it is over everywhere.
            refuse_past(booking.slot.date, &time_zone(&terms.time_zone).unwrap_or_else(last_zone), now)?;
            Ok(Decision::Change(Event::Parked(booking.clone(), terms.clone())))
        }
    }
}

fn give_up(row: Option<&Screening>, reason: Reason) -> Decision {
    let Some(row) = row else { return Decision::Ignore("there is no such screening") };
    match (row.state, row.given_up) {
        (State::Pending, None) => Decision::Change(Event::GivenUp(reason)),
        (State::Pending, Some(_)) => Decision::Keep,
        (
            State::Confirmed
            | State::Cancelled
            | State::ForceCancelled
            | State::Rejected
            | State::Completed
            | State::NoShow
            | State::Waitlisted
            | State::Expired,
            _,
        ) => Decision::Keep,
    }
}

fn reject(row: Option<&Screening>) -> Decision {
    let Some(row) = row else { return Decision::Ignore("there is no such screening") };
    match (row.state, row.given_up) {
        (State::Pending, Some(reason)) => Decision::Change(Event::Rejected(row.claim(), row.slot.clone(), reason)),
        (State::Pending, None) => Decision::Ignore("the screening was not given up"),
        (
            State::Confirmed
            | State::Cancelled
            | State::ForceCancelled
            | State::Rejected
            | State::Completed
            | State::NoShow
            | State::Waitlisted
            | State::Expired,
            _,
        ) => Decision::Keep,
    }
}

/// A claim of a booking that exists belongs to a move that was not committed.
fn fence(row: Option<&Screening>, claim: ClaimId, slot: &SlotId) -> Decision {
    match row {
        None => Decision::Change(Event::Rejected(claim, slot.clone(), Reason::HospitalUnavailable)),
        Some(row) if claim.generation > row.generation && claim.generation > row.fenced_generation => {
            Decision::Change(Event::ClaimFenced(claim.generation))
        }
        Some(_) => Decision::Keep,
    }
}

fn cancel(row: &Screening, by: Party, message: &str, etag: &str, now: Timestamp) -> Result<Decision, Fault> {
    match row.state {
        State::Pending | State::Confirmed | State::Waitlisted => {}
        State::Cancelled
        | State::ForceCancelled
        | State::Rejected
        | State::Completed
        | State::NoShow
        | State::Expired => return Err(state_invalid(row, "cancelled")),
    }
    check_row_etag(row, etag)?;
    match (by, row.terms.cancellation_close_time.filter(|_| row.state != State::Waitlisted)) {
        (Party::Customer, Some(close)) if now >= close => {
            let message = format!("the customer could cancel until {close}; the hospital's admins still can");
            Err(Fault::new(Reason::CancellationClosed, message).with("screening", row.id).with("closesAt", close))
        }
        (Party::Customer | Party::Admin, _) => {
            // The place of a past date was used or missed and is not given back. Other bookings have no place.
            if row.state == State::Confirmed {
                refuse_past(row.slot.date, &zone_of(row)?, now)?;
            }
            Ok(Decision::Change(Event::Cancelled(by, message.to_owned())))
        }
    }
}

/// Allowed in every state: what a hospital reads about a past booking may be wrong as well.
fn rename(row: &Screening, name: Option<&str>, etag: &str) -> Result<Decision, Fault> {
    check_row_etag(row, etag)?;
    let other = name.filter(|name| *name != row.customer_display_name);
    Ok(other.map_or(Decision::Keep, |name| Decision::Change(Event::Renamed(name.to_owned()))))
}

fn complete(row: &Screening, etag: &str, now: Timestamp) -> Result<Decision, Fault> {
    match row.state {
        State::Confirmed | State::NoShow => {}
        State::Pending
        | State::Cancelled
        | State::ForceCancelled
        | State::Rejected
        | State::Completed
        | State::Waitlisted
        | State::Expired => return Err(state_invalid(row, "completed")),
    }
    check_row_etag(row, etag)?;
    require_date(row, now, |today, date| today >= date, "before that date has begun")?;
    Ok(Decision::Change(Event::AttendanceRecorded(true)))
}

fn mark_no_show(row: &Screening, etag: &str, now: Timestamp) -> Result<Decision, Fault> {
    match row.state {
        State::Confirmed => {}
        State::Pending
        | State::Cancelled
        | State::ForceCancelled
        | State::Rejected
        | State::Completed
        | State::NoShow
        | State::Waitlisted
        | State::Expired => return Err(state_invalid(row, "marked as missed")),
    }
    check_row_etag(row, etag)?;
    require_date(row, now, |today, date| today > date, "before that date is over")?;
    Ok(Decision::Change(Event::AttendanceRecorded(false)))
}

fn revoke(row: Option<&Screening>, claim: ClaimId, slot: &SlotId, cause: Revocation, message: &str) -> Decision {
    let force = || Decision::Change(Event::ForceCancelled(claim, slot.clone(), cause, message.to_owned()));
    match row {
        None => force(),
        // A move is under way with this claim, or was. It must not commit any more.
        Some(row) if claim.generation > row.generation => match fence(Some(row), claim, slot) {
            Decision::Change(event) => Decision::Change(event),
            _ => Decision::Ignore("the claim was fenced before it was revoked"),
        },
        Some(row) if row.claim() != claim => Decision::Ignore("the screening does not hold this claim"),
        Some(row) => match row.state {
            State::Pending | State::Confirmed | State::Waitlisted => force(),
            State::Cancelled
            | State::ForceCancelled
            | State::Rejected
            | State::Completed
            | State::NoShow
            | State::Expired => Decision::Ignore("the screening had ended before its claim was revoked"),
        },
    }
}

fn existing(row: Option<&Screening>) -> Result<&Screening, Fault> {
    row.filter(|row| !row.is_fence()).ok_or_else(|| Fault::internal("a command on a screening that was not loaded"))
}

fn require_date(
    row: &Screening,
    now: Timestamp,
    reached: impl Fn(Date, Date) -> bool,
    when_not: &str,
) -> Result<(), Fault> {
    let name = &row.terms.time_zone;
    let today = today(now, &zone_of(row)?);
    if reached(today, row.slot.date) {
        return Ok(());
    }
    let message =
        format!("attendance on {} cannot be recorded {when_not} in {name}, where it is {today}", row.slot.date);
    Err(Fault::new(Reason::DateNotReached, message)
        .with("screening", row.id)
        .with("date", row.slot.date)
        .with("today", today)
        .with("timeZone", name))
}
