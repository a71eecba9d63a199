//! R1 to R3: claims on one slot against each other, against its capacity and against its closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::hospital::v1 as hospital;
use contract::screening::v1::screening::State;
use fault::Reason;
use hospital::set_slot_capacity_request::Change;
use hospital::{CloseSlotRequest, ListSlotsRequest, ReopenSlotRequest, SearchAvailabilityRequest};
use hospital::{SetSlotCapacityRequest, Slot};
use testkit::{Desk, Party, day_of, eventually, gather, in_days, refused, refused_one_of, rush, start_together};
use tonic::{Response, Status};

use super::{all_screenings, check_counts, claims};
use crate::launch;

/// Reads a slot by every method and checks its counts, until `stop` is set. Returns the number of rounds.
pub(super) async fn watch_counts(reader: Party, slot: String, stop: Arc<AtomicBool>) -> Result<usize, String> {
    let text = |status: Status| status.to_string();
    let (hospital, _) = slot.split_once("/slots/").expect("a slot's name");
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        check_counts(&Desk::of(&reader).slot(&slot).await.map_err(text)?)?;
        let list = ListSlotsRequest { parent: hospital.to_owned(), ..ListSlotsRequest::default() };
        let listed = reader.hospital().list_slots(list).await.map_err(text)?.into_inner();
        let search = SearchAvailabilityRequest {
            start_date: Some(day_of(in_days(Desk::ZONE, 0))),
            end_date: Some(day_of(in_days(Desk::ZONE, 60))),
            hospitals: vec![hospital.to_owned()],
            ..SearchAvailabilityRequest::default()
        };
        let free = reader.hospital().search_availability(search).await.map_err(text)?.into_inner();
        let free = testkit::slots_of(free);
        listed.slots.iter().chain(&free).try_for_each(check_counts)?;
        if free.iter().any(|slot| slot.remaining_count < 1) {
            return Err("a full slot was offered".to_owned());
        }
        looks += 1;
    }
    Ok(looks)
}

