//! The refusals of each method, with the metadata that a client needs to act on them.

use contract::capacity::v1 as capacity;
use contract::hospital::v1;
use fault::Reason;
use testkit::{Refusal, day_of, refused};
use v1::set_slot_capacity_request::Change;

use crate::support::{House, ZONE, claim, get_slot, hours, release, request_id, reserve};

#[tokio::test]
async fn every_violation_is_named_at_once_in_field_order() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let mut request = house.draft("-bad", &[1, 1], -1);
    let hospital = request.hospital.as_mut().unwrap();
    hospital.display_name = "tab\there".into();
    hospital.time_zone = "Asia/Soul".into();
    hospital.booking_policy = Some(v1::BookingPolicy { max_advance: hours(8_785), ..v1::BookingPolicy::default() });
    request.initial_slots[1].date.as_mut().unwrap().day = 32;
    request.request_id = "not-a-uuid".into();
    let refusal = refused(admin.hospital().create_hospital(request).await, Reason::FieldInvalid);
    assert_eq!(
        refusal.complaints(),
        [
            ("hospital.display_name", "FIELD_INVALID"),
            ("hospital.time_zone", "TIME_ZONE_UNKNOWN"),
            ("hospital.booking_policy.max_advance", "FIELD_INVALID"),
            ("hospital_id", "FIELD_INVALID"),
            ("initial_slots[0].capacity", "FIELD_INVALID"),
            ("initial_slots[1].date", "DATE_INVALID"),
            ("initial_slots[1].capacity", "FIELD_INVALID"),
            ("request_id", "REQUEST_ID_MALFORMED"),
        ]
    );
    assert_eq!(refusal.value("field"), "hospital.display_name");
    let twice =
        refused(admin.hospital().create_hospital(house.draft("seoul", &[1, 2, 1], 1)).await, Reason::FieldInvalid);
    assert_eq!(twice.fields(), ["initial_slots[2].date"]);
    let many: Vec<i32> = (1..368).collect();
    let many = refused(admin.hospital().create_hospital(house.draft("seoul", &many, 1)).await, Reason::FieldInvalid);
    assert_eq!(many.fields(), ["initial_slots"]);
    assert!(house.events().await.is_empty(), "what is refused changes nothing");
    house.stop().await;
}

#[tokio::test]
async fn registering_is_all_or_nothing() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let past = refused(admin.hospital().create_hospital(house.draft("seoul", &[5, -1], 1)).await, Reason::DateInPast);
    assert_eq!(past.value("today"), house.day(0).to_string());
    assert_eq!(past.value("timeZone"), ZONE);
    assert!(house.events().await.is_empty());
    house.slot("seoul", 1).await;
    let taken =
        refused(admin.hospital().create_hospital(house.draft("seoul", &[], 1)).await, Reason::HospitalAlreadyExists);
    assert_eq!(taken.resource, Some(("Hospital".into(), "hospitals/seoul".into())));
    house.stop().await;
}

#[tokio::test]
async fn opening_a_date_is_refused_where_it_makes_no_sense() {
    let (house, _dir) = House::start().await;
    house.slot("seoul", 1).await;
    let admin = house.admin().await;
    let new = |parent: &str, days: i32| v1::CreateSlotRequest {
        parent: format!("hospitals/{parent}"),
        slot: Some(v1::Slot { date: Some(day_of(house.day(days))), capacity: 1, ..v1::Slot::default() }),
        ..Default::default()
    };
    let create = async |request| admin.hospital().create_slot(request).await;
    refused(create(new("nowhere", 1)).await, Reason::HospitalNotFound);
    refused(create(new("seoul", -1)).await, Reason::DateInPast);
    refused(create(new("seoul", 1)).await, Reason::SlotAlreadyExists);
    let refusal = refused(create(v1::CreateSlotRequest::default()).await, Reason::FieldInvalid);
    assert_eq!(refusal.fields(), ["parent", "slot"]);
    let batch = v1::BatchCreateSlotsRequest {
        parent: "hospitals/seoul".into(),
        requests: vec![v1::CreateSlotRequest { parent: String::new(), ..new("seoul", 5) }, new("seoul", 1)],
        ..Default::default()
    };
    refused(admin.hospital().batch_create_slots(batch).await, Reason::SlotAlreadyExists);
    let name = format!("hospitals/seoul/slots/{}", house.day(5));
    refused(admin.hospital().get_slot(v1::GetSlotRequest { name }).await, Reason::SlotNotFound);
    house.stop().await;
}

