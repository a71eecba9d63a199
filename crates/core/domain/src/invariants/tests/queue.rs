//! Faults of queues, planted one by one.

use super::*;

/// The claim of the booking that waits.
fn waiting_claim() -> ClaimId {
    ClaimId { screening: id(9), generation: 1 }
}

/// The slot for which a booking waits.
fn full(service_rows: &mut ServiceRows) -> &mut SlotRow {
    &mut service_rows.slots.as_mut().unwrap()[2]
}

fn claim(service_rows: &mut ServiceRows, claim: ClaimId) -> &mut ClaimRow {
    service_rows.claims.as_mut().unwrap().iter_mut().find(|row| row.claim == claim).unwrap()
}

/// Gives the slot a place, which is free.
fn a_free_place(service_rows: &mut ServiceRows) {
    let row = full(service_rows);
    (row.capacity, row.remaining_count) = (1, 1);
}

/// Gives the slot a place, which the claim that waited has.
fn a_promotion(service_rows: &mut ServiceRows) {
    let row = full(service_rows);
    (row.capacity, row.booked_count, row.waitlisted_count) = (1, 1, 0);
    let row = claim(service_rows, waiting_claim());
    (row.state, row.promotion_close) = (ClaimState::Active, None);
}

#[test]
fn a_count_that_is_not_the_waiting_claims_is_found() {
    for count in [0, 2] {
        let broken = found(|service_rows| full(service_rows).waitlisted_count = count);
        assert_eq!(broken, [(Rule::CountsAreClaims, FULL.to_owned())]);
    }
}

#[test]
fn who_waits_beside_a_free_place_is_found() {
    let subject = format!("{FULL}/claims/{}", waiting_claim());
    assert_eq!(found(a_free_place), [(Rule::QueuesMove, subject)]);
    let excuses: [fn(&mut ServiceRows); 4] = [
        |service_rows| full(service_rows).open = false,
        |service_rows| claim(service_rows, waiting_claim()).promotion_close = Some(read_at()),
        |service_rows| service_rows.read_at = None,
        |service_rows| {
            let row = full(service_rows);
            (row.booked_count, row.remaining_count) = (1, 0);
            let other = claim_row(ClaimId { screening: id(11), generation: 1 }, FULL, ClaimState::Active);
            service_rows.claims.as_mut().unwrap().push(other);
            service_rows.screenings = None;
            service_rows.reservations = None;
            service_rows.items = None;
        },
    ];
    for excuse in excuses {
        let broken = found(|service_rows| {
            a_free_place(service_rows);
            excuse(service_rows);
        });
        assert_eq!(broken, []);
    }
}

#[test]
fn a_promotion_that_its_booking_does_not_know_is_found() {
    assert_eq!(found(a_promotion), [(Rule::ClaimsAreBookings, id(9).to_string())]);
    let told = found(|service_rows| {
        a_promotion(service_rows);
        let row = screening(service_rows, 9);
        (row.state, row.version) = (ScreeningState::Confirmed, 2);
        let (customer, slot, state) = (row.customer.clone(), row.slot.clone(), ReservationState::Registered);
        let reservation = ReservationRow { screening: id(9), customer, slot, state, version: 2 };
        service_rows.reservations.as_mut().unwrap().push(reservation);
        let item = service_rows.items.as_mut().unwrap().iter_mut().find(|row| row.screening == id(9)).unwrap();
        (item.state, item.version) = (ScreeningState::Confirmed, 2);
    });
    assert_eq!(told, []);
}

#[test]
fn a_booking_that_waits_without_a_ticket_is_found() {
    for ended in [None, Some(ClaimState::Released), Some(ClaimState::Revoked)] {
        let broken = found(|service_rows| {
            full(service_rows).waitlisted_count = 0;
            match ended {
                Some(state) => claim(service_rows, waiting_claim()).state = state,
                None => service_rows.claims.as_mut().unwrap().retain(|row| row.claim != waiting_claim()),
            }
        });
        assert_eq!(broken, [(Rule::ClaimsAreBookings, id(9).to_string())]);
    }
}

#[test]
fn a_ticket_that_no_booking_waits_with_is_found() {
    // nobody's, that of a booking that has expired, that of one with another place, and one for a move
    for (number, generation, has_booking) in [(99, 1, false), (10, 1, true), (1, 2, false)] {
        let ticket = ClaimId { screening: id(number), generation };
        let broken = found(|service_rows| {
            full(service_rows).waitlisted_count = 2;
            service_rows.claims.as_mut().unwrap().push(claim_row(ticket, FULL, ClaimState::Waiting));
        });
        let subject = if has_booking { id(number).to_string() } else { format!("{FULL}/claims/{ticket}") };
        assert_eq!(broken, [(Rule::ClaimsAreBookings, subject)]);
    }
    let confirmed = found(|service_rows| {
        let row = &mut service_rows.slots.as_mut().unwrap()[0];
        (row.booked_count, row.remaining_count, row.waitlisted_count, row.open) = (2, 8, 1, false);
        service_rows.claims.as_mut().unwrap()[0].state = ClaimState::Waiting;
    });
    assert_eq!(confirmed, [(Rule::ClaimsAreBookings, id(1).to_string())]);
}

#[test]
fn who_waits_at_a_deleted_hospital_is_found() {
    let broken = found(|service_rows| {
        let seoul = HospitalId::from_segment("seoul").unwrap();
        service_rows.deleted.insert(seoul, slot(FULL).date);
        full(service_rows).open = false;
    });
    let found = [(Rule::DeletedIsEmpty, FULL.to_owned()), (Rule::DeletedIsEmpty, id(9).to_string())];
    assert_eq!(broken, found);
}

#[test]
fn who_waits_may_have_a_booking_elsewhere_on_that_date() {
    let broken = found(|service_rows| {
        screening(service_rows, 9).customer = customer("kim");
        screening(service_rows, 9).slot = slot(FULL);
        service_rows.items.as_mut().unwrap()[8].customer = customer("kim");
        let elsewhere = screening(service_rows, 7);
        (elsewhere.customer, elsewhere.slot) = (customer("kim"), slot(FULL));
        let item = &mut service_rows.items.as_mut().unwrap()[6];
        (item.customer, item.date) = (customer("kim"), slot(FULL).date);
    });
    assert_eq!(broken, []);
}
