//! What every method answers about a date that is over, and what a deletion does with it: the tables in the comments of
//! HospitalService and ScreeningService.

use contract::capacity::v1::*;
use contract::hospital::v1 as hospital;
use contract::marketing::v1 as marketing;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::hospital::State as HospitalState;
use hospital::set_slot_capacity_request::Change;
use hospital::*;
use marketing::{ListDemandSignalsRequest, ProposeCapacityIncreaseRequest};
use screening::screening::State;
use screening::{
    CompleteScreeningRequest, CreateScreeningRequest, ListScreeningsRequest, MarkNoShowRequest, Screening,
    UpdateScreeningRequest,
};
use testkit::{Checkup, Desk, Party, Refusal, day_of, eventually, in_days, refused};
use tonic::{Response, Status};

use crate::launch;

/// The number of days until the date that will be over, and until one that will not.
const PAST: i32 = 7;
const AHEAD: i32 = 40;
/// Two days after the first date.
const LATER: &str = "216h";
const HOSPITAL: &str = "hospitals/history";

/// What existed before the date was over.
struct Before {
    slots: Vec<String>,
    bookings: Vec<Screening>,
    /// Capacity requests that stay PENDING for long enough.
    increases: Vec<String>,
}

async fn increase(marketing: &Party, slot: &str) -> Result<CapacityRequest, Status> {
    let in_a_year = jiff::Timestamp::now().as_second() + 366 * 24 * 3_600;
    let request = CreateCapacityRequestRequest {
        parent: HOSPITAL.to_owned(),
        capacity_request: Some(CapacityRequest {
            slot: slot.to_owned(),
            additional_capacity: 1,
            expire_time: Some(prost_types::Timestamp { seconds: in_a_year, nanos: 0 }),
            ..CapacityRequest::default()
        }),
        request_id: String::new(),
    };
    marketing.hospital().create_capacity_request(request).await.map(Response::into_inner)
}

async fn prepare(checkup: &Checkup) -> Before {
    let desk = Desk::of(&checkup.admin().await);
    let slots = desk.open("history", &[PAST, AHEAD], 10).await;
    let mut bookings = Vec::new();
    for customer in ["came", "came-too", "missed", "unrecorded"] {
        bookings.push(desk.book(customer, &slots[0], "").await.expect("a place"));
    }
    bookings.push(desk.book("came", &slots[1], "").await.expect("a place"));
    let marketing = checkup.service("marketing").await;
    let mut increases = Vec::new();
    for _ in 0..2 {
        increases.push(increase(&marketing, &slots[0]).await.expect("a capacity request").name);
    }
    Before { slots, bookings, increases }
}

async fn complete(admin: &Party, name: &str) -> Result<Screening, Status> {
    let request = CompleteScreeningRequest { name: name.to_owned(), ..CompleteScreeningRequest::default() };
    admin.screening().complete_screening(request).await.map(Response::into_inner)
}

fn outcome<T>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(_) => "OK".to_owned(),
        Err(status) => Refusal::of(&status).map_or_else(|| format!("{status:?}"), |refusal| refusal.reason),
    }
}

