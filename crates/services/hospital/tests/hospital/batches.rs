//! Several places in one call.

use std::time::Duration;

use capacity::capacity_claim::State;
use capacity::reserve_capacity_result::Result as Outcome;
use capacity::{BatchReserveCapacityRequest, CapacityClaim, ReserveCapacityCall, ReserveCapacityRequest};
use contract::capacity::v1 as capacity;
use domain::capacity::MAX_BATCHED_CALLS;
use fault::Reason;
use runtime::status::{extract, reason_of};
use testkit::{Party, refused, rush};
use tonic::{Request, Status};

use crate::support::{House, assert_slot_adds_up, claim, claims, facts, get_slot, release, reserve};

fn part(slot: &str, claim_id: &str) -> ReserveCapacityCall {
    let request = ReserveCapacityRequest { slot: slot.into(), claim_id: claim_id.into(), ..Default::default() };
    ReserveCapacityCall { request: Some(request), ..ReserveCapacityCall::default() }
}

/// The results, each as the answer of a call of its own.
async fn reserve_all(
    party: &Party,
    calls: Vec<ReserveCapacityCall>,
) -> Result<Vec<Result<CapacityClaim, Status>>, Status> {
    let request = BatchReserveCapacityRequest { calls };
    let results = party.capacity().batch_reserve_capacity(request).await?.into_inner().results;
    let answer = |result: capacity::ReserveCapacityResult| match result.result.expect("a result") {
        Outcome::Claim(claim) => Ok(claim),
        Outcome::Error(refusal) => Err(extract(&refusal)),
    };
    Ok(results.into_iter().map(answer).collect())
}

#[tokio::test]
async fn each_call_is_decided_for_itself_and_in_order() {
    let (house, _dir) = House::start().await;
    let (two, one) = (house.slot("seoul", 2).await, house.slot("busan", 1).await);
    let screening = house.screening().await;
    release(&screening, &two, &claim(9)).await.unwrap();
    let asked = vec![
        part(&two, &claim(1)),
        part(&two, &claim(9)),
        part("hospitals/nowhere/slots/2999-01-01", &claim(2)),
        part(&two, &claim(1)),
        part(&one, &claim(3)),
        part(&two, &claim(4)),
        part(&two, &claim(5)),
        part(&one, &claim(1)),
    ];
    let answers = reserve_all(&screening, asked).await.unwrap();
    let said: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Ok(claim) => Ok((claim.claim_id.clone(), claim.state())),
            Err(status) => Err(reason_of(status).unwrap()),
        })
        .collect();
    let active = |number| Ok((claim(number), State::Active));
    assert_eq!(
        said,
        [
            active(1),
            Err(Reason::ClaimTerminated),
            Err(Reason::HospitalNotFound),
            active(1),
            active(3),
            active(4),
            Err(Reason::SlotFull),
            Err(Reason::FieldInvalid),
        ]
    );
    assert_eq!(answers[0].as_ref().unwrap().terms.as_ref().unwrap().hospital_display_name, "Hospital seoul");
    let refusal = refused(answers[6].clone(), Reason::SlotFull);
    assert_eq!((refusal.value("slot"), refusal.value("remaining")), (two.as_str(), "0"));
    assert_eq!(refused(answers[1].clone(), Reason::ClaimTerminated).value("state"), "RELEASED");
    let alone = reserve(&screening, &two, &claim(1)).await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap().slot, alone.slot);
    assert_slot_adds_up(&screening, &two).await;
    house.stop().await;
}

