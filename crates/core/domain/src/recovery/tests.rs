mod queue;

use super::*;
use crate::ids::HospitalId;

fn slot_id() -> SlotId {
    SlotId::new(HospitalId::from_segment("seoul").unwrap(), jiff::civil::date(2027, 3, 2))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn known(version: i64, state: State) -> KnownBooking {
    KnownBooking {
        screening: ScreeningId(uuid::Uuid::from_u128(7)),
        version,
        customer: CustomerId::from_segment("kim").unwrap(),
        date: slot_id().date,
        slot: None,
        generation: None,
        hospital_display_name: String::new(),
        time_zone: String::new(),
        state,
        queued: None,
        reason: String::new(),
        message: String::new(),
        create_time: None,
        update_time: at(version),
    }
}

/// A claim of the same booking.
fn claim(generation: i32, slot: &SlotId, state: ClaimState) -> Claim {
    let id = ClaimId { screening: ScreeningId(uuid::Uuid::from_u128(7)), generation };
    Claim { id, slot: slot.clone(), state, slot_version: 1, version: 1, update_time: at(1) }
}

#[test]
fn two_who_know_a_booking_know_its_newest_state_and_its_slot() {
    let page = KnownBooking { hospital_display_name: "Han".into(), ..known(2, State::Cancelled) };
    let ledger = KnownBooking { slot: Some(slot_id()), create_time: Some(at(1)), ..known(1, State::Confirmed) };
    let both = page.clone().and(ledger.clone());
    assert_eq!(both, ledger.and(page));
    let row = screening(None, &both, &[], None).unwrap();
    assert_eq!((row.state, row.version, row.slot, row.create_time), (State::Cancelled, 2, slot_id(), at(1)));
    assert_eq!(row.terms.hospital_display_name, "Han");
    assert_eq!(row.generation, FIRST_GENERATION);
}

#[test]
fn a_booking_whose_slot_nobody_knows_is_not_made() {
    assert_eq!(screening(None, &known(1, State::Pending), &[], None), None);
    let claims = [claim(2, &slot_id(), ClaimState::Active), claim(3, &slot_id(), ClaimState::Active)];
    let row = screening(None, &known(1, State::Confirmed), &claims, None).unwrap();
    assert_eq!((row.generation, row.slot), (3, slot_id()));
}

#[test]
fn claims_become_what_their_bookings_say_and_ended_ones_never_come_back() {
    let booking =
        screening(None, &KnownBooking { slot: Some(slot_id()), ..known(1, State::Confirmed) }, &[], None).unwrap();
    let expected = ExpectedClaim::of(&booking).unwrap();
    let made = expected.make(None, 0, at(9)).unwrap();
    assert_eq!((made.state, made.version), (ClaimState::Active, 1));
    assert_eq!(expected.make(Some(&made), 0, at(9)), None);
    let ended = ExpectedClaim { state: ClaimState::Released, ..expected.clone() }.make(Some(&made), 0, at(9)).unwrap();
    assert_eq!((ended.state, ended.version), (ClaimState::Released, 2));
    assert_eq!(expected.make(Some(&ended), 0, at(9)), None, "a place that was given back is not taken again");
    let released = ExpectedClaim { state: ClaimState::Released, ..expected };
    assert_eq!(released.make(None, 0, at(9)), None);
    assert_eq!(ExpectedClaim::of(&Screening { state: State::Pending, ..booking }), None);
}

#[test]
fn claims_that_a_booking_left_or_fenced_give_their_places_back() {
    let reported = KnownBooking { slot: Some(slot_id()), generation: Some(3), ..known(5, State::Confirmed) };
    let row = Screening { fenced_generation: 4, ..screening(None, &reported, &[], None).unwrap() };
    let expected = ExpectedClaim::of(&row).unwrap();
    let has_left = |generation| expected.has_left(&claim(generation, &slot_id(), ClaimState::Active));
    // a move with the claim of generation 5 may be under way
    assert_eq!([1, 2, 3, 4, 5].map(has_left), [true, true, false, true, false]);
    assert!(!expected.has_left(&claim(1, &slot_id(), ClaimState::Released)));
    let left = ExpectedClaim::left(&claim(4, &slot_id(), ClaimState::Active));
    let ended = left.make(Some(&claim(4, &slot_id(), ClaimState::Active)), 0, at(9)).unwrap();
    assert_eq!((ended.id.generation, ended.state, ended.version), (4, ClaimState::Released, 2));
}

#[test]
fn a_slot_has_the_newest_capacity_and_room_for_all_who_hold_a_place() {
    let places =
        |slot_version, capacity| Places { slot: slot_id(), slot_version, capacity, booked: 0, waiting: 0, time: at(1) };
    let held = slot(&slot_id(), None, Some(&places(5, 50)), (20, 3), None, at(2));
    assert_eq!((held.capacity, held.booked, held.waiting, held.version), (50, 20, 3, 5 + VERSION_HEADROOM));
    let newer = slot(&slot_id(), Some(&held), Some(&places(held.version + 1, 60)), (40, 0), None, at(3));
    assert_eq!((newer.capacity, newer.booked), (60, 40));
    let older = slot(&slot_id(), Some(&held), Some(&places(3, 10)), (55, 0), Some(SlotState::Closed), at(3));
    assert_eq!((older.capacity, older.booked, older.state), (55, 55, SlotState::Closed));
    assert!(older.version > held.version && older.admin_version > held.admin_version);
}

#[test]
fn a_booking_that_moved_is_where_its_newest_version_says() {
    let later = SlotId::new(slot_id().hospital, jiff::civil::date(2027, 3, 9));
    let first = KnownBooking { slot: Some(slot_id()), generation: Some(1), ..known(1, State::Confirmed) };
    let terms = |close| Terms { cancellation_close_time: Some(at(close)), ..Terms::default() };
    let held = Screening { terms: terms(100), ..screening(None, &first, &[], None).unwrap() };
    let reported = KnownBooking { slot: Some(later.clone()), generation: Some(2), ..known(3, State::Confirmed) };
    let both = first.clone().and(reported.clone());
    assert_eq!((both.clone(), both.generation), (reported.clone().and(first), Some(2)));
    let row = screening(Some(&held), &both, &[], Some(terms(200))).unwrap();
    assert_eq!((&row.slot, row.generation, row.version), (&later, 2, 3));
    assert_eq!(row.terms.cancellation_close_time, Some(at(200)), "the cut-off is that of the new slot");
    assert_eq!((held.reschedule_count, row.reschedule_count), (0, 1));

    // The views do not keep generations; Hospital's claim on the slot has it.
    let unknown = KnownBooking { generation: None, ..reported };
    let row = |claims: &[Claim]| screening(Some(&held), &unknown, claims, None).unwrap();
    let other = SlotId::new(slot_id().hospital, jiff::civil::date(2027, 3, 16));
    let left = || claim(1, &slot_id(), ClaimState::Active);
    let moving = || claim(3, &other, ClaimState::Active);
    assert_eq!(row(&[left(), claim(2, &later, ClaimState::Active), moving()]).generation, 2, "the one on its slot");
    // Hospital forgot it as well. What it still has belongs to other slots.
    assert_eq!(row(&[left(), moving()]).generation, 4);
    assert_eq!(row(&[]).generation, held.next_claim().generation);

    // Nobody but Hospital remembers the move.
    let row = moved(&held, held.next_claim(), &later, terms(200));
    assert_eq!((row.slot, row.generation, row.version, row.state), (later, 2, 3, State::Confirmed));
}

#[test]
fn a_booking_that_moved_to_another_hospital_has_the_terms_of_that_one() {
    let busan = SlotId::new(HospitalId::from_segment("busan").unwrap(), slot_id().date);
    let name = || "Seoul".to_owned();
    let first = KnownBooking { slot: Some(slot_id()), hospital_display_name: name(), ..known(1, State::Confirmed) };
    let held = screening(None, &first, &[], None).unwrap();
    // the ledger knows the slot and no name
    let both = first.and(KnownBooking { slot: Some(busan), ..known(3, State::Confirmed) });
    let offered = Terms { hospital_display_name: "Busan".into(), ..Terms::default() };
    let row = screening(Some(&held), &both, &[], Some(offered)).unwrap();
    assert_eq!((held.terms.hospital_display_name, row.terms.hospital_display_name), (name(), "Busan".into()));
}

#[test]
fn a_call_that_moved_a_booking_is_answered_again_as_that_call() {
    let (screening, call) = (ScreeningId(uuid::Uuid::from_u128(7)), uuid::Uuid::from_u128(8));
    let method = |state, reason| Answered::of(screening, (state, reason), "customer:kim", Some(call), at(1));
    let named = |state, reason| method(state, reason).map(|answered| answered.key.method);
    assert_eq!(named(State::Confirmed, ""), Some("CreateScreening"));
    assert_eq!(named(State::Confirmed, "CUSTOMER_REQUEST"), Some("RescheduleScreening"));
    assert_eq!(named(State::Cancelled, "CUSTOMER_REQUEST"), Some("CancelScreening"));
    assert_eq!(named(State::ForceCancelled, "HOSPITAL_DELETED"), None);
}

#[test]
fn what_became_of_a_place_is_read_from_all_claims() {
    let first = KnownBooking { slot: Some(slot_id()), generation: Some(1), ..known(1, State::Confirmed) };
    let row = screening(None, &first, &[], None).unwrap();
    let claim = |generation, state| Claim {
        id: ClaimId { screening: row.id, generation },
        slot: slot_id(),
        state,
        slot_version: 1,
        version: 1,
        update_time: at(1),
    };
    let (active, released) = (ClaimState::Active, ClaimState::Released);
    let revoked = ClaimState::Revoked(RevokeReason::SlotCancelled);
    assert_eq!(place(&row, &[]), Place::Kept);
    assert_eq!(place(&row, &[claim(1, active), claim(2, active)]), Place::Kept, "a move is under way");
    assert_eq!(place(&row, &[claim(1, released), claim(2, released)]), Place::Ended(released));
    assert_eq!(place(&row, &[claim(1, revoked), claim(2, active)]), Place::Ended(revoked));
    let claims = [claim(1, released), claim(2, released), claim(3, active)];
    assert_eq!(place(&row, &claims), Place::Moved(&claims[2]));
    let cancelled = Screening { state: State::Cancelled, ..row.clone() };
    assert_eq!(place(&cancelled, &claims), Place::Kept);
}

#[test]
fn a_generation_is_that_of_its_own_version() {
    let back = KnownBooking { slot: Some(slot_id()), ..known(5, State::Confirmed) };
    let first = KnownBooking { slot: Some(slot_id()), generation: Some(1), ..known(1, State::Confirmed) };
    assert_eq!(back.clone().and(first).generation, None, "it may have left the slot and come back");
    let reported = KnownBooking { generation: Some(3), ..back.clone() };
    assert_eq!((back.clone().and(reported.clone()).generation, reported.and(back).generation), (Some(3), Some(3)));
}
