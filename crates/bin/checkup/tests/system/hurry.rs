//! Calls with very short deadlines: the deadline that passes is the caller's, so no answer blames a service, and no
//! status is one that a proxy would count against the process.

use std::time::Duration;

use contract::marketing::v1::ProposeCapacityIncreaseRequest;
use contract::mypage::v1::{GetMyPageRequest, ListMyPageItemsRequest};
use contract::reservation::v1::GetReservationRequest;
use contract::screening::v1 as screening;
use fault::Reason;
use prost::Message as _;
use screening::screening::State;
use screening::{CancelScreeningRequest, CreateScreeningRequest, ListScreeningsRequest, Screening};
use testkit::{Checkup, Desk, Direction, Exchange, FaultProxy, Refusal, Wire, eventually, gather, seed};
use tonic::Code;

use crate::embedded;

/// A call that is made with a short deadline.
#[derive(Debug, Clone)]
struct Call {
    who: String,
    path: &'static str,
    message: Vec<u8>,
}

const CREATE: &str = "/checkup.screening.v1.ScreeningService/CreateScreening";

fn booking(customer: &str, slot: &str) -> CreateScreeningRequest {
    let screening =
        Screening { customer: format!("customers/{customer}"), slot: slot.to_owned(), ..Screening::default() };
    let request_id = seed(customer).uuid().to_string();
    CreateScreeningRequest { screening: Some(screening), request_id, ..CreateScreeningRequest::default() }
}

/// Makes all calls at once, each with its deadline. The clients wait for the answer even after the deadline.
async fn in_a_hurry(checkup: &Checkup, calls: Vec<Call>, deadline: impl Fn(usize) -> u64) -> Vec<(Call, Exchange)> {
    let mut wires = Vec::new();
    for _ in 0..4 {
        wires.push(std::sync::Arc::new(Wire::connect(checkup.addr()).await.expect("a connection")));
    }
    let asked = calls.into_iter().enumerate().map(|(i, call)| {
        let (wire, deadline) = (std::sync::Arc::clone(&wires[i % wires.len()]), format!("{}m", deadline(i)));
        let bearer = format!("Bearer {}", call.who);
        tokio::spawn(async move {
            let headers = [("grpc-timeout", deadline.as_str()), ("authorization", bearer.as_str())];
            let answer = wire.call_whole(call.path, &headers, &call.message).await.expect("an answer");
            (call, answer)
        })
    });
    gather(asked.collect()).await
}