#[tokio::test]
async fn an_update_is_refused_where_it_would_move_the_hospital_or_name_what_is_not_there() {
    let (house, _dir) = House::start().await;
    house.slot("seoul", 1).await;
    let admin = house.admin().await;
    let update = async |hospital: v1::Hospital, paths: &[&str]| -> Refusal {
        let paths = paths.iter().map(ToString::to_string).collect();
        let hospital = v1::Hospital { name: "hospitals/seoul".into(), ..hospital };
        let mask = Some(prost_types::FieldMask { paths });
        let request = v1::UpdateHospitalRequest { hospital: Some(hospital), update_mask: mask };
        refused(admin.hospital().update_hospital(request).await, Reason::FieldInvalid)
    };
    let moved = || v1::Hospital { time_zone: "Asia/Tokyo".into(), display_name: "x".into(), ..v1::Hospital::default() };
    for paths in [&[][..], &["*"], &["display_name"]] {
        assert_eq!(update(moved(), paths).await.fields(), ["hospital.time_zone"]);
    }
    assert_eq!(update(v1::Hospital::default(), &["time_zone"]).await.fields(), ["update_mask"]);
    assert_eq!(update(v1::Hospital::default(), &["display_name"]).await.fields(), ["hospital.display_name"]);
    let nameless = v1::UpdateHospitalRequest::default();
    assert_eq!(refused(admin.hospital().update_hospital(nameless).await, Reason::FieldInvalid).fields(), ["hospital"]);
    house.stop().await;
}

#[tokio::test]
async fn a_capacity_keeps_to_its_range_and_to_what_is_booked() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 2).await;
    let screening = house.screening().await;
    reserve(&screening, &slot, &claim(1)).await.unwrap();
    reserve(&screening, &slot, &claim(2)).await.unwrap();
    let admin = house.admin().await;
    let set = async |change, etag: &str, reason| {
        let request = v1::SetSlotCapacityRequest {
            name: slot.clone(),
            change: Some(change),
            etag: etag.into(),
            ..Default::default()
        };
        refused(admin.hospital().set_slot_capacity(request).await, reason)
    };
    let etag = get_slot(&admin, &slot).await.etag;
    let below = set(Change::Capacity(1), &etag, Reason::CapacityBelowBooked).await;
    assert_eq!((below.value("bookedCount"), below.value("requestedCapacity")), ("2", "1"));
    assert_eq!(below.preconditions, [("CAPACITY_BELOW_BOOKED".to_owned(), slot.clone())]);
    set(Change::Delta(-1), "", Reason::CapacityBelowBooked).await;
    for delta in [-3, 99_999, i32::MIN, i32::MAX] {
        assert_eq!(set(Change::Delta(delta), "", Reason::FieldInvalid).await.fields(), ["delta"]);
        set(Change::Delta(delta), "\"99\"", Reason::EtagMismatch).await;
    }
    assert_eq!(set(Change::Capacity(5), "", Reason::EtagRequired).await.fields(), ["etag"]);
    assert_eq!(set(Change::Capacity(100_001), &etag, Reason::FieldInvalid).await.fields(), ["capacity"]);
    let neither = v1::SetSlotCapacityRequest { name: slot.clone(), ..Default::default() };
    refused(admin.hospital().set_slot_capacity(neither).await, Reason::FieldInvalid);
    assert_eq!(get_slot(&admin, &slot).await.version, 3);
    house.stop().await;
}

#[tokio::test]
async fn refusals_of_a_booking_come_in_the_order_of_the_contract() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[0, 1, 2], 1).await;
    let screening = house.screening().await;
    let refuse = async |slot: &str, number, reason| refused(reserve(&screening, slot, &claim(number)).await, reason);
    refuse("hospitals/nowhere/slots/2020-01-01", 1, Reason::HospitalNotFound).await;
    refuse("hospitals/seoul/slots/2020-01-01", 1, Reason::SlotNotFound).await;
    let admin = house.admin().await;
    let close = v1::CloseSlotRequest { name: slots[0].clone(), ..v1::CloseSlotRequest::default() };
    admin.hospital().close_slot(close.clone()).await.unwrap();
    refuse(&slots[0], 1, Reason::OutsideBookingWindow).await;
    reserve(&screening, &slots[1], &claim(2)).await.unwrap();
    let full = refuse(&slots[1], 1, Reason::SlotFull).await;
    assert_eq!((full.value("remaining"), full.value("slot")), ("0", slots[1].as_str()));
    assert_eq!(full.retry_after, None, "a full slot is nothing to wait for");
    admin.hospital().close_slot(v1::CloseSlotRequest { name: slots[1].clone(), ..close }).await.unwrap();
    refuse(&slots[1], 1, Reason::SlotClosed).await;
    let again = reserve(&screening, &slots[1], &claim(2)).await.unwrap();
    assert_eq!(again.state(), capacity::capacity_claim::State::Active, "a claim that exists answers before any rule");
    release(&screening, &slots[1], &claim(2)).await.unwrap();
    let ended = refuse(&slots[1], 2, Reason::ClaimTerminated).await;
    assert_eq!((ended.value("claimId"), ended.value("state")), (claim(2).as_str(), "RELEASED"));
    let delete = v1::DeleteHospitalRequest { name: "hospitals/seoul".into(), ..Default::default() };
    admin.hospital().delete_hospital(delete).await.unwrap();
    refuse("hospitals/seoul/slots/2020-01-01", 1, Reason::HospitalDeleted).await;
    refuse(&slots[1], 2, Reason::ClaimTerminated).await;
    house.stop().await;
}

