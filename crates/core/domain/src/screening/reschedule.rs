//! A move to another slot: the new claim first, and the row moves only with it.
//!
//! The claim of a move has the next generation. If the move does not happen, the row remembers that generation as
//! fenced, so that a late commit cannot use it once the claim is given back.

use fault::{Fault, Reason};
use jiff::Timestamp;

use super::checks::{check_row_etag, state_invalid, zone_of};
use super::{Conflict, Decision, Event, Party, Screening, State, Terms};
use crate::ids::SlotId;
use crate::window::refuse_past;

/// What a person asks for who moves a booking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reschedule {
    /// On whose behalf the booking moves.
    pub by: Party,
    /// The slot to move to.
    pub slot: SlotId,
    /// The reason in their own words; may be empty.
    pub message: String,
    /// The etag that the caller read; empty if it sent none.
    pub etag: String,
}

/// Checks that a booking can leave its place for another date. `conflict` is what the customer has that bars it there.
/// Hospital judges the new place.
///
/// # Errors
/// SCREENING_STATE_INVALID, ETAG_MISMATCH, RESCHEDULE_CLOSED, RESCHEDULE_LIMIT_REACHED, DATE_IN_PAST, or the refusal of
/// the conflict, in this order. A booking that is on the slot already passes all but the first two.
pub fn judge_reschedule(
    row: &Screening,
    asked: &Reschedule,
    conflict: Option<Conflict>,
    now: Timestamp,
) -> Result<(), Fault> {
    match row.state {
        State::Confirmed => {}
        State::Pending
        | State::Cancelled
        | State::ForceCancelled
        | State::Rejected
        | State::Completed
        | State::NoShow
        | State::Waitlisted
        | State::Expired => return Err(state_invalid(row, "moved")),
    }
    check_row_etag(row, &asked.etag)?;
    if row.slot == asked.slot {
        return Ok(());
    }
    if let (Party::Customer, Some(close)) = (asked.by, row.terms.cancellation_close_time)
        && now >= close
    {
        let message = format!("the customer could move it until {close}; the hospital's admins still can");
        return Err(Fault::new(Reason::RescheduleClosed, message).with("screening", row.id).with("closesAt", close));
    }
    if let (Party::Customer, Some(limit)) = (asked.by, row.terms.reschedule_limit)
        && row.reschedule_count >= limit
    {
        let message = format!("the customer could move it {limit} times; the hospital's admins still can");
        return Err(Fault::new(Reason::RescheduleLimitReached, message).with("screening", row.id).with("limit", limit));
    }
    refuse_past(row.slot.date, &zone_of(row)?, now)?;
    conflict.map_or(Ok(()), |conflict| Err(conflict.refusal(&asked.slot)))
}

/// Decides about a move with an ACTIVE claim of this generation on the new slot. A claim that the row neither holds nor
/// takes is fenced. Another move may have taken the same claim and committed first; the row holds it then.
pub(super) fn reschedule(
    row: &Screening,
    asked: &Reschedule,
    generation: i32,
    terms: &Terms,
    conflict: Option<Conflict>,
    now: Timestamp,
) -> Result<Decision, Fault> {
    let usable = generation > row.generation && generation > row.fenced_generation;
    match judge_reschedule(row, asked, conflict, now) {
        Err(refusal) if usable => Ok(Decision::Refuse(Event::ClaimFenced(generation), refusal)),
        Err(refusal) => Err(refusal),
        Ok(()) if row.slot == asked.slot && usable => Ok(Decision::Change(Event::ClaimFenced(generation))),
        Ok(()) if row.slot == asked.slot => Ok(Decision::Keep),
        Ok(()) if !usable => Ok(Decision::Fenced),
        Ok(()) => Ok(Decision::Change(Event::Rescheduled {
            slot: asked.slot.clone(),
            generation,
            terms: terms.clone(),
            by: asked.by,
            message: asked.message.clone(),
            previous: row.slot.clone(),
            released: row.claim(),
        })),
    }
}

#[cfg(test)]
mod tests;
