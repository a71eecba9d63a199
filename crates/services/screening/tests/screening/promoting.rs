//! R22, R23, R24 and R26 at the side of Screening: promotions that meet something else, and events that come early.

use std::time::Duration;

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::screening::State;
use contract::screening::v1::{CancelScreeningRequest, CreateScreeningRequest, Screening};
use domain::capacity::ClaimState;
use domain::ids::{ClaimId, SlotId};
use fault::Reason;
use jiff::SignedDuration;
use screening::Options;
use testkit::{Party, eventually, gather, refused, start_together};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::hospital::{Fate, Gate};
use crate::unknown::{lost, soon};
use crate::world::{World, ask_once, ask_to_wait, book, cancel, claim, names, options, read, until};

/// A grace that never passes, and all the time for Hospital.
pub(crate) fn patient() -> Options {
    let patient = Duration::from_secs(30);
    Options { hospital_attempt: patient, hospital_timeout: patient, ..options() }
}

/// Calls that joined the queue of a slot, and whose answers from Hospital are held until the gate opens.
pub(crate) struct HeldUp {
    gate: Gate,
    calls: Vec<JoinHandle<Result<Screening, Status>>>,
}

impl HeldUp {
    /// Begins these calls, and waits until all of them have a ticket.
    pub(crate) async fn begin(world: &World, slot: &SlotId, calls: Vec<(Party, CreateScreeningRequest)>) -> Self {
        let gate = Gate::closed();
        let before = world.hospital.waiting(slot).len();
        world.hospital.next(calls.iter().map(|_| Fate::AnswerAfter(gate.clone())));
        let count = calls.len();
        let calls = start_together(count, |i| {
            let (party, request) = calls[i].clone();
            async move { book(&party, request).await }
        });
        eventually("the tickets", async || match world.hospital.waiting(slot).len() - before {
            there if there == count => Ok(()),
            there => Err(format!("{there} of {count}")),
        })
        .await;
        Self { gate, calls }
    }

    pub(crate) async fn end(self) -> Vec<Result<Screening, Status>> {
        self.gate.open();
        gather(self.calls).await
    }
}

/// The events of Hospital about a claim, in order.
pub(crate) fn about(world: &World, claim: ClaimId) -> Vec<EventEnvelope> {
    let mut events = world.hospital.events();
    events.retain(|event| event.aggregate.ends_with(&claim.to_string()));
    events
}

