//! The races of the contract that this service decides, named by their numbers and run with real concurrency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::capacity::v1 as capacity;
use contract::capacity::v1::capacity_claim::State as ClaimState;
use contract::hospital::v1;
use fault::Reason;
use runtime::clock::Clock;
use sea_orm::{SqliteTransactionMode, TransactionOptions, TransactionTrait};
use testkit::{Party, Refusal, eventually, gather, refused, refused_one_of, rush, start_together};
use tonic::{Response, Status};
use v1::hospital::State as HospitalState;
use v1::set_slot_capacity_request::Change;

use crate::support::{
    FILE, House, assert_slot_adds_up, claim, claims, facts, get_hospital, get_slot, hours, release, request_id, reserve,
};

async fn shift(party: &Party, slot: &str, delta: i32, request_id: &str) -> Result<v1::Slot, Status> {
    let (name, change, etag) = (slot.to_owned(), Some(Change::Delta(delta)), String::new());
    let request = v1::SetSlotCapacityRequest { name, change, etag, request_id: request_id.into() };
    party.hospital().set_slot_capacity(request).await.map(Response::into_inner)
}

async fn delete(party: &Party, request: v1::DeleteHospitalRequest) -> Result<v1::Hospital, Status> {
    party.hospital().delete_hospital(request).await.map(Response::into_inner)
}

