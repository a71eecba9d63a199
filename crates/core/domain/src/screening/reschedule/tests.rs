//! What a move needs, and what becomes of claims that no move uses.

use contract::event::v1::event_envelope::Payload;
use jiff::SignedDuration;

use super::super::tests::{at, before, booking, other, row, slot, terms};
use super::super::{Command, Revocation, apply, decide, facts};
use super::*;
use crate::ids::ClaimId;

/// The slot to move to.
fn later() -> SlotId {
    SlotId::parse("hospitals/busan/slots/2027-01-07").unwrap()
}

fn asked(by: Party) -> Reschedule {
    Reschedule { by, slot: later(), message: "a trip".into(), etag: String::new() }
}

/// The customer's move, with a claim of this generation.
fn with_claim(generation: i32) -> Command {
    let terms = Terms { hospital_display_name: "부산".into(), ..terms() };
    Command::Reschedule { asked: asked(Party::Customer), generation, terms, conflict: None }
}

fn after(row: &Screening, command: &Command) -> Screening {
    let Ok(Decision::Change(event)) = decide(Some(row), command, before()) else { panic!("{command:?}") };
    apply(Some(row), &event, before())
}

fn fence_of(generation: i32) -> Command {
    Command::Fence { claim: ClaimId { generation, ..booking().claim() }, slot: later() }
}

fn revoke_of(generation: i32) -> Command {
    let claim = ClaimId { generation, ..booking().claim() };
    Command::Revoke { claim, slot: later(), cause: Revocation::SlotCancelled, message: String::new() }
}

#[test]
fn a_move_is_two_versions_and_leaves_its_place() {
    let booked = row(State::Confirmed);
    let Ok(Decision::Change(event)) = decide(Some(&booked), &with_claim(2), before()) else { panic!() };
    let moved = apply(Some(&booked), &event, before());
    assert_eq!((moved.state, moved.version, moved.generation), (State::Confirmed, booked.version + 2, 2));
    assert_eq!((&moved.slot, moved.terms.hospital_display_name.as_str()), (&later(), "부산"));
    assert_eq!((booked.reschedule_count, moved.reschedule_count), (0, 1));
    assert_eq!((moved.state_reason.as_str(), moved.state_message.as_str()), ("CUSTOMER_REQUEST", "a trip"));
    let reported = facts(&moved, &event);
    let [(2, Payload::ScreeningRescheduled(left)), (3, Payload::ScreeningConfirmed(now))] = &reported[..] else {
        panic!()
    };
    assert_eq!(
        (left.previous_slot.as_str(), left.released_claim_id.clone()),
        (&*slot().to_string(), booking().claim().to_string())
    );
    assert_eq!((&left.screening, &left.reason, &left.message), (&now.screening, &now.reason, &now.message));
    assert_eq!(now.screening.as_ref().unwrap().slot, later().to_string());
}

#[test]
fn a_move_is_refused_in_this_order_and_its_claim_is_fenced() {
    let close = at("2027-01-03T15:00:00Z");
    let ends = at("2027-01-04T15:00:00Z");
    let refusal = |row: &Screening, asked: Reschedule, conflict, now| {
        let command = Command::Reschedule { asked, generation: 2, terms: terms(), conflict };
        match decide(Some(row), &command, now) {
            Ok(Decision::Refuse(Event::ClaimFenced(2), fault)) => fault.reason(),
            decision => panic!("{decision:?}"),
        }
    };
    let (conflict, stale) = (Some(Conflict::Date(other())), || "\"9\"".to_owned());
    let (customer, admin) = (asked(Party::Customer), asked(Party::Admin));
    for state in State::ALL.iter().filter(|state| **state != State::Confirmed) {
        let wrong = Reschedule { etag: stale(), ..customer.clone() };
        assert_eq!(refusal(&row(*state), wrong, conflict, ends), Reason::ScreeningStateInvalid);
    }
    let booked = row(State::Confirmed);
    let wrong = Reschedule { etag: stale(), ..customer.clone() };
    assert_eq!(refusal(&booked, wrong, conflict, ends), Reason::EtagMismatch);
    assert_eq!(refusal(&booked, customer.clone(), conflict, close), Reason::RescheduleClosed);
    let often = Screening { reschedule_count: 3, ..booked.clone() };
    assert_eq!(refusal(&often, customer.clone(), conflict, close), Reason::RescheduleClosed);
    let in_time = close - SignedDuration::from_micros(1);
    assert_eq!(refusal(&often, customer.clone(), conflict, in_time), Reason::RescheduleLimitReached);
    assert_eq!(refusal(&often, admin.clone(), conflict, in_time), Reason::CustomerDateConflict);
    let unlimited = Terms { reschedule_limit: None, ..terms() };
    let unlimited = Screening { terms: unlimited, ..often };
    assert_eq!(judge_reschedule(&unlimited, &customer, None, in_time), Ok(()));
    assert_eq!(refusal(&booked, admin.clone(), conflict, ends), Reason::DateInPast);
    assert_eq!(refusal(&booked, admin.clone(), conflict, close), Reason::CustomerDateConflict);
    let just_before = close - SignedDuration::from_micros(1);
    assert_eq!(refusal(&booked, customer.clone(), conflict, just_before), Reason::CustomerDateConflict);
    assert_eq!(judge_reschedule(&booked, &customer, None, just_before), Ok(()));
    assert_eq!(judge_reschedule(&booked, &admin, None, close), Ok(()));
}

