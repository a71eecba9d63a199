//! R15: a booking with an unknown outcome is never guessed. A retry continues it, or a fence ends it.

use std::time::{Duration, Instant};

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::screening::State;
use contract::screening::v1::{CreateScreeningRequest, Screening};
use domain::capacity::ClaimState;
use domain::ids::{ClaimId, ScreeningId};
use fault::{Fault, Reason};
use jiff::SignedDuration;
use screening::Options;
use testkit::{Direction, eventually, refused};
use tonic::{Code, Request, Status};

use crate::hospital::{Fate, Gate};
use crate::world::{World, ask, ask_once, ask_patiently, book, claim, list, options};

/// The same fate for every attempt of one call.
pub(crate) fn lost(fate: Fate) -> [Fate; 3] {
    [fate.clone(), fate.clone(), fate]
}

/// A grace that passes soon.
pub(crate) fn soon() -> Options {
    Options { reconcile_grace: Duration::from_millis(50), ..options() }
}

/// Delivers events until the claim is RELEASED.
pub(crate) async fn until_given_back(world: &World, claim: ClaimId) {
    eventually("the place to be given back", async || {
        world.deliver().await;
        match world.hospital.claim(claim) {
            Some(ClaimState::Released) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn r15_a_lost_answer_is_asked_for_again_within_the_call() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    world.hospital.next([Fate::LoseAnswer, Fate::LoseRequest]);
    let made = book(&world.customer("kim").await, ask("kim", &slot)).await.unwrap();
    assert_eq!(world.hospital.reserves(), [claim(&made); 3]);
    assert_eq!(world.hospital.active(), [claim(&made)]);
}

/// Books with this `grpc-timeout`. The client's own timer is longer, so that the service's answer arrives.
async fn book_within(world: &World, request: CreateScreeningRequest, deadline: Duration) -> Result<Screening, Status> {
    let mut request = Request::new(request);
    request.set_timeout(deadline);
    world.customer("kim").await.screening().create_screening(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_caller_without_time_is_told_that_its_time_is_over_and_not_that_hospital_is() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let gate = Gate::closed();
    world.hospital.next([Fate::AnswerAfter(gate.clone())]);
    let request = ask_once("kim", &slot);
    let hurried = book_within(&world, request.clone(), Duration::from_millis(400)).await;
    let refusal = refused(hurried, Reason::DeadlineExceeded);
    assert!(refusal.retry_after.is_some());
    gate.open();
    // only the caller's deadline had passed, so the next call asks Hospital as usual
    let made = book_within(&world, request, Duration::from_secs(10)).await.unwrap();
    assert_eq!(made.state(), State::Confirmed);
    assert_eq!(world.hospital.active(), [claim(&made)]);
}

#[tokio::test]
async fn a_caller_without_time_who_accepts_pending_has_a_pending_booking() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let gate = Gate::closed();
    world.hospital.next([Fate::ArriveAfter(gate.clone())]);
    // the speed of the disk decides whether the answer is in time
    let _ = book_within(&world, ask_patiently("kim", &slot), Duration::from_millis(200)).await;
    let kim = world.customer("kim").await;
    let parked = eventually("the booking to be parked", async || {
        let listed = list(&kim, "").await.map_err(|status| status.to_string())?;
        listed.into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await;
    assert_eq!(parked.state(), State::Pending);
    gate.open();
    world.becomes(&kim, &parked.name, State::Confirmed).await;
}

#[tokio::test]
async fn who_waits_for_anothers_call_does_not_hear_of_anothers_deadline() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let gate = Gate::closed();
    world.hospital.next([Fate::AnswerAfter(gate.clone())]);
    let request = ask_once("kim", &slot);
    let hurried = book_within(&world, request.clone(), Duration::from_millis(400));
    let patient = async {
        eventually("the first to be under way", async || match world.hospital.reserves().len() {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        })
        .await;
        book_within(&world, request.clone(), Duration::from_secs(10)).await
    };
    let (first, second) = tokio::join!(hurried, patient);
    refused(first, Reason::DeadlineExceeded);
    assert_eq!(second.unwrap().state(), State::Confirmed);
    gate.open();
}

#[tokio::test]
async fn r15_after_a_lost_answer_the_same_request_continues() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    world.hospital.next(lost(Fate::LoseAnswer));
    let request = ask_once("kim", &slot);
    let refusal = refused(book(&kim, request.clone()).await, Reason::HospitalUnavailable);
    assert_eq!(refusal.code, Code::Unavailable);
    assert!(refusal.retry_after.is_some());
    let taken = world.hospital.active();
    assert_eq!(taken.len(), 1);
    assert_eq!(list(&kim, "").await.unwrap(), []);
    assert_eq!(world.announced().await, []);

    // a retry with accept_pending continues the same booking
    let patient = CreateScreeningRequest { accept_pending: true, ..request };
    let made = book(&kim, patient).await.unwrap();
    assert_eq!(made.state(), State::Confirmed);
    assert_eq!([claim(&made)], taken[..]);
}

#[tokio::test]
async fn r15_what_nobody_retries_is_fenced_and_given_back() {
    let world = World::start_with(soon()).await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    world.hospital.next(lost(Fate::LoseAnswer));
    let request = ask_once("kim", &slot);
    refused(book(&kim, request.clone()).await, Reason::HospitalUnavailable);
    let first = world.hospital.active()[0];
    until_given_back(&world, first).await;

    let events = world.facts_of(&first.screening.to_string()).await;
    let Some(Payload::ScreeningRejected(fact)) = &events[0].payload else { panic!("{events:?}") };
    assert_eq!((fact.claim_id.clone(), fact.reason.as_str()), (first.to_string(), "HOSPITAL_UNAVAILABLE"));
    assert_eq!(fact.screening.as_ref().unwrap().customer, "");
    assert_eq!(events[0].actor, "service:screening");
    assert!(world.hospital.events().iter().any(|event| event.event_id == events[0].causation_id));
    // nobody can read a fence
    assert_eq!(list(&world.admin("*").await, "").await.unwrap(), []);
    refused(crate::world::read(&world.admin("*").await, &first.screening.to_string()).await, Reason::ScreeningNotFound);

    // the repeated request makes a new booking under a new name, and later repetitions return that booking
    let made = book(&kim, request.clone()).await.unwrap();
    assert_ne!(claim(&made), first);
    assert_eq!(book(&kim, request).await.unwrap(), made);
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&made)]);
}