/// Reads a slot by every method and checks its counts, until `stop` is set. Returns the number of rounds.
async fn watch(party: Party, slot: String, stop: Arc<AtomicBool>) -> usize {
    let mut looks = 0;
    let parent = slot.split("/slots").next().unwrap().to_owned();
    while !stop.load(Ordering::SeqCst) {
        let one = get_slot(&party, &slot).await;
        let list = v1::ListSlotsRequest { parent: parent.clone(), ..Default::default() };
        let listed = party.hospital().list_slots(list).await.unwrap().into_inner().slots;
        for seen in listed.iter().chain([&one]) {
            assert!(seen.booked_count <= seen.capacity && seen.booked_count >= 0, "{seen:?}");
            assert_eq!(seen.remaining_count, seen.capacity - seen.booked_count);
        }
        let hospital = get_hospital(&party, &parent).await;
        assert!(hospital.active_booking_count <= one.capacity);
        looks += 1;
    }
    looks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_reserve_against_reserve_for_the_last_places() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watchers: Vec<Party> = vec![house.anybody().await, house.anybody().await];
    let watching = start_together(2, |i| watch(watchers[i].clone(), slot.clone(), Arc::clone(&stop)));
    let parties = [house.screening().await, house.screening().await, house.screening().await];
    let answers = rush(200, |i| {
        let (party, slot) = (parties[i % 3].clone(), slot.clone());
        async move { reserve(&party, &slot, &claim(i as u128)).await }
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    assert!(gather(watching).await.into_iter().all(|looks| looks > 0));
    let (taken, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((taken.len(), refusals.len()), (10, 190));
    for refusal in refusals {
        assert_eq!(refused(refusal, Reason::SlotFull).value("remaining"), "0");
    }
    let after = assert_slot_adds_up(&parties[0], &slot).await;
    assert_eq!((after.booked_count, after.version), (10, 11));
    assert_eq!(facts(&house.sound_events().await)["capacity_reserved"], 10);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_reserve_against_a_capacity_reduction() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 60).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let answers = rush(60, |i| {
        let (admin, screening, slot) = (admin.clone(), screening.clone(), slot.clone());
        async move {
            if i % 6 == 0 {
                shift(&admin, &slot, -5, "").await.map(drop)
            } else {
                reserve(&screening, &slot, &claim(i as u128)).await.map(drop)
            }
        }
    })
    .await;
    for answer in answers.into_iter().filter(Result::is_err) {
        let refusal = refused_one_of(answer, &[Reason::SlotFull, Reason::CapacityBelowBooked]);
        if refusal.reason == "CAPACITY_BELOW_BOOKED" {
            let number = |key: &str| refusal.value(key).parse::<i32>().unwrap();
            assert!(number("requestedCapacity") < number("bookedCount"));
        }
    }
    assert_slot_adds_up(&screening, &slot).await;
    house.sound_events().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_reserve_against_close() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 1_000).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let asking = start_together(100, |i| {
        let (party, slot) = (screening.clone(), slot.clone());
        async move { reserve(&party, &slot, &claim(i as u128)).await }
    });
    let close = v1::CloseSlotRequest { name: slot.clone(), ..Default::default() };
    let closed = admin.hospital().close_slot(close).await.unwrap().into_inner();
    let late = refused(reserve(&screening, &slot, &claim(999)).await, Reason::SlotClosed);
    assert_eq!(late.value("slot"), slot);
    let answers = gather(asking).await;
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    for answer in answers.into_iter().filter(Result::is_err) {
        refused(answer, Reason::SlotClosed);
    }
    let after = assert_slot_adds_up(&screening, &slot).await;
    assert_eq!((after.booked_count, after.version), (closed.booked_count, closed.version), "no claim after the close");
    assert_eq!(usize::try_from(after.booked_count).unwrap(), taken);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_reserve_against_the_deletion_of_the_hospital() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2, 3], 1_000).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let asking = start_together(150, |i| {
        let (party, slot) = (screening.clone(), slots[i % 3].clone());
        async move { (slot.clone(), claim(i as u128), reserve(&party, &slot, &claim(i as u128)).await) }
    });
    let request = v1::DeleteHospitalRequest { name: "hospitals/seoul".into(), force: true, ..Default::default() };
    let deleting = delete(&admin, request).await.unwrap();
    refused(reserve(&screening, &slots[0], &claim(999)).await, Reason::HospitalDeleted);
    let mut taken = 0;
    let answers = gather(asking).await;
    eventually("the deletion", async || {
        let state = get_hospital(&admin, "hospitals/seoul").await.state();
        if state == HospitalState::Deleted { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    for (slot, id, answer) in answers {
        match answer {
            Ok(_) => {
                taken += 1;
                let get = capacity::GetCapacityClaimRequest { slot, claim_id: id };
                let read = screening.capacity().get_capacity_claim(get).await.unwrap().into_inner();
                assert_eq!(read.state(), ClaimState::Revoked, "what was taken before the deletion is revoked");
                assert_eq!(read.revoke_reason(), capacity::capacity_claim::RevokeReason::HospitalDeleted);
            }
            Err(status) => drop(refused(Err::<(), _>(status), Reason::HospitalDeleted)),
        }
    }
    assert_eq!(deleting.revocation_progress.unwrap().total, taken);
    for slot in &slots {
        assert_eq!(assert_slot_adds_up(&screening, slot).await.booked_count, 0);
    }
    house.sound_events().await;
    house.stop().await;
}

#[tokio::test]
async fn r5_a_release_of_a_revoked_claim_is_a_no_op() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    reserve(&screening, &slot, &claim(1)).await.unwrap();
    let close = v1::CloseSlotRequest { name: slot.clone(), cancel_bookings: true, ..Default::default() };
    let closed = admin.hospital().close_slot(close).await.unwrap().into_inner();
    assert_eq!(closed.booked_count, 0);
    let released = release(&screening, &slot, &claim(1)).await.unwrap();
    assert_eq!(released.state(), ClaimState::Revoked);
    assert_eq!(get_slot(&admin, &slot).await, closed);
    assert!(!facts(&house.sound_events().await).contains_key("capacity_released"));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_a_place_comes_back_once_however_often_it_is_given_back() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let screening = house.screening().await;
    reserve(&screening, &slot, &claim(1)).await.unwrap();
    reserve(&screening, &slot, &claim(2)).await.unwrap();
    let answers = rush(40, |_| {
        let (party, slot) = (screening.clone(), slot.clone());
        async move { release(&party, &slot, &claim(1)).await.unwrap() }
    })
    .await;
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(assert_slot_adds_up(&screening, &slot).await.booked_count, 1);
    assert_eq!(facts(&house.sound_events().await)["capacity_released"], 1);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_one_request_id_many_times_at_once_is_done_once() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let admin = house.admin().await;
    let id = request_id();
    let answers = rush(40, |i| {
        let id = if i % 2 == 0 { id.to_uppercase() } else { id.clone() };
        let (party, slot) = (admin.clone(), slot.clone());
        async move { shift(&party, &slot, 3, &id).await.unwrap() }
    })
    .await;
    assert!(answers.iter().all(|answer| answer.capacity == 13));
    assert_eq!(facts(&house.sound_events().await)["slot_capacity_changed"], 1);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r8_a_repeat_whose_time_runs_out_first_is_told_to_wait() {
    let (house, dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let admin = house.admin().await;
    let path = dir.path().join(FILE);
    let other = sea_orm::Database::connect(format!("sqlite://{}?mode=rw", path.display())).await.unwrap();
    let immediate = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let lock = other.begin_with_options(immediate).await.unwrap();
    let id = request_id();
    let first = {
        let (admin, slot, id) = (admin.clone(), slot.clone(), id.clone());
        start_together(1, move |_| {
            let (admin, slot, id) = (admin.clone(), slot.clone(), id.clone());
            async move { shift(&admin, &slot, 3, &id).await }
        })
    };
    let hurried = admin.clone().with_deadline(Duration::from_millis(300));
    let refusal = eventually("a repeat that meets the first call", async || {
        match Refusal::of(&shift(&hurried, &slot, 3, &id).await.unwrap_err()) {
            Some(refusal) if refusal.reason == "REQUEST_IN_PROGRESS" => Ok(refusal),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(refusal.retry_after.is_some());
    assert_eq!(refusal.value("requestId"), id);
    lock.rollback().await.unwrap();
    assert_eq!(gather(first).await.remove(0).unwrap().capacity, 13);
    assert_eq!(shift(&admin, &slot, 3, &id).await.unwrap().capacity, 13);
    house.stop().await;
}

#[tokio::test]
async fn r9_a_request_id_with_other_content_is_refused_before_any_work() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let admin = house.admin().await;
    let id = request_id();
    shift(&admin, &slot, 3, &id).await.unwrap();
    let refusal = refused(shift(&admin, &slot, 4, &id).await, Reason::RequestIdReused);
    assert_eq!(refusal.value("requestId"), id);
    let close = v1::CloseSlotRequest { name: slot.clone(), request_id: id.clone(), ..Default::default() };
    admin.hospital().close_slot(close).await.unwrap();
    shift(&house.admin_of("seoul").await, &slot, 4, &id).await.unwrap();
    assert_eq!(get_slot(&admin, &slot).await.capacity, 17, "the scope of an id is one caller and one method");
    house.stop().await;
}

#[tokio::test]
async fn r10_a_retry_after_a_refusal_is_judged_afresh() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 1).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    reserve(&screening, &slot, &claim(1)).await.unwrap();
    let id = request_id();
    refused(shift(&admin, &slot, -1, &id).await, Reason::CapacityBelowBooked);
    refused(reserve(&screening, &slot, &claim(2)).await, Reason::SlotFull);
    release(&screening, &slot, &claim(1)).await.unwrap();
    assert_eq!(reserve(&screening, &slot, &claim(2)).await.unwrap().state(), ClaimState::Active);
    release(&screening, &slot, &claim(2)).await.unwrap();
    assert_eq!(shift(&admin, &slot, -1, &id).await.unwrap().capacity, 0);
    house.stop().await;
}

#[tokio::test]
async fn r14_a_date_is_bookable_inside_of_its_window_only() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[0, 1, 2, 30], 5).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let today = refused(reserve(&screening, &slots[0], &claim(1)).await, Reason::OutsideBookingWindow);
    assert_eq!((today.value("today"), today.value("timeZone")), (house.day(0).to_string().as_str(), "Asia/Seoul"));
    assert!(today.value("opensAt") < today.value("closesAt"));
    reserve(&screening, &slots[1], &claim(2)).await.unwrap();
    let policy = v1::BookingPolicy {
        min_notice: hours(13),
        max_advance: hours(24 * 20),
        cancellation_cutoff: hours(1),
        ..Default::default()
    };
    let hospital = v1::Hospital { name: "hospitals/seoul".into(), booking_policy: Some(policy), ..Default::default() };
    let update = v1::UpdateHospitalRequest { hospital: Some(hospital), update_mask: None };
    admin.hospital().update_hospital(update).await.unwrap();
    let soon = refused(reserve(&screening, &slots[1], &claim(3)).await, Reason::OutsideBookingWindow);
    assert!(soon.value("closesAt") < soon.value("now"));
    let late = refused(reserve(&screening, &slots[3], &claim(3)).await, Reason::OutsideBookingWindow);
    assert!(late.value("now") < late.value("opensAt"));
    let terms = reserve(&screening, &slots[2], &claim(3)).await.unwrap().terms.unwrap();
    let midnight = domain::civil::begin_of(house.day(2), &jiff::tz::TimeZone::get("Asia/Seoul").unwrap());
    assert_eq!(terms.cancellation_close_time.unwrap().seconds, midnight.as_second() - 3_600);
    house.stop().await;
}

#[tokio::test]
async fn r14_a_date_that_is_over_is_in_the_past() {
    let (house, dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let later = house.now() + jiff::SignedDuration::from_hours(48);
    house.stop().await;
    let shift = later.duration_since(Clock::system().now());
    let house = House::open(dir.path(), Clock::shifted(shift), None).await;
    let past = refused(reserve(&house.screening().await, &slot, &claim(1)).await, Reason::DateInPast);
    assert_eq!((past.value("today"), past.value("timeZone")), (house.day(0).to_string().as_str(), "Asia/Seoul"));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_of_two_admins_with_one_etag_one_wins() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let etag = get_slot(&admin, &slot).await.etag;
    reserve(&screening, &slot, &claim(1)).await.unwrap();
    assert_eq!(get_slot(&admin, &slot).await.etag, etag, "a booking does not change the etag");
    let answers = rush(8, |i| {
        let change = Some(Change::Capacity(20 + i32::try_from(i).unwrap()));
        let request =
            v1::SetSlotCapacityRequest { name: slot.clone(), change, etag: etag.clone(), ..Default::default() };
        let admin = admin.clone();
        async move { admin.hospital().set_slot_capacity(request).await.map(Response::into_inner) }
    })
    .await;
    let current = get_slot(&admin, &slot).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for answer in answers.into_iter().filter(Result::is_err) {
        assert_eq!(refused(answer, Reason::EtagMismatch).value("currentEtag"), current.etag);
    }
    let rename = |name: &str, etag: &str| {
        let hospital = v1::Hospital {
            name: "hospitals/seoul".into(),
            display_name: name.into(),
            etag: etag.into(),
            ..Default::default()
        };
        v1::UpdateHospitalRequest { hospital: Some(hospital), update_mask: None }
    };
    let before = get_hospital(&admin, "hospitals/seoul").await.etag;
    admin.hospital().update_hospital(rename("First", &before)).await.unwrap();
    refused(admin.hospital().update_hospital(rename("Second", &before)).await, Reason::EtagMismatch);
    let request = v1::DeleteHospitalRequest { name: "hospitals/seoul".into(), etag: before, ..Default::default() };
    refused(delete(&admin, request).await, Reason::EtagMismatch);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_two_deletes_agree() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    for number in 0..3 {
        reserve(&screening, &slot, &claim(number)).await.unwrap();
    }
    let etag = get_hospital(&admin, "hospitals/seoul").await.etag;
    let request = |request_id: String| v1::DeleteHospitalRequest {
        name: "hospitals/seoul".into(),
        etag: etag.clone(),
        force: true,
        reason: "moving".into(),
        request_id,
        ..Default::default()
    };
    let id = request_id();
    let answers = rush(10, |i| {
        let (admin, request) = (admin.clone(), request(if i % 2 == 0 { id.clone() } else { request_id() }));
        async move { delete(&admin, request).await.unwrap() }
    })
    .await;
    for answer in &answers {
        assert_ne!(answer.state(), HospitalState::Active);
        assert_eq!(answer.revocation_progress.unwrap().total, 3);
    }
    eventually("the deletion", async || {
        let state = get_hospital(&admin, "hospitals/seoul").await.state();
        if state == HospitalState::Deleted { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    let again = delete(&admin, request(id)).await.unwrap();
    assert_eq!((again.state(), again.active_booking_count), (HospitalState::Deleted, 0));
    assert_eq!(claims(&screening, &slot, "state=REVOKED").await.len(), 3);
    let facts = facts(&house.sound_events().await);
    assert_eq!((facts["hospital_deletion_started"], facts["hospital_deleted"], facts["capacity_revoked"]), (1, 1, 3));
    house.stop().await;
}
