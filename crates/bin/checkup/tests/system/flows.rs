//! What admins, Marketing and customers do over days: capacity requests, closings, updates, deletions, my pages.

mod waiting;

use contract::hospital::v1 as hospital;
use contract::marketing::v1 as marketing;
use contract::mypage::v1 as mypage;
use contract::screening::v1::screening::State;
use fault::Reason;
use hospital::capacity_request::State as CapacityRequestState;
use hospital::{ApproveCapacityRequestRequest, BookingPolicy, CapacityRequest, CloseSlotRequest};
use hospital::{DeleteHospitalRequest, GetCapacityRequestRequest, GetHospitalRequest, Hospital, ListHospitalsRequest};
use hospital::{
    ListCapacityRequestsRequest, RejectCapacityRequestRequest, ReopenSlotRequest, SearchAvailabilityRequest,
};
use hospital::{Slot, UpdateHospitalRequest};
use marketing::{ListDemandSignalsRequest, ProposeCapacityIncreaseRequest};
use mypage::{GetMyPageRequest, ListMyPageItemsRequest};
use prost_types::FieldMask;
use testkit::{Desk, Party, day_of, eventually, in_days, refused, rush, seed};
use tonic::{Response, Status};

use crate::races::{all_screenings, claims};
use crate::{embedded, launch};

async fn propose(marketing: &Party, slot: &str, request_id: &str) -> Result<String, Status> {
    let request = ProposeCapacityIncreaseRequest {
        slot: slot.to_owned(),
        additional_capacity: 3,
        justification: "three were turned away".to_owned(),
        request_id: request_id.to_owned(),
    };
    marketing.marketing().propose_capacity_increase(request).await.map(|made| made.into_inner().capacity_request)
}

async fn increase(party: &Party, name: &str) -> CapacityRequest {
    let request = GetCapacityRequestRequest { name: name.to_owned() };
    party.hospital().get_capacity_request(request).await.expect("a capacity request").into_inner()
}