#[tokio::test]
async fn r15_a_commit_that_comes_after_the_fence_fails_and_another_place_is_asked_for() {
    let patient = Duration::from_secs(30);
    let world = World::start_with(Options { hospital_attempt: patient, hospital_timeout: patient, ..soon() }).await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    let gate = Gate::closed();
    world.hospital.next([Fate::AnswerAfter(gate.clone())]);
    let request = ask_once("kim", &slot);
    let call = {
        let (kim, request) = (kim.clone(), request.clone());
        testkit::start_together(1, move |_| {
            let (kim, request) = (kim.clone(), request.clone());
            async move { book(&kim, request).await.unwrap() }
        })
    };
    eventually("the place to be taken", async || match world.hospital.active().as_slice() {
        [_] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let first = world.hospital.active()[0];
    until_given_back(&world, first).await;
    gate.open();
    let made = testkit::gather(call).await.remove(0);
    assert_eq!(made.state(), State::Confirmed);
    assert_ne!(claim(&made), first);
    assert_eq!(world.hospital.active(), [claim(&made)]);
    assert_eq!(world.hospital.claim(first), Some(ClaimState::Released));
}

#[tokio::test]
async fn r15_a_repetition_that_meets_its_own_fence_begins_again() {
    let world = World::start_with(Options { hospital_timeout: Duration::from_secs(20), ..soon() }).await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    // the first answer never arrives, and the claim is fenced before the request is repeated
    world.hospital.next([Fate::AnswerAfter(Gate::closed())]);
    let call = testkit::start_together(1, |_| {
        let (kim, request) = (kim.clone(), ask("kim", &slot));
        async move { book(&kim, request).await.unwrap() }
    });
    let first = eventually("the place to be taken", async || match world.hospital.active().as_slice() {
        [one] => Ok(*one),
        other => Err(format!("{other:?}")),
    })
    .await;
    until_given_back(&world, first).await;
    let made = testkit::gather(call).await.remove(0);
    assert_eq!(made.state(), State::Confirmed);
    assert_eq!(world.hospital.reserves(), [first, first, claim(&made)]);
    assert_eq!(world.hospital.active(), [claim(&made)]);
}

#[tokio::test]
async fn r15_a_request_that_arrives_after_its_fence_finds_the_claim_ended() {
    let world = World::start_with(soon()).await;
    let slot = world.slot("seoul", 7, 2);
    let kim = world.customer("kim").await;
    let gate = Gate::closed();
    // the first copy of the request arrives late; the others take the place, but their answers are lost
    world.hospital.next([Fate::ArriveAfter(gate.clone()), Fate::LoseAnswer, Fate::LoseAnswer]);
    refused(book(&kim, ask_once("kim", &slot)).await, Reason::HospitalUnavailable);
    let first = world.hospital.active()[0];
    until_given_back(&world, first).await;
    gate.open();
    let made = book(&kim, ask("kim", &slot)).await.unwrap();
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&made)]);
    assert_eq!(world.hospital.claim(first), Some(ClaimState::Released));
}

