//! Services that agree pass. Each kind of disagreement is planted alone, and exactly that one is found.

mod queue;

use jiff::Timestamp;
use uuid::Uuid;

use super::*;

fn slot(text: &str) -> Arc<SlotId> {
    Arc::new(SlotId::parse(text).unwrap())
}

fn customer(segment: &str) -> Arc<CustomerId> {
    Arc::new(CustomerId::from_segment(segment).unwrap())
}

fn id(number: u128) -> ScreeningId {
    ScreeningId(Uuid::from_u128(number))
}

const SEOUL: &str = "hospitals/seoul/slots/2027-01-04";
const BUSAN: &str = "hospitals/busan/slots/2027-01-05";
/// The slot that the first booking moves to.
const LATER: &str = "hospitals/seoul/slots/2027-01-11";
/// A slot without a place, for which one booking waits.
const FULL: &str = "hospitals/seoul/slots/2027-01-18";

fn read_at() -> Timestamp {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

fn slot_row(name: &str, capacity: i32, booked_count: i32, open: bool) -> SlotRow {
    let (slot, remaining_count) = (slot(name), capacity - booked_count);
    SlotRow { slot, capacity, booked_count, remaining_count, waitlisted_count: 0, open }
}

fn claim_row(claim: ClaimId, name: &str, state: ClaimState) -> ClaimRow {
    let promotion_close = (state == ClaimState::Waiting).then(|| read_at() + jiff::SignedDuration::from_hours(1));
    ClaimRow { claim, slot: slot(name), state, promotion_close }
}

/// One booking per state, on which all services agree; seoul is open, busan is deleted.
fn agreeing() -> ServiceRows {
    let rows = [
        (1, "kim", SEOUL, ScreeningState::Confirmed, 1, Some(ClaimState::Active)),
        (2, "lee", SEOUL, ScreeningState::Cancelled, 2, None),
        (3, "park", SEOUL, ScreeningState::Completed, 3, Some(ClaimState::Active)),
        (4, "choi", SEOUL, ScreeningState::NoShow, 2, Some(ClaimState::Active)),
        (5, "kim", BUSAN, ScreeningState::ForceCancelled, 2, Some(ClaimState::Revoked)),
        (6, "jung", BUSAN, ScreeningState::Completed, 2, Some(ClaimState::Revoked)),
        (7, "kang", SEOUL, ScreeningState::Pending, 1, None),
        (8, "lim", SEOUL, ScreeningState::Rejected, 2, None),
        (9, "yun", FULL, ScreeningState::Waitlisted, 1, Some(ClaimState::Waiting)),
        (10, "cha", FULL, ScreeningState::Expired, 2, None),
    ];
    let mut service_rows = ServiceRows {
        read_at: Some(read_at()),
        slots: Some(vec![
            slot_row(SEOUL, 10, 3, true),
            slot_row(BUSAN, 5, 0, false),
            SlotRow { waitlisted_count: 1, ..slot_row(FULL, 0, 0, true) },
        ]),
        deleted: [(HospitalId::from_segment("busan").unwrap(), jiff::civil::date(2027, 1, 1))].into(),
        claims: Some(Vec::new()),
        screenings: Some(Vec::new()),
        reservations: Some(Vec::new()),
        items: Some(Vec::new()),
    };
    for (number, name, place, state, version, claim) in rows {
        let (screening, slot, customer) = (id(number), slot(place), customer(name));
        if let Some(state) = claim {
            let claim = ClaimId { screening, generation: 1 };
            service_rows.claims.as_mut().unwrap().push(claim_row(claim, place, state));
        }
        if let Some(state) = mirrored(state) {
            let (customer, slot) = (customer.clone(), slot.clone());
            let row = ReservationRow { screening, customer, slot, state, version };
            service_rows.reservations.as_mut().unwrap().push(row);
        }
        let date = slot.date;
        let item = ItemRow { screening, customer: customer.clone(), date, state, version };
        service_rows.items.as_mut().unwrap().push(item);
        let row = ScreeningRow { screening, customer, slot, state, claim_generation: 1, version };
        service_rows.screenings.as_mut().unwrap().push(row);
    }
    service_rows
}

fn screening(service_rows: &mut ServiceRows, number: u128) -> &mut ScreeningRow {
    service_rows.screenings.as_mut().unwrap().iter_mut().find(|row| row.screening == id(number)).unwrap()
}

/// Plants one fault and lists the rules it breaks, each with its subject.
fn found(plant: impl FnOnce(&mut ServiceRows)) -> Vec<(Rule, String)> {
    let mut service_rows = agreeing();
    plant(&mut service_rows);
    check(&service_rows).into_iter().map(|row| (row.rule, row.subject.to_string())).collect()
}

#[test]
fn services_that_agree_have_no_disagreement() {
    assert_eq!(check(&agreeing()), []);
}

#[test]
fn a_slot_sold_beyond_its_capacity_is_found() {
    let broken = found(|service_rows| {
        let row = &mut service_rows.slots.as_mut().unwrap()[0];
        (row.capacity, row.remaining_count) = (2, -1);
    });
    assert_eq!(broken, [(Rule::CapacityHolds, SEOUL.to_owned())]);
}

#[test]
fn a_count_that_is_not_the_active_claims_is_found() {
    let count = found(|service_rows| {
        let row = &mut service_rows.slots.as_mut().unwrap()[0];
        (row.booked_count, row.remaining_count) = (4, 6);
    });
    assert_eq!(count, [(Rule::CountsAreClaims, SEOUL.to_owned())]);
}

#[test]
fn places_left_that_are_not_the_rest_are_found() {
    let broken = found(|service_rows| service_rows.slots.as_mut().unwrap()[0].remaining_count = 8);
    assert_eq!(broken, [(Rule::CapacityHolds, SEOUL.to_owned())]);
}

#[test]
fn a_booking_without_its_claim_is_found() {
    for number in [1, 3, 4] {
        let broken = found(|service_rows| {
            service_rows.claims.as_mut().unwrap().retain(|row| row.claim.screening != id(number));
            let row = &mut service_rows.slots.as_mut().unwrap()[0];
            (row.booked_count, row.remaining_count) = (2, 8);
        });
        assert_eq!(broken, [(Rule::ClaimsAreBookings, id(number).to_string())]);
    }
}

#[test]
fn a_confirmed_booking_whose_claim_was_revoked_is_found() {
    let broken = found(|service_rows| {
        service_rows.claims.as_mut().unwrap()[0].state = ClaimState::Revoked;
        let row = &mut service_rows.slots.as_mut().unwrap()[0];
        (row.booked_count, row.remaining_count) = (2, 8);
    });
    assert_eq!(broken, [(Rule::ClaimsAreBookings, id(1).to_string())]);
}

#[test]
fn a_claim_that_no_booking_holds_is_found() {
    let claims = [(99, 1, false), (2, 1, true), (7, 1, true), (8, 1, true), (1, 2, false)];
    for (number, generation, has_booking) in claims {
        let claim = ClaimId { screening: id(number), generation };
        let broken = found(|service_rows| {
            let row = claim_row(claim, SEOUL, ClaimState::Active);
            service_rows.claims.as_mut().unwrap().push(row);
            let row = &mut service_rows.slots.as_mut().unwrap()[0];
            (row.booked_count, row.remaining_count) = (4, 6);
        });
        let subject = if has_booking { id(number).to_string() } else { format!("{SEOUL}/claims/{claim}") };
        assert_eq!(broken, [(Rule::ClaimsAreBookings, subject)]);
    }
}

#[test]
fn a_claim_on_another_slot_than_its_booking_is_found() {
    let broken = found(|service_rows| {
        service_rows.claims.as_mut().unwrap()[0].slot = slot(LATER);
        let slots = service_rows.slots.as_mut().unwrap();
        (slots[0].booked_count, slots[0].remaining_count) = (2, 8);
        slots.push(slot_row(LATER, 1, 1, true));
    });
    assert_eq!(broken, [(Rule::ClaimsAreBookings, id(1).to_string())]);
}

/// Moves the first booking, in every service, and leaves its old claim in this state.
fn moves(service_rows: &mut ServiceRows, old_claim: ClaimState) {
    let (to, version) = (slot(LATER), 3);
    let row = screening(service_rows, 1);
    (row.slot, row.claim_generation, row.version) = (to.clone(), 2, version);
    let claims = service_rows.claims.as_mut().unwrap();
    claims[0].state = old_claim;
    let claim = ClaimId { screening: id(1), generation: 2 };
    claims.push(claim_row(claim, LATER, ClaimState::Active));
    let left = i32::from(old_claim != ClaimState::Active);
    let slots = service_rows.slots.as_mut().unwrap();
    (slots[0].booked_count, slots[0].remaining_count) = (3 - left, 7 + left);
    slots.push(slot_row(LATER, 5, 1, true));
    let item = &mut service_rows.items.as_mut().unwrap()[0];
    (item.date, item.version) = (to.date, version);
    let reservation = &mut service_rows.reservations.as_mut().unwrap()[0];
    (reservation.slot, reservation.version) = (to, version);
}

#[test]
fn a_booking_that_moved_is_where_its_new_claim_is() {
    assert_eq!(found(|service_rows| moves(service_rows, ClaimState::Released)), []);
    assert_eq!(found(|service_rows| moves(service_rows, ClaimState::Revoked)), []);
    // until Hospital has read of the move, or for good
    let leaked = found(|service_rows| moves(service_rows, ClaimState::Active));
    let old_claim = ClaimId { screening: id(1), generation: 1 };
    assert_eq!(leaked, [(Rule::ClaimsAreBookings, format!("{SEOUL}/claims/{old_claim}"))]);
    let page = found(|service_rows| {
        moves(service_rows, ClaimState::Released);
        service_rows.items.as_mut().unwrap()[0].date = slot(SEOUL).date;
    });
    assert_eq!(page, [(Rule::PagesFollow, id(1).to_string())]);
    let ledger = found(|service_rows| {
        moves(service_rows, ClaimState::Released);
        service_rows.reservations.as_mut().unwrap()[0].slot = slot(SEOUL);
    });
    assert_eq!(ledger, [(Rule::ReservationsFollow, id(1).to_string())]);
}

#[test]
fn a_booking_that_moved_without_a_claim_is_found() {
    let new_claim = ClaimId { screening: id(1), generation: 2 };
    let broken = found(|service_rows| {
        moves(service_rows, ClaimState::Released);
        service_rows.claims.as_mut().unwrap().retain(|row| row.claim != new_claim);
        let row = &mut service_rows.slots.as_mut().unwrap()[3];
        (row.booked_count, row.remaining_count) = (0, 5);
    });
    assert_eq!(broken, [(Rule::ClaimsAreBookings, id(1).to_string())]);
}

#[test]
fn what_was_over_when_a_deletion_began_is_history() {
    let attended = |first: Date| {
        found(|service_rows| {
            service_rows.deleted = [(HospitalId::from_segment("busan").unwrap(), first)].into();
            service_rows.claims.as_mut().unwrap()[4].state = ClaimState::Active;
            let row = &mut service_rows.slots.as_mut().unwrap()[1];
            (row.booked_count, row.remaining_count) = (1, 4);
        })
    };
    let busan = slot(BUSAN).date;
    assert_eq!(attended(busan.tomorrow().unwrap()), []);
    assert_eq!(attended(busan), [(Rule::DeletedIsEmpty, BUSAN.to_owned())]);
}

#[test]
fn a_deleted_hospital_tells_from_which_date_on_it_is_empty() {
    let deleted = message::Hospital {
        name: "hospitals/busan".into(),
        time_zone: "Asia/Seoul".into(),
        state: message::hospital::State::Deleted as i32,
        delete_time: Some(prost_types::Timestamp { seconds: 1_798_729_200, nanos: 0 }),
        ..message::Hospital::default()
    };
    // 2026-12-31T15:00:00Z, which is midnight in Seoul
    let (name, first) = emptied(&deleted).unwrap().unwrap();
    assert_eq!((name.segment(), first), ("busan", jiff::civil::date(2027, 1, 1)));
    let silent = message::Hospital { delete_time: None, ..deleted.clone() };
    assert_eq!(emptied(&silent).unwrap().unwrap().1, Date::MIN);
    let deleting = message::Hospital { state: message::hospital::State::Deleting as i32, ..deleted };
    assert_eq!(emptied(&deleting), Ok(None));
}

#[test]
fn an_active_booking_in_a_deleted_hospital_is_found() {
    let pending = found(|service_rows| {
        service_rows.claims.as_mut().unwrap().retain(|row| row.claim.screening != id(5));
        service_rows.reservations.as_mut().unwrap().retain(|row| row.screening != id(5));
        screening(service_rows, 5).state = ScreeningState::Pending;
        service_rows.items.as_mut().unwrap()[4].state = ScreeningState::Pending;
    });
    assert_eq!(pending, [(Rule::DeletedIsEmpty, id(5).to_string())]);
    let booked = found(|service_rows| {
        service_rows.claims.as_mut().unwrap()[4].state = ClaimState::Active;
        let row = &mut service_rows.slots.as_mut().unwrap()[1];
        (row.booked_count, row.remaining_count) = (1, 4);
    });
    assert_eq!(booked, [(Rule::DeletedIsEmpty, BUSAN.to_owned())]);
}

#[test]
fn a_second_active_booking_of_a_customer_on_a_date_is_found() {
    let broken = found(|service_rows| {
        screening(service_rows, 7).customer = customer("kim");
        service_rows.items.as_mut().unwrap()[6].customer = customer("kim");
    });
    assert_eq!(broken, [(Rule::OneBookingADate, "customers/kim on 2027-01-04".to_owned())]);
}

#[test]
fn a_reservation_that_is_missing_is_found() {
    for number in [1, 3, 4] {
        let broken =
            found(|service_rows| service_rows.reservations.as_mut().unwrap().retain(|row| row.screening != id(number)));
        assert_eq!(broken, [(Rule::ReservationsFollow, id(number).to_string())]);
    }
    // Cancelled in its fourth version: it was PENDING, WAITLISTED, CONFIRMED, CANCELLED, and so was registered.
    let broken = found(|service_rows| {
        service_rows.reservations.as_mut().unwrap().retain(|row| row.screening != id(2));
        screening(service_rows, 2).version = 4;
        service_rows.items.as_mut().unwrap()[1].version = 4;
    });
    assert_eq!(broken, [(Rule::ReservationsFollow, id(2).to_string())]);
}

#[test]
fn a_booking_cancelled_while_pending_or_waitlisted_needs_no_reservation() {
    for version in [2, 3] {
        let broken = found(|service_rows| {
            service_rows.reservations.as_mut().unwrap().retain(|row| row.screening != id(2));
            screening(service_rows, 2).version = version;
            service_rows.items.as_mut().unwrap()[1].version = version;
        });
        assert_eq!(broken, []);
    }
}

#[test]
fn a_reservation_that_says_something_else_is_found() {
    let plants: [fn(&mut ReservationRow); 4] = [
        |row| row.state = ReservationState::Cancelled,
        |row| row.version = 2,
        |row| row.slot = slot(BUSAN),
        |row| row.customer = customer("lee"),
    ];
    for plant in plants {
        let broken = found(|service_rows| plant(&mut service_rows.reservations.as_mut().unwrap()[0]));
        assert_eq!(broken, [(Rule::ReservationsFollow, id(1).to_string())]);
    }
}

#[test]
fn a_reservation_that_should_not_be_is_found() {
    for number in [7, 8, 9, 10, 99] {
        let broken = found(|service_rows| {
            let (slot, state) = (slot(SEOUL), ReservationState::Registered);
            let row = ReservationRow { screening: id(number), customer: customer("kang"), slot, state, version: 1 };
            service_rows.reservations.as_mut().unwrap().push(row);
        });
        assert_eq!(broken, [(Rule::ReservationsFollow, id(number).to_string())]);
    }
}

#[test]
fn a_page_that_lacks_a_booking_or_shows_another_state_is_found() {
    for number in 1..=10 {
        let broken =
            found(|service_rows| service_rows.items.as_mut().unwrap().retain(|row| row.screening != id(number)));
        assert_eq!(broken, [(Rule::PagesFollow, id(number).to_string())]);
    }
    let plants: [fn(&mut ItemRow); 4] = [
        |row| row.state = ScreeningState::Unspecified,
        |row| row.version = 2,
        |row| row.date = slot(BUSAN).date,
        |row| row.customer = customer("lee"),
    ];
    for plant in plants {
        let broken = found(|service_rows| plant(&mut service_rows.items.as_mut().unwrap()[0]));
        assert_eq!(broken, [(Rule::PagesFollow, id(1).to_string())]);
    }
}

#[test]
fn a_page_that_shows_a_booking_nobody_made_is_found() {
    let broken = found(|service_rows| {
        let (customer, date, state) = (customer("kim"), slot(SEOUL).date, ScreeningState::Confirmed);
        service_rows.items.as_mut().unwrap().push(ItemRow { screening: id(99), customer, date, state, version: 1 });
    });
    assert_eq!(broken, [(Rule::PagesFollow, id(99).to_string())]);
}

#[test]
fn a_service_that_was_not_read_is_not_compared() {
    let broken = found(|service_rows| {
        screening(service_rows, 1).state = ScreeningState::Cancelled;
        service_rows.claims = None;
        service_rows.reservations = None;
        service_rows.items = None;
    });
    assert_eq!(broken, []);
}