/// Calls every method that changes something, about the date that is over.
async fn changes(checkup: &Checkup, before: &Before) -> Vec<(&'static str, String)> {
    let (admin, marketing) = (checkup.admin().await, checkup.service("marketing").await);
    let (slot, date) = (before.slots[0].clone(), Some(day_of(in_days(Desk::ZONE, PAST))));
    let past = |capacity| Slot { date, capacity, ..Slot::default() };
    let create =
        |capacity| CreateSlotRequest { parent: HOSPITAL.to_owned(), slot: Some(past(capacity)), ..Default::default() };
    let batch =
        BatchCreateSlotsRequest { parent: HOSPITAL.to_owned(), requests: vec![create(1)], ..Default::default() };
    let judged = BatchCreateSlotsRequest { validate_only: true, ..batch.clone() };
    let set = |change| SetSlotCapacityRequest { name: slot.clone(), change: Some(change), ..Default::default() };
    let close = |cancel_bookings| CloseSlotRequest { name: slot.clone(), cancel_bookings, ..Default::default() };
    let close_all = |cancel_bookings| BatchCloseSlotsRequest {
        parent: HOSPITAL.to_owned(),
        ranges: vec![DateRange { start_date: date, repeat: None }],
        cancel_bookings,
        ..Default::default()
    };
    let reopen = ReopenSlotRequest { name: slot.clone(), ..Default::default() };
    let approve = ApproveCapacityRequestRequest { name: before.increases[0].clone(), ..Default::default() };
    let reject = RejectCapacityRequestRequest { name: before.increases[1].clone(), ..Default::default() };
    let propose = ProposeCapacityIncreaseRequest { slot: slot.clone(), additional_capacity: 1, ..Default::default() };
    let book = |customer: &str, validate_only| CreateScreeningRequest {
        screening: Some(Screening {
            customer: format!("customers/{customer}"),
            slot: slot.clone(),
            ..Screening::default()
        }),
        validate_only,
        ..CreateScreeningRequest::default()
    };
    let reserve = ReserveCapacityRequest {
        slot: slot.clone(),
        claim_id: "01890a5d-ac96-774b-bcce-b302099a8057.1".to_owned(),
        allow_waitlist: true,
    };
    let release = ReleaseCapacityRequest { slot: slot.clone(), claim_id: reserve.claim_id.clone() };
    let [came, came_too, missed, unrecorded, coming] = before.bookings.as_slice() else { panic!("five bookings") };
    let ahead = &before.slots[1];
    let correction = UpdateScreeningRequest {
        screening: Some(Screening {
            name: came.name.clone(),
            customer_display_name: "Kim".to_owned(),
            ..Screening::default()
        }),
        update_mask: None,
    };
    let no_show = MarkNoShowRequest { name: missed.name.clone(), ..MarkNoShowRequest::default() };
    let customer = Desk::of(&checkup.customer("unrecorded").await);
    let desk = Desk::of(&admin);
    let mine = checkup.service("screening").await;
    let rpc = || admin.hospital();
    vec![
        ("CreateHospital", outcome(desk.register("fresh", Desk::ZONE, vec![past(1)]).await)),
        ("CreateSlot", outcome(rpc().create_slot(create(1)).await)),
        ("BatchCreateSlots", outcome(rpc().batch_create_slots(batch).await)),
        ("BatchCreateSlots to judge", outcome(rpc().batch_create_slots(judged).await)),
        ("SetSlotCapacity", outcome(rpc().set_slot_capacity(set(Change::Delta(1))).await)),
        ("SetSlotCapacity by nothing", outcome(rpc().set_slot_capacity(set(Change::Delta(0))).await)),
        ("CloseSlot", outcome(rpc().close_slot(close(false)).await)),
        ("CloseSlot with its bookings", outcome(rpc().close_slot(close(true)).await)),
        ("BatchCloseSlots", outcome(rpc().batch_close_slots(close_all(false)).await)),
        ("BatchCloseSlots with its bookings", outcome(rpc().batch_close_slots(close_all(true)).await)),
        ("ReopenSlot", outcome(rpc().reopen_slot(reopen).await)),
        ("CreateCapacityRequest", outcome(increase(&marketing, &slot).await)),
        ("ProposeCapacityIncrease", outcome(marketing.marketing().propose_capacity_increase(propose).await)),
        ("ApproveCapacityRequest", outcome(rpc().approve_capacity_request(approve).await)),
        ("RejectCapacityRequest", outcome(rpc().reject_capacity_request(reject).await)),
        ("CreateScreening", outcome(admin.screening().create_screening(book("late", false)).await)),
        ("CreateScreening to judge", outcome(admin.screening().create_screening(book("late", true)).await)),
        ("ReserveCapacity", outcome(mine.capacity().reserve_capacity(reserve).await)),
        ("ReleaseCapacity", outcome(mine.capacity().release_capacity(release).await)),
        ("CancelScreening by the customer", outcome(customer.cancel(&unrecorded.name, "").await)),
        ("CancelScreening by an admin", outcome(desk.cancel(&unrecorded.name, "").await)),
        (
            "RescheduleScreening from it, by the customer",
            outcome(customer.reschedule(&unrecorded.name, ahead, "").await),
        ),
        ("RescheduleScreening from it, by an admin", outcome(desk.reschedule(&unrecorded.name, ahead, "").await)),
        ("CompleteScreening", outcome(complete(&admin, &came.name).await)),
        ("CompleteScreening of another", outcome(complete(&admin, &came_too.name).await)),
        ("UpdateScreening", outcome(admin.screening().update_screening(correction).await)),
        ("MarkNoShow", outcome(admin.screening().mark_no_show(no_show).await)),
        // after the customer's other booking has ended, which was on that date
        ("RescheduleScreening to it", outcome(desk.reschedule(&coming.name, &slot, "").await)),
    ]
}

const EXPECTED: &[(&str, &str)] = &[
    ("CreateHospital", "DATE_IN_PAST"),
    ("CreateSlot", "DATE_IN_PAST"),
    ("BatchCreateSlots", "DATE_IN_PAST"),
    ("BatchCreateSlots to judge", "DATE_IN_PAST"),
    ("SetSlotCapacity", "DATE_IN_PAST"),
    ("SetSlotCapacity by nothing", "DATE_IN_PAST"),
    ("CloseSlot", "DATE_IN_PAST"),
    ("CloseSlot with its bookings", "DATE_IN_PAST"),
    ("BatchCloseSlots", "OK"),
    ("BatchCloseSlots with its bookings", "OK"),
    ("ReopenSlot", "DATE_IN_PAST"),
    ("CreateCapacityRequest", "DATE_IN_PAST"),
    ("ProposeCapacityIncrease", "DATE_IN_PAST"),
    ("ApproveCapacityRequest", "DATE_IN_PAST"),
    ("RejectCapacityRequest", "OK"),
    ("CreateScreening", "DATE_IN_PAST"),
    ("CreateScreening to judge", "DATE_IN_PAST"),
    ("ReserveCapacity", "DATE_IN_PAST"),
    ("ReleaseCapacity", "OK"),
    ("CancelScreening by the customer", "CANCELLATION_CLOSED"),
    ("CancelScreening by an admin", "DATE_IN_PAST"),
    ("RescheduleScreening from it, by the customer", "RESCHEDULE_CLOSED"),
    ("RescheduleScreening from it, by an admin", "DATE_IN_PAST"),
    ("CompleteScreening", "OK"),
    ("CompleteScreening of another", "OK"),
    ("UpdateScreening", "OK"),
    ("MarkNoShow", "OK"),
    ("RescheduleScreening to it", "DATE_IN_PAST"),
];