/// Counts claims and bookings of a slot until `stop` is set. Neither may exceed the capacity.
pub(super) async fn watch_claims(
    auditor: Party,
    slot: String,
    capacity: usize,
    stop: Arc<AtomicBool>,
) -> Result<usize, String> {
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        let held = claims(&auditor, &slot, "ACTIVE").await.len();
        let confirmed = all_screenings(&auditor, &format!("slot=\"{slot}\" AND state=CONFIRMED")).await.len();
        if held > capacity || confirmed > capacity {
            return Err(format!("{held} claims and {confirmed} bookings were seen for {capacity} places"));
        }
        looks += 1;
    }
    Ok(looks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r01_two_hundred_ask_for_ten_places_and_ten_get_one() {
    const PLACES: usize = 10;
    const ASKERS: usize = 200;
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("flash-sale", &[7], 10).await.remove(0);
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..2 {
        readers.push(tokio::spawn(watch_counts(checkup.stranger().await, slot.clone(), Arc::clone(&stop))));
    }
    let auditor = checkup.auditor().await;
    readers.push(tokio::spawn(watch_claims(auditor.clone(), slot.clone(), PLACES, Arc::clone(&stop))));

    let askers = checkup.served().customers("asker", ASKERS, 8).await;
    let answers = rush(ASKERS, |i| {
        let (desk, slot) = (Desk::of(&askers[i]), slot.clone());
        async move { desk.book(&format!("asker-{i}"), &slot, "").await }
    })
    .await;

    let (confirmed, turned_away): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    for answer in turned_away.into_iter() {
        let refusal = refused(answer, Reason::SlotFull);
        assert_eq!((refusal.value("slot"), refusal.value("remaining")), (slot.as_str(), "0"));
    }
    assert_eq!(confirmed.len(), PLACES);
    assert!(confirmed.iter().flatten().all(|screening| screening.state() == State::Confirmed));

    stop.store(true, Ordering::Relaxed);
    for looks in gather(readers).await {
        assert!(looks.expect("no look shows too much") > 0, "the readers looked while it went on");
    }
    let full = Desk::of(&auditor).slot(&slot).await.expect("the slot");
    assert_eq!((full.booked_count, full.remaining_count), (10, 0));
    assert_eq!(claims(&auditor, &slot, "ACTIVE").await.len(), PLACES);
    let screenings = all_screenings(&auditor, "").await;
    assert_eq!(screenings.len(), PLACES, "a refusal of a full slot leaves nothing behind");
}

async fn set(admin: &Party, slot: &str, change: Change, etag: &str) -> Result<Slot, Status> {
    let request = SetSlotCapacityRequest {
        name: slot.to_owned(),
        etag: etag.to_owned(),
        request_id: String::new(),
        change: Some(change),
    };
    admin.hospital().set_slot_capacity(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r02_a_reduction_never_goes_below_what_is_booked() {
    const ASKERS: usize = 40;
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).open("shrinking", &[7], 30).await.remove(0);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(watch_counts(checkup.stranger().await, slot.clone(), Arc::clone(&stop)));
    let askers = checkup.served().customers("asker", ASKERS, 4).await;
    let bookings = start_together(ASKERS, |i| {
        let (desk, slot) = (Desk::of(&askers[i]), slot.clone());
        async move { desk.book(&format!("asker-{i}"), &slot, "").await }
    });
    // Two admins reduce the capacity one by one until the slot refuses, while customers book.
    let reductions = start_together(2, |_| {
        let (admin, slot) = (admin.clone(), slot.clone());
        async move {
            loop {
                match set(&admin, &slot, Change::Delta(-1), "").await {
                    Ok(now) => check_counts(&now).expect("sound counts"),
                    Err(status) => return refused(Err::<(), _>(status), Reason::CapacityBelowBooked),
                }
            }
        }
    });

    let mut confirmed = 0;
    for answer in gather(bookings).await {
        match answer {
            Ok(screening) if screening.state() == State::Confirmed => confirmed += 1,
            other => drop(refused_one_of(other, &[Reason::SlotFull])),
        }
    }
    for refusal in gather(reductions).await {
        let count = |key| refusal.value(key).parse::<i32>().expect("a count");
        assert_eq!(count("requestedCapacity") + 1, count("bookedCount"), "refused by one place, and it says so");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.await.expect("the reader ends").expect("no look shows too much") > 0);

    let now = Desk::of(&admin).slot(&slot).await.expect("the slot");
    assert_eq!((now.booked_count, now.capacity), (confirmed, confirmed), "shrunk to what is booked, nobody cancelled");
    let refusal =
        refused(set(&admin, &slot, Change::Capacity(confirmed - 1), &now.etag).await, Reason::CapacityBelowBooked);
    assert_eq!(refusal.value("bookedCount"), confirmed.to_string());
    assert_eq!(refusal.value("requestedCapacity"), (confirmed - 1).to_string());
    let auditor = checkup.auditor().await;
    assert_eq!(all_screenings(&auditor, "state=CONFIRMED").await.len(), usize::try_from(confirmed).unwrap_or(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r03_after_a_slot_is_closed_no_new_claim() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).open("closing", &[7], 100_000).await.remove(0);
    let closed = Arc::new(AtomicBool::new(false));
    let served = checkup.served();
    // Each worker books for one new customer after another, until it is refused after the closing.
    let workers = start_together(6, |worker| {
        let (served, slot, closed) = (served.clone(), slot.clone(), Arc::clone(&closed));
        async move {
            let admin = Desk::of(&served.admin().await);
            let mut booked = 0;
            for turn in 0.. {
                let was_closed = closed.load(Ordering::SeqCst);
                match admin.book(&format!("walk-in-{worker}-{turn}"), &slot, "").await {
                    Ok(screening) => {
                        assert!(!was_closed, "{} was booked after the slot was closed", screening.name);
                        booked += 1;
                    }
                    Err(status) => {
                        let refusal = refused(Err::<(), _>(status), Reason::SlotClosed);
                        assert_eq!(refusal.value("slot"), slot);
                        if was_closed {
                            break;
                        }
                    }
                }
            }
            booked
        }
    });
    let desk = Desk::of(&admin);
    eventually("some bookings", async || {
        let booked = desk.booked(&slot).await?;
        if booked >= 12 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    let close = CloseSlotRequest { name: slot.clone(), ..CloseSlotRequest::default() };
    let answer = admin.hospital().close_slot(close.clone()).await.expect("an admin closes").into_inner();
    closed.store(true, Ordering::SeqCst);
    assert_eq!(answer.state(), hospital::slot::State::Closed);

    let booked: i32 = gather(workers).await.into_iter().sum();
    let after = desk.slot(&slot).await.expect("the slot");
    assert_eq!(after.booked_count, booked, "those who were in before stay");
    assert_eq!(answer.booked_count, booked, "and the answer of the closing already knew them all");

    let again = admin.hospital().close_slot(close).await.expect("closing a closed slot is fine").into_inner();
    assert_eq!(again, after, "and changes nothing");
    let reopen = ReopenSlotRequest { name: slot.clone(), ..ReopenSlotRequest::default() };
    admin.hospital().reopen_slot(reopen).await.expect("an admin reopens");
    desk.book("late-comer", &slot, "").await.expect("a reopened slot is on sale");
}
