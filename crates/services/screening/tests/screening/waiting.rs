//! Waiting for a place: who joins a queue, what is shown of it, and how it ends without a place.

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::screening::State;
use contract::screening::v1::{CreateScreeningRequest, ListScreeningsRequest, Screening};
use domain::capacity::ClaimState;
use domain::civil::decode_time;
use domain::event::subject_filter;
use domain::window::BookingPolicy;
use fault::Reason;
use jiff::SignedDuration;
use testkit::{Party, eventually, gather, refused, start_together};

use crate::hospital::{Fate, Gate};
use crate::promoting::patient;
use crate::unknown::lost;
use crate::world::{
    World, ask, ask_once, ask_to_move, ask_to_wait, book, cancel, claim, list, names, options, read, reschedule, slot,
};

/// A slot a week from now without a place.
fn full(world: &World) -> domain::ids::SlotId {
    world.slot("seoul", 7, 0)
}

async fn list_all(party: &Party) -> Vec<Screening> {
    let request = ListScreeningsRequest { show_waitlisted: true, ..ListScreeningsRequest::default() };
    party.screening().list_screenings(request).await.unwrap().into_inner().screenings
}

fn without_times(screening: &Screening) -> Screening {
    Screening { create_time: None, update_time: None, ..screening.clone() }
}

#[tokio::test]
async fn who_joins_a_queue_waits_and_gets_the_place_that_becomes_free() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let [park, kim, choi] = [world.customer("park").await, world.customer("kim").await, world.customer("choi").await];
    let holder = book(&park, ask_to_wait("park", &slot)).await.unwrap();
    assert_eq!(holder.state(), State::Confirmed, "there was a place");
    let refusal = refused(book(&kim, ask_once("kim", &slot)).await, Reason::SlotFull);
    assert_eq!((refusal.value("remaining"), refusal.value("waitlistOpen")), ("0", "true"));

    let first = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    let second = book(&choi, ask_to_wait("choi", &slot)).await.unwrap();
    assert_eq!((first.state(), first.version, first.waitlist_position), (State::Waitlisted, 1, 1));
    assert_eq!((second.state(), second.version, second.waitlist_position), (State::Waitlisted, 1, 2));
    let midnight = slot.date.in_tz("Asia/Seoul").unwrap().timestamp();
    let closes_at = first.promotion_close_time.as_ref().and_then(decode_time).unwrap();
    assert_eq!(midnight.duration_since(closes_at), SignedDuration::from_hours(24));
    assert_eq!((first.hospital_display_name.as_str(), first.time_zone.as_str()), ("Clinic seoul", "Asia/Seoul"));
    assert_eq!(read(&kim, &first.name).await.unwrap(), first);
    assert_eq!(world.hospital.waiting(&slot), [claim(&first), claim(&second)]);

    cancel(&park, &holder.name).await.unwrap();
    world.deliver().await;
    world.deliver().await;
    let promoted = read(&kim, &first.name).await.unwrap();
    assert_eq!((promoted.state(), promoted.version, promoted.state_reason.as_str()), (State::Confirmed, 2, ""));
    assert_eq!((promoted.waitlist_position, promoted.promotion_close_time), (0, None));
    assert_eq!(world.hospital.active(), [claim(&first)]);
    assert_eq!(read(&choi, &second.name).await.unwrap(), second);
    let events = world.facts_of(&first.name).await;
    assert_eq!(names(&events), ["screening_waitlisted", "screening_confirmed"]);
    let Some(Payload::ScreeningWaitlisted(fact)) = &events[0].payload else { panic!("{events:?}") };
    assert_eq!((fact.position, fact.promotion_close_time), (1, first.promotion_close_time));
    // who gave the place up is not who booked it, and did not do so by the request that gave it up
    assert_eq!((events[1].actor.as_str(), events[1].request_id.as_str()), ("service:screening", ""));
    assert!(world.hospital.events().iter().any(|event| event.event_id == events[1].causation_id));
}

