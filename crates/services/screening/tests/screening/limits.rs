//! Limits that a hospital sets: how many bookings a customer may have there, and how often one may be moved.

use contract::screening::v1::screening::State;
use contract::screening::v1::{CreateScreeningRequest, RescheduleScreeningRequest, Screening};
use domain::capacity::ClaimState;
use domain::ids::SlotId;
use domain::window::BookingPolicy;
use fault::Reason;
use jiff::SignedDuration;
use testkit::refused;

use crate::world::{
    World, ask, ask_once, ask_patiently, ask_to_move, ask_to_move_once, ask_to_wait, book, cancel, claim, names,
    options, reschedule, slot,
};

fn at_most(bookings: i32) -> BookingPolicy {
    BookingPolicy { customer_limit: Some(bookings), ..BookingPolicy::default() }
}

/// Opens slots on so many days of a hospital with this policy.
fn open(world: &World, hospital: &str, days: i64, policy: BookingPolicy) -> Vec<SlotId> {
    let slots: Vec<SlotId> = (7..7 + days).map(|day| slot(hospital, day)).collect();
    for slot in &slots {
        world.hospital.open_under(slot, 1, policy);
    }
    slots
}

fn judged(request: CreateScreeningRequest) -> CreateScreeningRequest {
    CreateScreeningRequest { validate_only: true, ..request }
}

#[tokio::test]
async fn who_has_as_many_bookings_as_the_hospital_allows_is_refused_before_a_place_is_taken() {
    let world = World::start().await;
    let slots = open(&world, "seoul", 4, at_most(2));
    let kim = world.customer("kim").await;
    let first = book(&kim, ask_once("kim", &slots[0])).await.unwrap();
    book(&kim, ask_once("kim", &slots[1])).await.unwrap();
    for request in [ask("kim", &slots[2]), ask_to_wait("kim", &slots[2]), judged(ask("kim", &slots[2]))] {
        let refusal = refused(book(&kim, request).await, Reason::CustomerLimitReached);
        assert_eq!((refusal.value("hospital"), refusal.value("limit")), ("hospitals/seoul", "2"));
    }
    assert_eq!(world.hospital.reserves().len(), 2, "nobody asked for a place that would be given back");
    // it is a rule for each customer and each hospital
    book(&world.customer("lee").await, ask("lee", &slots[2])).await.unwrap();
    book(&kim, ask("kim", &world.slot("busan", 20, 1))).await.unwrap();
    // whatever else Hospital would say comes first
    world.hospital.close(&slots[3]);
    refused(book(&kim, ask("kim", &slots[3])).await, Reason::SlotClosed);

    cancel(&kim, &first.name).await.unwrap();
    world.deliver().await;
    let again = book(&kim, ask_once("kim", &slots[0])).await.unwrap();
    assert_eq!(again.state(), State::Confirmed);
    // the limit that is remembered is not the one that counts
    world.hospital.set_policy("seoul", at_most(3));
    world.hospital.open(&slots[3], 1);
    book(&kim, judged(ask("kim", &slots[3]))).await.unwrap();
    book(&kim, ask_once("kim", &slots[3])).await.unwrap();
    // who has more keeps them
    world.hospital.set_policy("seoul", at_most(1));
    world.deliver().await;
    assert_eq!(world.hospital.active().len(), 5);
}

#[tokio::test]
async fn a_limit_that_comes_with_the_place_gives_the_place_back() {
    let world = World::start().await;
    let slots = open(&world, "seoul", 3, at_most(1));
    let kim = world.customer("kim").await;
    let first = book(&kim, ask_once("kim", &slots[0])).await.unwrap();
    // this process knows nothing of the limit
    let world = world.restarted(options(), SignedDuration::ZERO).await;
    let kim = world.customer("kim").await;
    let request = ask_once("kim", &slots[1]);
    for _ in 0..2 {
        let refusal = refused(book(&kim, request.clone()).await, Reason::CustomerLimitReached);
        assert_eq!(refusal.value("limit"), "1");
        world.deliver().await;
        assert_eq!(world.hospital.active(), [claim(&first)]);
    }
    // a refusal stores nothing, so the same request_id is judged afresh
    cancel(&kim, &first.name).await.unwrap();
    world.deliver().await;
    let made = book(&kim, request).await.unwrap();
    assert_eq!((made.state(), world.hospital.active()), (State::Confirmed, vec![claim(&made)]));
}

#[tokio::test]
async fn a_parked_booking_above_the_limit_is_rejected_once_the_hospital_answers() {
    let world = World::start().await;
    let slots = open(&world, "seoul", 3, at_most(2));
    let kim = world.customer("kim").await;
    book(&kim, ask_once("kim", &slots[0])).await.unwrap();
    world.wire.refuse();
    let parked = [
        book(&kim, ask_patiently("kim", &slots[1])).await.unwrap(),
        book(&kim, ask_patiently("kim", &slots[2])).await.unwrap(),
    ];
    world.wire.heal();
    // both count while both may still get a place, so one of them or both give way
    let mut ends = Vec::new();
    for pending in &parked {
        ends.push(ended(&world, &kim, pending).await);
    }
    let rejected: Vec<&Screening> = ends.iter().filter(|row| row.state() == State::Rejected).collect();
    assert!(!rejected.is_empty(), "{ends:?}");
    for row in rejected {
        assert_eq!(row.state_reason, "CUSTOMER_LIMIT_REACHED");
        assert_eq!(world.hospital.claim(claim(row)), Some(ClaimState::Released));
        assert_eq!(names(&world.facts_of(&row.name).await), ["screening_pending", "screening_rejected"]);
    }
}