/// Asserts that a call got an answer, a refusal by the rules, or a status about its deadline that no proxy counts.
fn blames_nobody(call: &Call, answer: &Exchange) {
    let status = answer.grpc().expect("a status");
    match status.code() {
        Code::Unavailable | Code::Internal | Code::Unknown | Code::Unimplemented | Code::DataLoss => {
            panic!("{} blames a service: {status:?}", call.path)
        }
        Code::DeadlineExceeded => {
            let refusal = Refusal::of(&status).expect("a reason");
            assert_eq!(refusal.reason, "DEADLINE_EXCEEDED", "{}", call.path);
            assert!(!answer.is_said_in_the_head(), "a proxy counts it: {} {answer:?}", call.path);
        }
        // also CANCELLED, which the library answers if the machine is too slow for this product's own answer
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookings_in_a_hurry_blame_nobody() {
    let checkup = embedded().start().await;
    let slots = Desk::of(&checkup.admin().await).open("hurried", &[7, 8], 1_000).await;
    let call = |i: usize| {
        let customer = format!("hurried-{i}");
        let message = booking(&customer, &slots[i % 2]).encode_to_vec();
        Call { who: checkup.tokens().customer(&customer), path: CREATE, message }
    };
    let answers = in_a_hurry(&checkup, (0..120).map(call).collect(), |i| 1 + i as u64 % 25).await;
    let late = answers
        .iter()
        .filter(|(_, answer)| answer.grpc().is_some_and(|status| status.code() == Code::DeadlineExceeded));
    assert!(late.count() > 10, "the first of them have no time at all");
    answers.iter().for_each(|(call, answer)| blames_nobody(call, answer));
    let verified = checkup.run(&["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_method_blames_a_service_for_its_callers_hurry() {
    // Every call that asks Hospital takes longer than the callers' deadlines.
    let proxy = FaultProxy::start().await;
    let launch =
        embedded().set("screening.hospital_address", proxy.uri()).set("marketing.hospital_address", proxy.uri());
    let checkup = launch.start().await;
    proxy.forward_to(checkup.addr());
    let admin = Desk::of(&checkup.admin().await);
    let slot = admin.open("far-away", &[7], 1_000).await.remove(0);
    let kim = Desk::of(&checkup.customer("kim").await).book("kim", &slot, "").await.expect("the way is open");
    proxy.latency(Duration::from_millis(60));
    // a write that no view of the process will ever get
    let elsewhere = embedded().start().await;
    let there = Desk::of(&elsewhere.admin().await).open("elsewhere", &[7], 5).await.remove(0);
    let booked_elsewhere = Desk::of(&elsewhere.customer("kim").await).book("kim", &there, "").await.expect("a place");
    let min_consistency_token = booked_elsewhere.consistency_token;

    let tokens = checkup.tokens();
    let propose = ProposeCapacityIncreaseRequest {
        slot: slot.clone(),
        additional_capacity: 1,
        ..ProposeCapacityIncreaseRequest::default()
    };
    let page = GetMyPageRequest {
        name: "customers/kim/myPage".to_owned(),
        min_consistency_token: min_consistency_token.clone(),
        show_waitlisted: true,
    };
    let items = ListMyPageItemsRequest {
        parent: page.name.clone(),
        min_consistency_token: min_consistency_token.clone(),
        ..ListMyPageItemsRequest::default()
    };
    let ledger = GetReservationRequest { name: kim.name.replace("screenings", "reservations"), min_consistency_token };
    let cancel = CancelScreeningRequest { name: kim.name.clone(), ..CancelScreeningRequest::default() };
    let calls: Vec<Call> = (0..120)
        .map(|i| {
            let customer = format!("hurried-{i}");
            let only_asked = CreateScreeningRequest { validate_only: true, ..booking(&customer, &slot) };
            let own = |path, message| Call { who: tokens.customer("kim"), path, message };
            match i % 8 {
                0 => Call {
                    who: tokens.customer(&customer),
                    path: CREATE,
                    message: booking(&customer, &slot).encode_to_vec(),
                },
                1 => Call { who: tokens.customer(&customer), path: CREATE, message: only_asked.encode_to_vec() },
                2 => own("/checkup.mypage.v1.MyPageService/GetMyPage", page.encode_to_vec()),
                3 => own("/checkup.mypage.v1.MyPageService/ListMyPageItems", items.encode_to_vec()),
                4 => own("/checkup.reservation.v1.ReservationService/GetReservation", ledger.encode_to_vec()),
                5 => own(
                    "/checkup.screening.v1.ScreeningService/ListScreenings",
                    ListScreeningsRequest::default().encode_to_vec(),
                ),
                6 => own("/checkup.screening.v1.ScreeningService/CancelScreening", cancel.encode_to_vec()),
                _ => Call {
                    who: tokens.service("marketing"),
                    path: "/checkup.marketing.v1.MarketingService/ProposeCapacityIncrease",
                    message: propose.encode_to_vec(),
                },
            }
        })
        .collect();
    let answers = in_a_hurry(&checkup, calls, |i| 1 + i as u64 % 25).await;
    answers.iter().for_each(|(call, answer)| blames_nobody(call, answer));
    // A little more time, but still too little to tell that Hospital is out of reach.
    let calls = answers.into_iter().map(|(call, _)| call).filter(|call| call.path == CREATE).collect();
    for (call, answer) in &in_a_hurry(&checkup, calls, |i| 30 + i as u64 % 60).await {
        blames_nobody(call, answer);
    }
    // A caller with enough time is still served.
    Desk::of(&checkup.customer("patient").await).book("patient", &slot, "").await.expect("slow is not broken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_anothers_call_does_not_hear_of_anothers_deadline() {
    let proxy = FaultProxy::start().await;
    let checkup = embedded().set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slot = Desk::of(&checkup.admin().await).open("shared", &[7], 5).await.remove(0);
    Desk::of(&checkup.customer("warm-up").await).book("warm-up", &slot, "").await.expect("the way is open");
    proxy.latency(Duration::from_millis(80));
    let request = booking("kim", &slot);
    let call = || Call { who: checkup.tokens().customer("kim"), path: CREATE, message: request.encode_to_vec() };
    // The first call has too little time, and those that wait for its outcome have enough.
    let answers = in_a_hurry(&checkup, (0..6).map(|_| call()).collect(), |i| if i == 0 { 90 } else { 10_000 }).await;
    for (_, answer) in &answers[1..] {
        let status = answer.grpc().expect("a status");
        assert_eq!(status.code(), Code::Ok, "{status:?}");
        let booked = Screening::decode(&answer.body[5..]).expect("a screening");
        assert_eq!(booked.state(), State::Confirmed);
    }
    assert_eq!(Desk::of(&checkup.customer("kim").await).booked(&slot).await, Ok(2), "it was booked once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_out_of_reach_is_said_where_no_proxy_holds_it_against_us() {
    let proxy = FaultProxy::start().await;
    let checkup = embedded().set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slot = Desk::of(&checkup.admin().await).open("unreachable", &[7], 5).await.remove(0);
    proxy.blackhole(Direction::ToServer);
    let call =
        Call { who: checkup.tokens().customer("kim"), path: CREATE, message: booking("kim", &slot).encode_to_vec() };
    let answers = in_a_hurry(&checkup, vec![call], |_| 2_000).await;
    let status = answers[0].1.grpc().expect("a status");
    assert_eq!(Refusal::of(&status).expect("a reason").reason, Reason::HospitalUnavailable.name());
    assert!(!answers[0].1.is_said_in_the_head(), "{:?}", answers[0]);
    proxy.heal();
    let nobodys = Call {
        who: checkup.tokens().auditor(),
        path: "/checkup.nothing.v1.NothingService/Nothing",
        message: Vec::new(),
    };
    let answers = in_a_hurry(&checkup, vec![nobodys], |_| 2_000).await;
    assert_eq!(answers[0].1.grpc().map(|status| status.code()), Some(Code::Unimplemented));
    assert!(!answers[0].1.is_said_in_the_head(), "{:?}", answers[0]);
    let desk = Desk::of(&checkup.customer("kim").await);
    eventually("the way to be open again", async || {
        desk.book("kim", &slot, "").await.map_err(|status| status.to_string())
    })
    .await;
}