#[tokio::test]
async fn a_retry_continues_whether_it_joins_or_not() {
    let world = World::start().await;
    let slot = full(&world);
    let kim = world.customer("kim").await;
    let joins = ask_to_wait("kim", &slot);
    let plain = CreateScreeningRequest { join_waitlist: false, ..joins.clone() };
    refused(book(&kim, plain.clone()).await, Reason::SlotFull);
    assert_eq!(world.hospital.waiting(&slot), []);

    // the answer is lost: a claim waits and no booking is written
    world.hospital.next(lost(Fate::LoseAnswer));
    refused(book(&kim, joins.clone()).await, Reason::HospitalUnavailable);
    assert_eq!(world.hospital.waiting(&slot).len(), 1);
    let refusal = refused(book(&kim, plain.clone()).await, Reason::SlotFull);
    assert_eq!((refusal.value("slot"), refusal.value("waitlistOpen")), (slot.to_string().as_str(), "true"));
    assert_eq!(list_all(&kim).await, []);
    let waiting = book(&kim, joins.clone()).await.unwrap();
    assert_eq!((waiting.state(), waiting.waitlist_position), (State::Waitlisted, 1));
    assert_eq!(world.hospital.waiting(&slot), [claim(&waiting)]);
    assert!(world.hospital.reserves().iter().all(|asked| *asked == claim(&waiting)), "one claim, however often");

    for again in [joins.clone(), plain.clone(), CreateScreeningRequest { validate_only: true, ..joins.clone() }] {
        assert_eq!(book(&kim, again).await.unwrap(), waiting);
    }
    world.hospital.raise(&slot, 1);
    world.deliver().await;
    for again in [joins, plain] {
        assert_eq!(book(&kim, again).await.unwrap().state(), State::Confirmed);
    }
    assert_eq!(world.facts_of(&waiting.name).await.len(), 2);
}

/// The first call is answered that the slot is full; one that repeats it meanwhile wants to wait.
#[tokio::test]
async fn a_repetition_that_joins_does_not_hear_that_the_slot_is_full() {
    let world = World::start().await;
    let slot = full(&world);
    let kim = world.customer("kim").await;
    let gate = Gate::closed();
    world.hospital.next([Fate::ArriveAfter(gate.clone())]);
    let joins = ask_to_wait("kim", &slot);
    let calls = start_together(1, |_| {
        let (kim, plain) = (kim.clone(), CreateScreeningRequest { join_waitlist: false, ..joins.clone() });
        async move { book(&kim, plain).await }
    });
    eventually("the first call", async || match world.hospital.reserves().len() {
        0 => Err("not there".to_owned()),
        _ => Ok(()),
    })
    .await;
    let repetition = start_together(1, |_| {
        let (kim, joins) = (kim.clone(), joins.clone());
        async move { book(&kim, joins).await }
    });
    gate.open();
    refused(gather(calls).await.remove(0), Reason::SlotFull);
    assert_eq!(gather(repetition).await.remove(0).unwrap().state(), State::Waitlisted);
}

#[tokio::test]
async fn validate_only_answers_what_joining_would() {
    let world = World::start().await;
    let slot = full(&world);
    let kim = world.customer("kim").await;
    book(&world.customer("park").await, ask_to_wait("park", &slot)).await.unwrap();
    let joins = ask_to_wait("kim", &slot);
    let judged = book(&kim, CreateScreeningRequest { validate_only: true, ..joins.clone() }).await.unwrap();
    assert_eq!((judged.state(), judged.waitlist_position), (State::Waitlisted, 2));
    assert_eq!((world.hospital.waiting(&slot).len(), list_all(&kim).await), (1, vec![]));
    let made = book(&kim, joins).await.unwrap();
    assert_eq!(without_times(&made), without_times(&judged));
}

#[tokio::test]
async fn a_queue_that_takes_nobody_is_refused_by_the_call_and_by_its_judgement() {
    let world = World::start().await;
    let kim = world.customer("kim").await;
    let none = BookingPolicy { waitlist_limit: 0, ..BookingPolicy::default() };
    let late = BookingPolicy { promotion_min_notice: SignedDuration::from_hours(24 * 8), ..BookingPolicy::default() };
    for (name, policy, reason, value) in
        [("none", none, Reason::WaitlistFull, "waitlistLimit"), ("late", late, Reason::WaitlistClosed, "closesAt")]
    {
        let slot = slot(name, 7);
        world.hospital.open_under(&slot, 0, policy);
        let plain = refused(book(&kim, ask_once("kim", &slot)).await, Reason::SlotFull);
        assert_eq!(plain.value("waitlistOpen"), "false");
        let called = refused(book(&kim, ask_to_wait("kim", &slot)).await, reason);
        let judged = CreateScreeningRequest { validate_only: true, ..ask_to_wait("kim", &slot) };
        let judged = refused(book(&kim, judged).await, reason);
        assert_eq!(
            (judged.code, &judged.metadata, &judged.resource),
            (called.code, &called.metadata, &called.resource)
        );
        assert_eq!((called.value("slot"), called.value(value).is_empty()), (slot.to_string().as_str(), false));
    }
    assert_eq!(list_all(&kim).await, []);
}