#[tokio::test]
async fn out_of_reach_is_said_within_the_callers_time_and_within_our_own() {
    let world = World::start_with(Options { hospital_timeout: Duration::from_millis(1_500), ..options() }).await;
    let slot = world.slot("seoul", 7, 1);
    world.wire.blackhole(Direction::ToServer);
    let kim = world.customer("kim").await;
    for (deadline, limit) in [(Duration::from_millis(800), 800), (Duration::from_secs(20), 5_000)] {
        let begin = Instant::now();
        let hurried = kim.clone().with_deadline(deadline);
        let refusal = refused(book(&hurried, ask_once("kim", &slot)).await, Reason::HospitalUnavailable);
        assert!(refusal.retry_after.is_some());
        assert_eq!(refusal.value("slot"), slot.to_string());
        assert!(begin.elapsed() <= Duration::from_millis(limit), "{:?}", begin.elapsed());
        refused(
            book(&hurried, CreateScreeningRequest { validate_only: true, ..ask_once("kim", &slot) }).await,
            Reason::HospitalUnavailable,
        );
    }
    world.wire.refuse();
    let begin = Instant::now();
    refused(book(&kim, ask("kim", &slot)).await, Reason::HospitalUnavailable);
    assert!(begin.elapsed() < Duration::from_secs(2), "a refused connection is known at once: {:?}", begin.elapsed());
}

#[tokio::test]
async fn only_what_hospital_decided_is_passed_on() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    for (refusal, passed_on) in [
        (Reason::NotReady, Reason::HospitalUnavailable),
        (Reason::Internal, Reason::HospitalUnavailable),
        (Reason::RoleRequired, Reason::HospitalUnavailable),
        (Reason::CredentialsInvalid, Reason::HospitalUnavailable),
        (Reason::Overloaded, Reason::Overloaded),
        (Reason::SlotClosed, Reason::SlotClosed),
    ] {
        world.hospital.next(lost(Fate::Refuse(Fault::new(refusal, "so it is"))));
        refused(book(&kim, ask_once("kim", &slot)).await, passed_on);
        world.hospital.forget_fates();
    }
}

#[tokio::test]
async fn a_caller_who_gives_up_loses_nothing_and_doubles_nothing() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 5);
    let gate = Gate::closed();
    world.hospital.next([Fate::AnswerAfter(gate.clone())]);
    let request = ask_once("kim", &slot);
    {
        // the client drops the call while the place is being taken
        let kim = world.customer("kim").await;
        let call = book(&kim, request.clone());
        let taken = eventually("the place to be taken", async || match world.hospital.active().len() {
            1 => Ok(()),
            taken => Err(format!("{taken} are")),
        });
        tokio::select! {
            answer = call => panic!("{answer:?}"),
            () = taken => {}
        }
    }
    gate.open();
    let kim = world.customer("kim").await;
    let seen = eventually("the booking", async || match list(&kim, "").await.unwrap().as_slice() {
        [one] => Ok(one.clone()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(book(&kim, request).await.unwrap(), seen);
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&seen)]);
    assert_eq!(world.announced().await.len(), 1);
}

#[tokio::test]
async fn a_claim_is_watched_over_a_restart() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    world.hospital.next(lost(Fate::LoseAnswer));
    refused(book(&kim, ask_once("kim", &slot)).await, Reason::HospitalUnavailable);
    let orphan = world.hospital.active()[0];
    world.deliver().await;
    let world = world.restarted(options(), SignedDuration::from_hours(2)).await;
    until_given_back(&world, orphan).await;
    assert_eq!(ScreeningId::parse(&world.announced().await[0].aggregate).unwrap(), orphan.screening);
}
