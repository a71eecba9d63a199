//! One caller's flood: it hears RATE_LIMITED, and nobody else hears OVERLOADED.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::hospital::v1 as hospital;
use contract::screening::v1::ListScreeningsRequest;
use fault::Reason;
use hospital::{BatchCreateSlotsRequest, CreateSlotRequest, ListHospitalsRequest, Slot};
use testkit::{Checkup, Desk, Party, Refusal, day_of, gather, in_days, refused, rush, start_together};
use tokio::task::JoinHandle;

use crate::launch;

/// Few places, so that a small flood takes all of them, and a share of them.
const PLACES: usize = 24;
const SHARE: usize = 8;
/// Callers of the flood, each with one call at a time.
const FLOOD: usize = 64;

/// One customer who calls until `over`, and after a refusal as soon as `RetryInfo` allows. Returns how often each
/// reason was heard.
async fn flood(checkup: &Checkup, slot: &str, over: &Arc<AtomicBool>) -> Vec<JoinHandle<BTreeMap<String, usize>>> {
    let token = checkup.tokens().customer("kim");
    let channels = checkup.served().connections(8).await;
    start_together(FLOOD, |i| {
        let (party, slot) = (Party::new(channels[i % channels.len()].clone(), Some(&token)), slot.to_owned());
        let (desk, over) = (Desk::of(&party), Arc::clone(over));
        async move {
            let mut heard = BTreeMap::new();
            while !over.load(Ordering::Relaxed) {
                let status = match i % 3 {
                    0 => desk.book("kim", &slot, "").await.err(),
                    1 => party.screening().list_screenings(ListScreeningsRequest::default()).await.err(),
                    _ => party.hospital().list_hospitals(ListHospitalsRequest::default()).await.err(),
                };
                let Some(status) = status else { continue };
                let refusal = Refusal::of(&status).unwrap_or_else(|| panic!("no refusal: {status:?}"));
                tokio::time::sleep(refusal.retry_after.unwrap_or_default()).await;
                *heard.entry(refusal.reason).or_default() += 1;
            }
            heard
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_customers_flood_is_nobody_elses_overload() {
    const VISITS: usize = 12;
    let checkup = launch().set("server.max_calls", PLACES).set("server.max_calls_per_customer", SHARE).start().await;
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).open("besieged", &[7], 100).await.remove(0);
    let lee = checkup.customer("lee").await;
    let stranger = checkup.stranger().await;
    let over = Arc::new(AtomicBool::new(false));
    let crowd = flood(&checkup, &slot, &over).await;

    let desk = Desk::of(&lee);
    for _ in 0..VISITS {
        let booked = desk.book("lee", &slot, "").await.expect("lee books");
        desk.screening(&booked.name).await.expect("lee reads the booking");
        lee.screening().list_screenings(ListScreeningsRequest::default()).await.expect("lee lists the bookings");
        desk.slot(&slot).await.expect("lee reads the slot");
        stranger.hospital().list_hospitals(ListHospitalsRequest::default()).await.expect("a stranger reads");
        desk.cancel(&booked.name, "").await.expect("lee cancels");
    }
    over.store(true, Ordering::Relaxed);
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    for (reason, count) in gather(crowd).await.into_iter().flatten() {
        *heard.entry(reason).or_default() += count;
    }
    println!("the flood heard {heard:?}");
    assert!(heard.contains_key(Reason::RateLimited.name()), "the flood hears of its share: {heard:?}");
}

/// What an admin does at once when a hospital moves its books to this system: a year of dates, and many bookings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_imports_as_much_at_once_as_it_likes() {
    const DATES: i32 = 300;
    const BOOKINGS: usize = 400;
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    Desk::of(&admin).open("moved", &[1], 1).await;
    let create = |days| {
        let slot = Slot { date: Some(day_of(in_days(Desk::ZONE, days))), capacity: 500, ..Slot::default() };
        CreateSlotRequest { slot: Some(slot), ..CreateSlotRequest::default() }
    };
    let requests = (7..7 + DATES).map(create).collect();
    let batch = BatchCreateSlotsRequest {
        parent: "hospitals/moved".to_owned(),
        requests,
        ..BatchCreateSlotsRequest::default()
    };
    let slots = admin.hospital().batch_create_slots(batch).await.expect("a year of dates").into_inner().slots;
    let channels = checkup.served().connections(4).await;
    let token = checkup.tokens().admin("root", "*");
    let answers = rush(BOOKINGS, |i| {
        let desk = Desk::of(&Party::new(channels[i % channels.len()].clone(), Some(&token)));
        let slot = slots[i % 80].name.clone();
        async move { desk.book(&format!("moved-{i}"), &slot, "").await }
    })
    .await;
    answers.into_iter().for_each(|answer| drop(answer.expect("a place")));
}

/// More than an admin's share is refused to it, and to nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_beyond_its_share_is_told_so() {
    let checkup = launch().set("server.max_calls_per_caller", 8).start().await;
    let token = checkup.tokens().admin("root", "*");
    let channels = checkup.served().connections(4).await;
    let slot = Desk::of(&checkup.admin().await).open("busy", &[7], 1_000).await.remove(0);
    let answers = rush(400, |i| {
        let desk = Desk::of(&Party::new(channels[i % channels.len()].clone(), Some(&token)));
        let slot = slot.clone();
        async move { desk.book(&format!("patient-{i}"), &slot, "").await }
    })
    .await;
    let (booked, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(!booked.is_empty() && !refusals.is_empty(), "{} booked, {} refused", booked.len(), refusals.len());
    for refusal in refusals {
        let refusal = refused(refusal, Reason::RateLimited);
        assert!(refusal.retry_after.is_some(), "{refusal:?}");
    }
    let kim = Desk::of(&checkup.customer("kim").await);
    kim.book("kim", &slot, "").await.expect("a customer is not asked about the admin's share");
}