/// A PENDING booking once it is not PENDING any more.
async fn ended(world: &World, party: &testkit::Party, pending: &Screening) -> Screening {
    testkit::eventually("the end of a PENDING booking", async || {
        let seen = crate::world::read(party, &pending.name).await.map_err(|status| format!("{status:?}"))?;
        if seen.state() == State::Pending { Err(format!("{:?}", world.hospital.active())) } else { Ok(seen) }
    })
    .await
}

#[tokio::test]
async fn who_waits_has_a_booking_too_and_its_promotion_is_no_second_one() {
    let world = World::start().await;
    let slots = open(&world, "seoul", 3, at_most(1));
    let (kim, lee) = (world.customer("kim").await, world.customer("lee").await);
    book(&lee, ask_once("lee", &slots[0])).await.unwrap();
    let waiting = book(&kim, ask_to_wait("kim", &slots[0])).await.unwrap();
    assert_eq!(waiting.state(), State::Waitlisted);
    refused(book(&kim, ask_once("kim", &slots[1])).await, Reason::CustomerLimitReached);
    world.hospital.raise(&slots[0], 2);
    world.deliver().await;
    world.becomes(&kim, &waiting.name, State::Confirmed).await;
}

#[tokio::test]
async fn a_move_counts_at_another_hospital_alone() {
    let world = World::start().await;
    let seoul = open(&world, "seoul", 3, at_most(1));
    let busan = open(&world, "busan", 5, BookingPolicy::default());
    let kim = world.customer("kim").await;
    let first = book(&kim, ask_once("kim", &seoul[0])).await.unwrap();
    let moved = reschedule(&kim, ask_to_move_once(&first.name, &seoul[1])).await.unwrap();
    assert_eq!((moved.reschedule_count, moved.claim_generation), (1, 2));
    let other = book(&kim, ask_once("kim", &busan[4])).await.unwrap();
    let asked = world.hospital.reserves().len();
    let judged = RescheduleScreeningRequest { validate_only: true, ..ask_to_move(&other.name, &seoul[2]) };
    for request in [ask_to_move(&other.name, &seoul[2]), judged] {
        let refusal = refused(reschedule(&kim, request).await, Reason::CustomerLimitReached);
        assert_eq!((refusal.value("hospital"), refusal.value("limit")), ("hospitals/seoul", "1"));
    }
    assert_eq!(world.hospital.reserves().len(), asked);
    // who moves away makes room
    reschedule(&kim, ask_to_move_once(&first.name, &busan[0])).await.unwrap();
    let there = reschedule(&kim, ask_to_move_once(&other.name, &seoul[2])).await.unwrap();
    world.deliver().await;
    assert!(world.hospital.active().contains(&claim(&there)));
    assert_eq!(world.hospital.active().len(), 2);

    // where the limit comes with the place, the place is given back and the booking stays
    let world = world.restarted(options(), SignedDuration::ZERO).await;
    let kim = world.customer("kim").await;
    refused(reschedule(&kim, ask_to_move_once(&first.name, &seoul[1])).await, Reason::CustomerLimitReached);
    world.deliver().await;
    assert_eq!(world.hospital.active().len(), 2);
}

#[tokio::test]
async fn a_customer_moves_a_booking_as_often_as_its_hospital_allows_and_an_admin_more_often() {
    let world = World::start().await;
    let slots = open(&world, "seoul", 5, BookingPolicy { reschedule_limit: 2, ..BookingPolicy::default() });
    let (kim, admin) = (world.customer("kim").await, world.admin("seoul").await);
    let booked = book(&kim, ask_once("kim", &slots[0])).await.unwrap();
    assert_eq!(booked.reschedule_count, 0);
    let mut last = booked.clone();
    for slot in &slots[1..3] {
        let request = ask_to_move_once(&booked.name, slot);
        last = reschedule(&kim, request.clone()).await.unwrap();
        assert_eq!(reschedule(&kim, request).await.unwrap(), last, "a repetition is no second move");
    }
    assert_eq!(last.reschedule_count, 2);
    let asked = world.hospital.reserves().len();
    let refusal = refused(reschedule(&kim, ask_to_move(&booked.name, &slots[3])).await, Reason::RescheduleLimitReached);
    assert_eq!((refusal.value("screening"), refusal.value("limit")), (booked.name.as_str(), "2"));
    assert_eq!(world.hospital.reserves().len(), asked);
    let judged = RescheduleScreeningRequest { validate_only: true, ..ask_to_move(&booked.name, &slots[3]) };
    refused(reschedule(&kim, judged).await, Reason::RescheduleLimitReached);
    // to where it is already is no move
    assert_eq!(reschedule(&kim, ask_to_move(&booked.name, &slots[2])).await.unwrap(), last);
    let moved = reschedule(&admin, ask_to_move_once(&booked.name, &slots[3])).await.unwrap();
    assert_eq!(moved.reschedule_count, 3);
    // the count outlives the process
    let world = world.restarted(options(), SignedDuration::ZERO).await;
    let kim = world.customer("kim").await;
    refused(reschedule(&kim, ask_to_move(&booked.name, &slots[4])).await, Reason::RescheduleLimitReached);
}