#[test]
fn a_booking_that_is_there_already_stays_and_needs_no_place() {
    let booked = row(State::Confirmed);
    let asked = Reschedule { slot: slot(), ..asked(Party::Customer) };
    let late = at("2027-01-09T00:00:00Z");
    let same = |generation| Command::Reschedule {
        asked: asked.clone(),
        generation,
        terms: terms(),
        conflict: Some(Conflict::Date(other())),
    };
    assert_eq!(decide(Some(&booked), &same(1), late), Ok(Decision::Keep));
    assert_eq!(decide(Some(&booked), &same(2), late), Ok(Decision::Change(Event::ClaimFenced(2))));
}

#[test]
fn a_fenced_claim_moves_nothing_and_the_next_one_does() {
    let booked = row(State::Confirmed);
    let fenced = after(&booked, &fence_of(2));
    assert_eq!(Screening { fenced_generation: 2, ..booked }, fenced);
    assert_eq!(decide(Some(&fenced), &with_claim(2), before()), Ok(Decision::Fenced));
    assert_eq!(fenced.next_claim().generation, 3);
    let moved = after(&fenced, &with_claim(3));
    assert_eq!((moved.generation, moved.next_claim().generation), (3, 4));
    // what the row holds, held or fenced is not fenced again
    for generation in 1..=3 {
        assert_eq!(decide(Some(&moved), &fence_of(generation), before()), Ok(Decision::Keep));
    }
}

#[test]
fn a_claim_that_two_moves_share_is_not_given_back_by_the_later_one() {
    let moved = after(&row(State::Confirmed), &with_claim(2));
    assert_eq!(decide(Some(&moved), &with_claim(2), before()), Ok(Decision::Keep));
    let stale = Reschedule { etag: crate::token::etag(1), ..asked(Party::Customer) };
    let command = Command::Reschedule { asked: stale, generation: 2, terms: terms(), conflict: None };
    assert_eq!(decide(Some(&moved), &command, before()).unwrap_err().reason(), Reason::EtagMismatch);
    // a third one has moved it on
    let further = Reschedule { slot: slot(), ..asked(Party::Admin) };
    let command = Command::Reschedule { asked: further, generation: 3, terms: terms(), conflict: None };
    let on = after(&moved, &command);
    assert_eq!(decide(Some(&on), &with_claim(2), before()), Ok(Decision::Fenced));
}

#[test]
fn a_revocation_ends_a_booking_by_its_own_claim_alone() {
    let moved = after(&row(State::Confirmed), &with_claim(2));
    assert!(matches!(decide(Some(&moved), &revoke_of(1), before()), Ok(Decision::Ignore(_))));
    assert_eq!(after(&moved, &revoke_of(2)).state, State::ForceCancelled);
    // a move with this claim is under way
    let fenced = after(&moved, &revoke_of(3));
    assert_eq!((fenced.state, fenced.fenced_generation), (State::Confirmed, 3));
    assert!(matches!(decide(Some(&fenced), &revoke_of(3), before()), Ok(Decision::Ignore(_))));
}

#[test]
fn a_booking_that_moved_cancels_the_place_that_it_has() {
    let moved = after(&row(State::Confirmed), &with_claim(2));
    let cancel = Command::Cancel { by: Party::Admin, message: String::new(), etag: String::new() };
    let Ok(Decision::Change(event)) = decide(Some(&moved), &cancel, before()) else { panic!() };
    let cancelled = apply(Some(&moved), &event, before());
    let reported = facts(&cancelled, &event);
    let [(4, Payload::ScreeningCancelled(fact))] = &reported[..] else { panic!("{reported:?}") };
    assert_eq!(fact.claim_id, moved.claim().to_string());
    assert_eq!(fact.screening.as_ref().unwrap().slot, later().to_string());
}
