//! Which services run: booking needs two, the others may be absent, added or removed. One process uses a directory.

use std::time::Duration;

use contract::marketing::v1 as marketing;
use contract::reservation::v1 as reservation;
use contract::screening::v1::screening::State;
use fault::Reason;
use marketing::{DemandSignal, ListDemandSignalsRequest};
use reservation::ListReservationsRequest;
use testkit::{Answer, Checkup, Desk, Direction, FaultProxy, RawMethod, Refusal};
use testkit::{call_raw, eventually, gather, is_goaway, refused, start_together};
use tonic::Code;

use crate::{embedded, launch};

async fn reservations(checkup: &Checkup) -> Result<Vec<reservation::Reservation>, tonic::Status> {
    let request = ListReservationsRequest { page_size: 1_000, ..ListReservationsRequest::default() };
    let page = checkup.auditor().await.reservation().list_reservations(request).await?;
    Ok(page.into_inner().reservations)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn booking_and_cancelling_go_on_without_the_views() {
    let asleep = embedded().without("reservation,mypage,marketing");
    let checkup = asleep.start().await;
    let slots = Desk::of(&checkup.admin().await).open("half-asleep", &(5..25).collect::<Vec<_>>(), 5).await;
    let kim = Desk::of(&checkup.customer("kim").await);
    let mut booked = Vec::new();
    for slot in &slots {
        booked.push(kim.book("kim", slot, "").await.expect("a place").name);
    }
    for name in booked.iter().step_by(2) {
        assert_eq!(kim.cancel(name, "").await.expect("cancelled").state(), State::Cancelled);
    }
    for slot in slots.iter().step_by(2) {
        eventually("the place to come back", async || {
            let booked = kim.booked(slot).await?;
            if booked == 0 { Ok(()) } else { Err(format!("{booked} booked")) }
        })
        .await;
    }
    let absent = reservations(&checkup).await.expect_err("nobody keeps the ledger here");
    assert_eq!(absent.code(), Code::Unimplemented);
    checkup.stop().await;

    // When they run, they catch up. After another stop and start, nothing is there twice.
    for _ in 0..2 {
        let checkup = launch().on(asleep.data()).start().await;
        eventually("the ledger to catch up", async || {
            let rows = reservations(&checkup).await.map_err(|status| status.to_string())?;
            let cancelled = rows.iter().filter(|row| row.state().as_str_name() == "CANCELLED").count();
            if (rows.len(), cancelled) == (20, 10) {
                Ok(())
            } else {
                Err(format!("{} rows, {cancelled} cancelled", rows.len()))
            }
        })
        .await;
        let verified = checkup.run(&["verify", "--settle", "5s"]).await;
        assert_eq!(verified.code, Some(0), "{verified:#?}");
        checkup.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marketing_joins_late_and_starts_from_the_first_event() {
    let before = embedded().without("marketing");
    let checkup = before.start().await;
    let slots = Desk::of(&checkup.admin().await).open("popular", &[7, 8], 2).await;
    for customer in ["kim", "lee", "park", "choi", "jung"] {
        let desk = Desk::of(&checkup.customer(customer).await);
        match desk.book(customer, &slots[0], "").await {
            Ok(_) => {}
            refusal => drop(refused(refusal, Reason::SlotFull)),
        }
    }
    Desk::of(&checkup.customer("kim").await).book("kim", &slots[1], "").await.expect("a place");
    checkup.stop().await;

    let checkup = launch().on(before.data()).start().await;
    let marketing = checkup.service("marketing").await;
    let signal = eventually("marketing to have read it all", async || {
        let request = ListDemandSignalsRequest {
            filter: "hospital=\"hospitals/popular\"".to_owned(),
            ..ListDemandSignalsRequest::default()
        };
        let found = marketing.marketing().list_demand_signals(request).await.map_err(|status| status.to_string())?;
        let signals: Vec<DemandSignal> = found.into_inner().signals;
        let full = signals.iter().find(|signal| signal.slot == slots[0]).cloned();
        full.filter(|signal| signal.refused_7d == 3 && signals.len() == 2).ok_or_else(|| format!("{signals:?}"))
    })
    .await;
    assert_eq!((signal.bookings_7d, signal.refused_7d), (2, 3));
    assert!((signal.fill_ratio - 1.0).abs() < f64::EPSILON);

    // Without it again, everything else works.
    let data = checkup.stop().await.data().clone();
    let checkup = embedded().on(&data).without("marketing").start().await;
    Desk::of(&checkup.customer("lee").await).book("lee", &slots[1], "").await.expect("a place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_directory_is_refused() {
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("occupied", &[7], 5).await.remove(0);
    let second = checkup.launch().try_start().await.expect_err("the directory is in use");
    assert_eq!(second.code, Some(1), "{second:#?}");
    let directory = checkup.launch().data().path().to_string_lossy().into_owned();
    assert!(second.stderr.contains(&directory), "it says which directory: {second:#?}");
    assert!(!second.stderr.contains("panicked"), "{second:#?}");
    Desk::of(&checkup.customer("kim").await).book("kim", &slot, "").await.expect("the first one goes on");
    // A killed process leaves nothing that would stop the next one.
    let launch = checkup.kill().await;
    let checkup = launch.start().await;
    assert_eq!(Desk::of(&checkup.stranger().await).booked(&slot).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_the_call_in_flight_finish() {
    let proxy = FaultProxy::start().await;
    let checkup = launch().set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slot = Desk::of(&checkup.admin().await).open("last-call", &[7, 8], 5).await;
    let kim = checkup.customer("kim").await;
    Desk::of(&kim).book("kim", &slot[0], "").await.expect("the way is open");
    proxy.latency(Duration::from_millis(400));
    let in_flight = {
        let (desk, slot) = (Desk::of(&kim), slot[1].clone());
        tokio::spawn(async move { desk.book("kim", &slot, "").await })
    };
    let reader = Desk::of(&checkup.stranger().await);
    eventually("the call to be in flight", async || {
        let booked = reader.booked(&slot[1]).await?;
        if booked == 1 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    checkup.terminate();
    let booked = in_flight.await.expect("the task ends").expect("the call in flight is answered");
    assert_eq!(booked.state(), State::Confirmed);
    drop((kim, reader));
    let (code, launch) = checkup.ended().await;
    assert_eq!(code, Some(0));
    let checkup = launch.set("screening.hospital_address", "").start().await;
    let seen = Desk::of(&checkup.auditor().await).screening(&booked.name).await.expect("it is there");
    assert_eq!(seen.state(), State::Confirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_every_call_with_its_own_outcome() {
    const CALLERS: usize = 16;
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("rush-hour", &[7], 100_000).await.remove(0);
    let callers = checkup.served().customers("caller", CALLERS, 4).await;
    let work = start_together(CALLERS, |i| {
        let (desk, slot, customer) = (Desk::of(&callers[i]), slot.clone(), format!("caller-{i}"));
        async move {
            let mut last = Vec::new();
            loop {
                let booked = match desk.book(&customer, &slot, "").await {
                    Ok(booked) => booked.name,
                    Err(status) => return (last, status),
                };
                match desk.cancel(&booked, "").await {
                    Ok(cancelled) => last = vec![(cancelled.name, State::Cancelled)],
                    Err(status) => return (vec![(booked, State::Confirmed)], status),
                }
            }
        }
    });
    let reader = Desk::of(&checkup.stranger().await);
    eventually("the load to be on", async || {
        let slot = reader.slot(&slot).await.map_err(|status| status.to_string())?;
        if slot.version > 100 { Ok(()) } else { Err(format!("{} changes", slot.version)) }
    })
    .await;
    checkup.terminate();
    let ends = gather(work).await;
    drop((reader, callers));
    let (code, launch) = checkup.ended().await;
    assert_eq!(code, Some(0));
    for (_, status) in &ends {
        // Refused at the door, or a connection that takes no new call: a call that began is never dropped.
        match Refusal::of(status) {
            Some(refusal) => assert_eq!(refusal.reason, "NOT_READY", "{refusal:#?}"),
            // the client library answers INTERNAL for a call that it had not sent when GOAWAY arrived
            None if status.code() == Code::Internal => assert!(is_goaway(status), "{status:?}"),
            None => assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{status:?}"),
        }
    }
    let checkup = launch.start().await;
    let auditor = Desk::of(&checkup.auditor().await);
    for (name, state) in ends.iter().flat_map(|(last, _)| last) {
        assert_eq!(auditor.screening(name).await.expect("what was answered is there").state(), *state);
    }
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let proxy = FaultProxy::start().await;
    let checkup = launch().set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slot = Desk::of(&checkup.admin().await).open("impatient", &[7], 5).await.remove(0);
    let kim = Desk::of(&checkup.customer("kim").await);
    proxy.blackhole(Direction::ToClient);
    let hanging = {
        let slot = slot.clone();
        tokio::spawn(async move { kim.book("kim", &slot, "").await })
    };
    let reader = Desk::of(&checkup.stranger().await);
    eventually("the call to hang", async || {
        let booked = reader.booked(&slot).await?;
        if booked == 1 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    checkup.terminate();
    let stderr = checkup.stderr().clone();
    eventually("the drain to begin", async || {
        let begun = stderr.find(|line| line.to_lowercase().contains("drain").then_some(()));
        begun.ok_or_else(|| stderr.tail(5))
    })
    .await;
    checkup.terminate();
    let ended = testkit::within(Duration::from_secs(2), "the process", checkup.ended()).await;
    assert_ne!(ended.0, Some(0), "an end in the middle of a call is not an orderly one");
    hanging.await.expect("the task ends").expect_err("nobody answered it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_are_served_to_anybody() {
    let checkup = launch().start().await;
    let stranger = checkup.stranger().await;
    let ask = async |service: &str, method: &str, payload: &[u8]| -> Vec<u8> {
        let method = RawMethod::new(service, method);
        let payload = bytes::Bytes::copy_from_slice(payload);
        match call_raw(&stranger, &method, payload, Duration::from_secs(5)).await {
            Answer::Messages(messages) => messages.concat(),
            Answer::Refused(status) => panic!("{method}: {status:?}"),
        }
    };
    // HealthCheckResponse{status: SERVING}, for the server and for each service by name.
    assert_eq!(ask("grpc.health.v1.Health", "Check", &[]).await, [0x08, 0x01]);
    let name = b"checkup.screening.v1.ScreeningService";
    let request = [&[0x0a, u8::try_from(name.len()).unwrap_or(0)], name.as_slice()].concat();
    assert_eq!(ask("grpc.health.v1.Health", "Check", &request).await, [0x08, 0x01]);
    for version in ["v1", "v1alpha"] {
        // ServerReflectionRequest{list_services: ""}
        let service = format!("grpc.reflection.{version}.ServerReflection");
        let listed = String::from_utf8_lossy(&ask(&service, "ServerReflectionInfo", &[0x3a, 0]).await).into_owned();
        for method in crate::methods::methods() {
            let (service, _) = method.split_once('/').expect("a service and a method");
            assert!(listed.contains(service), "{version} lists {service}");
        }
    }
}
