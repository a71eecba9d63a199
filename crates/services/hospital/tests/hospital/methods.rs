//! Every method on its happy path.

use contract::capacity::v1::GetCapacityClaimRequest;
use contract::capacity::v1::capacity_claim::State as ClaimState;
use contract::event::v1::event_envelope::Payload;
use contract::hospital::v1::hospital::State as HospitalState;
use contract::hospital::v1::set_slot_capacity_request::Change;
use contract::hospital::v1::slot::State as SlotState;
use contract::hospital::v1::{
    BatchCreateSlotsRequest, BookingPolicy, CloseSlotRequest, CreateSlotRequest, Hospital, ReopenSlotRequest,
    SearchAvailabilityRequest, SetSlotCapacityRequest, Slot, UpdateHospitalRequest,
};
use prost_types::{Duration, FieldMask};
use testkit::day_of;

use crate::support::{House, claim, get_hospital, get_slot, hours, release, request_id, reserve};

#[tokio::test]
async fn a_hospital_is_registered_with_its_dates_and_read_back() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let mut request = house.draft("seoul", &[3, 1], 20);
    request.request_id = request_id();
    request.hospital.as_mut().unwrap().state = 77;
    let made = admin.hospital().create_hospital(request.clone()).await.unwrap().into_inner();
    assert_eq!((made.name.as_str(), made.state()), ("hospitals/seoul", HospitalState::Active));
    assert_eq!((made.display_name.as_str(), made.time_zone.as_str()), ("Hospital seoul", "Asia/Seoul"));
    let policy = made.booking_policy.unwrap();
    assert_eq!((policy.min_notice, policy.max_advance, policy.cancellation_cutoff), (hours(0), hours(8_784), hours(0)));
    assert_eq!((made.active_booking_count, made.revocation_progress, made.delete_time), (0, None, None));
    assert!(made.create_time.is_some() && made.update_time == made.create_time && !made.etag.is_empty());
    assert_eq!(get_hospital(&house.anybody().await, "hospitals/seoul").await, made);
    assert_eq!(admin.hospital().create_hospital(request).await.unwrap().into_inner(), made, "a replay answers it");
    let slot = get_slot(&admin, &format!("hospitals/seoul/slots/{}", house.day(3))).await;
    assert_eq!((slot.capacity, slot.booked_count, slot.remaining_count, slot.version), (20, 0, 20, 1));
    assert_eq!((slot.state(), slot.date), (SlotState::Open, Some(day_of(house.day(3)))));
    let events = house.sound_events().await;
    assert_eq!(events.len(), 3);
    assert!(matches!(events[0].payload, Some(Payload::HospitalRegistered(_))));
    assert_eq!(events[1].aggregate, slot.name);
    assert_eq!(events[0].actor, "admin:root");
    assert!(!events[0].request_id.is_empty() && !events[0].traceparent.is_empty());
    house.stop().await;
}

#[tokio::test]
async fn a_hospital_without_a_chosen_id_gets_one_and_keeps_it_on_a_replay() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let mut request = house.draft("", &[1], 5);
    request.request_id = request_id();
    let made = admin.hospital().create_hospital(request.clone()).await.unwrap().into_inner();
    let again = admin.hospital().create_hospital(request.clone()).await.unwrap().into_inner();
    assert_eq!(made, again);
    request.request_id.clear();
    let other = admin.hospital().create_hospital(request).await.unwrap().into_inner();
    assert!(made.name < other.name, "ids that the server makes are in the order of time");
    house.stop().await;
}

#[tokio::test]
async fn an_update_changes_what_its_mask_says() {
    let (house, _dir) = House::start().await;
    house.slot("seoul", 5).await;
    let admin = house.admin_of("seoul").await;
    let name = || "hospitals/seoul".to_owned();
    let policy = BookingPolicy {
        min_notice: hours(24),
        max_advance: None,
        cancellation_cutoff: Some(Duration { seconds: 1, nanos: 5 }),
        waitlist_limit: Some(0),
        customer_limit: Some(1),
        ..BookingPolicy::default()
    };
    let hospital = Hospital { name: name(), booking_policy: Some(policy), ..Hospital::default() };
    let update = UpdateHospitalRequest { hospital: Some(hospital), update_mask: None };
    let changed = admin.hospital().update_hospital(update).await.unwrap().into_inner();
    assert_eq!(
        changed.booking_policy,
        Some(BookingPolicy {
            max_advance: hours(8_784),
            promotion_min_notice: hours(24),
            reschedule_limit: Some(3),
            ..policy
        })
    );
    assert_eq!(changed.display_name, "Hospital seoul");
    let hospital = Hospital {
        name: name(),
        display_name: "Seoul Central".into(),
        time_zone: "Asia/Seoul".into(),
        etag: changed.etag.clone(),
        ..Hospital::default()
    };
    let mask = FieldMask { paths: vec!["*".into()] };
    let update = UpdateHospitalRequest { hospital: Some(hospital), update_mask: Some(mask) };
    let replaced = admin.hospital().update_hospital(update.clone()).await.unwrap().into_inner();
    assert_eq!(
        (replaced.display_name.as_str(), replaced.booking_policy.unwrap().min_notice),
        ("Seoul Central", hours(0))
    );
    assert_ne!(replaced.etag, changed.etag);
    let mut same = update;
    same.hospital.as_mut().unwrap().etag.clear();
    let unchanged = admin.hospital().update_hospital(same).await.unwrap().into_inner();
    assert_eq!(unchanged, replaced, "what changes nothing leaves the etag");
    let updates = house.sound_events().await;
    let Some(Payload::HospitalUpdated(last)) = &updates.last().unwrap().payload else { panic!("another fact") };
    let fields = ["min_notice", "cancellation_cutoff", "waitlist_limit", "customer_limit"];
    let policy = fields.map(|field| format!("booking_policy.{field}"));
    assert_eq!(last.changed_paths, [&["display_name".to_owned()], policy.as_slice()].concat());
    house.stop().await;
}