#[tokio::test]
async fn batches_that_meet_take_no_place_twice_and_none_too_many() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 100).await;
    let screening = house.screening().await;
    // Every claim is asked for by two of the batches, in another order.
    let answers = rush(8, |batch: usize| {
        let (screening, slot) = (screening.clone(), slot.clone());
        async move {
            let first = 40 * (batch as u128 / 2);
            let mut numbers: Vec<u128> = (first + 1..=first + 40).collect();
            if batch % 2 == 1 {
                numbers.reverse();
            }
            let asked = numbers.iter().map(|number| part(&slot, &claim(*number))).collect();
            reserve_all(&screening, asked).await.unwrap()
        }
    })
    .await;
    let taken = answers.iter().flatten().filter(|answer| answer.is_ok()).count();
    assert!(taken >= 100, "{taken}");
    for refusal in answers.into_iter().flatten().filter_map(Result::err) {
        assert_eq!(reason_of(&refusal), Some(Reason::SlotFull));
    }
    assert_eq!(get_slot(&screening, &slot).await.booked_count, 100);
    assert_eq!(claims(&screening, &slot, "state=ACTIVE").await.len(), 100);
    assert_eq!(facts(&house.events().await)["capacity_reserved"], 100);
    house.stop().await;
}

#[tokio::test]
async fn a_call_keeps_its_own_trace_and_time() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 9).await;
    let screening = house.screening().await;
    let trace = |digit: &str| format!("00-{}-{}-01", digit.repeat(32), digit.repeat(16));
    let mut asked: Vec<_> = (1..=3).map(|number| part(&slot, &claim(number))).collect();
    asked[0].traceparent = trace("a");
    asked[1].traceparent = trace("b");
    asked[2].timeout = Some(Duration::ZERO.try_into().unwrap());
    let answers = reserve_all(&screening, asked).await.unwrap();
    refused(answers[2].clone(), Reason::DeadlineExceeded);
    assert_eq!(get_slot(&screening, &slot).await.booked_count, 2, "nobody waits for the third");
    let events = house.events().await;
    let carried: Vec<_> = events.iter().rev().take(2).map(|event| event.traceparent.as_str()).collect();
    assert_eq!(carried, [trace("b"), trace("a")]);

    // What a call does not say is that of the batch.
    let mut request = Request::new(BatchReserveCapacityRequest { calls: vec![part(&slot, &claim(4))] });
    request.metadata_mut().insert("traceparent", trace("c").parse().unwrap());
    screening.capacity().batch_reserve_capacity(request).await.unwrap();
    let events = house.events().await;
    assert_eq!(events.last().unwrap().traceparent[3..35], trace("c")[3..35]);
    let minute = Some(Duration::from_secs(60).try_into().unwrap());
    let patient = ReserveCapacityCall { timeout: minute, ..part(&slot, &claim(5)) };
    let mut request = Request::new(BatchReserveCapacityRequest { calls: vec![patient] });
    request.set_timeout(Duration::from_nanos(1));
    screening.capacity().batch_reserve_capacity(request).await.unwrap_err();
    assert_eq!(get_slot(&screening, &slot).await.booked_count, 3);
    house.stop().await;
}

#[tokio::test]
async fn a_malformed_call_refuses_the_batch_before_any_is_decided() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 9).await;
    let screening = house.screening().await;
    let good = || part(&slot, &claim(1));
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let asked = vec![
        good(),
        part("slots/1", "x"),
        ReserveCapacityCall::default(),
        ReserveCapacityCall { timeout: negative, ..good() },
    ];
    let refusal = refused(reserve_all(&screening, asked).await, Reason::FieldInvalid);
    let fields: Vec<_> = refusal.violations.iter().map(|(field, ..)| field.as_str()).collect();
    assert_eq!(fields, ["calls[1].request.slot", "calls[1].request.claim_id", "calls[2].request", "calls[3].timeout"]);
    for number in [0, MAX_BATCHED_CALLS + 1] {
        let refusal = refused(reserve_all(&screening, vec![good(); number]).await, Reason::FieldInvalid);
        assert_eq!(refusal.violations[0].0, "calls");
    }
    assert_eq!(get_slot(&screening, &slot).await.booked_count, 0);
    assert_eq!(reserve_all(&screening, vec![good(); MAX_BATCHED_CALLS]).await.unwrap().len(), MAX_BATCHED_CALLS);
    assert_eq!(get_slot(&screening, &slot).await.booked_count, 1);
    house.stop().await;
}
