//! R15: after a time-out between Screening and Hospital, the outcome is never guessed.
//!
//! Screening reaches Hospital through a proxy that the test can break. Every other call goes directly to the process.

use std::time::Duration;

use contract::screening::v1::screening::State;
use fault::Reason;
use testkit::{Checkup, Desk, Direction, FaultProxy, Launch, eventually, eventually_within, refused, seed};

use super::{all_screenings, claims};
use crate::launch;

/// How soon an unknown outcome must be settled after the services reach each other again.
pub(super) const SETTLED: Duration = Duration::from_secs(30);

/// A process whose Screening reaches Hospital through the proxy, with warm connections and one empty slot.
async fn behind_a_proxy(id: &str) -> (FaultProxy, Checkup, String) {
    behind_a_proxy_with(launch(), id).await
}

/// Like [`behind_a_proxy`], with other settings.
pub(super) async fn behind_a_proxy_with(launch: Launch, id: &str) -> (FaultProxy, Checkup, String) {
    let proxy = FaultProxy::start().await;
    let checkup = launch.set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slot = Desk::of(&checkup.admin().await).open(id, &[7], 10).await.remove(0);
    let desk = Desk::of(&checkup.customer("warm-up").await);
    let name = desk.book("warm-up", &slot, "").await.expect("the way is open").name;
    desk.cancel(&name, "").await.expect("cancelled");
    eventually("an empty slot", async || {
        let booked = desk.booked(&slot).await?;
        if booked == 0 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    (proxy, checkup, slot)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_lost_answer_is_continued_by_the_same_request_id() {
    let (proxy, checkup, slot) = behind_a_proxy("answer-lost").await;
    let kim = Desk::of(&checkup.customer("kim").await.with_deadline(Duration::from_secs(2)));
    let auditor = checkup.auditor().await;
    let request_id = seed("r15 continued").uuid().to_string();

    proxy.blackhole(Direction::ToClient);
    let refusal = refused(kim.book("kim", &slot, &request_id).await, Reason::HospitalUnavailable);
    assert!(refusal.retry_after.is_some(), "it says when to come back");
    assert_eq!(claims(&auditor, &slot, "ACTIVE").await.len(), 1, "the request had got through");

    proxy.reset();
    proxy.heal();
    let booked = eventually("the way to be open again", async || {
        kim.book("kim", &slot, &request_id).await.map_err(|status| status.to_string())
    })
    .await;
    assert_eq!(booked.state(), State::Confirmed);
    let held = claims(&auditor, &slot, "ACTIVE").await;
    assert_eq!(held.len(), 1, "no second claim: {held:?}");
    let uid = booked.name.trim_start_matches("screenings/");
    assert_eq!(held[0].claim_id, format!("{uid}.1"), "the claim of the first attempt is the booking's");
    assert_eq!(kim.booked(&slot).await, Ok(1));
    assert_eq!(all_screenings(&auditor, "customer=\"customers/kim\"").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_lost_answer_that_nobody_asks_for_again_is_fenced_and_released() {
    let (proxy, checkup, slot) = behind_a_proxy("nobody-asks").await;
    let kim = Desk::of(&checkup.customer("kim").await.with_deadline(Duration::from_secs(2)));
    let auditor = checkup.auditor().await;
    let request_id = seed("r15 fenced").uuid().to_string();
    proxy.blackhole(Direction::ToClient);
    refused(kim.book("kim", &slot, &request_id).await, Reason::HospitalUnavailable);
    assert_eq!(kim.booked(&slot).await, Ok(1), "the place is taken");
    proxy.reset();
    proxy.heal();
    eventually_within(SETTLED, "the place to be given back", async || {
        let booked = kim.booked(&slot).await?;
        if booked == 0 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    assert!(all_screenings(&auditor, "customer=\"customers/kim\"").await.is_empty(), "a fence is nobody's screening");

    // The same request is judged afresh under a new name, and the old claim stays RELEASED.
    let released = claims(&auditor, &slot, "RELEASED").await.len();
    let booked = kim.book("kim", &slot, &request_id).await.expect("judged afresh");
    assert_eq!(booked.state(), State::Confirmed);
    let held = claims(&auditor, &slot, "ACTIVE").await;
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].claim_id, format!("{}.1", booked.name.trim_start_matches("screenings/")));
    assert_eq!(claims(&auditor, &slot, "RELEASED").await.len(), released);
    assert_eq!(kim.book("kim", &slot, &request_id).await.expect("a replay"), booked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_request_that_arrives_late_takes_no_place_for_ever() {
    let (proxy, checkup, slot) = behind_a_proxy("late-request").await;
    let kim = Desk::of(&checkup.customer("kim").await.with_deadline(Duration::from_secs(2)));
    // The request itself is held, and delivered when nobody waits for its answer any more.
    proxy.blackhole(Direction::ToServer);
    refused(kim.book("kim", &slot, "").await, Reason::HospitalUnavailable);
    assert_eq!(kim.booked(&slot).await, Ok(0));
    proxy.heal();
    let auditor = checkup.auditor().await;
    eventually_within(SETTLED, "whatever came late to be given back", async || {
        let active = claims(&auditor, &slot, "ACTIVE").await.len();
        let ended = checkup.run(&["verify", "--settle", "1s"]).await;
        if active == 0 && ended.code == Some(0) { Ok(()) } else { Err(format!("{active} active, {ended:?}")) }
    })
    .await;
    let booked = kim.book("kim", &slot, "").await.expect("the date is free");
    assert_eq!(booked.state(), State::Confirmed);
    assert_eq!(kim.booked(&slot).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r15_a_crash_between_claim_and_booking_is_settled() {
    let (proxy, checkup, slot) = behind_a_proxy("crashed").await;
    let kim = checkup.customer("kim").await;
    proxy.blackhole(Direction::ToClient);
    let asking = {
        let (kim, slot) = (Desk::of(&kim), slot.clone());
        tokio::spawn(async move { kim.book("kim", &slot, "").await })
    };
    let desk = Desk::of(&kim);
    eventually("the claim", async || {
        let booked = desk.booked(&slot).await?;
        if booked == 1 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    let launch = checkup.kill().await;
    asking.await.expect("the call ends").expect_err("the process is gone");

    let checkup = launch.start().await;
    proxy.forward_to(checkup.addr());
    proxy.reset();
    proxy.heal();
    let desk = Desk::of(&checkup.stranger().await);
    eventually_within(SETTLED, "the orphaned claim to be released", async || {
        let booked = desk.booked(&slot).await?;
        if booked == 0 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}
