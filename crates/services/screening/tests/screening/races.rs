//! Races of bookings with each other and with their own repetitions: R7, R8, R9, R11, R12, R13.

use std::time::Duration;

use contract::screening::v1::screening::State;
use contract::screening::v1::{CancelScreeningRequest, CreateScreeningRequest, Screening};
use domain::capacity::ClaimState;
use fault::Reason;
use testkit::{eventually, gather, refused, rush, start_together};
use tonic::Code;

use crate::hospital::{Fate, Gate};
use crate::world::{World, ask, ask_once, book, cancel, claim, list, names, read};

#[tokio::test]
async fn r7_of_two_cancels_one_is_ok_and_the_place_comes_back_once() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &slot)).await.unwrap();
    let answers = rush(8, |_| {
        let (kim, name) = (kim.clone(), made.name.clone());
        async move { cancel(&kim, &name).await }
    })
    .await;
    let (fine, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(fine.len(), 1);
    for refusal in refusals {
        let refusal = refused(refusal, Reason::ScreeningStateInvalid);
        assert_eq!((refusal.value("state"), refusal.value("screening")), ("CANCELLED", made.name.as_str()));
        assert_eq!(refusal.preconditions[0].0, "SCREENING_STATE_INVALID");
    }
    assert_eq!(names(&world.facts_of(&made.name).await), ["screening_confirmed", "screening_cancelled"]);
    world.deliver().await;
    world.deliver().await;
    assert_eq!(world.hospital.claim(claim(&made)), Some(ClaimState::Released));
}

#[tokio::test]
async fn r7_the_same_cancel_twice_is_ok_twice() {
    let world = World::start().await;
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &world.slot("seoul", 7, 1))).await.unwrap();
    let request = CancelScreeningRequest {
        name: made.name.clone(),
        request_id: "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30".into(),
        ..CancelScreeningRequest::default()
    };
    let answers = rush(4, |_| {
        let (mut client, request) = (kim.screening(), request.clone());
        async move { client.cancel_screening(request).await.unwrap().into_inner() }
    })
    .await;
    assert!(answers.iter().all(|answer| answer == &answers[0] && answer.state() == State::Cancelled));
    let other = CancelScreeningRequest { reason: "other words".into(), ..request };
    let refusal = refused(kim.screening().cancel_screening(other).await, Reason::RequestIdReused);
    assert_eq!(refusal.value("requestId"), "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30");
    assert_eq!(world.facts_of(&made.name).await.len(), 2);
}

#[tokio::test]
async fn r8_concurrent_duplicates_are_one_booking_with_one_answer() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 5);
    let kim = world.customer("kim").await;
    let gate = Gate::closed();
    world.hospital.next([Fate::ArriveAfter(gate.clone())]);
    let request = ask_once("kim", &slot);
    let upper = CreateScreeningRequest { request_id: request.request_id.to_uppercase(), ..request.clone() };
    let calls = start_together(6, |i| {
        let (kim, request) = (kim.clone(), if i % 2 == 0 { request.clone() } else { upper.clone() });
        async move { book(&kim, request).await.unwrap() }
    });
    eventually(
        "the first call",
        async || {
            if world.hospital.reserves().is_empty() { Err("not there".into()) } else { Ok(()) }
        },
    )
    .await;

    // a repetition with a short deadline, and one with other content
    let hurried = kim.clone().with_deadline(Duration::from_millis(150));
    let refusal = refused(book(&hurried, request.clone()).await, Reason::RequestInProgress);
    assert!(refusal.retry_after.is_some());
    assert_eq!(refusal.value("requestId"), request.request_id);
    let named = Screening { customer_display_name: "Kim".into(), ..request.screening.clone().unwrap() };
    let other = CreateScreeningRequest { screening: Some(named), ..request.clone() };
    refused(book(&kim, other).await, Reason::RequestIdReused);

    gate.open();
    let answers = gather(calls).await;
    assert!(answers.iter().all(|answer| answer == &answers[0]));
    assert_eq!(world.hospital.active(), [claim(&answers[0])]);
    assert_eq!(world.announced().await.len(), 1);
}

