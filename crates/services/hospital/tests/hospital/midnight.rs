//! Dates that end: which bookings count as active, and which ones a deletion or a cancellation revokes, before and
//! after midnight.

use std::sync::Arc;

use contract::hospital::v1;
use fault::Reason;
use runtime::clock::Clock;
use testkit::{Party, eventually, refused, rush};
use tonic::{Response, Status};
use v1::hospital::State as HospitalState;

use crate::support::{Budget, House, assert_slot_adds_up, claim, claims, facts, get_hospital, get_slot, noon, reserve};

/// A clock that is so many days ahead of [`noon`].
fn noon_in(days: i64) -> Clock {
    let there = noon().now() + jiff::SignedDuration::from_hours(24 * days);
    Clock::shifted(there.duration_since(Clock::system().now()))
}

async fn listed(party: &Party) -> Vec<(String, i32)> {
    let request = v1::ListHospitalsRequest { show_deleted: true, ..Default::default() };
    let page = party.hospital().list_hospitals(request).await.unwrap().into_inner();
    page.hospitals.into_iter().map(|hospital| (hospital.name, hospital.active_booking_count)).collect()
}

fn deletion(name: &str, force: bool) -> v1::DeleteHospitalRequest {
    v1::DeleteHospitalRequest { name: name.into(), force, ..Default::default() }
}

async fn deleted(party: &Party, name: &str) -> v1::Hospital {
    eventually("the deletion", async || {
        let hospital = get_hospital(party, name).await;
        let progress = hospital.revocation_progress.unwrap();
        assert_eq!(progress.total - progress.revoked, hospital.active_booking_count);
        if hospital.state() == HospitalState::Deleted { Ok(hospital) } else { Err(format!("{progress:?}")) }
    })
    .await
}

#[tokio::test]
async fn midnight_takes_a_date_out_of_what_is_counted() {
    let (house, dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2, 3], 5).await;
    let mut samoa = house.draft("samoa", &[1, 2], 5);
    samoa.hospital.as_mut().unwrap().time_zone = "Pacific/Pago_Pago".into();
    house.admin().await.hospital().create_hospital(samoa).await.unwrap();
    let screening = house.screening().await;
    for (number, slot) in slots.iter().chain([&slots[0]]).enumerate() {
        reserve(&screening, slot, &claim(number as u128)).await.unwrap();
    }
    let behind = slots[0].replace("seoul", "samoa");
    reserve(&screening, &behind, &claim(9)).await.unwrap();
    let expect = |samoa, seoul| [("hospitals/samoa".to_owned(), samoa), ("hospitals/seoul".to_owned(), seoul)];
    assert_eq!(listed(&screening).await, expect(1, 4));
    house.stop().await;

    // The date itself counts until it is over, and in Samoa it is over 20 hours later than in Seoul.
    let house = House::open(dir.path(), noon_in(1), None).await;
    assert_eq!(listed(&house.anybody().await).await, expect(1, 4));
    house.stop().await;
    let house = House::open(dir.path(), noon_in(2), None).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    assert_eq!(listed(&admin).await, expect(1, 2));
    assert_eq!(get_hospital(&admin, "hospitals/seoul").await.active_booking_count, 2);
    let refusal = refused(
        admin.hospital().delete_hospital(deletion("hospitals/seoul", false)).await,
        Reason::HospitalHasBookings,
    );
    assert_eq!(refusal.value("activeBookingCount"), "2");
    let judge = v1::DeleteHospitalRequest { validate_only: true, ..deletion("hospitals/seoul", true) };
    let judged = admin.hospital().delete_hospital(judge).await.unwrap().into_inner();
    assert_eq!(judged.revocation_progress, Some(v1::RevocationProgress { total: 2, revoked: 0 }));
    let close = v1::CloseSlotRequest { name: slots[0].clone(), cancel_bookings: true, ..Default::default() };
    let past = refused(admin.hospital().close_slot(close).await, Reason::DateInPast);
    assert_eq!(past.value("today"), house.day(0).to_string());

    let deleting = admin.hospital().delete_hospital(deletion("hospitals/seoul", true)).await.unwrap().into_inner();
    assert_eq!(deleting.revocation_progress.unwrap().total, 2);
    deleted(&admin, "hospitals/seoul").await;
    assert_eq!(facts(&house.sound_events().await)["capacity_revoked"], 2);
    let booked = [2, 0, 0];
    for (slot, booked) in slots.iter().zip(booked) {
        assert_eq!(assert_slot_adds_up(&screening, slot).await.booked_count, booked);
    }
    assert_eq!(claims(&screening, &slots[0], "state=ACTIVE").await.len(), 2);
    house.stop().await;

    // If every booking is over, a deletion needs no `force` and ends at once.
    let house = House::open(dir.path(), noon_in(4), None).await;
    let admin = house.admin().await;
    let gone = admin.hospital().delete_hospital(deletion("hospitals/samoa", false)).await.unwrap().into_inner();
    assert_eq!((gone.state(), gone.active_booking_count), (HospitalState::Deleted, 0));
    assert_eq!(get_slot(&admin, &behind).await.booked_count, 1);
    house.stop().await;
}

