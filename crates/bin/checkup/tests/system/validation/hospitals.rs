//! The requests of HospitalService and CapacityService.

use contract::capacity::v1::*;
use contract::google::r#type::Date;
use contract::hospital::v1 as hospital;
use fault::Reason;
use hospital::set_slot_capacity_request::Change;
use hospital::*;
use prost_types::{Duration, FieldMask, Timestamp};
use testkit::{Checkup, Desk, Party, day_of, in_days, refused};

use super::{DATE, FIELD, FILTER, REQUEST_ID, TOKEN, ZONE, complains, hangul};
use crate::launch;

pub(super) fn slot(days: i32, capacity: i32) -> Slot {
    Slot { date: Some(day_of(in_days(Desk::ZONE, days))), capacity, ..Slot::default() }
}

fn hours(hours: i64) -> Option<Duration> {
    Some(Duration { seconds: hours * 3600, nanos: 0 })
}

fn clinic() -> Hospital {
    Hospital { display_name: "Clinic".to_owned(), time_zone: Desk::ZONE.to_owned(), ..Hospital::default() }
}

pub(super) async fn admin_of(checkup: &Checkup) -> Party {
    checkup.admin().await
}

pub(super) fn date(days: i32) -> Option<Date> {
    Some(day_of(in_days(Desk::ZONE, days)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hospital_with_everything_wrong_hears_it_all_at_once() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    let create = async |request: CreateHospitalRequest| admin.hospital().create_hospital(request).await;
    let policy = BookingPolicy {
        min_notice: Some(Duration { seconds: -1, nanos: 0 }),
        max_advance: hours(8785),
        cancellation_cutoff: Some(Duration { seconds: i64::MAX, nanos: i32::MIN }),
        waitlist_limit: Some(10_001),
        promotion_min_notice: Some(Duration { seconds: 8784 * 3600, nanos: 1 }),
        reschedule_limit: Some(101),
        customer_limit: Some(0),
    };
    let everything = CreateHospitalRequest {
        hospital: Some(Hospital {
            display_name: hangul(101),
            time_zone: "Mars/Olympus".to_owned(),
            booking_policy: Some(policy),
            ..Hospital::default()
        }),
        hospital_id: "Upper-Case".to_owned(),
        initial_slots: vec![
            slot(7, -1),
            Slot { date: None, capacity: 1, ..Slot::default() },
            Slot { date: Some(Date { year: 2027, month: 2, day: 29 }), capacity: 100_001, ..Slot::default() },
            slot(7, 1),
        ],
        request_id: "7".to_owned(),
    };
    complains(
        create(everything).await,
        &[
            ("hospital.display_name", FIELD),
            ("hospital.time_zone", ZONE),
            ("hospital.booking_policy.min_notice", FIELD),
            ("hospital.booking_policy.max_advance", FIELD),
            ("hospital.booking_policy.cancellation_cutoff", FIELD),
            ("hospital.booking_policy.waitlist_limit", FIELD),
            ("hospital.booking_policy.promotion_min_notice", FIELD),
            ("hospital.booking_policy.reschedule_limit", FIELD),
            ("hospital.booking_policy.customer_limit", FIELD),
            ("hospital_id", FIELD),
            ("initial_slots[0].capacity", FIELD),
            ("initial_slots[1].date", DATE),
            ("initial_slots[2].date", DATE),
            ("initial_slots[2].capacity", FIELD),
            ("initial_slots[3].date", FIELD),
            ("request_id", REQUEST_ID),
        ],
    );
    complains(create(CreateHospitalRequest::default()).await, &[("hospital", FIELD)]);
    let too_many = CreateHospitalRequest {
        hospital: Some(clinic()),
        initial_slots: (1..=367).map(|days| slot(days, 1)).collect(),
        ..CreateHospitalRequest::default()
    };
    complains(create(too_many).await, &[("initial_slots", FIELD)]);
    let list = ListHospitalsRequest::default();
    let made = admin.hospital().list_hospitals(list).await.expect("a list").into_inner().hospitals;
    assert!(made.is_empty(), "all or nothing: {made:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_just_within_the_limits_is_accepted() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    let policy = BookingPolicy {
        min_notice: hours(0),
        max_advance: hours(8784),
        cancellation_cutoff: hours(8784),
        waitlist_limit: Some(10_000),
        promotion_min_notice: hours(8784),
        reschedule_limit: Some(100),
        customer_limit: Some(1_000),
    };
    // Output-only fields are ignored if a client sends them, even with an unknown enum number.
    let hospital = Hospital {
        display_name: hangul(100),
        name: "hospitals/another".to_owned(),
        uid: "nonsense".to_owned(),
        state: 42,
        active_booking_count: -7,
        booking_policy: Some(policy),
        ..clinic()
    };
    let request = CreateHospitalRequest {
        hospital: Some(hospital),
        hospital_id: format!("a{}", "b".repeat(62)),
        initial_slots: (1..=366)
            .map(|days| Slot { name: "x".to_owned(), state: -1, booked_count: 9, ..slot(days, 100_000) })
            .collect(),
        request_id: "7F2C1A9E-3B44-4C6E-9A51-0D8E6C1B2F30".to_owned(),
    };
    let made = admin.hospital().create_hospital(request.clone()).await.expect("accepted").into_inner();
    assert_eq!(made.name, format!("hospitals/a{}", "b".repeat(62)));
    assert_eq!((made.state(), made.active_booking_count), (hospital::hospital::State::Active, 0));
    assert_eq!(made.display_name, hangul(100));
    assert_eq!(made.booking_policy, Some(policy));
    let again = admin.hospital().create_hospital(request).await.expect("a replay").into_inner();
    assert_eq!(again, made);
    let four = CreateHospitalRequest {
        hospital: Some(clinic()),
        hospital_id: "abc1".to_owned(),
        initial_slots: vec![slot(1, 0)],
        ..CreateHospitalRequest::default()
    };
    admin.hospital().create_hospital(four).await.expect("four characters, capacity 0");
    let unnamed = CreateHospitalRequest { hospital: Some(clinic()), ..CreateHospitalRequest::default() };
    let unnamed = admin.hospital().create_hospital(unnamed).await.expect("the server makes an id").into_inner();
    assert!(unnamed.name.len() > "hospitals/".len() + 3, "{}", unnamed.name);
    let policy = unnamed.booking_policy.expect("the policy in force");
    assert_eq!((policy.min_notice, policy.max_advance, policy.cancellation_cutoff), (hours(0), hours(8784), hours(0)));
    assert_eq!((policy.waitlist_limit, policy.promotion_min_notice), (Some(100), hours(24)));
    assert_eq!((policy.reschedule_limit, policy.customer_limit), (Some(3), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hospitals_are_changed_and_deleted_by_good_requests_only() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    Desk::of(&admin).open("steady", &[7], 5).await;
    let update = async |hospital: Hospital, paths: &[&str]| {
        let mask =
            (!paths.is_empty()).then(|| FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        admin.hospital().update_hospital(UpdateHospitalRequest { hospital: Some(hospital), update_mask: mask }).await
    };
    let steady = || Hospital { name: "hospitals/steady".to_owned(), ..Hospital::default() };
    let bad = Hospital { name: "hospitals/".to_owned(), display_name: "a\u{7}b".to_owned(), ..Hospital::default() };
    complains(update(bad, &[]).await, &[("hospital.name", FIELD), ("hospital.display_name", FIELD)]);
    let policy = |min_notice, max_advance| {
        let booking_policy = Some(BookingPolicy { min_notice, max_advance, ..BookingPolicy::default() });
        Hospital { booking_policy, ..steady() }
    };
    const NOTICE: &str = "hospital.booking_policy.min_notice";
    const ADVANCE: &str = "hospital.booking_policy.max_advance";
    for (never, field) in [
        (policy(hours(200), hours(100)), NOTICE),
        (policy(hours(100), hours(100)), NOTICE),
        (policy(hours(8784), None), NOTICE),
        (policy(None, hours(0)), ADVANCE),
    ] {
        let created = CreateHospitalRequest {
            hospital: Some(Hospital { booking_policy: never.booking_policy, ..clinic() }),
            ..CreateHospitalRequest::default()
        };
        complains(admin.hospital().create_hospital(created).await, &[(NOTICE, FIELD)]);
        complains(update(never, &[]).await, &[(field, FIELD)]);
    }
    // A single field is checked against the stored value of the other.
    update(policy(hours(24), hours(100)), &[]).await.expect("bookable for 76 hours");
    complains(update(policy(hours(100), None), &[]).await, &[(NOTICE, FIELD)]);
    complains(update(policy(hours(100), hours(200)), &["booking_policy.min_notice"]).await, &[(NOTICE, FIELD)]);
    complains(update(policy(None, hours(24)), &[]).await, &[(ADVANCE, FIELD)]);
    complains(update(policy(None, hours(24)), &["booking_policy.max_advance"]).await, &[(ADVANCE, FIELD)]);
    update(policy(None, hours(24)), &["booking_policy"]).await.expect("the notice goes back to 0 s with it");
    complains(update(steady(), &["display_name"]).await, &[("hospital.display_name", FIELD)]);
    let moved = Hospital { time_zone: "Europe/Berlin".to_owned(), display_name: "Moved".to_owned(), ..steady() };
    complains(update(moved, &[]).await, &[("hospital.time_zone", FIELD)]);
    complains(update(steady(), &["state"]).await, &[("update_mask", FIELD)]);
    complains(update(steady(), &["time_zone"]).await, &[("update_mask", FIELD)]);
    complains(update(steady(), &["booking_policy.waitlist"]).await, &[("update_mask", FIELD)]);
    let none = UpdateHospitalRequest::default();
    complains(admin.hospital().update_hospital(none).await, &[("hospital", FIELD)]);

    let delete = DeleteHospitalRequest {
        name: "hospitals/steady/slots/2030-01-01".to_owned(),
        reason: hangul(501),
        request_id: "x".repeat(36),
        ..DeleteHospitalRequest::default()
    };
    let refusal = complains(
        admin.hospital().delete_hospital(delete).await,
        &[("name", FIELD), ("reason", FIELD), ("request_id", REQUEST_ID)],
    );
    assert!(!refusal.message.is_empty());
    let get = GetHospitalRequest { name: "hospitals/Steady".to_owned() };
    complains(checkup.stranger().await.hospital().get_hospital(get).await, &[("name", FIELD)]);
    let list = ListHospitalsRequest {
        page_size: -1,
        page_token: "abc".to_owned(),
        filter: "state=ACTIVE".to_owned(),
        show_deleted: true,
    };
    complains(
        admin.hospital().list_hospitals(list).await,
        &[("page_size", FIELD), ("page_token", TOKEN), ("filter", FILTER)],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_opened_and_changed_by_good_requests_only() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    let name = Desk::of(&admin).open("steady", &[7], 5).await.remove(0);
    let nowhere = "hospitals/steady/slots/2030-13-01".to_owned();
    let bad = CreateSlotRequest {
        parent: "steady".to_owned(),
        slot: Some(slot(8, -5)),
        request_id: "-".to_owned(),
        repeat: Some(DateRepetition::default()),
    };
    complains(
        admin.hospital().create_slot(bad).await,
        &[
            ("parent", FIELD),
            ("slot.capacity", FIELD),
            ("request_id", REQUEST_ID),
            ("repeat", FIELD),
            ("repeat.end_date", DATE),
        ],
    );
    let empty = CreateSlotRequest { parent: "hospitals/steady".to_owned(), ..CreateSlotRequest::default() };
    complains(admin.hospital().create_slot(empty).await, &[("slot", FIELD)]);

    let nested = |parent: &str, days, request_id: &str| CreateSlotRequest {
        parent: parent.to_owned(),
        slot: Some(slot(days, 1)),
        request_id: request_id.to_owned(),
        ..CreateSlotRequest::default()
    };
    let batch = |requests| BatchCreateSlotsRequest {
        parent: "hospitals/steady".to_owned(),
        requests,
        ..BatchCreateSlotsRequest::default()
    };
    let uuid = "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30";
    let requests = vec![
        nested("hospitals/steady", 20, ""),
        nested("hospitals/other", 21, ""),
        nested("", 20, ""),
        nested("", 23, uuid),
        CreateSlotRequest::default(),
    ];
    complains(
        admin.hospital().batch_create_slots(batch(requests)).await,
        &[
            ("requests[1].parent", FIELD),
            ("requests[2].slot.date", FIELD),
            ("requests[3].request_id", FIELD),
            ("requests[4].slot", FIELD),
        ],
    );
    complains(admin.hospital().batch_create_slots(batch(Vec::new())).await, &[("requests", FIELD)]);
    let many = (10..=376).map(|days| nested("", days, "")).collect();
    complains(admin.hospital().batch_create_slots(batch(many)).await, &[("requests", FIELD)]);
    let most = (10..=375).map(|days| nested("", days, "")).collect();
    let made = admin.hospital().batch_create_slots(batch(most)).await.expect("366 are accepted").into_inner();
    assert_eq!(made.slots.len(), 366);

    let set = async |name: &str, change: Option<Change>, etag: &str| {
        let request =
            SetSlotCapacityRequest { name: name.to_owned(), change, etag: etag.to_owned(), request_id: String::new() };
        admin.hospital().set_slot_capacity(request).await
    };
    complains(set(&name, None, "").await, &[("capacity", FIELD)]);
    complains(set(&nowhere, Some(Change::Capacity(100_001)), "e").await, &[("name", FIELD), ("capacity", FIELD)]);
    complains(set(&name, Some(Change::Capacity(-1)), "e").await, &[("capacity", FIELD)]);
    for delta in [-6, 99_996, i32::MIN, i32::MAX] {
        complains(set(&name, Some(Change::Delta(delta)), "").await, &[("delta", FIELD)]);
    }
    set(&name, Some(Change::Delta(99_995)), "").await.expect("100000 places");
    set(&name, Some(Change::Delta(-100_000)), "").await.expect("no place at all");

    let close = CloseSlotRequest { name: nowhere.clone(), reason: "a\nb".to_owned(), ..CloseSlotRequest::default() };
    complains(admin.hospital().close_slot(close).await, &[("name", FIELD), ("reason", FIELD)]);
    let reopen =
        ReopenSlotRequest { name: nowhere.clone(), request_id: "0".repeat(37), ..ReopenSlotRequest::default() };
    complains(admin.hospital().reopen_slot(reopen).await, &[("name", FIELD), ("request_id", REQUEST_ID)]);
    complains(admin.hospital().get_slot(GetSlotRequest { name: nowhere }).await, &[("name", FIELD)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_and_lists_name_every_bad_argument() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    Desk::of(&admin).open("steady", &[7], 5).await;
    let search = async |request: SearchAvailabilityRequest| admin.hospital().search_availability(request).await;
    let everything = SearchAvailabilityRequest {
        start_date: None,
        end_date: Some(Date { year: 2027, month: 0, day: 0 }),
        hospitals: vec!["hospitals/steady".to_owned(), "clinics/steady".to_owned()],
        min_remaining: -1,
        page_size: i32::MIN,
        page_token: "!".to_owned(),
    };
    complains(
        search(everything).await,
        &[
            ("start_date", DATE),
            ("end_date", DATE),
            ("hospitals[1]", FIELD),
            ("min_remaining", FIELD),
            ("page_size", FIELD),
            ("page_token", TOKEN),
        ],
    );
    let between = |start, end| SearchAvailabilityRequest {
        start_date: date(start),
        end_date: date(end),
        ..SearchAvailabilityRequest::default()
    };
    for (start, end) in [(7, 7), (7, 6), (1, 64)] {
        complains(search(between(start, end)).await, &[("end_date", FIELD)]);
    }
    assert_eq!(search(between(1, 63)).await.expect("62 days").into_inner().available_slots.len(), 1);
    let mut many = between(1, 2);
    many.hospitals = vec!["hospitals/steady".to_owned(); 101];
    many.min_remaining = 100_001;
    complains(search(many).await, &[("hospitals", FIELD), ("min_remaining", FIELD)]);
    let mut unknown = between(1, 2);
    unknown.hospitals = vec!["hospitals/nowhere".to_owned()];
    refused(search(unknown).await, Reason::HospitalNotFound);

    let list = ListSlotsRequest {
        parent: "hospitals/".to_owned(),
        page_size: -3,
        page_token: "?".to_owned(),
        start_date: Some(Date { year: 2027, month: 4, day: 31 }),
        end_date: Some(Date::default()),
    };
    complains(
        admin.hospital().list_slots(list).await,
        &[("parent", FIELD), ("page_size", FIELD), ("page_token", TOKEN), ("start_date", DATE), ("end_date", DATE)],
    );
    let list = ListSlotsRequest {
        parent: "hospitals/steady".to_owned(),
        start_date: date(5),
        end_date: date(5),
        ..ListSlotsRequest::default()
    };
    complains(admin.hospital().list_slots(list).await, &[("end_date", FIELD)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capacity_requests_and_claims_are_checked_too() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    let slot = Desk::of(&admin).open("steady", &[7], 5).await.remove(0);
    let marketing = checkup.service("marketing").await;
    let create = async |capacity_request: Option<CapacityRequest>, request_id: &str| {
        let request = CreateCapacityRequestRequest {
            parent: "hospitals/steady".to_owned(),
            capacity_request,
            request_id: request_id.to_owned(),
        };
        marketing.hospital().create_capacity_request(request).await
    };
    complains(create(None, "y").await, &[("capacity_request", FIELD), ("request_id", REQUEST_ID)]);
    let everything = CapacityRequest {
        slot: "hospitals/another/slots/2030-01-01".to_owned(),
        additional_capacity: 0,
        justification: hangul(501),
        expire_time: Some(Timestamp { seconds: i64::MAX, nanos: -1 }),
        ..CapacityRequest::default()
    };
    complains(
        create(Some(everything), "").await,
        &[
            ("capacity_request.slot", FIELD),
            ("capacity_request.additional_capacity", FIELD),
            ("capacity_request.justification", FIELD),
            ("capacity_request.expire_time", FIELD),
        ],
    );
    let over = CapacityRequest {
        slot: slot.clone(),
        additional_capacity: 1,
        expire_time: Some(Timestamp { seconds: 1, nanos: 0 }),
        ..CapacityRequest::default()
    };
    complains(create(Some(over), "").await, &[("capacity_request.expire_time", FIELD)]);
    let most = CapacityRequest {
        slot: slot.clone(),
        additional_capacity: 99_995,
        justification: hangul(500),
        ..CapacityRequest::default()
    };
    let made = create(Some(most), "").await.expect("accepted").into_inner();
    let raise = SetSlotCapacityRequest {
        name: slot.clone(),
        change: Some(Change::Delta(1)),
        ..SetSlotCapacityRequest::default()
    };
    admin.hospital().set_slot_capacity(raise).await.expect("one more meanwhile");
    let approve = ApproveCapacityRequestRequest { name: made.name, ..ApproveCapacityRequestRequest::default() };
    let refusal = refused(admin.hospital().approve_capacity_request(approve).await, Reason::FieldInvalid);
    assert_eq!(refusal.violations.len(), 1, "100001 places are too many: {refusal:#?}");
    let approve = ApproveCapacityRequestRequest {
        name: "hospitals/steady/capacityRequests/1".to_owned(),
        note: hangul(501),
        ..ApproveCapacityRequestRequest::default()
    };
    complains(admin.hospital().approve_capacity_request(approve).await, &[("name", FIELD), ("note", FIELD)]);
    let reject = RejectCapacityRequestRequest {
        name: "hospitals/steady/capacityRequests/1".to_owned(),
        note: "\u{0}".to_owned(),
        request_id: "z".to_owned(),
        ..RejectCapacityRequestRequest::default()
    };
    complains(
        admin.hospital().reject_capacity_request(reject).await,
        &[("name", FIELD), ("note", FIELD), ("request_id", REQUEST_ID)],
    );
    let list = ListCapacityRequestsRequest {
        parent: "hospitals".to_owned(),
        page_size: -1,
        page_token: "t".to_owned(),
        filter: "state=MAYBE".to_owned(),
    };
    complains(
        admin.hospital().list_capacity_requests(list).await,
        &[("parent", FIELD), ("page_size", FIELD), ("page_token", TOKEN), ("filter", FILTER)],
    );

    let screening = checkup.service("screening").await;
    for claim_id in ["", "1", "01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057.0"] {
        let claim_id = claim_id.to_owned();
        let reserve = ReserveCapacityRequest {
            slot: "slots/2030-01-01".to_owned(),
            claim_id: claim_id.clone(),
            allow_waitlist: true,
        };
        complains(screening.capacity().reserve_capacity(reserve).await, &[("slot", FIELD), ("claim_id", FIELD)]);
        let release = ReleaseCapacityRequest { slot: slot.clone(), claim_id };
        complains(screening.capacity().release_capacity(release).await, &[("claim_id", FIELD)]);
    }
    let list = ListCapacityClaimsRequest { slot, page_size: 1, page_token: "t".to_owned(), filter: "state".to_owned() };
    complains(screening.capacity().list_capacity_claims(list).await, &[("page_token", TOKEN), ("filter", FILTER)]);
}
