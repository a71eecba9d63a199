//! A service's database put back to an earlier time, while people wait for a place.

use contract::screening::v1::Screening;
use contract::screening::v1::screening::State;
use fault::Reason;
use testkit::{Desk, Launch, eventually, refused};

use super::{path, put_back, recover, refuses_to_serve, verified, views_forget};
use crate::embedded;
use crate::races::claims;

/// A slot with two places. Before the copy two had them and one waited; after it three more joined, the first of them
/// left, and the first holder cancelled, so that the one who waited longest was promoted.
struct Story {
    launch: Launch,
    slot: String,
    holders: Vec<Screening>,
    waiters: Vec<Screening>,
}

async fn older(service: &str) -> Story {
    let checkup = embedded().start().await;
    let desk = Desk::of(&checkup.admin().await);
    let slot = desk.open("crowded", &[30], 2).await.remove(0);
    let (mut holders, mut waiters) = (Vec::new(), Vec::new());
    for customer in ["h0", "h1"] {
        holders.push(desk.book(customer, &slot, "").await.expect("a place"));
    }
    waiters.push(desk.join("w0", &slot, "").await.expect("a ticket"));
    verified(&checkup).await;
    let launch = checkup.stop().await;
    let copy = launch.data().path().join("copy");
    std::fs::copy(path(&launch, service), &copy).expect("a copy");

    let checkup = launch.start().await;
    let desk = Desk::of(&checkup.admin().await);
    for customer in ["w1", "w2", "w3"] {
        waiters.push(desk.join(customer, &slot, "").await.expect("a ticket"));
    }
    desk.cancel(&waiters[1].name, "").await.expect("left");
    desk.cancel(&holders[0].name, "").await.expect("cancelled");
    desk.becomes(&waiters[0].name, State::Confirmed).await;
    verified(&checkup).await;
    let launch = checkup.stop().await;
    put_back(&launch, service, &copy);
    Story { launch, slot, holders, waiters }
}

/// Asserts that everybody is where they were, and that the queue goes on in its order.
async fn whole(story: &Story) {
    let Story { launch, slot, holders, waiters } = story;
    let checkup = launch.start().await;
    verified(&checkup).await;
    let desk = Desk::of(&checkup.admin().await);
    let state = async |row: &Screening| desk.screening(&row.name).await.expect("the booking").state();
    let states = [state(&holders[0]).await, state(&holders[1]).await];
    assert_eq!(states, [State::Cancelled, State::Confirmed]);
    let states =
        [state(&waiters[0]).await, state(&waiters[1]).await, state(&waiters[2]).await, state(&waiters[3]).await];
    assert_eq!(states, [State::Confirmed, State::Cancelled, State::Waitlisted, State::Waitlisted]);
    let now = desk.slot(slot).await.expect("the slot");
    assert_eq!((now.booked_count, now.remaining_count, now.waitlisted_count), (2, 0, 2));

    let behind = desk.join("w4", slot, "").await.expect("a ticket");
    assert_eq!(behind.waitlist_position, 3);
    desk.cancel(&holders[1].name, "").await.expect("cancelled");
    desk.becomes(&waiters[2].name, State::Confirmed).await;
    desk.cancel(&waiters[0].name, "").await.expect("cancelled");
    desk.becomes(&waiters[3].name, State::Confirmed).await;
    assert_eq!(state(&behind).await, State::Waitlisted);
    refused(desk.book("late", slot, "").await, Reason::SlotFull);
    verified(&checkup).await;
    drop(checkup.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hospital_that_forgot_lets_people_wait_in_their_order() {
    let story = older("hospital").await;
    refuses_to_serve(&story.launch, &story.slot, "hospital").await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    for line in ["claims hold a place again: 1", "claims wait for a place again: 2", "claims are ended again: 1"] {
        assert!(recovered.stdout.contains(line), "{line}: {recovered:?}");
    }
    let again = recover(&story.launch, &[]).await;
    assert!(again.code == Some(0) && again.stdout.contains("no service has lost its own past"), "{again:?}");
    whole(&story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screening_that_forgot_knows_who_waits() {
    let story = older("screening").await;
    refuses_to_serve(&story.launch, &story.slot, "screening").await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert!(recovered.stdout.contains("as the others know them: 5"), "{recovered:?}");
    let again = recover(&story.launch, &[]).await;
    assert!(again.code == Some(0) && again.stdout.contains("no service has lost its own past"), "{again:?}");
    whole(&story).await;
}

/// The views have forgotten that the first one was promoted, and Hospital holds the place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_only_hospital_knows_of_stands() {
    let story = older("screening").await;
    views_forget(&story.launch, &story.waiters[0].name).await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert!(recovered.stdout.contains("have the place that they waited for: 1"), "{recovered:?}");
    whole(&story).await;
}

/// Only Hospital knows that somebody waits. The command names the booking, and its ticket is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_and_nobody_knows_any_more_is_listed() {
    let story = older("screening").await;
    views_forget(&story.launch, &story.waiters[2].name).await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    let line = recovered.stdout.lines().find(|line| line.starts_with("nobody knows: who booked"));
    let line = line.expect("it is listed");
    assert!(line.contains(&story.waiters[2].name) && line.contains("a place in the queue"), "{line}");
    let checkup = story.launch.start().await;
    let auditor = checkup.auditor().await;
    eventually("its ticket to be given back", async || {
        let waiting = claims(&auditor, &story.slot, "WAITING").await.len();
        if waiting == 1 { Ok(()) } else { Err(format!("{waiting} wait")) }
    })
    .await;
    verified(&checkup).await;
    let desk = Desk::of(&checkup.admin().await);
    desk.cancel(&story.holders[1].name, "").await.expect("cancelled");
    desk.becomes(&story.waiters[3].name, State::Confirmed).await;
    verified(&checkup).await;
}
