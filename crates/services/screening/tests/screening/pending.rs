//! `accept_pending`: bookings made while Hospital is out of reach, and how they end.

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::CreateScreeningRequest;
use contract::screening::v1::screening::State;
use domain::capacity::ClaimState;
use fault::Reason;
use jiff::SignedDuration;
use testkit::refused;

use crate::hospital::Fate;
use crate::world::{World, ask, ask_once, ask_patiently, book, cancel, claim, list, names, options, read, until};

fn lost(fate: Fate) -> [Fate; 3] {
    [fate.clone(), fate.clone(), fate]
}

#[tokio::test]
async fn a_parked_booking_is_confirmed_once_the_hospital_is_back() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    world.wire.refuse();
    let parked = book(&kim, ask_patiently("kim", &slot)).await.unwrap();
    assert_eq!((parked.state(), parked.version, parked.state_reason.as_str()), (State::Pending, 1, ""));
    assert_eq!((parked.hospital_display_name.as_str(), parked.time_zone.as_str()), ("", ""));
    assert!(!parked.consistency_token.is_empty());
    assert_eq!(list(&kim, "state=PENDING").await.unwrap(), std::slice::from_ref(&parked));
    // a PENDING booking counts as the customer's booking of that date
    refused(book(&kim, ask("kim", &world.slot("busan", 7, 1))).await, Reason::CustomerDateConflict);

    world.wire.heal();
    let confirmed = world.becomes(&kim, &parked.name, State::Confirmed).await;
    assert_eq!((confirmed.version, confirmed.time_zone.as_str()), (2, "Asia/Seoul"));
    assert_eq!(confirmed.hospital_display_name, "Clinic seoul");
    assert_eq!(confirmed.create_time, parked.create_time);
    assert_eq!(world.hospital.active(), [claim(&parked)]);
    let events = world.facts_of(&parked.name).await;
    assert_eq!(names(&events), ["screening_pending", "screening_confirmed"]);
    assert_eq!(events.iter().map(|event| event.aggregate_version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(events[1].actor, "service:screening");
}

#[tokio::test]
async fn a_parked_booking_that_finds_no_place_is_rejected_after_its_claim_is_barred() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 0);
    let kim = world.customer("kim").await;
    world.wire.refuse();
    let request = ask_patiently("kim", &slot);
    let parked = book(&kim, request.clone()).await.unwrap();
    world.wire.heal();
    let rejected = world.becomes(&kim, &parked.name, State::Rejected).await;
    assert_eq!((rejected.version, rejected.state_reason.as_str()), (2, "SLOT_FULL"));
    assert_eq!(world.hospital.claim(claim(&parked)), Some(ClaimState::Released));
    let events = world.facts_of(&parked.name).await;
    assert_eq!(names(&events), ["screening_pending", "screening_rejected"]);
    let Some(Payload::ScreeningRejected(fact)) = &events[1].payload else { panic!("{events:?}") };
    assert_eq!(fact.claim_id, claim(&parked).to_string());
    assert_eq!(fact.screening.as_ref().unwrap().customer, "customers/kim");
    // a repetition returns the booking as it is now, and the date is free
    assert_eq!(book(&kim, request).await.unwrap(), rejected);
    world.hospital.set_capacity(&slot, 1);
    book(&kim, ask_once("kim", &slot)).await.unwrap();
}

#[tokio::test]
async fn a_parked_booking_that_was_cancelled_stays_cancelled_and_frees_its_claim() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    // the place was taken, but the answer was lost
    world.hospital.next(lost(Fate::LoseAnswer));
    world.hospital.next(std::iter::repeat_n(Fate::LoseRequest, 1_000));
    let parked = book(&kim, ask_patiently("kim", &slot)).await.unwrap();
    assert_eq!(parked.state(), State::Pending);
    assert_eq!(world.hospital.active(), [claim(&parked)]);
    let cancelled = cancel(&kim, &parked.name).await.unwrap();
    assert_eq!((cancelled.state(), cancelled.version), (State::Cancelled, 2));
    world.hospital.forget_fates();
    world.deliver().await;
    assert_eq!(world.hospital.active(), []);

    // if the place was not taken, the release writes a tombstone
    world.hospital.next(std::iter::repeat_n(Fate::LoseRequest, 1_000));
    let parked = book(&kim, ask_patiently("kim", &slot)).await.unwrap();
    cancel(&kim, &parked.name).await.unwrap();
    world.deliver().await;
    world.hospital.forget_fates();
    assert_eq!(world.hospital.claim(claim(&parked)), Some(ClaimState::Released));
    let next = book(&kim, ask("kim", &slot)).await.unwrap();
    assert_eq!(read(&kim, &parked.name).await.unwrap().state(), State::Cancelled);
    assert_eq!(world.hospital.active(), [claim(&next)]);
}