async fn approve(admin: &Party, name: &str, request_id: &str) -> Result<CapacityRequest, Status> {
    let request = ApproveCapacityRequestRequest {
        name: name.to_owned(),
        note: "agreed".to_owned(),
        request_id: request_id.to_owned(),
        ..ApproveCapacityRequestRequest::default()
    };
    admin.hospital().approve_capacity_request(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marketing_asks_for_places_and_the_hospital_decides() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).open("in-demand", &[7], 2).await.remove(0);
    let marketing = checkup.service("marketing").await;
    let mut random = seed("marketing");
    let id = random.uuid().to_string();
    let first = propose(&marketing, &slot, &id).await.expect("a proposal");
    assert_eq!(propose(&marketing, &slot, &id).await.expect("a repeat"), first, "one request_id, one request");
    let second = propose(&marketing, &slot, "").await.expect("another proposal");
    assert_ne!(first, second);
    let asked = increase(&admin, &first).await;
    assert_eq!(
        (asked.state(), asked.additional_capacity, asked.slot.as_str()),
        (CapacityRequestState::Pending, 3, slot.as_str())
    );
    assert_eq!(
        Desk::of(&admin).slot(&slot).await.expect("the slot").capacity,
        2,
        "nothing changes before it is approved"
    );

    // Eight approvals with one request_id raise the capacity once.
    let id = random.uuid().to_string();
    let clicks = rush(8, |_| {
        let (admin, name, id) = (admin.clone(), first.clone(), id.clone());
        async move { approve(&admin, &name, &id).await }
    })
    .await;
    for click in clicks {
        let approved = click.expect("a repeat is OK");
        assert_eq!((approved.state(), approved.decision_note.as_str()), (CapacityRequestState::Approved, "agreed"));
    }
    assert_eq!(Desk::of(&admin).slot(&slot).await.expect("the slot").capacity, 5);
    refused(approve(&admin, &first, "").await, Reason::CapacityRequestDecided);
    let reject = RejectCapacityRequestRequest { name: second.clone(), ..RejectCapacityRequestRequest::default() };
    let rejected = admin.hospital().reject_capacity_request(reject).await.expect("rejected").into_inner();
    assert_eq!(rejected.state(), CapacityRequestState::Rejected);
    let list = ListCapacityRequestsRequest { parent: "hospitals/in-demand".to_owned(), ..Default::default() };
    let listed = marketing.hospital().list_capacity_requests(list.clone()).await.expect("a list").into_inner();
    let order: Vec<&str> = listed.capacity_requests.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(order, [second.as_str(), first.as_str()], "newest first");

    // A capacity request expires after fourteen days, and a closed slot gets no more places.
    let third = propose(&marketing, &slot, "").await.expect("a third");
    let close = CloseSlotRequest { name: slot.clone(), ..CloseSlotRequest::default() };
    admin.hospital().close_slot(close).await.expect("closed");
    refused(approve(&admin, &third, "").await, Reason::SlotClosed);
    let checkup = checkup.stop().await.set("clock.offset", "361h").start().await;
    let admin = checkup.admin().await;
    assert_eq!(increase(&admin, &third).await.state(), CapacityRequestState::Expired);
    let refusal = refused(approve(&admin, &third, "").await, Reason::CapacityRequestDecided);
    assert_eq!(refusal.value("state"), "EXPIRED");
    let filtered = ListCapacityRequestsRequest { filter: "state=EXPIRED".to_owned(), ..list };
    let expired = admin.hospital().list_capacity_requests(filtered).await.expect("a list").into_inner();
    assert_eq!(expired.capacity_requests.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demand_shows_who_is_full_and_who_was_turned_away() {
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let slots = admin.open("wanted", &[7, 8, 9], 2).await;
    for (customer, slot) in [("kim", 0), ("lee", 0), ("park", 1)] {
        admin.book(customer, &slots[slot], "").await.expect("a place");
    }
    for customer in ["choi", "jung", "kang", "cho"] {
        refused(admin.book(customer, &slots[0], "").await, Reason::SlotFull);
    }
    let marketing = checkup.service("marketing").await;
    let signals = async |filter: &str, order_by: &str| {
        let request = ListDemandSignalsRequest {
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            ..ListDemandSignalsRequest::default()
        };
        let found = marketing.marketing().list_demand_signals(request).await.map_err(|status| status.to_string())?;
        let row = |one: &marketing::DemandSignal| (one.slot.clone(), one.bookings_7d, one.refused_7d, one.fill_ratio);
        Ok::<_, String>(found.into_inner().signals.iter().map(row).collect::<Vec<_>>())
    };
    let expected = [(slots[0].clone(), 2, 4, 1.0), (slots[1].clone(), 1, 0, 0.5), (slots[2].clone(), 0, 0, 0.0)];
    eventually("the signals", async || {
        let seen = signals("", "").await?;
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let fullest = signals("fill_ratio>0.4", "fill_ratio desc").await.expect("a list");
    assert_eq!(fullest, expected[..2]);
    let later = signals(&format!("date>{}", in_days(Desk::ZONE, 8)), "date desc").await.expect("a list");
    assert_eq!(later, expected[2..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_a_slot_can_cancel_its_bookings_and_reopening_starts_empty() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    let slot = desk.open("flooded", &[7], 40).await.remove(0);
    let booked = rush(40, |i| {
        let (desk, slot) = (desk.clone(), slot.clone());
        async move { desk.book(&format!("patient-{i}"), &slot, "").await.expect("a place").name }
    })
    .await;
    let close = CloseSlotRequest {
        name: slot.clone(),
        cancel_bookings: true,
        reason: "a burst pipe".to_owned(),
        ..CloseSlotRequest::default()
    };
    let closed = admin.hospital().close_slot(close).await.expect("closed").into_inner();
    assert_eq!(closed.state(), hospital::slot::State::Closed);
    let auditor = checkup.auditor().await;
    for name in &booked {
        let seen = eventually("a booking to be cancelled", async || {
            let seen = desk.screening(name).await.map_err(|status| status.to_string())?;
            if seen.state() == State::ForceCancelled { Ok(seen) } else { Err(format!("{seen:?}")) }
        })
        .await;
        assert_eq!((seen.state_reason.as_str(), seen.state_message.as_str()), ("SLOT_CANCELLED", "a burst pipe"));
    }
    assert_eq!(claims(&auditor, &slot, "REVOKED").await.len(), 40);
    let reopen = ReopenSlotRequest { name: slot.clone(), ..ReopenSlotRequest::default() };
    let open = admin.hospital().reopen_slot(reopen).await.expect("reopened").into_inner();
    assert_eq!((open.state(), open.booked_count), (hospital::slot::State::Open, 0));
    let again = desk.book("patient-0", &slot, "").await.expect("the date is free again");
    assert!(!booked.contains(&again.name), "those that were cancelled stay cancelled");
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_deletion_survives_being_killed_in_the_middle() {
    const BOOKINGS: usize = 1_300;
    let checkup = embedded().start().await;
    let slots = Desk::of(&checkup.admin().await).open("large", &[7, 8], 1_000).await;
    let channels = checkup.served().connections(4).await;
    let token = checkup.tokens().admin("root", "*");
    rush(50, |worker| {
        let desk = Desk::of(&Party::new(channels[worker % 4].clone(), Some(&token)));
        let slots = slots.clone();
        async move {
            for turn in 0..BOOKINGS / 50 {
                let customer = format!("patient-{worker}-{turn}");
                desk.book(&customer, &slots[turn % 2], "").await.expect("a place");
            }
        }
    })
    .await;
    let admin = checkup.admin().await;
    let delete = DeleteHospitalRequest {
        name: "hospitals/large".to_owned(),
        force: true,
        reason: "closed for good".to_owned(),
        ..DeleteHospitalRequest::default()
    };
    let answer = admin.hospital().delete_hospital(delete).await.expect("deleted").into_inner();
    assert_eq!(answer.revocation_progress.expect("progress").total, i32::try_from(BOOKINGS).unwrap_or(0));
    let launch = checkup.kill().await;

    let checkup = launch.start().await;
    let stranger = checkup.stranger().await;
    let end = eventually("the deletion to end", async || {
        let request = GetHospitalRequest { name: "hospitals/large".to_owned() };
        let now = stranger.hospital().get_hospital(request).await.map_err(|status| status.to_string())?.into_inner();
        if now.state() == hospital::hospital::State::Deleted { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await;
    let progress = end.revocation_progress.expect("progress");
    assert_eq!((progress.revoked, progress.total), (1_300, 1_300));
    let auditor = checkup.auditor().await;
    eventually("every booking to be cancelled", async || {
        let left = all_screenings(&auditor, "state!=FORCE_CANCELLED").await.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} left")) }
    })
    .await;
    assert_eq!(all_screenings(&auditor, "").await.len(), BOOKINGS);
    let verified = checkup.run(&["verify", "--settle", "10s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hospital_is_updated_field_by_field_and_its_id_is_used_once() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    desk.register("renamed", Desk::ZONE, Vec::new()).await.expect("a hospital");
    let hours = |hours: i64| Some(prost_types::Duration { seconds: hours * 3600, nanos: 0 });
    let update = async |hospital: Hospital, paths: &[&str]| -> Hospital {
        let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
        let mask = (!paths.is_empty()).then_some(mask);
        let hospital = Hospital { name: "hospitals/renamed".to_owned(), ..hospital };
        let request = UpdateHospitalRequest { hospital: Some(hospital), update_mask: mask };
        admin.hospital().update_hospital(request).await.expect("updated").into_inner()
    };
    let policy = |min, max| Some(BookingPolicy { min_notice: min, max_advance: max, ..BookingPolicy::default() });
    let policy_of = |hospital: &Hospital| {
        let policy = hospital.booking_policy.expect("a policy");
        [policy.min_notice, policy.max_advance, policy.cancellation_cutoff]
            .map(|span| span.map_or(-1, |span| span.seconds / 3600))
    };
    let one = update(Hospital { booking_policy: policy(hours(24), hours(100)), ..Hospital::default() }, &[]).await;
    assert_eq!(
        (policy_of(&one), one.display_name.as_str()),
        ([24, 100, 0], "Hospital renamed"),
        "what is set is changed"
    );
    let masked = Hospital {
        display_name: "New Name".to_owned(),
        booking_policy: policy(hours(1), hours(48)),
        ..Hospital::default()
    };
    let two = update(masked, &["display_name", "booking_policy.max_advance"]).await;
    assert_eq!((policy_of(&two), two.display_name.as_str()), ([24, 48, 0], "New Name"), "what is named is changed");
    let three = update(Hospital::default(), &["booking_policy"]).await;
    assert_eq!(policy_of(&three), [0, 8784, 0], "what is named and unset goes back to its default");
    assert_eq!(
        update(Hospital { display_name: "New Name".to_owned(), ..Hospital::default() }, &[]).await.etag,
        three.etag
    );

    let delete = DeleteHospitalRequest { name: "hospitals/renamed".to_owned(), ..DeleteHospitalRequest::default() };
    let gone = admin.hospital().delete_hospital(delete).await.expect("deleted").into_inner();
    assert_eq!(gone.state(), hospital::hospital::State::Deleted, "nothing was booked: there is nothing to wait for");
    refused(desk.register("renamed", Desk::ZONE, Vec::new()).await, Reason::HospitalAlreadyExists);
    let list = async |show_deleted| {
        let request = ListHospitalsRequest { show_deleted, ..ListHospitalsRequest::default() };
        admin.hospital().list_hospitals(request).await.expect("a list").into_inner().hospitals.len()
    };
    assert_eq!((list(false).await, list(true).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn my_page_shows_twenty_ahead_and_everything_behind() {
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let slots = admin.open("often", &(1..=25).collect::<Vec<_>>(), 5).await;
    let kim = checkup.customer("kim").await;
    let mut last = None;
    for slot in &slots {
        last = Some(Desk::of(&kim).book("kim", slot, "").await.expect("a place"));
    }
    let token = last.expect("bookings").consistency_token;
    let page = async |party: &Party, token: String| {
        let request = GetMyPageRequest {
            name: "customers/kim/myPage".to_owned(),
            min_consistency_token: token,
            ..GetMyPageRequest::default()
        };
        party.my_page().get_my_page(request).await.expect("a page").into_inner()
    };
    let dates = |page: &mypage::MyPage| page.upcoming.iter().map(|item| item.date).collect::<Vec<_>>();
    let expected = |days: std::ops::RangeInclusive<i32>| {
        days.map(|days| Some(day_of(in_days(Desk::ZONE, days)))).collect::<Vec<_>>()
    };
    let now = page(&kim, token).await;
    assert_eq!(now.active_count, 25);
    assert_eq!(dates(&now), expected(1..=20), "the twenty next, the earliest first");
    let request =
        ListMyPageItemsRequest { parent: "customers/kim/myPage".to_owned(), page_size: 30, ..Default::default() };
    let items = kim.my_page().list_my_page_items(request).await.expect("items").into_inner().items;
    let all: Vec<_> = items.iter().rev().map(|item| item.date).collect();
    assert_eq!(all, expected(1..=25), "everything, the latest date first");

    // Ten days later the first bookings are over. A date is not over before its day ends.
    let checkup = checkup.stop().await.set("clock.offset", "240h").start().await;
    let later = page(&checkup.customer("kim").await, String::new()).await;
    assert_eq!((later.active_count, dates(&later)), (16, expected(10..=25)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn availability_offers_only_what_can_be_booked_now() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    let open = desk.open("offers", &[0, 7, 8, 9], 1).await;
    let gone = desk.open("gone-clinic", &[7], 1).await.remove(0);
    desk.book("kim", &open[1], "").await.expect("the last place");
    let close = CloseSlotRequest { name: open[2].clone(), ..CloseSlotRequest::default() };
    admin.hospital().close_slot(close).await.expect("closed");
    let delete = DeleteHospitalRequest { name: "hospitals/gone-clinic".to_owned(), ..DeleteHospitalRequest::default() };
    admin.hospital().delete_hospital(delete).await.expect("deleted");
    let stranger = checkup.stranger().await;
    let search = async |hospitals: Vec<String>| -> Vec<Slot> {
        let request = SearchAvailabilityRequest {
            start_date: Some(day_of(in_days(Desk::ZONE, 0))),
            end_date: Some(day_of(in_days(Desk::ZONE, 30))),
            hospitals,
            ..SearchAvailabilityRequest::default()
        };
        testkit::slots_of(stranger.hospital().search_availability(request).await.expect("a search").into_inner())
    };
    let names = |slots: &[Slot]| slots.iter().map(|slot| slot.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&search(Vec::new()).await), [open[3].clone()], "not today, not full, not closed, not deleted");
    assert!(
        search(vec!["hospitals/gone-clinic".to_owned()]).await.is_empty(),
        "a deleted hospital is left out: {gone}"
    );
}