#[tokio::test]
async fn dates_are_opened_one_by_one_or_together() {
    let (house, _dir) = House::start().await;
    house.slot("seoul", 5).await;
    let admin = house.admin_of("seoul").await;
    let new = |days: i32| CreateSlotRequest {
        parent: "hospitals/seoul".into(),
        slot: Some(Slot { date: Some(day_of(house.day(days))), capacity: days, ..Slot::default() }),
        ..CreateSlotRequest::default()
    };
    let today = admin.hospital().create_slot(new(0)).await.unwrap().into_inner();
    assert_eq!((today.capacity, today.state()), (0, SlotState::Open));
    let batch = BatchCreateSlotsRequest {
        parent: "hospitals/seoul".into(),
        requests: vec![new(9), CreateSlotRequest { parent: String::new(), ..new(7) }],
        request_id: request_id(),
        ..BatchCreateSlotsRequest::default()
    };
    let made = admin.hospital().batch_create_slots(batch.clone()).await.unwrap().into_inner().slots;
    assert_eq!(made.iter().map(|slot| slot.capacity).collect::<Vec<_>>(), [9, 7], "in the order of the requests");
    reserve(&house.screening().await, &made[0].name, &claim(1)).await.unwrap();
    let again = admin.hospital().batch_create_slots(batch).await.unwrap().into_inner().slots;
    assert_eq!((again[0].booked_count, again[1].booked_count), (1, 0), "a replay answers the slots as they are now");
    house.sound_events().await;
    house.stop().await;
}

#[tokio::test]
async fn capacity_is_set_with_an_etag_or_shifted_without() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let admin = house.admin_of("seoul").await;
    let set = |change, etag: &str, request_id: String| SetSlotCapacityRequest {
        name: slot.clone(),
        change: Some(change),
        etag: etag.into(),
        request_id,
    };
    let before = get_slot(&admin, &slot).await;
    reserve(&house.screening().await, &slot, &claim(1)).await.unwrap();
    let request = set(Change::Capacity(8), &before.etag, String::new());
    let after = admin.hospital().set_slot_capacity(request).await.unwrap().into_inner();
    assert_eq!((after.capacity, after.remaining_count, after.version), (8, 7, 3));
    assert_ne!(after.etag, before.etag);
    let shift = set(Change::Delta(-2), "", request_id());
    for _ in 0..3 {
        let shifted = admin.hospital().set_slot_capacity(shift.clone()).await.unwrap().into_inner();
        assert_eq!(shifted.capacity, 6, "a repeat shifts nothing twice");
    }
    let nothing = admin.hospital().set_slot_capacity(set(Change::Delta(0), "", String::new())).await.unwrap();
    assert_eq!(nothing.into_inner().version, 4);
    let events = house.sound_events().await;
    let Some(Payload::SlotCapacityChanged(last)) = &events.last().unwrap().payload else { panic!("another fact") };
    assert_eq!((last.old_capacity, last.new_capacity, last.booked_count, last.slot_version), (8, 6, 1, 4));
    house.stop().await;
}

#[tokio::test]
async fn a_date_is_closed_and_reopened_and_twice_changes_nothing() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let admin = house.admin_of("seoul").await;
    reserve(&house.screening().await, &slot, &claim(1)).await.unwrap();
    let close = CloseSlotRequest { name: slot.clone(), reason: "staff".into(), ..CloseSlotRequest::default() };
    let closed = admin.hospital().close_slot(close.clone()).await.unwrap().into_inner();
    assert_eq!((closed.state(), closed.booked_count, closed.remaining_count), (SlotState::Closed, 1, 4));
    assert_eq!(admin.hospital().close_slot(close).await.unwrap().into_inner(), closed);
    let reopen = ReopenSlotRequest { name: slot.clone(), etag: closed.etag.clone(), request_id: request_id() };
    let open = admin.hospital().reopen_slot(reopen.clone()).await.unwrap().into_inner();
    assert_eq!((open.state(), open.version), (SlotState::Open, closed.version + 1));
    assert_eq!(
        admin.hospital().reopen_slot(reopen).await.unwrap().into_inner(),
        open,
        "its etag is stale, it is a replay"
    );
    let again = ReopenSlotRequest { name: slot, ..ReopenSlotRequest::default() };
    assert_eq!(admin.hospital().reopen_slot(again).await.unwrap().into_inner(), open);
    house.sound_events().await;
    house.stop().await;
}