/// Checks the lists: availability and demand leave the date out, all others include it.
async fn assert_reads(checkup: &Checkup, before: &Before) {
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).slot(&before.slots[0]).await.expect("the slot");
    assert_eq!((slot.booked_count, slot.remaining_count, slot.state()), (4, 6, hospital::slot::State::Open));
    let search = SearchAvailabilityRequest {
        start_date: Some(day_of(in_days(Desk::ZONE, PAST - 1))),
        end_date: Some(day_of(in_days(Desk::ZONE, AHEAD + 1))),
        ..SearchAvailabilityRequest::default()
    };
    let found = admin.hospital().search_availability(search).await.expect("a search").into_inner();
    let names: Vec<_> = testkit::slots_of(found).into_iter().map(|slot| slot.name).collect();
    assert_eq!(names, [before.slots[1].as_str()]);
    let list = ListSlotsRequest { parent: HOSPITAL.to_owned(), ..ListSlotsRequest::default() };
    assert_eq!(admin.hospital().list_slots(list).await.expect("a list").into_inner().slots.len(), 2);
    let list = ListDemandSignalsRequest::default();
    let demand = admin.marketing().list_demand_signals(list).await.expect("a list").into_inner();
    assert!(demand.signals.iter().all(|signal| signal.slot != before.slots[0]), "{demand:?}");
    let list = ListScreeningsRequest::default();
    assert_eq!(admin.screening().list_screenings(list).await.expect("a list").into_inner().screenings.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_is_history_by_every_method_and_no_deletion_cancels_it() {
    let checkup = launch().start().await;
    let before = prepare(&checkup).await;
    let checkup = checkup.stop().await.set("clock.offset", LATER).start().await;
    let answers = changes(&checkup, &before).await;
    let answers: Vec<(&str, &str)> = answers.iter().map(|(method, answer)| (*method, answer.as_str())).collect();
    assert_eq!(answers, EXPECTED);
    assert_reads(&checkup, &before).await;

    // One booking can still be cancelled. The count, the refusal, the preview and the deletion agree on it.
    let admin = checkup.admin().await;
    let read = async || {
        let get = GetHospitalRequest { name: HOSPITAL.to_owned() };
        admin.hospital().get_hospital(get).await.expect("the hospital").into_inner()
    };
    assert_eq!(read().await.active_booking_count, 1);
    let delete = DeleteHospitalRequest { name: HOSPITAL.to_owned(), ..DeleteHospitalRequest::default() };
    let refusal = refused(admin.hospital().delete_hospital(delete.clone()).await, Reason::HospitalHasBookings);
    assert_eq!(refusal.value("activeBookingCount"), "1");
    let judge = DeleteHospitalRequest { force: true, validate_only: true, ..delete.clone() };
    let judged = admin.hospital().delete_hospital(judge).await.expect("judged").into_inner();
    assert_eq!(judged.revocation_progress, Some(RevocationProgress { total: 1, revoked: 0 }));
    let force = DeleteHospitalRequest { force: true, ..delete };
    admin.hospital().delete_hospital(force).await.expect("deleting");
    eventually("the deletion", async || {
        let now = read().await;
        if now.state() == HospitalState::Deleted { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let after = read().await;
    assert_eq!(after.active_booking_count, 0);
    assert_eq!(after.revocation_progress, Some(RevocationProgress { total: 1, revoked: 1 }));
    let desk = Desk::of(&admin);
    assert_eq!(desk.booked(&before.slots[0]).await, Ok(4), "what was taken stays as it is");
    assert_eq!(desk.booked(&before.slots[1]).await, Ok(0));
    let expected = [State::Completed, State::Completed, State::NoShow, State::Confirmed, State::ForceCancelled];
    eventually("the cancellation", async || {
        let mut states = Vec::new();
        for booking in &before.bookings {
            states.push(desk.screening(&booking.name).await.map_err(|status| format!("{status:?}"))?.state());
        }
        if states == expected { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    let late = complete(&admin, &before.bookings[3].name).await.expect("attendance outlives the hospital");
    assert_eq!(late.state(), State::Completed);
    let verified = checkup.run(&["verify", "--settle", "20s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
