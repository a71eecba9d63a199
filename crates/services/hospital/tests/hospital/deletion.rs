//! Deletions and cancellations of many bookings: they proceed in chunks, survive restarts and reach the last claim.

use contract::capacity::v1::capacity_claim::RevokeReason;
use contract::event::v1::event_envelope::Payload;
use contract::hospital::v1;
use fault::Reason;
use testkit::{Party, eventually, refused, rush};
use tonic::Response;
use v1::hospital::State as HospitalState;
use v1::slot::State as SlotState;

use crate::support::{
    Budget, House, assert_slot_adds_up, claim, claims, facts, get_hospital, get_slot, noon, release, request_id,
    reserve,
};

/// Takes `count` places, spread over the slots. The claims are numbered from `first`.
async fn book(party: &Party, slots: &[String], first: usize, count: usize) {
    let answers = rush(count, |i| {
        let (party, slot) = (party.clone(), slots[i % slots.len()].clone());
        async move { reserve(&party, &slot, &claim((first + i) as u128)).await }
    })
    .await;
    for answer in answers {
        answer.unwrap();
    }
}

async fn deleted(party: &Party, name: &str) -> v1::Hospital {
    let mut last = -1;
    eventually("the deletion", async || {
        let hospital = get_hospital(party, name).await;
        let progress = hospital.revocation_progress.unwrap();
        assert!(progress.revoked >= last, "progress never goes back");
        assert_eq!(progress.total - progress.revoked, hospital.active_booking_count);
        last = progress.revoked;
        if hospital.state() == HospitalState::Deleted { Ok(hospital) } else { Err(format!("{progress:?}")) }
    })
    .await
}

