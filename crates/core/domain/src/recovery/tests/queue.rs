//! Bookings that wait, and claims that waited.

use super::*;

/// The facts of a booking that waits, as an event tells them.
fn waits(version: i64) -> KnownBooking {
    KnownBooking {
        slot: Some(slot_id()),
        generation: Some(1),
        queued: Some(Queued { position: 3, closes_at: at(1_000) }),
        ..known(version, State::Waitlisted)
    }
}

fn row(known: &KnownBooking) -> Screening {
    screening(None, known, &[], None).unwrap()
}

fn waiting(number: i64) -> ClaimState {
    ClaimState::Waiting(Ticket { number, closes_at: at(1_000) })
}

#[test]
fn a_booking_that_waits_is_made_with_its_place_in_the_queue() {
    let made = row(&waits(1));
    assert_eq!((made.state, made.queued, made.joins_waitlist), (State::Waitlisted, waits(1).queued, true));
    // a view knows the state and not the queue
    let page = KnownBooking { queued: None, ..waits(2) };
    let queued = |held: Option<&Screening>, claims: &[Claim]| screening(held, &page, claims, None).unwrap().queued;
    assert_eq!(queued(Some(&made), &[]), waits(1).queued);
    let ticket = [claim(1, &slot_id(), waiting(8))];
    assert_eq!(queued(None, &ticket), Some(Queued { position: 1, closes_at: at(1_000) }));
    assert_eq!(queued(None, &[]), Some(Queued { position: 1, closes_at: at(2) }), "Hospital is asked, then it expires");
    let promoted = KnownBooking { slot: Some(slot_id()), ..known(2, State::Confirmed) };
    assert_eq!(screening(Some(&made), &promoted, &[], None).unwrap().queued, None);
}

#[test]
fn two_who_know_a_booking_know_how_its_wait_ended() {
    let left = KnownBooking { state: State::Cancelled, ..waits(2) };
    let page = KnownBooking { queued: None, slot: None, ..left.clone() };
    for both in [left.clone().and(page.clone()), page.and(left)] {
        assert!(row(&both).waited_in_vain());
    }
    let later = KnownBooking { state: State::Cancelled, queued: None, ..waits(3) };
    assert_eq!(waits(1).and(later).queued, None, "it may have had a place between");
}

#[test]
fn a_booking_that_ended_right_after_it_waited_never_had_a_place() {
    let held = row(&waits(1));
    let ended = |version, state| {
        let page = KnownBooking { slot: Some(slot_id()), ..known(version, state) };
        screening(Some(&held), &page, &[], None).unwrap().waited_in_vain()
    };
    assert!(ended(2, State::Cancelled) && ended(2, State::ForceCancelled) && ended(2, State::Expired));
    assert!(!ended(3, State::Cancelled), "it was CONFIRMED between");
    assert!(!ended(2, State::Confirmed));
}

#[test]
fn what_became_of_a_wait_is_read_from_its_claim() {
    let row = row(&waits(1));
    let revoked = ClaimState::Revoked(RevokeReason::SlotCancelled);
    for (state, expected) in [
        (waiting(1), Place::Kept),
        (ClaimState::Active, Place::Promoted),
        (ClaimState::Released, Place::Ended(ClaimState::Released)),
        (revoked, Place::Ended(revoked)),
    ] {
        assert_eq!(place(&row, &[claim(1, &slot_id(), state)]), expected);
    }
    assert_eq!(place(&row, &[]), Place::Kept);

    let got_one = promoted(&row, at(9));
    assert_eq!(
        (got_one.state, got_one.queued, got_one.version, got_one.update_time),
        (State::Confirmed, None, 2, at(9))
    );
    let left = without_place(&row, ClaimState::Released);
    assert_eq!((left.state, left.waited_in_vain()), (State::Cancelled, true));
    let ended = without_place(&row, revoked);
    assert_eq!(
        (ended.state, ended.waited_in_vain(), &*ended.state_reason),
        (State::ForceCancelled, true, "SLOT_CANCELLED")
    );
}

#[test]
fn who_waits_joins_again_with_the_ticket_that_the_slot_gives() {
    let expected = ExpectedClaim::of(&row(&waits(1))).unwrap();
    assert_eq!((expected.state, expected.since), (waiting(0), at(1)));
    let made = expected.make(None, 77, at(9)).unwrap();
    assert_eq!((made.state, made.version), (waiting(77), 1));
    assert_eq!(expected.make(Some(&made), 99, at(9)), None, "a ticket that is left is kept");
    for state in [ClaimState::Active, ClaimState::Released, ClaimState::Revoked(RevokeReason::SlotCancelled)] {
        assert_eq!(expected.make(Some(&claim(1, &slot_id(), state)), 99, at(9)), None);
    }
    let unknown = Screening { queued: None, ..row(&waits(1)) };
    assert_eq!(ExpectedClaim::of(&unknown), None);
}

#[test]
fn a_ticket_becomes_what_its_booking_says() {
    let held = claim(1, &slot_id(), waiting(5));
    let booking = |state| Screening { state, ..row(&waits(2)) };
    let make = |state| ExpectedClaim::of(&booking(state)).unwrap().make(Some(&held), 99, at(9)).unwrap().state;
    assert_eq!(make(State::Confirmed), ClaimState::Active);
    assert_eq!([State::Expired, State::Cancelled, State::Rejected].map(make), [ClaimState::Released; 3]);
    assert_eq!(make(State::ForceCancelled), ClaimState::Revoked(RevokeReason::HospitalDeleted));
    let lost = ExpectedClaim::of(&booking(State::Expired)).unwrap();
    assert_eq!(lost.make(None, 99, at(9)), None, "a ticket that nobody has needs no tombstone");
}

#[test]
fn a_call_that_joined_a_queue_is_answered_again() {
    let (screening, call) = (ScreeningId(uuid::Uuid::from_u128(7)), uuid::Uuid::from_u128(8));
    let method = |state| {
        let answered = Answered::of(screening, (state, ""), "customer:kim", Some(call), at(1));
        answered.map(|answered| answered.key.method)
    };
    assert_eq!(method(State::Waitlisted), Some("CreateScreening"));
    assert_eq!(method(State::Cancelled), Some("CancelScreening"));
    assert_eq!(method(State::Expired), None);
}
