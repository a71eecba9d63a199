//! Deadlines: the server enforces them and passes them on; and what a booking gets while Hospital is out of reach.

use std::time::Duration;

use contract::hospital::v1 as hospital;
use contract::mypage::v1 as mypage;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::DeleteHospitalRequest;
use mypage::ListMyPageItemsRequest;
use screening::screening::State;
use screening::{CreateScreeningRequest, Screening};
use testkit::{Checkup, Desk, Direction, FaultProxy, Party, Refusal, Wire};
use testkit::{eventually, eventually_within, refused, refused_one_of, seed};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::races::claims;
use crate::launch;

/// How soon an unknown outcome must be settled after the services reach each other again.
const SETTLED: Duration = Duration::from_secs(30);

/// A process whose Screening reaches Hospital through the proxy, and slots of this capacity.
async fn behind_a_proxy(id: &str, capacity: i32) -> (FaultProxy, Checkup, Vec<String>) {
    let proxy = FaultProxy::start().await;
    let checkup = launch().set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slots = Desk::of(&checkup.admin().await).open(id, &[7, 8], capacity).await;
    (proxy, checkup, slots)
}

/// Calls CreateScreening for the caller, with or without accept_pending.
async fn ask(
    party: &Party,
    customer: &str,
    slot: &str,
    request_id: &str,
    accept_pending: bool,
    deadline: Duration,
) -> Result<Screening, Status> {
    let mut request = Request::new(CreateScreeningRequest {
        screening: Some(Screening {
            customer: format!("customers/{customer}"),
            slot: slot.to_owned(),
            ..Screening::default()
        }),
        request_id: request_id.to_owned(),
        accept_pending,
        ..CreateScreeningRequest::default()
    });
    request.set_timeout(deadline);
    party.screening().create_screening(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_answers_a_deadline_that_has_passed() {
    let checkup = launch().start().await;
    let wire = Wire::connect(checkup.addr()).await.expect("a connection");
    let bearer = format!("Bearer {}", checkup.tokens().auditor());
    for timeout in ["0n", "1n", "999u"] {
        for path in crate::methods::methods() {
            let headers = [("grpc-timeout", timeout), ("authorization", bearer.as_str())];
            let answer = wire.call(&format!("/{path}"), &headers, &[]).await.expect("an answer");
            refused(Err::<(), _>(answer.status), Reason::DeadlineExceeded);
        }
    }
    // With a little more time, every answer is complete: OK, or a refusal with its details.
    for path in crate::methods::methods() {
        let headers = [("grpc-timeout", "7m"), ("authorization", bearer.as_str())];
        let status = wire.call(&format!("/{path}"), &headers, &[]).await.expect("an answer").status;
        assert!(status.code() == Code::Ok || Refusal::of(&status).is_some(), "{path}: {status:?}");
    }
    let answer = wire.call("/checkup.hospital.v1.HospitalService/ListHospitals", &[("grpc-timeout", "10S")], &[]).await;
    assert_eq!(answer.expect("an answer").status.code(), Code::Ok, "the connection is as good as new");
    let answer =
        wire.call("/checkup.hospital.v1.HospitalService/ListHospitals", &[("grpc-timeout", "99999999H")], &[]).await;
    assert_eq!(answer.expect("an answer").status.code(), Code::Ok, "eleven thousand years are a time, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hospital_out_of_reach_is_said_before_the_deadline() {
    let (proxy, checkup, slots) = behind_a_proxy("unreachable", 5).await;
    let kim = checkup.customer("kim").await;
    Desk::of(&kim).book("kim", &slots[0], "").await.expect("the way is open");
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.blackhole(direction);
        for deadline in [Duration::from_secs(1), Duration::from_secs(2)] {
            let asked = Instant::now();
            let refusal = refused(ask(&kim, "kim", &slots[1], "", false, deadline).await, Reason::HospitalUnavailable);
            assert!(asked.elapsed() < deadline, "{:?} of {deadline:?}", asked.elapsed());
            assert!(refusal.retry_after.is_some());
        }
        proxy.reset();
        proxy.heal();
    }
    proxy.refuse();
    let asked = Instant::now();
    let answer = ask(&kim, "kim", &slots[1], "", false, Duration::from_secs(10)).await;
    refused(answer, Reason::HospitalUnavailable);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    // A call with a very short deadline gets a correct answer too, and other calls are not affected.
    for deadline in [1, 5, 20, 60] {
        let wire = Wire::connect(checkup.addr()).await.expect("a connection");
        let timeout = format!("{deadline}m");
        let bearer = format!("Bearer {}", checkup.tokens().customer("kim"));
        let headers = [("grpc-timeout", timeout.as_str()), ("authorization", bearer.as_str())];
        let request = CreateScreeningRequest {
            screening: Some(Screening {
                customer: "customers/kim".to_owned(),
                slot: slots[1].clone(),
                ..Screening::default()
            }),
            ..CreateScreeningRequest::default()
        };
        let path = "/checkup.screening.v1.ScreeningService/CreateScreening";
        let answer = wire.call(path, &headers, &prost::Message::encode_to_vec(&request)).await.expect("an answer");
        refused_one_of(Err::<(), _>(answer.status), &[Reason::DeadlineExceeded, Reason::HospitalUnavailable]);
    }
    let desk = Desk::of(&kim);
    desk.slot(&slots[1]).await.expect("others are answered");
    proxy.heal();
    eventually("the way to be open again", async || {
        desk.book("kim", &slots[1], "").await.map_err(|status| status.to_string())
    })
    .await;
}

async fn state_of(party: &Party, name: &str, state: State) -> Screening {
    eventually_within(SETTLED, "a pending booking to be settled", async || {
        let seen = Desk::of(party).screening(name).await.map_err(|status| status.to_string())?;
        if seen.state() == state { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_booking_is_confirmed_or_rejected_once_hospital_is_back() {
    let (proxy, checkup, slots) = behind_a_proxy("pending", 1).await;
    let (kim, lee, park) =
        (checkup.customer("kim").await, checkup.customer("lee").await, checkup.customer("park").await);
    let wait = Duration::from_secs(3);
    let request_id = seed("pending").uuid().to_string();
    proxy.refuse();
    let asked = Instant::now();
    let first = ask(&kim, "kim", &slots[0], &request_id, true, wait).await.expect("accepted");
    assert!(asked.elapsed() < wait);
    assert_eq!((first.state(), first.version), (State::Pending, 1));
    let replay = ask(&kim, "kim", &slots[0], &request_id, true, wait).await.expect("the same");
    assert_eq!((&replay.name, replay.state()), (&first.name, State::Pending));
    let conflict = ask(&kim, "kim", &slots[0], "", true, wait).await;
    assert_eq!(refused(conflict, Reason::CustomerDateConflict).value("screening"), first.name);
    let second = ask(&lee, "lee", &slots[0], "", true, wait).await.expect("accepted");
    let changed_mind = ask(&park, "park", &slots[1], "", true, wait).await.expect("accepted");
    let cancelled = Desk::of(&park).cancel(&changed_mind.name, "").await.expect("a pending booking can be cancelled");
    assert_eq!(cancelled.state(), State::Cancelled);

    proxy.heal();
    let auditor = checkup.auditor().await;
    // One place for two bookings: one is confirmed, the other is rejected with a reason.
    let settled = eventually_within(SETTLED, "both to be settled", async || {
        let mut seen = Vec::new();
        for name in [&first.name, &second.name] {
            seen.push(Desk::of(&auditor).screening(name).await.map_err(|status| status.to_string())?);
        }
        if seen.iter().all(|one| one.state() != State::Pending) { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let (confirmed, rejected): (Vec<_>, Vec<_>) = settled.iter().partition(|one| one.state() == State::Confirmed);
    assert_eq!((confirmed.len(), rejected.len()), (1, 1), "{settled:#?}");
    assert_eq!((rejected[0].state(), rejected[0].state_reason.as_str()), (State::Rejected, "SLOT_FULL"));
    assert_eq!((confirmed[0].version, rejected[0].version), (2, 2));
    assert_eq!(confirmed[0].hospital_display_name, "Hospital pending");
    assert_eq!(claims(&auditor, &slots[0], "ACTIVE").await.len(), 1);
    eventually_within(SETTLED, "the cancelled one to hold nothing", async || {
        let held = claims(&auditor, &slots[1], "ACTIVE").await.len();
        if held == 0 { Ok(()) } else { Err(format!("{held} held")) }
    })
    .await;
    assert_eq!(Desk::of(&auditor).screening(&changed_mind.name).await.expect("there").state(), State::Cancelled);

    // My-page shows the customer both states.
    let customer = &rejected[0].customer;
    let items = ListMyPageItemsRequest {
        parent: format!("{customer}/myPage"),
        min_consistency_token: rejected[0].consistency_token.clone(),
        ..ListMyPageItemsRequest::default()
    };
    let items = auditor.my_page().list_my_page_items(items).await.expect("items").into_inner().items;
    let shown: Vec<_> = items.iter().map(|item| (item.state.as_str(), item.state_reason.as_str())).collect();
    assert_eq!(shown, [("REJECTED", "SLOT_FULL")]);
    let verified = checkup.run(&["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_booking_of_a_hospital_that_goes_away_ends_too() {
    let (proxy, checkup, slots) = behind_a_proxy("gone-meanwhile", 5).await;
    let (kim, lee) = (checkup.customer("kim").await, checkup.customer("lee").await);
    let wait = Duration::from_secs(2);
    // Kim's request arrives and its answer is lost; lee's request never arrives.
    Desk::of(&checkup.customer("warm-up").await).book("warm-up", &slots[0], "").await.expect("the way is open");
    proxy.blackhole(Direction::ToClient);
    let taken = ask(&kim, "kim", &slots[1], "", true, wait).await.expect("accepted");
    proxy.refuse();
    let untaken = ask(&lee, "lee", &slots[1], "", true, wait).await.expect("accepted");
    assert_eq!((taken.state(), untaken.state()), (State::Pending, State::Pending));
    assert_eq!(Desk::of(&kim).booked(&slots[1]).await, Ok(1));
    let admin = checkup.admin().await;
    let delete = DeleteHospitalRequest {
        name: "hospitals/gone-meanwhile".to_owned(),
        force: true,
        reason: "closed for good".to_owned(),
        ..DeleteHospitalRequest::default()
    };
    admin.hospital().delete_hospital(delete).await.expect("deleted");
    // Kim's booking is ended by the event of the revocation, although Hospital cannot be called.
    let forced = state_of(&kim, &taken.name, State::ForceCancelled).await;
    assert_eq!((forced.state_reason.as_str(), forced.state_message.as_str()), ("HOSPITAL_DELETED", "closed for good"));
    proxy.heal();
    let rejected = state_of(&lee, &untaken.name, State::Rejected).await;
    assert_eq!(rejected.state_reason, "HOSPITAL_DELETED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_slows_one_call_and_no_other() {
    let (proxy, checkup, slots) = behind_a_proxy("slow-network", 50).await;
    proxy.latency(Duration::from_millis(150));
    let admin = Desk::of(&checkup.admin().await);
    let booked = testkit::rush(20, |i| {
        let (admin, slot) = (admin.clone(), slots[i % 2].clone());
        async move { admin.book(&format!("patient-{i}"), &slot, "").await }
    });
    let asked = Instant::now();
    for answer in booked.await {
        assert_eq!(answer.expect("slow is not broken").state(), State::Confirmed);
    }
    // Twenty calls wait at the same time, not one after another.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}
