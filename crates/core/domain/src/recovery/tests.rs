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
        hospital_display_name: String::new(),
        time_zone: String::new(),
        state,
        reason: String::new(),
        message: String::new(),
        create_time: None,
        update_time: at(version),
    }
}

#[test]
fn two_who_know_a_booking_know_its_newest_state_and_its_slot() {
    let page = KnownBooking { hospital_display_name: "Han".into(), ..known(2, State::Cancelled) };
    let ledger = KnownBooking { slot: Some(slot_id()), create_time: Some(at(1)), ..known(1, State::Confirmed) };
    let both = page.clone().and(ledger.clone());
    assert_eq!(both, ledger.and(page));
    let row = screening(None, &both, None, None).unwrap();
    assert_eq!((row.state, row.version, row.slot, row.create_time), (State::Cancelled, 2, slot_id(), at(1)));
    assert_eq!(row.terms.hospital_display_name, "Han");
    assert_eq!(row.generation, FIRST_GENERATION);
}

#[test]
fn a_booking_whose_slot_nobody_knows_is_not_made() {
    assert_eq!(screening(None, &known(1, State::Pending), None, None), None);
    let claim = ClaimId { screening: ScreeningId(uuid::Uuid::from_u128(7)), generation: 3 };
    let row = screening(None, &known(1, State::Confirmed), Some((claim, slot_id())), None).unwrap();
    assert_eq!((row.generation, row.slot), (3, slot_id()));
}

#[test]
fn claims_become_what_their_bookings_say_and_ended_ones_never_come_back() {
    let booking =
        screening(None, &KnownBooking { slot: Some(slot_id()), ..known(1, State::Confirmed) }, None, None).unwrap();
    let expected = ExpectedClaim::of(&booking).unwrap();
    let made = expected.make(None, at(9)).unwrap();
    assert_eq!((made.state, made.version), (ClaimState::Active, 1));
    assert_eq!(expected.make(Some(&made), at(9)), None);
    let ended = ExpectedClaim { state: ClaimState::Released, ..expected.clone() }.make(Some(&made), at(9)).unwrap();
    assert_eq!((ended.state, ended.version), (ClaimState::Released, 2));
    assert_eq!(expected.make(Some(&ended), at(9)), None, "a place that was given back is not taken again");
    let released = ExpectedClaim { state: ClaimState::Released, ..expected };
    assert_eq!(released.make(None, at(9)), None);
    assert_eq!(ExpectedClaim::of(&Screening { state: State::Pending, ..booking }), None);
}

#[test]
fn a_slot_has_the_newest_capacity_and_room_for_all_who_hold_a_place() {
    let places = |slot_version, capacity| Places { slot: slot_id(), slot_version, capacity, booked: 0, time: at(1) };
    let held = slot(&slot_id(), None, Some(&places(5, 50)), 20, None, at(2));
    assert_eq!((held.capacity, held.booked, held.version), (50, 20, 5 + VERSION_HEADROOM));
    let newer = slot(&slot_id(), Some(&held), Some(&places(held.version + 1, 60)), 40, None, at(3));
    assert_eq!((newer.capacity, newer.booked), (60, 40));
    let older = slot(&slot_id(), Some(&held), Some(&places(3, 10)), 55, Some(SlotState::Closed), at(3));
    assert_eq!((older.capacity, older.booked, older.state), (55, 55, SlotState::Closed));
    assert!(older.version > held.version && older.admin_version > held.admin_version);
}
