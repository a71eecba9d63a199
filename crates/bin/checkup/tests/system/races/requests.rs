//! R7 to R11: the same intention more than once, with a request_id and without.

use contract::screening::v1 as screening;
use fault::Reason;
use screening::screening::State;
use screening::{CreateScreeningRequest, Screening};
use testkit::{Desk, Direction, FaultProxy, Party, Topology, eventually, refused, refused_one_of, rush, seed};
use tonic::{Request, Response, Status};

use std::time::Duration;

use super::{all_screenings, claims};
use crate::launch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r07_many_cancels_are_one_and_the_place_comes_back_once() {
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("cancelled-once", &[7], 5).await.remove(0);
    let kim = checkup.customer("kim").await;
    let lee = checkup.customer("lee").await;
    Desk::of(&lee).book("lee", &slot, "").await.expect("a place");
    let mine = Desk::of(&kim).book("kim", &slot, "").await.expect("a place").name;

    let answers = rush(16, |_| {
        let (desk, name) = (Desk::of(&kim), mine.clone());
        async move { desk.cancel(&name, "").await }
    })
    .await;
    let (done, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(done.len(), 1);
    for answer in refusals {
        let refusal = refused(answer, Reason::ScreeningStateInvalid);
        assert_eq!((refusal.value("state"), refusal.value("screening")), ("CANCELLED", mine.as_str()));
    }
    let desk = Desk::of(&kim);
    eventually("the place to come back", async || {
        let booked = desk.booked(&slot).await?;
        if booked == 1 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;

    // Every repetition with the same request_id gets OK.
    let second = desk.book("kim", &slot, "").await.expect("the date is free again").name;
    assert_ne!(second, mine);
    let request_id = seed("r07").uuid().to_string();
    let answers = rush(16, |_| {
        let (desk, name, request_id) = (Desk::of(&kim), second.clone(), request_id.clone());
        async move { desk.cancel(&name, &request_id).await }
    })
    .await;
    for answer in answers {
        let cancelled = answer.expect("the same request is answered OK");
        assert_eq!((cancelled.state(), cancelled.version), (State::Cancelled, 2));
    }
    let auditor = checkup.auditor().await;
    eventually("both claims to be released", async || {
        let released = claims(&auditor, &slot, "RELEASED").await.len();
        if released == 2 { Ok(()) } else { Err(format!("{released} released")) }
    })
    .await;
    assert_eq!(desk.booked(&slot).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r08_thirty_two_duplicates_are_one_execution() {
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("once-only", &[7], 100).await.remove(0);
    let request_id = seed("r08").uuid().to_string();
    let duplicates = checkup.served().connections(4).await;
    let token = checkup.tokens().customer("kim");
    let answers = rush(32, |i| {
        let desk = Desk::of(&Party::new(duplicates[i % 4].clone(), Some(&token)));
        // UUIDs are compared without regard to case.
        let request_id = if i % 2 == 0 { request_id.clone() } else { request_id.to_uppercase() };
        let slot = slot.clone();
        async move { desk.book("kim", &slot, &request_id).await }
    })
    .await;
    let first = answers[0].clone().expect("a place");
    for answer in answers {
        let same = answer.expect("a duplicate waits for the first and gets its answer");
        assert_eq!((same.name, same.version, same.state), (first.name.clone(), 1, first.state));
    }
    let auditor = checkup.auditor().await;
    assert_eq!(Desk::of(&auditor).booked(&slot).await, Ok(1));
    assert_eq!(all_screenings(&auditor, "").await.len(), 1);

    let later = Desk::of(&checkup.customer("kim").await).book("kim", &slot, &request_id).await.expect("a replay");
    assert_eq!(later, first, "a replay answers the screening as it is now");
}

/// Calls CreateScreening with this deadline.
async fn book_within(party: &Party, slot: &str, request_id: &str, deadline: Duration) -> Result<Screening, Status> {
    let mut request = Request::new(CreateScreeningRequest {
        screening: Some(Screening {
            customer: "customers/kim".to_owned(),
            slot: slot.to_owned(),
            ..Screening::default()
        }),
        request_id: request_id.to_owned(),
        ..CreateScreeningRequest::default()
    });
    request.set_timeout(deadline);
    party.screening().create_screening(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r08_a_duplicate_with_a_short_deadline_is_told_that_the_first_still_runs() {
    let proxy = FaultProxy::start().await;
    let checkup = launch().set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slot = Desk::of(&checkup.admin().await).open("slow-hospital", &[7], 5).await.remove(0);
    Desk::of(&checkup.customer("warm-up").await).book("warm-up", &slot, "").await.expect("the way is open");

    let kim = checkup.customer("kim").await;
    let request_id = seed("r08 short").uuid().to_string();
    proxy.blackhole(Direction::ToClient);
    let first = {
        let (kim, slot, request_id) = (kim.clone(), slot.clone(), request_id.clone());
        tokio::spawn(async move { book_within(&kim, &slot, &request_id, Duration::from_secs(20)).await })
    };
    // The first call has begun once Hospital has granted its place.
    let desk = Desk::of(&kim);
    eventually("the first to reach Hospital", async || {
        let booked = desk.booked(&slot).await?;
        if booked == 2 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    let second = book_within(&kim, &slot, &request_id, Duration::from_millis(700)).await;
    // Only its own replica knows that the call is running. Another replica may ask Hospital too, for the same place.
    let reasons = match Topology::asked_for() {
        Topology::Embedded => vec![Reason::RequestInProgress],
        Topology::Mesh => vec![Reason::RequestInProgress, Reason::HospitalUnavailable],
    };
    let refusal = refused_one_of(second, &reasons);
    if refusal.reason == Reason::RequestInProgress.name() {
        assert_eq!(refusal.value("requestId"), request_id);
        assert!(refusal.retry_after.is_some(), "it says when to come back");
    }
    proxy.heal();
    let answered = first.await.expect("the first ends");
    // If the first call gave up, the same request continues it. In any case there is one booking.
    let booked = match answered {
        Ok(booked) => booked,
        Err(status) => {
            refused_one_of(Err::<(), _>(status), &[Reason::HospitalUnavailable]);
            desk.book("kim", &slot, &request_id).await.expect("the same request continues")
        }
    };
    assert_eq!(booked.state(), State::Confirmed);
    assert_eq!(desk.booked(&slot).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r09_a_request_id_belongs_to_one_content() {
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("one-content", &[7, 8], 5).await;
    let (kim, lee) = (Desk::of(&checkup.customer("kim").await), Desk::of(&checkup.customer("lee").await));
    let request_id = seed("r09").uuid().to_string();
    let first = kim.book("kim", &slots[0], &request_id).await.expect("a place");
    let refusal = refused(kim.book("kim", &slots[1], &request_id.to_uppercase()).await, Reason::RequestIdReused);
    assert_eq!(refusal.value("requestId"), request_id);
    assert_eq!(kim.booked(&slots[1]).await, Ok(0), "refused before any work");
    // A request_id is scoped to the caller and the method.
    lee.book("lee", &slots[1], &request_id).await.expect("another caller's id is another id");
    let cancelled = kim.cancel(&first.name, &request_id).await.expect("another method's id is another id");
    assert_eq!(cancelled.state(), State::Cancelled);
    let replay = kim.book("kim", &slots[0], &request_id).await.expect("a replay");
    assert_eq!((replay.state(), replay.name), (State::Cancelled, first.name), "a replay answers what is there now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r10_a_retry_after_a_refusal_is_judged_afresh() {
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let slot = admin.open("refused-first", &[7], 1).await.remove(0);
    let (kim, lee) = (Desk::of(&checkup.customer("kim").await), Desk::of(&checkup.customer("lee").await));
    let holder = lee.book("lee", &slot, "").await.expect("the last place");
    let request_id = seed("r10").uuid().to_string();
    for _ in 0..2 {
        refused(kim.book("kim", &slot, &request_id).await, Reason::SlotFull);
    }
    lee.cancel(&holder.name, "").await.expect("lee cancels");
    let booked = eventually("the place to come back", async || {
        kim.book("kim", &slot, &request_id).await.map_err(|status| status.to_string())
    })
    .await;
    assert_eq!(booked.state(), State::Confirmed);
    assert_eq!(kim.book("kim", &slot, &request_id).await.expect("a replay"), booked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r11_without_a_request_id_the_date_protects() {
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("double-click", &[7], 100).await.remove(0);
    let kim = checkup.customer("kim").await;
    let answers = rush(24, |_| {
        let (desk, slot) = (Desk::of(&kim), slot.clone());
        async move { desk.book("kim", &slot, "").await }
    })
    .await;
    let (booked, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let booked: Vec<Screening> = booked.into_iter().flatten().collect();
    assert_eq!(booked.len(), 1, "{booked:?}");
    for answer in refusals {
        let refusal = refused(answer, Reason::CustomerDateConflict);
        assert_eq!(refusal.value("screening"), booked[0].name, "it names the one in the way");
    }
    let desk = Desk::of(&kim);
    eventually("the losers' places to come back", async || {
        let booked = desk.booked(&slot).await?;
        if booked == 1 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    let auditor = checkup.auditor().await;
    assert_eq!(all_screenings(&auditor, "state=CONFIRMED").await.len(), 1);
}