fn request(force: bool) -> v1::DeleteHospitalRequest {
    v1::DeleteHospitalRequest {
        name: "hospitals/seoul".into(),
        force,
        reason: "moving house".into(),
        request_id: request_id(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_bookings_are_revoked_and_each_is_told_once() {
    const COUNT: usize = 2_500;
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2, 3, 4], 1_000).await;
    let bystander = house.slot("busan", 10).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    book(&screening, &slots[..3], 0, COUNT).await;
    reserve(&screening, &bystander, &claim(9_999)).await.unwrap();
    let refusal = refused(admin.hospital().delete_hospital(request(false)).await, Reason::HospitalHasBookings);
    assert_eq!(refusal.value("activeBookingCount"), COUNT.to_string());

    let asked = request(true);
    let deleting = admin.hospital().delete_hospital(asked.clone()).await.unwrap().into_inner();
    assert_eq!(
        (deleting.state(), deleting.revocation_progress.unwrap().total),
        (HospitalState::Deleting, COUNT as i32)
    );
    assert_eq!(get_slot(&admin, &slots[3]).await.state(), SlotState::Deleted);
    let after = deleted(&admin, "hospitals/seoul").await;
    let progress = after.revocation_progress.unwrap();
    assert_eq!((progress.total, progress.revoked), (COUNT as i32, COUNT as i32));
    assert_eq!(admin.hospital().delete_hospital(asked).await.unwrap().into_inner(), after);

    for slot in &slots {
        assert_eq!(assert_slot_adds_up(&screening, slot).await.booked_count, 0);
        assert!(claims(&screening, slot, "state!=REVOKED").await.is_empty());
    }
    assert_eq!(get_slot(&admin, &bystander).await.booked_count, 1);
    let events = house.sound_events().await;
    assert_eq!(facts(&events)["capacity_revoked"], COUNT);
    let Some(Payload::HospitalDeleted(last)) = &events.last().unwrap().payload else {
        panic!("another fact comes last")
    };
    assert_eq!(last.claims_revoked, COUNT as i32);
    for event in &events {
        if let Some(Payload::CapacityRevoked(revoked)) = &event.payload {
            assert_eq!((revoked.reason.as_str(), revoked.message.as_str()), ("HOSPITAL_DELETED", "moving house"));
            assert_eq!(event.actor, "admin:root");
        }
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_during_a_deletion_resumes_it() {
    const COUNT: usize = 2_200;
    let budget = Budget::unlimited();
    let (house, dir) = House::start_under(budget.clone()).await;
    let slots = house.hospital("seoul", &[1, 2], 2_000).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    book(&screening, &slots, 0, COUNT).await;
    // The deletion itself and one chunk are committed, and no commit after them.
    budget.set(2);
    admin.hospital().delete_hospital(request(true)).await.unwrap();
    eventually("the first chunk", async || {
        let revoked = get_hospital(&admin, "hospitals/seoul").await.revocation_progress.unwrap().revoked;
        if revoked == 1_000 { Ok(()) } else { Err(revoked.to_string()) }
    })
    .await;
    house.stop().await;

    let house = House::open(dir.path(), noon(), None).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    deleted(&admin, "hospitals/seoul").await;
    for slot in &slots {
        assert_eq!(assert_slot_adds_up(&screening, slot).await.booked_count, 0);
    }
    let events = house.sound_events().await;
    let facts = facts(&events);
    assert_eq!((facts["capacity_revoked"], facts["hospital_deleted"]), (COUNT, 1));
    let revoked = events.iter().filter(|event| matches!(event.payload, Some(Payload::CapacityRevoked(_))));
    assert!(revoked.clone().all(|event| event.actor == "admin:root"), "whoever asked is told after a restart too");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_given_back_during_a_deletion_are_not_revoked() {
    const COUNT: usize = 1_500;
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2], 1_000).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    book(&screening, &slots, 0, COUNT).await;
    let releasing = testkit::start_together(60, |i| {
        let (party, slot) = (screening.clone(), slots[i % 2].clone());
        async move { release(&party, &slot, &claim(i as u128)).await.unwrap() }
    });
    let deleting = admin.hospital().delete_hospital(request(true)).await.unwrap().into_inner();
    testkit::gather(releasing).await;
    let after = deleted(&admin, "hospitals/seoul").await;
    let progress = after.revocation_progress.unwrap();
    assert_eq!((progress.total, progress.revoked), (deleting.revocation_progress.unwrap().total, progress.total));
    let events = house.sound_events().await;
    let facts = facts(&events);
    let released = facts.get("capacity_released").copied().unwrap_or(0);
    assert_eq!(released + facts["capacity_revoked"], COUNT);
    let Some(Payload::HospitalDeleted(last)) = &events.last().unwrap().payload else {
        panic!("another fact comes last")
    };
    assert_eq!(usize::try_from(last.claims_revoked).unwrap(), facts["capacity_revoked"]);
    house.stop().await;
}

#[tokio::test]
async fn judging_a_deletion_answers_what_it_would_and_stores_nothing() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let validate = async |asked: &v1::DeleteHospitalRequest| {
        let request = v1::DeleteHospitalRequest { validate_only: true, ..asked.clone() };
        admin.hospital().delete_hospital(request).await.map(Response::into_inner)
    };
    for number in 0..3 {
        reserve(&screening, &slot, &claim(number)).await.unwrap();
    }
    let before = get_hospital(&admin, "hospitals/seoul").await;
    let events = house.events().await.len();
    refused(validate(&request(false)).await, Reason::HospitalHasBookings);
    let stale = v1::DeleteHospitalRequest { etag: "\"9\"".into(), ..request(true) };
    refused(validate(&stale).await, Reason::EtagMismatch);
    let asked = request(true);
    let judged = validate(&asked).await.unwrap();
    assert_eq!(judged.revocation_progress, Some(v1::RevocationProgress { total: 3, revoked: 0 }));
    assert_eq!(get_hospital(&admin, "hospitals/seoul").await, before);
    assert_eq!(house.events().await.len(), events);
    admin.hospital().delete_hospital(asked.clone()).await.unwrap();
    let after = deleted(&admin, "hospitals/seoul").await;
    assert_eq!(validate(&asked).await.unwrap(), after, "a replay is judged as one");
    let other = v1::DeleteHospitalRequest { reason: "another".into(), ..asked };
    refused(validate(&other).await, Reason::RequestIdReused);
    assert_eq!(validate(&request(false)).await.unwrap(), after, "deleting it again is OK");
    house.stop().await;
}

/// How many bookings a slot's cancellation is about, and how many of them are cancelled.
fn progress(slot: &v1::Slot) -> Option<(i32, i32)> {
    slot.revocation_progress.map(|progress| (progress.total, progress.revoked))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_s_bookings_are_cancelled_to_the_last_before_it_is_reopened() {
    const COUNT: usize = 2_300;
    let budget = Budget::unlimited();
    let (house, _dir) = House::start_under(budget.clone()).await;
    let slots = house.hospital("seoul", &[1, 2], 3_000).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    book(&screening, &slots[..1], 0, COUNT).await;
    reserve(&screening, &slots[1], &claim(9_999)).await.unwrap();
    let slot_before = get_slot(&admin, &slots[0]).await;
    let close = v1::CloseSlotRequest {
        name: slots[0].clone(),
        cancel_bookings: true,
        reason: "water damage".into(),
        ..Default::default()
    };
    let judged = v1::CloseSlotRequest { validate_only: true, ..close.clone() };
    let judged = admin.hospital().close_slot(judged).await.unwrap().into_inner();
    assert_eq!((judged.state(), judged.booked_count), (SlotState::Open, COUNT as i32));
    assert_eq!(progress(&judged), Some((COUNT as i32, 0)));
    let stops = v1::CloseSlotRequest { cancel_bookings: false, validate_only: true, ..close.clone() };
    assert_eq!(progress(admin.hospital().close_slot(stops).await.unwrap().get_ref()), None);
    assert_eq!(get_slot(&admin, &slots[0]).await, slot_before, "judging stores nothing");
    budget.set(1);
    let closed = admin.hospital().close_slot(close.clone()).await.unwrap().into_inner();
    assert_eq!((closed.state(), closed.booked_count), (SlotState::Closed, COUNT as i32 - 1_000));
    // the next chunk waits for the budget
    assert_eq!(progress(&closed), Some((COUNT as i32, 1_000)));
    assert_eq!(progress(&get_slot(&admin, &slots[0]).await), Some((COUNT as i32, 1_000)));
    let list = v1::ListSlotsRequest { parent: "hospitals/seoul".into(), ..Default::default() };
    let listed = admin.hospital().list_slots(list).await.unwrap().into_inner().slots;
    assert_eq!(listed.iter().map(progress).collect::<Vec<_>>(), [Some((COUNT as i32, 1_000)), None]);
    let reopen = v1::ReopenSlotRequest { name: slots[0].clone(), ..Default::default() };
    budget.set(i64::MAX);
    let open = eventually("the cancellation", async || {
        match admin.hospital().reopen_slot(reopen.clone()).await {
            Ok(open) => Ok(open.into_inner()),
            Err(status) => {
                let refusal = refused(Err::<(), _>(status), Reason::RevocationInProgress);
                assert!(refusal.retry_after.is_some());
                assert_eq!(refusal.value("slot"), slots[0]);
                assert_eq!(refusal.resource, Some(("Slot".to_owned(), slots[0].clone())));
                // A repetition while the cancellation is under way changes nothing.
                admin.hospital().close_slot(close.clone()).await.unwrap();
                Err(refusal.message)
            }
        }
    })
    .await;
    assert_eq!((open.state(), open.booked_count, progress(&open)), (SlotState::Open, 0, None));
    let ended = claims(&screening, &slots[0], "").await;
    assert_eq!(ended.len(), COUNT);
    assert!(ended.iter().all(|claim| claim.revoke_reason() == RevokeReason::SlotCancelled));
    assert!(ended.windows(2).all(|pair| pair[0].claim_id < pair[1].claim_id), "by claim id");
    reserve(&screening, &slots[0], &claim(COUNT as u128)).await.unwrap();
    assert_eq!(assert_slot_adds_up(&screening, &slots[0]).await.booked_count, 1);
    assert_eq!(get_slot(&admin, &slots[1]).await.booked_count, 1, "the other date is untouched");
    let events = house.sound_events().await;
    let counted = facts(&events);
    assert_eq!((counted["slot_closed"], counted["capacity_revoked"], counted["slot_opened"]), (1, COUNT, 3));
    let event = events.iter().find_map(|event| match &event.payload {
        Some(Payload::SlotClosed(closed)) => Some(closed),
        _ => None,
    });
    let event = event.unwrap();
    assert_eq!(
        (event.booked_count, event.bookings_cancelled, event.reason.as_str()),
        (COUNT as i32, true, "water damage")
    );
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hospital_deleted_while_a_slot_is_cancelled_ends_all_the_same() {
    const COUNT: usize = 2_100;
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2], 3_000).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    book(&screening, &slots, 0, COUNT).await;
    let close = v1::CloseSlotRequest { name: slots[0].clone(), cancel_bookings: true, ..Default::default() };
    admin.hospital().close_slot(close).await.unwrap();
    admin.hospital().delete_hospital(request(true)).await.unwrap();
    deleted(&admin, "hospitals/seoul").await;
    assert_eq!(facts(&house.sound_events().await)["capacity_revoked"], COUNT);
    house.stop().await;
}