/// A service whose hospital has `each` bookings on each of two dates. The clock stands on the first date.
async fn on_the_day(each: usize, budget: &Arc<Budget>) -> (House, tempfile::TempDir, Vec<String>) {
    let (house, dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2], 2_000).await;
    let screening = house.screening().await;
    let answers = rush(2 * each, |i| {
        let (party, slot) = (screening.clone(), slots[i % 2].clone());
        async move { reserve(&party, &slot, &claim(i as u128)).await.map(drop) }
    })
    .await;
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
    house.stop().await;
    let house = House::open(dir.path(), noon_in(1), Some(budget.clone())).await;
    (house, dir, slots)
}

/// Makes a change after which no commit succeeds, so that another process has to continue it. If background work uses
/// up the one commit, the change is tried again.
async fn last<T>(budget: &Budget, change: impl AsyncFn() -> Result<Response<T>, Status>) -> T {
    eventually("the last commit", async || {
        budget.set(1);
        change().await.map(Response::into_inner).map_err(|status| status.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_takes_what_was_not_over_when_it_began() {
    const EACH: usize = 1_200;
    let budget = Budget::unlimited();
    let (house, dir, slots) = on_the_day(EACH, &budget).await;
    let admin = house.admin().await;
    let delete = async || admin.hospital().delete_hospital(deletion("hospitals/seoul", true)).await;
    let deleting = last(&budget, delete).await;
    let total = i32::try_from(2 * EACH).unwrap();
    assert_eq!(deleting.revocation_progress, Some(v1::RevocationProgress { total, revoked: 0 }));
    house.stop().await;

    let house = House::open(dir.path(), noon_in(2), None).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let after = deleted(&admin, "hospitals/seoul").await;
    assert_eq!(after.revocation_progress, Some(v1::RevocationProgress { total, revoked: total }));
    for slot in &slots {
        assert_eq!(assert_slot_adds_up(&screening, slot).await.booked_count, 0);
    }
    assert_eq!(facts(&house.sound_events().await)["capacity_revoked"], 2 * EACH);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_that_began_in_time_goes_on_after_midnight() {
    const EACH: usize = 1_200;
    let budget = Budget::unlimited();
    let (house, dir, slots) = on_the_day(EACH, &budget).await;
    let cancel = v1::CloseSlotRequest { name: slots[0].clone(), cancel_bookings: true, ..Default::default() };
    let admin = house.admin().await;
    let cancelling = last(&budget, async || admin.hospital().close_slot(cancel.clone()).await).await;
    assert_eq!(cancelling.booked_count, 200, "one chunk goes with the answer");
    house.stop().await;

    let house = House::open(dir.path(), noon_in(2), None).await;
    let screening = house.screening().await;
    eventually("the cancellation", async || match get_slot(&screening, &slots[0]).await.booked_count {
        0 => Ok(()),
        left => Err(format!("{left} left")),
    })
    .await;
    assert_eq!(assert_slot_adds_up(&screening, &slots[0]).await.booked_count, 0);
    assert_eq!(get_slot(&screening, &slots[1]).await.booked_count, i32::try_from(EACH).unwrap());
    house.stop().await;
}
