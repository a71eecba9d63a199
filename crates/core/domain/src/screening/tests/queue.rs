//! A booking that waits: how it joins, and how its wait ends.

use super::*;

fn join(conflict: Option<Conflict>) -> Command {
    let booking = Booking { joins_waitlist: true, ..booking() };
    Command::Queue { booking, terms: terms(), queued: queued(), conflict }
}

fn confirm(conflict: Option<Conflict>) -> Command {
    Command::Confirm { booking: booking(), terms: terms(), conflict }
}

/// The row after a command and the only fact that reports it.
fn after(row: Option<&Screening>, command: &Command, now: Timestamp) -> (Screening, Payload) {
    let Ok(Decision::Change(event)) = decide(row, command, now) else { panic!("{command:?}") };
    let next = apply(row, &event, now);
    let mut facts = facts(&next, &event);
    assert_eq!((facts.len(), facts[0].0), (1, next.version));
    (next, facts.remove(0).1)
}

/// The rules of any history that concern queues; `fact` reports the last change.
pub(super) fn check_queued(before: Option<&Screening>, next: &Screening, fact: &Payload) -> Result<(), TestCaseError> {
    let waited = before.is_some_and(|row| row.state == State::Waitlisted);
    let in_vain = waited && next.state != State::Confirmed;
    prop_assert_eq!(next.queued.is_some(), next.state == State::Waitlisted || in_vain);
    prop_assert_eq!(next.waited_in_vain(), in_vain);
    prop_assert_eq!(matches!(fact, Payload::ScreeningWaitlistEnded(_)), in_vain);
    // Hospital hears of everything that gives a claim back, and a wait in vain is no cancellation
    let gives_back = matches!(fact, Payload::ScreeningRejected(_) | Payload::ScreeningCancelled(_));
    prop_assert_eq!(gives_back, !in_vain && matches!(next.state, State::Rejected | State::Cancelled));
    Ok(())
}

#[test]
fn a_booking_that_finds_no_place_waits_and_is_not_active() {
    let (waits, fact) = after(None, &join(None), before());
    assert_eq!((waits.state, waits.queued, waits.joins_waitlist), (State::Waitlisted, Some(queued()), true));
    assert!(!waits.state.is_active() && !waits.state.is_shown() && !waits.waited_in_vain());
    let Payload::ScreeningWaitlisted(fact) = fact else { panic!("{fact:?}") };
    assert_eq!((fact.position, fact.promotion_close_time.unwrap().seconds), (3, queued().closes_at.as_second()));
    assert_eq!(fact.screening.unwrap().customer, "customers/kim");
}

#[test]
fn a_parked_booking_remembers_that_it_may_wait() {
    let asked = Booking { joins_waitlist: true, ..booking() };
    let park = Command::Park { booking: asked, terms: Terms::default(), conflict: None };
    let (parked, _) = after(None, &park, before());
    assert!(parked.joins_waitlist && parked.booking(booking().customer).joins_waitlist);
    let (waits, _) = after(Some(&parked), &join(None), before());
    assert_eq!((waits.state, waits.version, waits.terms), (State::Waitlisted, 2, terms()));
    let given_up = Screening { given_up: Some(Reason::SlotFull), ..parked };
    assert_eq!(decide(Some(&given_up), &join(None), before()), Ok(Decision::Keep));
}

#[test]
fn nobody_waits_twice_for_a_slot_or_beside_a_booking_of_that_date() {
    let Ok(Decision::Refuse(event, refusal)) = decide(None, &join(Some(Conflict::Date(other()))), before()) else {
        panic!()
    };
    assert_eq!(refusal.reason(), Reason::CustomerDateConflict);
    let given_back = apply(None, &event, before());
    assert!(given_back.is_fence());
    let [(1, Payload::ScreeningRejected(fact))] = &facts(&given_back, &event)[..] else { panic!() };
    assert_eq!(fact.claim_id, booking().claim().to_string());
    // one that was parked beside it is given up, so that its claim is given back
    let pending = row(State::Pending);
    let Ok(Decision::Change(event)) = decide(Some(&pending), &join(Some(Conflict::Date(other()))), before()) else {
        panic!()
    };
    assert_eq!(event, Event::GivenUp(Reason::CustomerDateConflict));
    let waits = row(State::Waitlisted);
    assert_eq!(decide(Some(&waits), &join(Some(Conflict::Date(other()))), before()), Ok(Decision::Keep));
}

#[test]
fn a_fence_keeps_a_late_join_out() {
    assert_eq!(decide(Some(&fence()), &join(None), before()), Ok(Decision::Fenced));
    let again = Command::Fence { claim: booking().claim(), slot: slot() };
    assert_eq!(decide(Some(&row(State::Waitlisted)), &again, before()), Ok(Decision::Keep));
}

#[test]
fn a_promotion_is_a_plain_confirmation() {
    let waits = row(State::Waitlisted);
    let (booked, fact) = after(Some(&waits), &confirm(None), before());
    assert_eq!((booked.state, booked.queued, booked.version), (State::Confirmed, None, waits.version + 1));
    let Payload::ScreeningConfirmed(fact) = fact else { panic!("{fact:?}") };
    assert_eq!((fact.reason.as_str(), fact.message.as_str()), ("", ""));
    // what ends it now is the end of a booking
    let (_, fact) = after(Some(&booked), &cancel(Party::Customer), before());
    assert!(matches!(fact, Payload::ScreeningCancelled(_)));
}