#[tokio::test]
async fn r9_a_request_id_with_other_content_is_refused_before_any_work() {
    let world = World::start().await;
    let (slot, other) = (world.slot("seoul", 7, 5), world.slot("seoul", 8, 5));
    let kim = world.customer("kim").await;
    let request = ask_once("kim", &slot);
    book(&kim, request.clone()).await.unwrap();
    let changed = CreateScreeningRequest { request_id: request.request_id.clone(), ..ask("kim", &other) };
    let before = world.hospital.reserves().len();
    for validate_only in [false, true] {
        let changed = CreateScreeningRequest { validate_only, ..changed.clone() };
        refused(book(&kim, changed).await, Reason::RequestIdReused);
    }
    assert_eq!(world.hospital.reserves().len(), before);
    // another caller may use the same request_id
    let foreign = CreateScreeningRequest { request_id: request.request_id.clone(), ..ask("park", &slot) };
    book(&world.customer("park").await, foreign).await.unwrap();
}

#[tokio::test]
async fn r11_without_a_request_id_a_repetition_meets_the_first_booking() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 9);
    let kim = world.customer("kim").await;
    let answers = rush(8, |_| {
        let (kim, request) = (kim.clone(), ask("kim", &slot));
        async move { book(&kim, request).await }
    })
    .await;
    let (fine, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(fine.len(), 1);
    let made = fine.into_iter().next().unwrap().unwrap();
    for refusal in refusals {
        assert_eq!(refused(refusal, Reason::CustomerDateConflict).value("screening"), made.name);
    }
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&made)]);
}

#[tokio::test]
async fn r12_at_two_hospitals_on_one_date_one_booking_wins_and_the_other_place_is_not_kept() {
    let world = World::start().await;
    let (seoul, busan) = (world.slot("seoul", 7, 1), world.slot("busan", 7, 1));
    let kim = world.customer("kim").await;
    let gate = Gate::closed();
    world.hospital.next([Fate::AnswerAfter(gate.clone()), Fate::AnswerAfter(gate.clone())]);
    let requests = [ask_once("kim", &seoul), ask_once("kim", &busan)];
    let calls = start_together(2, |i| {
        let (kim, request) = (kim.clone(), requests[i].clone());
        async move { book(&kim, request).await }
    });
    eventually("both places to be taken", async || match world.hospital.active().len() {
        2 => Ok(()),
        taken => Err(format!("{taken} are")),
    })
    .await;
    gate.open();
    let (fine, refusals): (Vec<_>, Vec<_>) = gather(calls).await.into_iter().partition(Result::is_ok);
    let made = fine.into_iter().next().unwrap().unwrap();
    let refusal = refused(refusals.into_iter().next().unwrap(), Reason::CustomerDateConflict);
    assert_eq!(refusal.code, Code::AlreadyExists);
    assert_eq!(refusal.value("screening"), made.name);
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&made)]);
    // the row that gave the other place back is nobody's booking
    assert_eq!(list(&kim, "").await.unwrap(), std::slice::from_ref(&made));
    assert_eq!(list(&world.admin("*").await, "").await.unwrap().len(), 1);

    // a repetition of the loser's request is judged afresh each time
    let loser = requests.into_iter().find(|request| request.screening.as_ref().unwrap().slot != made.slot).unwrap();
    refused(book(&kim, loser.clone()).await, Reason::CustomerDateConflict);
    cancel(&kim, &made.name).await.unwrap();
    let second = book(&kim, loser.clone()).await.unwrap();
    assert_eq!(book(&kim, loser).await.unwrap(), second);
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&second)]);
}

#[tokio::test]
async fn r13_the_date_is_free_again_as_soon_as_cancel_returned() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 2);
    let kim = world.customer("kim").await;
    let first = book(&kim, ask("kim", &slot)).await.unwrap();
    cancel(&kim, &first.name).await.unwrap();
    let second = book(&kim, ask("kim", &slot)).await.unwrap();
    assert_ne!(second.name, first.name);
    assert_eq!(read(&kim, &first.name).await.unwrap().state(), State::Cancelled);
    // a slot that was full stays full until the release is delivered
    let other = world.slot("seoul", 8, 1);
    let first = book(&kim, ask("kim", &other)).await.unwrap();
    cancel(&kim, &first.name).await.unwrap();
    refused(book(&kim, ask("kim", &other)).await, Reason::SlotFull);
    world.deliver().await;
    book(&kim, ask("kim", &other)).await.unwrap();
}