/// How many claims are watched.
pub(crate) async fn watched(world: &World) -> i64 {
    use sea_orm::{ConnectionTrait as _, Statement};
    let reader = world.desk.service.database.reader();
    let statement = Statement::from_string(reader.get_database_backend(), "SELECT count(*) FROM orphan_watch");
    reader.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

async fn until_nothing_is_watched(world: &World) {
    eventually("nothing to be watched", async || match watched(world).await {
        0 => Ok(()),
        count => Err(format!("{count} claims are")),
    })
    .await;
}

/// The promotion happens after Hospital's answer, and its event comes before the booking is written: with the event
/// that the claim waits, and without it.
#[tokio::test]
async fn a_promotion_that_is_consumed_before_its_booking_is_written_is_not_lost() {
    for only_the_last in [false, true] {
        let world = World::start_with(patient()).await;
        let slot = world.slot("seoul", 7, 0);
        let kim = world.customer("kim").await;
        let held_up = HeldUp::begin(&world, &slot, vec![(kim.clone(), ask_to_wait("kim", &slot))]).await;
        let ticket = world.hospital.waiting(&slot)[0];
        world.hospital.raise(&slot, 1);
        let events = about(&world, ticket);
        assert_eq!(names(&events), ["capacity_waitlisted", "capacity_reserved"]);
        world.feed(if only_the_last { &events[1..] } else { &events }).await;
        let waiting = held_up.end().await.remove(0).unwrap();
        assert_eq!((waiting.state(), claim(&waiting)), (State::Waitlisted, ticket), "Hospital's answer was so");
        assert_eq!(world.hospital.active(), [ticket]);

        // no further event comes; the grace passes
        let world = world.restarted(soon(), SignedDuration::ZERO).await;
        let kim = world.customer("kim").await;
        let promoted = world.becomes(&kim, &waiting.name, State::Confirmed).await;
        assert_eq!((promoted.version, promoted.waitlist_position), (2, 0));
        until_nothing_is_watched(&world).await;
        assert_eq!(world.hospital.active(), [ticket]);
        assert_eq!(names(&world.facts_of(&waiting.name).await), ["screening_waitlisted", "screening_confirmed"]);
        // the event comes again, late
        world.feed(&events).await;
        assert_eq!(read(&kim, &waiting.name).await.unwrap(), promoted);
        assert_eq!(watched(&world).await, 0);
    }
}

#[tokio::test]
async fn a_claim_that_still_waits_when_it_is_asked_about_waits_on() {
    let world = World::start_with(patient()).await;
    let slot = world.slot("seoul", 7, 0);
    let kim = world.customer("kim").await;
    let held_up = HeldUp::begin(&world, &slot, vec![(kim, ask_to_wait("kim", &slot))]).await;
    world.deliver().await;
    let waiting = held_up.end().await.remove(0).unwrap();
    assert_eq!(watched(&world).await, 1);
    let world = world.restarted(soon(), SignedDuration::ZERO).await;
    until_nothing_is_watched(&world).await;
    let kim = world.customer("kim").await;
    assert_eq!(read(&kim, &waiting.name).await.unwrap(), waiting);
    assert_eq!(world.hospital.waiting(&slot), [claim(&waiting)]);
    world.hospital.raise(&slot, 1);
    world.deliver().await;
    assert_eq!(read(&kim, &waiting.name).await.unwrap().state(), State::Confirmed);
}

#[tokio::test]
async fn it_is_asked_about_until_hospital_answers_and_joins_again_if_hospital_has_lost_it() {
    let world = World::start_with(patient()).await;
    let slot = world.slot("seoul", 7, 0);
    let kim = world.customer("kim").await;
    let held_up = HeldUp::begin(&world, &slot, vec![(kim, ask_to_wait("kim", &slot))]).await;
    world.deliver().await;
    let waiting = held_up.end().await.remove(0).unwrap();
    world.hospital.forget(claim(&waiting));
    world.hospital.next(lost(Fate::LoseRequest));
    world.hospital.next(lost(Fate::LoseRequest));
    let world = world.restarted(soon(), SignedDuration::ZERO).await;
    until_nothing_is_watched(&world).await;
    assert_eq!(world.hospital.waiting(&slot), [claim(&waiting)]);
    assert_eq!(read(&world.customer("kim").await, &waiting.name).await.unwrap(), waiting);
}

/// Its caller does not come back: the ticket is given back like a place that nobody booked.
#[tokio::test]
async fn a_ticket_that_nobody_booked_is_given_back() {
    let world = World::start_with(soon()).await;
    let slot = world.slot("seoul", 7, 0);
    let kim = world.customer("kim").await;
    world.hospital.next(lost(Fate::LoseAnswer));
    let joins = ask_to_wait("kim", &slot);
    refused(book(&kim, joins.clone()).await, Reason::HospitalUnavailable);
    let ticket = world.hospital.waiting(&slot)[0];
    crate::unknown::until_given_back(&world, ticket).await;
    // the same request goes on under the next id
    let waiting = book(&kim, joins).await.unwrap();
    assert_eq!(waiting.state(), State::Waitlisted);
    assert_ne!(claim(&waiting), ticket);
}

#[tokio::test]
async fn r22_a_promotion_loses_against_a_booking_that_its_customer_made_meanwhile() {
    let world = World::start().await;
    let (slot, elsewhere) = (world.slot("seoul", 7, 0), world.slot("busan", 7, 1));
    let (kim, choi) = (world.customer("kim").await, world.customer("choi").await);
    let waiting = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    let next = book(&choi, ask_to_wait("choi", &slot)).await.unwrap();
    let own = book(&kim, ask_once("kim", &elsewhere)).await.unwrap();
    world.hospital.raise(&slot, 1);
    world.deliver().await;
    let expired = read(&kim, &waiting.name).await.unwrap();
    assert_eq!((expired.state(), expired.version), (State::Expired, 2));
    assert_eq!(expired.state_reason, "CUSTOMER_DATE_CONFLICT");
    let events = world.facts_of(&waiting.name).await;
    let Some(Payload::ScreeningWaitlistEnded(fact)) = &events[1].payload else { panic!("{events:?}") };
    assert_eq!((fact.state.as_str(), fact.claim_id.clone()), ("EXPIRED", claim(&waiting).to_string()));
    // R19: the place passes on
    world.deliver().await;
    assert_eq!(world.hospital.claim(claim(&waiting)), Some(ClaimState::Released));
    assert_eq!(read(&choi, &next.name).await.unwrap().state(), State::Confirmed);
    assert_eq!(read(&kim, &own.name).await.unwrap(), own);
}

#[tokio::test]
async fn r23_who_leaves_before_the_promotion_is_heard_of_has_left() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 0);
    let (kim, choi) = (world.customer("kim").await, world.customer("choi").await);
    let waiting = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    let next = book(&choi, ask_to_wait("choi", &slot)).await.unwrap();
    world.hospital.raise(&slot, 1);
    let left = cancel(&kim, &waiting.name).await.unwrap();
    world.deliver().await;
    world.deliver().await;
    assert_eq!(read(&kim, &waiting.name).await.unwrap(), left);
    assert_eq!(world.hospital.claim(claim(&waiting)), Some(ClaimState::Released));
    assert_eq!(world.hospital.active(), [claim(&next)]);
    let promoted = read(&choi, &next.name).await.unwrap();
    assert_eq!(promoted.state(), State::Confirmed);

    // who leaves after it cancels a booking, unless they say what they have seen
    let seen = CancelScreeningRequest {
        name: next.name.clone(),
        etag: next.etag.clone(),
        ..CancelScreeningRequest::default()
    };
    refused(choi.screening().cancel_screening(seen).await, Reason::EtagMismatch);
    cancel(&choi, &next.name).await.unwrap();
    let facts = names(&world.facts_of(&next.name).await);
    assert_eq!(facts, ["screening_waitlisted", "screening_confirmed", "screening_cancelled"]);
}