#[test]
fn of_a_promotion_and_another_booking_of_that_date_the_later_loses() {
    let waits = row(State::Waitlisted);
    let (expired, fact) = after(Some(&waits), &confirm(Some(Conflict::Date(other()))), before());
    assert_eq!((expired.state, expired.state_reason.as_str()), (State::Expired, "CUSTOMER_DATE_CONFLICT"));
    assert!(expired.waited_in_vain());
    let Payload::ScreeningWaitlistEnded(fact) = fact else { panic!("{fact:?}") };
    assert_eq!((fact.state.as_str(), fact.reason.as_str()), ("EXPIRED", "CUSTOMER_DATE_CONFLICT"));
    assert_eq!(fact.claim_id, booking().claim().to_string(), "Hospital gives the place to the next");
    assert_eq!(decide(Some(&expired), &confirm(None), before()), Ok(Decision::Keep), "it never comes back");
}

#[test]
fn a_wait_is_over_when_nobody_is_promoted_any_more() {
    let waits = row(State::Waitlisted);
    let close = queued().closes_at;
    let moment = jiff::SignedDuration::from_micros(1);
    assert!(matches!(decide(Some(&waits), &Command::Expire, close - moment), Ok(Decision::Ignore(_))));
    let (expired, fact) = after(Some(&waits), &Command::Expire, close);
    assert_eq!((expired.state, expired.state_reason.as_str()), (State::Expired, "PROMOTION_CLOSED"));
    let Payload::ScreeningWaitlistEnded(fact) = fact else { panic!("{fact:?}") };
    assert_eq!((fact.state.as_str(), fact.reason.as_str()), ("EXPIRED", "PROMOTION_CLOSED"));
    assert!(matches!(decide(None, &Command::Expire, close), Ok(Decision::Ignore(_))));
    assert_eq!(decide(Some(&row(State::Confirmed)), &Command::Expire, close), Ok(Decision::Keep));
}

#[test]
fn who_waits_leaves_at_any_time() {
    let waits = row(State::Waitlisted);
    let after_the_cut_off = terms().cancellation_close_time.unwrap();
    let over = at("2027-02-01T00:00:00Z");
    for (party, now) in [(Party::Customer, after_the_cut_off), (Party::Customer, over), (Party::Admin, over)] {
        let (left, fact) = after(Some(&waits), &cancel(party), now);
        assert_eq!((left.state, left.waited_in_vain()), (State::Cancelled, true));
        let Payload::ScreeningWaitlistEnded(fact) = fact else { panic!("{fact:?}") };
        assert_eq!((fact.state.as_str(), fact.reason.as_str(), &*fact.message), ("CANCELLED", party.code(), "a cold"));
        assert_eq!(fact.claim_id, booking().claim().to_string());
        // the promotion that crosses it
        assert_eq!(decide(Some(&left), &confirm(None), now), Ok(Decision::Keep));
    }
    let stale = Command::Cancel { by: Party::Customer, message: String::new(), etag: "\"9\"".into() };
    assert_eq!(outcome(Some(&waits), &stale, before()), Err(Reason::EtagMismatch));
}

#[test]
fn who_waits_is_told_when_the_hospital_ends_it() {
    let waits = row(State::Waitlisted);
    let (ended, fact) = after(Some(&waits), &revoke(), before());
    assert_eq!((ended.state, ended.waited_in_vain()), (State::ForceCancelled, true));
    let Payload::ScreeningWaitlistEnded(fact) = fact else { panic!("{fact:?}") };
    assert_eq!(
        (fact.state.as_str(), fact.reason.as_str(), fact.message.as_str()),
        ("FORCE_CANCELLED", "HOSPITAL_DELETED", "closing down")
    );
    // one that was promoted before had a place, and its end is told as such
    let (booked, _) = after(Some(&waits), &confirm(None), before());
    assert!(matches!(after(Some(&booked), &revoke(), before()).1, Payload::ScreeningForceCancelled(_)));
}

#[test]
fn who_waits_does_not_move() {
    let waits = row(State::Waitlisted);
    let asked = Reschedule { by: Party::Admin, slot: slot(), message: String::new(), etag: String::new() };
    let refused = judge_reschedule(&waits, &asked, None, before()).unwrap_err();
    assert_eq!((refused.reason(), &*refused.metadata()["state"]), (Reason::ScreeningStateInvalid, "WAITLISTED"));
}

#[test]
fn the_current_state_of_a_row_is_reported_as_its_change_was() {
    for (command, now) in [
        (confirm(None), before()),
        (confirm(Some(Conflict::Date(other()))), before()),
        (cancel(Party::Customer), before()),
        (revoke(), before()),
        (Command::Expire, queued().closes_at),
    ] {
        let (row, fact) = after(Some(&row(State::Waitlisted)), &command, now);
        assert_eq!(state_fact(&row), fact, "{command:?}");
    }
}