#[tokio::test]
async fn a_repetition_settles_a_parked_booking_at_once() {
    let world =
        World::start_with(screening::Options { resolve_pause: std::time::Duration::from_secs(600), ..options() }).await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    world.hospital.next(lost(Fate::LoseRequest));
    world.hospital.next(lost(Fate::LoseRequest));
    let request = ask_patiently("kim", &slot);
    assert_eq!(book(&kim, request.clone()).await.unwrap().state(), State::Pending);
    testkit::eventually("a repetition that confirms", async || {
        let seen = book(&kim, request.clone()).await.unwrap();
        if seen.state() == State::Confirmed { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert_eq!(world.hospital.active().len(), 1);
    assert_eq!(list(&kim, "").await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_known_of_the_hospital_is_shown_while_waiting() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 2);
    book(&world.customer("park").await, ask("park", &slot)).await.unwrap();
    world.wire.refuse();
    let kim = world.customer("kim").await;
    let judged = CreateScreeningRequest { validate_only: true, ..ask_patiently("kim", &slot) };
    let judged = book(&kim, judged).await.unwrap();
    assert_eq!((judged.state(), judged.time_zone.as_str()), (State::Pending, "Asia/Seoul"));
    assert_eq!(list(&kim, "").await.unwrap(), []);
    let parked = book(&kim, ask_patiently("kim", &slot)).await.unwrap();
    assert_eq!((parked.state(), parked.hospital_display_name.as_str()), (State::Pending, "Clinic seoul"));
}

#[tokio::test]
async fn a_parked_booking_of_a_deleted_hospital_is_rejected_or_force_cancelled() {
    let world = World::start().await;
    let kim = world.customer("kim").await;
    // no place was taken
    let slot = world.slot("seoul", 7, 1);
    world.wire.refuse();
    let parked = book(&kim, ask_patiently("kim", &slot)).await.unwrap();
    world.hospital.delete(&slot.hospital, "closing down");
    world.wire.heal();
    let rejected = world.becomes(&kim, &parked.name, State::Rejected).await;
    assert_eq!(rejected.state_reason, "HOSPITAL_DELETED");

    // a place was taken, and then taken away
    let slot = world.slot("busan", 7, 1);
    world.hospital.next(lost(Fate::LoseAnswer));
    world.hospital.next(std::iter::repeat_n(Fate::LoseRequest, 1_000));
    let parked = book(&kim, ask_patiently("kim", &slot)).await.unwrap();
    world.hospital.delete(&slot.hospital, "closing down");
    world.hospital.forget_fates();
    testkit::eventually("the resolver to have asked", async || {
        let asked = world.hospital.reserves().iter().filter(|asked| **asked == claim(&parked)).count();
        if asked > 6 { Ok(()) } else { Err(format!("{asked} times")) }
    })
    .await;
    assert_eq!(read(&kim, &parked.name).await.unwrap().state(), State::Pending);
    world.deliver().await;
    let forced = read(&kim, &parked.name).await.unwrap();
    assert_eq!(forced.state(), State::ForceCancelled);
    assert_eq!((forced.state_reason.as_str(), forced.state_message.as_str()), ("HOSPITAL_DELETED", "closing down"));
}

#[tokio::test]
async fn nothing_is_parked_on_a_date_that_is_over() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 5);
    let later = until(slot.date, 12) + SignedDuration::from_hours(48);
    let world = world.restarted(options(), later).await;
    let kim = world.customer("kim").await;
    world.wire.refuse();
    let judged = CreateScreeningRequest { validate_only: true, ..ask_patiently("kim", &slot) };
    refused(book(&kim, judged).await, Reason::DateInPast);
    refused(book(&kim, ask_patiently("kim", &slot)).await, Reason::DateInPast);
    assert_eq!(list(&kim, "").await.unwrap(), []);
}

#[tokio::test]
async fn parked_bookings_outlive_a_restart() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 100);
    world.wire.refuse();
    let mut parked = Vec::new();
    for i in 0..40 {
        let customer = format!("customer-{i}");
        let party = world.customer(&customer).await.with_deadline(std::time::Duration::from_secs(2));
        parked.push((customer.clone(), book(&party, ask_patiently(&customer, &slot)).await.unwrap().name));
    }
    let world = world.restarted(options(), SignedDuration::ZERO).await;
    world.wire.heal();
    for (customer, name) in parked {
        world.becomes(&world.customer(&customer).await, &name, State::Confirmed).await;
    }
    assert_eq!(world.hospital.active().len(), 40);
}