#[tokio::test]
async fn a_claim_belongs_to_one_slot() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2], 5).await;
    let screening = house.screening().await;
    reserve(&screening, &slots[0], &claim(1)).await.unwrap();
    assert_eq!(refused(reserve(&screening, &slots[1], &claim(1)).await, Reason::FieldInvalid).fields(), ["slot"]);
    assert_eq!(refused(release(&screening, &slots[1], &claim(1)).await, Reason::FieldInvalid).fields(), ["slot"]);
    let elsewhere = capacity::GetCapacityClaimRequest { slot: slots[1].clone(), claim_id: claim(1) };
    refused(screening.capacity().get_capacity_claim(elsewhere).await, Reason::ClaimNotFound);
    for id in ["", "x.1", &claim(1)[..36], "00000000-0000-0000-0000-000000000001.0"] {
        assert_eq!(refused(reserve(&screening, &slots[0], id).await, Reason::FieldInvalid).fields(), ["claim_id"]);
    }
    house.stop().await;
}

#[tokio::test]
async fn a_deleted_hospital_changes_no_more_and_its_id_stays_taken() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 2).await;
    let admin = house.admin().await;
    let name = || "hospitals/seoul".to_owned();
    let increase = v1::CreateCapacityRequestRequest {
        parent: name(),
        capacity_request: Some(v1::CapacityRequest {
            slot: slot.clone(),
            additional_capacity: 1,
            ..Default::default()
        }),
        request_id: String::new(),
    };
    let marketing = house.marketing().await;
    let pending = marketing.hospital().create_capacity_request(increase.clone()).await.unwrap().into_inner().name;
    let delete = v1::DeleteHospitalRequest { name: name(), ..Default::default() };
    let deleted = admin.hospital().delete_hospital(delete).await.unwrap().into_inner();
    assert_eq!(deleted.state(), v1::hospital::State::Deleted, "nothing was booked");
    let progress = deleted.revocation_progress.unwrap();
    assert_eq!((progress.total, progress.revoked, deleted.delete_time.is_some()), (0, 0, true));
    let mut rpc = admin.hospital();
    let hospital = Some(v1::Hospital { name: name(), display_name: "New".into(), ..Default::default() });
    let update = v1::UpdateHospitalRequest { hospital, update_mask: None };
    refused(rpc.update_hospital(update).await, Reason::HospitalDeleted);
    let new = v1::CreateSlotRequest {
        parent: name(),
        slot: Some(v1::Slot { date: Some(day_of(house.day(9))), ..Default::default() }),
        ..Default::default()
    };
    refused(rpc.create_slot(new).await, Reason::HospitalDeleted);
    let shift = v1::SetSlotCapacityRequest { name: slot.clone(), change: Some(Change::Delta(1)), ..Default::default() };
    refused(rpc.set_slot_capacity(shift).await, Reason::HospitalDeleted);
    refused(
        rpc.close_slot(v1::CloseSlotRequest { name: slot.clone(), ..Default::default() }).await,
        Reason::HospitalDeleted,
    );
    refused(
        rpc.reopen_slot(v1::ReopenSlotRequest { name: slot.clone(), ..Default::default() }).await,
        Reason::HospitalDeleted,
    );
    refused(marketing.hospital().create_capacity_request(increase).await, Reason::HospitalDeleted);
    let approve = v1::ApproveCapacityRequestRequest { name: pending.clone(), ..Default::default() };
    refused(rpc.approve_capacity_request(approve).await, Reason::HospitalDeleted);
    let reject = v1::RejectCapacityRequestRequest { name: pending, ..Default::default() };
    refused(rpc.reject_capacity_request(reject).await, Reason::HospitalDeleted);
    refused(rpc.create_hospital(house.draft("seoul", &[], 1)).await, Reason::HospitalAlreadyExists);
    let read = get_slot(&admin, &slot).await;
    assert_eq!((read.state(), read.remaining_count), (v1::slot::State::Deleted, 2));
    house.sound_events().await;
    house.stop().await;
}

#[tokio::test]
async fn texts_keep_to_their_length() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 2).await;
    let admin = house.admin().await;
    let long = || "가".repeat(501);
    let close = v1::CloseSlotRequest { name: slot, reason: long(), request_id: request_id(), ..Default::default() };
    assert_eq!(refused(admin.hospital().close_slot(close).await, Reason::FieldInvalid).fields(), ["reason"]);
    let delete = v1::DeleteHospitalRequest { name: "hospitals/seoul".into(), reason: long(), ..Default::default() };
    assert_eq!(
        refused(admin.hospital().delete_hospital(delete.clone()).await, Reason::FieldInvalid).fields(),
        ["reason"]
    );
    let reject = v1::RejectCapacityRequestRequest { name: "x".into(), note: "\u{7}".into(), ..Default::default() };
    let refusal = refused(admin.hospital().reject_capacity_request(reject).await, Reason::FieldInvalid);
    assert_eq!(refusal.fields(), ["name", "note"]);
    let fitting = v1::DeleteHospitalRequest { reason: "가".repeat(500), ..delete };
    admin.hospital().delete_hospital(fitting).await.unwrap();
    house.stop().await;
}