#[tokio::test]
async fn r26_who_waits_for_a_slot_does_not_wait_for_it_twice() {
    let world = World::start().await;
    let (slot, other) = (world.slot("seoul", 7, 0), world.slot("busan", 7, 1));
    let kim = world.customer("kim").await;
    let waiting = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    let asked = world.hospital.reserves().len();
    for validate_only in [false, true] {
        let again = CreateScreeningRequest { validate_only, ..ask_to_wait("kim", &slot) };
        let refusal = refused(book(&kim, again).await, Reason::CustomerDateConflict);
        assert_eq!(refusal.value("screening"), waiting.name);
    }
    assert_eq!(world.hospital.reserves().len(), asked, "judged before Hospital is asked");
    // also while Hospital cannot be asked
    world.wire.refuse();
    let patient = CreateScreeningRequest { accept_pending: true, ..ask_to_wait("kim", &slot) };
    refused(book(&kim, patient).await, Reason::CustomerDateConflict);
    world.wire.heal();
    // another slot of that date is another queue, and who only tries for a place hears of the slot
    assert_eq!(book(&kim, ask_to_wait("kim", &world.slot("jeju", 7, 0))).await.unwrap().state(), State::Waitlisted);
    refused(book(&kim, ask_once("kim", &slot)).await, Reason::SlotFull);
    // an active booking of that date is in the way of any queue
    let booked = book(&kim, ask_once("kim", &other)).await.unwrap();
    cancel(&kim, &waiting.name).await.unwrap();
    let refusal = refused(book(&kim, ask_to_wait("kim", &slot)).await, Reason::CustomerDateConflict);
    assert_eq!(refusal.value("screening"), booked.name);
}

