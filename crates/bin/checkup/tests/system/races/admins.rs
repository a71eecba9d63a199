//! R17: two admins edit the same hospital or slot.

use contract::hospital::v1 as hospital;
use fault::Reason;
use hospital::set_slot_capacity_request::Change;
use hospital::{GetHospitalRequest, Hospital, SetSlotCapacityRequest, Slot, UpdateHospitalRequest};
use testkit::{Desk, Party, refused, rush, seed};
use tonic::{Response, Status};

use crate::launch;

async fn update(admin: Party, name: String, display_name: String, etag: String) -> Result<Hospital, Status> {
    let hospital = Hospital { name, display_name, etag, ..Hospital::default() };
    let request = UpdateHospitalRequest { hospital: Some(hospital), update_mask: None };
    admin.hospital().update_hospital(request).await.map(Response::into_inner)
}

async fn set(admin: Party, name: String, change: Change, etag: String, request_id: String) -> Result<Slot, Status> {
    let request = SetSlotCapacityRequest { name, change: Some(change), etag, request_id };
    admin.hospital().set_slot_capacity(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_of_two_admins_who_saw_the_same_one_writes() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).open("edited", &[7], 10).await.remove(0);
    let seen = GetHospitalRequest { name: "hospitals/edited".to_owned() };
    let seen = admin.hospital().get_hospital(seen).await.expect("the hospital").into_inner();

    let edits = rush(8, |i| update(admin.clone(), seen.name.clone(), format!("Name {i}"), seen.etag.clone())).await;
    let (done, refusals): (Vec<_>, Vec<_>) = edits.into_iter().partition(Result::is_ok);
    let winner = done.into_iter().flatten().next().expect("one of them writes");
    assert_eq!(refusals.len(), 7);
    for answer in refusals {
        let refusal = refused(answer, Reason::EtagMismatch);
        assert_eq!(refusal.value("currentEtag"), winner.etag);
        assert_eq!(refusal.resource.map(|(_, name)| name).as_deref(), Some("hospitals/edited"));
    }
    assert_ne!(winner.etag, seen.etag);

    // A booking does not change the etag.
    let before = Desk::of(&admin).slot(&slot).await.expect("the slot");
    Desk::of(&checkup.customer("kim").await).book("kim", &slot, "").await.expect("a place");
    let edits = rush(8, |i| {
        let capacity = 20 + i32::try_from(i).unwrap_or(0);
        set(admin.clone(), slot.clone(), Change::Capacity(capacity), before.etag.clone(), String::new())
    })
    .await;
    let (done, refusals): (Vec<_>, Vec<_>) = edits.into_iter().partition(Result::is_ok);
    assert_eq!((done.len(), refusals.len()), (1, 7));
    refusals.into_iter().for_each(|answer| drop(refused(answer, Reason::EtagMismatch)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_an_absolute_capacity_needs_an_etag_and_shifts_add_up() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).open("shifted", &[7], 10).await.remove(0);
    let blind = set(admin.clone(), slot.clone(), Change::Capacity(5), String::new(), String::new()).await;
    assert_eq!(refused(blind, Reason::EtagRequired).value("field"), "etag");
    let shifts = rush(16, |_| set(admin.clone(), slot.clone(), Change::Delta(1), String::new(), String::new())).await;
    shifts.into_iter().for_each(|answer| drop(answer.expect("a shift needs no etag")));
    assert_eq!(Desk::of(&admin).slot(&slot).await.expect("the slot").capacity, 26);
    // A repeated request changes the capacity once.
    let request_id = seed("r17").uuid().to_string();
    let shifts =
        rush(8, |_| set(admin.clone(), slot.clone(), Change::Delta(4), String::new(), request_id.clone())).await;
    for answer in shifts {
        assert_eq!(answer.expect("a replay").capacity, 30);
    }
    let stale = Desk::of(&admin).slot(&slot).await.expect("the slot").etag;
    set(admin.clone(), slot.clone(), Change::Delta(1), stale.clone(), String::new()).await.expect("a fresh etag");
    refused(set(admin.clone(), slot, Change::Delta(1), stale, String::new()).await, Reason::EtagMismatch);
}