#[tokio::test]
async fn a_hospital_that_knows_no_queues_answers_that_the_slot_is_full() {
    let world = World::start().await;
    let slot = full(&world);
    world.hospital.age();
    let kim = world.customer("kim").await;
    refused(book(&kim, ask_to_wait("kim", &slot)).await, Reason::SlotFull);
    assert_eq!((world.hospital.waiting(&slot), list_all(&kim).await), (vec![], vec![]));
}

#[tokio::test]
async fn lists_hide_who_waits_unless_they_are_asked_for() {
    let world = World::start().await;
    let (slot, closing) = (full(&world), world.slot("busan", 8, 0));
    let kim = world.customer("kim").await;
    let booked = book(&kim, ask_once("kim", &world.slot("jeju", 9, 1))).await.unwrap();
    let waiting = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    let left = book(&kim, ask_to_wait("kim", &closing)).await.unwrap();
    let left = cancel(&kim, &left.name).await.unwrap();
    let everybody = world.desk.served.auditor().await;
    for party in [&kim, &everybody, &world.admin("seoul,busan,jeju").await] {
        // what ended as CANCELLED is shown, for clients of before know that state
        assert_eq!(list(party, "").await.unwrap(), [left.clone(), booked.clone()]);
        assert_eq!(list_all(party).await, [left.clone(), waiting.clone(), booked.clone()]);
        assert_eq!(list(party, "state=WAITLISTED").await.unwrap(), std::slice::from_ref(&waiting));
        assert_eq!(list(party, "state=EXPIRED").await.unwrap(), []);
        assert_eq!(list(party, "state!=CONFIRMED").await.unwrap(), std::slice::from_ref(&left));
        assert_eq!(list(party, "state!=WAITLISTED").await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn who_waits_may_leave_after_the_cut_off_and_never_had_a_place() {
    let world = World::start().await;
    let slot = slot("seoul", 7);
    let policy = BookingPolicy { cancellation_cutoff: SignedDuration::from_hours(24 * 30), ..BookingPolicy::default() };
    world.hospital.open_under(&slot, 1, policy);
    let (park, kim) = (world.customer("park").await, world.customer("kim").await);
    let holder = book(&park, ask_once("park", &slot)).await.unwrap();
    let waiting = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    refused(cancel(&park, &holder.name).await, Reason::CancellationClosed);
    let left = cancel(&kim, &waiting.name).await.unwrap();
    assert_eq!((left.state(), left.version, left.state_reason.as_str()), (State::Cancelled, 2, "CUSTOMER_REQUEST"));
    assert_eq!((left.waitlist_position, left.promotion_close_time), (0, None));
    let events = world.facts_of(&waiting.name).await;
    assert_eq!(names(&events), ["screening_waitlisted", "screening_waitlist_ended"]);
    let Some(Payload::ScreeningWaitlistEnded(fact)) = &events[1].payload else { panic!("{events:?}") };
    assert_eq!((fact.state.as_str(), fact.claim_id.clone()), ("CANCELLED", claim(&waiting).to_string()));
    world.deliver().await;
    assert_eq!(world.hospital.claim(claim(&waiting)), Some(ClaimState::Released));
    // and may join again at once
    let again = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    assert_eq!((again.state(), again.waitlist_position), (State::Waitlisted, 1));
}

#[tokio::test]
async fn a_claim_that_is_revoked_while_it_waits_ends_its_booking() {
    let world = World::start().await;
    let slot = full(&world);
    let kim = world.customer("kim").await;
    let waiting = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    world.hospital.delete(&slot.hospital, "closing down");
    world.deliver().await;
    let forced = read(&kim, &waiting.name).await.unwrap();
    assert_eq!((forced.state(), forced.version), (State::ForceCancelled, 2));
    assert_eq!((forced.state_reason.as_str(), forced.state_message.as_str()), ("HOSPITAL_DELETED", "closing down"));
    let events = world.facts_of(&waiting.name).await;
    let Some(Payload::ScreeningWaitlistEnded(fact)) = &events[1].payload else { panic!("{events:?}") };
    assert_eq!((fact.state.as_str(), fact.reason.as_str()), ("FORCE_CANCELLED", "HOSPITAL_DELETED"));
    assert_eq!((fact.message.as_str(), events[1].actor.as_str()), ("closing down", "admin:lee"));
}

#[tokio::test]
async fn a_parked_booking_waits_if_it_said_so_and_no_place_is_left() {
    let world = World::start().await;
    let slot = full(&world);
    let kim = world.customer("kim").await;
    world.wire.refuse();
    let patient = CreateScreeningRequest { accept_pending: true, ..ask_to_wait("kim", &slot) };
    let judged = book(&kim, CreateScreeningRequest { validate_only: true, ..patient.clone() }).await.unwrap();
    let parked = book(&kim, patient.clone()).await.unwrap();
    assert_eq!((judged.state(), parked.state()), (State::Pending, State::Pending));
    world.wire.heal();
    let waiting = world.becomes(&kim, &parked.name, State::Waitlisted).await;
    assert_eq!((waiting.version, waiting.waitlist_position), (2, 1));
    assert_eq!((waiting.hospital_display_name.as_str(), waiting.time_zone.as_str()), ("Clinic seoul", "Asia/Seoul"));
    assert_eq!(names(&world.facts_of(&parked.name).await), ["screening_pending", "screening_waitlisted"]);
    assert_eq!(book(&kim, patient).await.unwrap(), waiting);
    world.hospital.raise(&slot, 1);
    world.deliver().await;
    assert_eq!(read(&kim, &parked.name).await.unwrap().state(), State::Confirmed);
}

/// The first call joined the queue and its answer was lost; the second one accepts a PENDING booking and not to wait.
#[tokio::test]
async fn a_parked_booking_that_does_not_wait_gives_its_ticket_back() {
    let world = World::start().await;
    let slot = full(&world);
    let kim = world.customer("kim").await;
    let joins = ask_to_wait("kim", &slot);
    world.hospital.next(lost(Fate::LoseAnswer));
    refused(book(&kim, joins.clone()).await, Reason::HospitalUnavailable);
    world.wire.refuse();
    let patient = CreateScreeningRequest { accept_pending: true, join_waitlist: false, ..joins };
    let parked = book(&kim, patient).await.unwrap();
    assert_eq!((parked.state(), world.hospital.waiting(&slot)), (State::Pending, vec![claim(&parked)]));
    world.wire.heal();
    let rejected = world.becomes(&kim, &parked.name, State::Rejected).await;
    assert_eq!(rejected.state_reason, "SLOT_FULL");
    assert_eq!(world.hospital.claim(claim(&parked)), Some(ClaimState::Released));
}

/// The resolver asks without a queue; its request is still on its way.
#[tokio::test]
async fn a_parked_booking_waits_if_its_caller_says_so_later() {
    let world = World::start_with(patient()).await;
    let slot = full(&world);
    let kim = world.customer("kim").await;
    let gate = Gate::closed();
    world.hospital.next(lost(Fate::LoseRequest));
    world.hospital.next([Fate::ArriveAfter(gate.clone())]);
    let parks = CreateScreeningRequest { accept_pending: true, ..ask_once("kim", &slot) };
    let parked = book(&kim, parks.clone()).await.unwrap();
    eventually("the resolver to ask", async || match world.hospital.reserves().len() {
        4 => Ok(()),
        asked => Err(format!("{asked} requests")),
    })
    .await;
    let waiting = book(&kim, CreateScreeningRequest { join_waitlist: true, ..parks }).await.unwrap();
    assert_eq!((waiting.state(), waiting.name.as_str()), (State::Waitlisted, parked.name.as_str()));
    gate.open();
    world.hospital.raise(&slot, 1);
    world.deliver().await;
    assert_eq!(read(&kim, &parked.name).await.unwrap().state(), State::Confirmed);
}

#[tokio::test]
async fn no_move_waits_and_who_waits_is_not_moved() {
    let world = World::start().await;
    let (slot, from) = (full(&world), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let booked = book(&kim, ask("kim", &from)).await.unwrap();
    let refusal = refused(reschedule(&kim, ask_to_move(&booked.name, &slot)).await, Reason::SlotFull);
    assert_eq!(refusal.value("waitlistOpen"), "true");
    assert_eq!(world.hospital.waiting(&slot), []);
    let waiting = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    let refusal = refused(
        reschedule(&kim, ask_to_move(&waiting.name, &world.slot("jeju", 9, 1))).await,
        Reason::ScreeningStateInvalid,
    );
    assert_eq!(refusal.value("state"), "WAITLISTED");
}

#[tokio::test]
async fn every_event_that_a_queue_brings_is_subscribed_to() {
    let world = World::start().await;
    let filter = &world.desk.service.consumers[0].filter;
    for fact in ["capacity_reserved", "capacity_revoked", "capacity_waitlisted"] {
        assert!(filter.contains(&subject_filter("claim", fact)), "{fact}");
    }
}

#[tokio::test]
async fn what_waits_outlives_a_restart() {
    let world = World::start().await;
    let slot = full(&world);
    let waiting = book(&world.customer("kim").await, ask_to_wait("kim", &slot)).await.unwrap();
    let world = world.restarted(options(), SignedDuration::ZERO).await;
    assert_eq!(read(&world.customer("kim").await, &waiting.name).await.unwrap(), waiting);
}