#[tokio::test]
async fn r26_of_two_joins_at_once_one_waits_and_the_ticket_of_the_other_is_given_back() {
    let world = World::start_with(patient()).await;
    let slot = world.slot("seoul", 7, 0);
    let kim = world.customer("kim").await;
    let calls = (0..2).map(|_| (kim.clone(), ask_to_wait("kim", &slot))).collect();
    let (fine, refusals): (Vec<_>, Vec<_>) =
        HeldUp::begin(&world, &slot, calls).await.end().await.into_iter().partition(Result::is_ok);
    let waiting = fine.into_iter().next().unwrap().unwrap();
    let refusal = refused(refusals.into_iter().next().unwrap(), Reason::CustomerDateConflict);
    assert_eq!((waiting.state(), refusal.value("screening")), (State::Waitlisted, waiting.name.as_str()));
    assert_eq!(world.hospital.waiting(&slot).len(), 2);
    world.deliver().await;
    assert_eq!(world.hospital.waiting(&slot), [claim(&waiting)]);
    let announced = names(&world.announced().await);
    assert_eq!(announced.iter().filter(|name| **name == "screening_rejected").count(), 1, "{announced:?}");
}

/// Restarts it so that nobody who waits a week ahead of now gets a place any more, as far as Screening's clock tells.
pub(crate) async fn once_it_is_over(world: World, slot: &SlotId) -> World {
    world.restarted(options(), after_the_close(slot)).await
}

/// How far the time after which nobody who waits for the slot gets a place is from now.
pub(crate) fn after_the_close(slot: &SlotId) -> SignedDuration {
    until(slot.date, 0) - SignedDuration::from_hours(23)
}

#[tokio::test]
async fn r24_what_waits_expires_once_hospital_has_said_that_it_still_waits() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 0);
    let waiting = book(&world.customer("kim").await, ask_to_wait("kim", &slot)).await.unwrap();
    world.hospital.next(std::iter::repeat_n(Fate::LoseRequest, 1_000));
    let world = once_it_is_over(world, &slot).await;
    let kim = world.customer("kim").await;
    eventually("two looks at it", async || match world.hospital.reserves().len() {
        asked if asked > 4 => Ok(()),
        asked => Err(format!("{asked} requests")),
    })
    .await;
    assert_eq!(read(&kim, &waiting.name).await.unwrap(), waiting, "nothing is guessed");
    world.hospital.forget_fates();
    let expired = world.becomes(&kim, &waiting.name, State::Expired).await;
    assert_eq!((expired.version, expired.state_reason.as_str()), (2, "PROMOTION_CLOSED"));
    assert_eq!((expired.waitlist_position, expired.promotion_close_time), (0, None));
    world.deliver().await;
    assert_eq!(world.hospital.claim(claim(&waiting)), Some(ClaimState::Released));
    assert_eq!(names(&world.facts_of(&waiting.name).await), ["screening_waitlisted", "screening_waitlist_ended"]);
}

#[tokio::test]
async fn r24_what_got_a_place_at_the_last_moment_does_not_expire() {
    let world = World::start().await;
    let (slot, elsewhere) = (world.slot("seoul", 7, 0), world.slot("busan", 7, 1));
    let (kim, choi) = (world.customer("kim").await, world.customer("choi").await);
    let waiting = book(&kim, ask_to_wait("kim", &slot)).await.unwrap();
    let beaten = book(&choi, ask_to_wait("choi", &slot)).await.unwrap();
    book(&choi, ask_once("choi", &elsewhere)).await.unwrap();
    // both are promoted, and nobody hears of it
    world.hospital.raise(&slot, 2);
    let world = once_it_is_over(world, &slot).await;
    world.becomes(&world.customer("kim").await, &waiting.name, State::Confirmed).await;
    let expired = world.becomes(&world.customer("choi").await, &beaten.name, State::Expired).await;
    assert_eq!(expired.state_reason, "CUSTOMER_DATE_CONFLICT");
    world.deliver().await;
    assert_eq!(world.hospital.claim(claim(&beaten)), Some(ClaimState::Released));
    assert_eq!(world.hospital.claim(claim(&waiting)), Some(ClaimState::Active));
}

/// More than are asked about at the same time.
#[tokio::test]
async fn r24_all_that_is_due_expires() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 0);
    let mut waiting = Vec::new();
    for i in 0..40 {
        let customer = format!("customer-{i}");
        waiting.push(book(&world.customer(&customer).await, ask_to_wait(&customer, &slot)).await.unwrap().name);
    }
    let world = once_it_is_over(world, &slot).await;
    let auditor = world.desk.served.auditor().await;
    for name in &waiting {
        world.becomes(&auditor, name, State::Expired).await;
    }
    world.deliver().await;
    assert_eq!(world.hospital.waiting(&slot), []);
}