#[tokio::test]
async fn a_place_is_taken_and_given_back() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let screening = house.screening().await;
    let taken = reserve(&screening, &slot, &claim(1)).await.unwrap();
    assert_eq!((taken.state(), taken.slot_version, taken.slot.as_str()), (ClaimState::Active, 2, slot.as_str()));
    let terms = taken.terms.clone().unwrap();
    assert_eq!((terms.hospital_display_name.as_str(), terms.time_zone.as_str()), ("Hospital seoul", "Asia/Seoul"));
    let midnight = domain::civil::begin_of(house.day(1), &jiff::tz::TimeZone::get("Asia/Seoul").unwrap());
    assert_eq!(terms.cancellation_close_time, Some(domain::civil::encode_time(midnight)));
    assert_eq!(reserve(&screening, &slot, &claim(1)).await.unwrap(), taken, "taking it again answers it as it is");
    let before = get_hospital(&screening, "hospitals/seoul").await;
    assert_eq!(before.active_booking_count, 1);
    let get = GetCapacityClaimRequest { slot: slot.clone(), claim_id: claim(1) };
    let read = house.served.auditor().await.capacity().get_capacity_claim(get).await.unwrap().into_inner();
    assert_eq!((read.state(), read.terms), (ClaimState::Active, None));
    let released = release(&screening, &slot, &claim(1)).await.unwrap();
    assert_eq!((released.state(), released.slot_version), (ClaimState::Released, 3));
    assert_eq!(release(&screening, &slot, &claim(1)).await.unwrap(), released);
    assert_eq!(get_slot(&screening, &slot).await.remaining_count, 5);
    let after = get_hospital(&screening, "hospitals/seoul").await;
    assert_eq!((after.active_booking_count, &after.etag), (0, &before.etag));
    let events = house.sound_events().await;
    let Some(Payload::CapacityReserved(reserved)) = &events[2].payload else { panic!("another fact") };
    assert_eq!((reserved.remaining_count, reserved.booked_count, reserved.capacity), (4, 1, 5));
    assert_eq!(events[2].aggregate, format!("{slot}/claims/{}", claim(1)));
    assert_eq!(events.len(), 4);
    house.stop().await;
}

#[tokio::test]
async fn a_search_finds_what_can_be_booked_now() {
    let (house, _dir) = House::start().await;
    let busan = house.hospital("busan", &[0, 1, 2], 1).await;
    let seoul = house.hospital("seoul", &[1, 2, 3], 5).await;
    let screening = house.screening().await;
    reserve(&screening, &busan[2], &claim(1)).await.unwrap();
    let close = CloseSlotRequest { name: seoul[2].clone(), ..CloseSlotRequest::default() };
    house.admin().await.hospital().close_slot(close).await.unwrap();
    let search = SearchAvailabilityRequest {
        start_date: Some(day_of(house.day(-5))),
        end_date: Some(day_of(house.day(5))),
        ..SearchAvailabilityRequest::default()
    };
    let anybody = house.anybody().await;
    let names = async |search: SearchAvailabilityRequest| {
        let page = anybody.hospital().search_availability(search).await.unwrap().into_inner();
        testkit::slots_of(page).into_iter().map(|slot| slot.name).collect::<Vec<_>>()
    };
    assert_eq!(names(search.clone()).await, [busan[1].as_str(), &seoul[0], &seoul[1]], "by date, then hospital");
    let many = SearchAvailabilityRequest { min_remaining: 2, ..search.clone() };
    assert_eq!(names(many).await, [seoul[0].as_str(), &seoul[1]]);
    let there = SearchAvailabilityRequest { hospitals: vec!["hospitals/busan".into()], ..search.clone() };
    assert_eq!(names(there.clone()).await, [busan[1].as_str()]);
    let delete = contract::hospital::v1::DeleteHospitalRequest {
        name: "hospitals/busan".into(),
        force: true,
        ..Default::default()
    };
    house.admin().await.hospital().delete_hospital(delete).await.unwrap();
    assert_eq!(names(there).await, Vec::<String>::new(), "a deleted hospital is left out");
    let until = SearchAvailabilityRequest { end_date: Some(day_of(house.day(2))), ..search };
    assert_eq!(names(until).await, [seoul[0].as_str()]);
    house.stop().await;
}
