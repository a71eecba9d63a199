//! How each reason is provoked by calls.

use std::time::Duration;

use contract::capacity::v1 as capacity;
use contract::capacity::v1::GetCapacityClaimRequest;
use contract::capacity::v1::ReleaseCapacityRequest;
use contract::capacity::v1::ReserveCapacityRequest;
use contract::hospital::v1 as hospital;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::set_slot_capacity_request::Change;
use hospital::{ApproveCapacityRequestRequest, CapacityRequest, CreateCapacityRequestRequest, CreateSlotRequest};
use hospital::{BookingPolicy, CloseSlotRequest, CreateHospitalRequest, DeleteHospitalRequest};
use hospital::{GetCapacityRequestRequest, GetHospitalRequest, Hospital, ListHospitalsRequest};
use hospital::{SetSlotCapacityRequest, Slot};
use mypage::GetMyPageRequest;
use reservation::GetReservationRequest;
use screening::{CompleteScreeningRequest, CreateScreeningRequest, ListScreeningsRequest, Screening};
use testkit::{Checkup, Desk, Direction, FaultProxy, PARTIES_READ, Party, Refusal, Wire};
use testkit::{day_of, eventually, gather, in_days, refused, seed, start_together};
use tonic::{Request, Response, Status};

use super::Seen;
use crate::{embedded, launch};

const CLAIM: &str = "01890a5d-ac96-774b-bcce-b302099a8057.1";
const SCREENING: &str = "screenings/01890a5d-ac96-774b-bcce-b302099a8057";

/// Refusals that a healthy process gives.
pub(super) async fn with_everything_up(seen: &mut Seen) {
    let checkup = launch().start().await;
    bad_requests(seen, &checkup).await;
    what_is_missing(seen, &checkup).await;
    hospitals_and_slots(seen, &checkup).await;
    bookings(seen, &checkup).await;
    places(seen, &checkup).await;
}

async fn bad_requests(seen: &mut Seen, checkup: &Checkup) {
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    let slot = desk.open("well-formed", &[7], 5).await.remove(0);
    seen.note(refused(desk.register("well-Formed", Desk::ZONE, Vec::new()).await, Reason::FieldInvalid));
    seen.note(refused(desk.register("no-zone", "Asia/Soul", Vec::new()).await, Reason::TimeZoneUnknown));
    let date = contract::google::r#type::Date { year: 2027, month: 2, day: 30 };
    let never = vec![Slot { date: Some(date), capacity: 1, ..Slot::default() }];
    seen.note(refused(desk.register("no-date", Desk::ZONE, never).await, Reason::DateInvalid));
    let list = ListScreeningsRequest { filter: "colour=red".to_owned(), ..ListScreeningsRequest::default() };
    seen.note(refused(admin.screening().list_screenings(list).await, Reason::FilterInvalid));
    let list = ListHospitalsRequest { page_token: "zzz".to_owned(), ..ListHospitalsRequest::default() };
    seen.note(refused(admin.hospital().list_hospitals(list).await, Reason::PageTokenInvalid));
    seen.note(refused(desk.book("kim", &slot, "not-a-uuid").await, Reason::RequestIdMalformed));
    let request_id = seed("errors").uuid().to_string();
    desk.book("kim", &slot, &request_id).await.expect("a place");
    seen.note(refused(desk.book("lee", &slot, &request_id).await, Reason::RequestIdReused));
    seen.note(refused(capacity(&admin, &slot, Change::Capacity(4), "").await, Reason::EtagRequired));
    seen.note(refused(capacity(&admin, &slot, Change::Delta(1), "\"0\"").await, Reason::EtagMismatch));
}

async fn capacity(admin: &Party, slot: &str, change: Change, etag: &str) -> Result<Slot, Status> {
    let request = SetSlotCapacityRequest {
        name: slot.to_owned(),
        change: Some(change),
        etag: etag.to_owned(),
        request_id: String::new(),
    };
    admin.hospital().set_slot_capacity(request).await.map(Response::into_inner)
}

async fn what_is_missing(seen: &mut Seen, checkup: &Checkup) {
    let (admin, auditor) = (checkup.admin().await, checkup.auditor().await);
    let slot = Desk::of(&admin).open("some-things", &[7], 5).await.remove(0);
    let get = GetHospitalRequest { name: "hospitals/nowhere".to_owned() };
    let refusal = refused(admin.hospital().get_hospital(get).await, Reason::HospitalNotFound);
    assert_eq!(refusal.value("hospital"), "hospitals/nowhere");
    seen.note(refusal);
    let never = "hospitals/some-things/slots/2020-01-01";
    seen.note(refused(Desk::of(&admin).slot(never).await, Reason::SlotNotFound));
    seen.note(refused(Desk::of(&auditor).screening(SCREENING).await, Reason::ScreeningNotFound));
    let get = GetReservationRequest { name: SCREENING.replace("screenings", "reservations"), ..Default::default() };
    seen.note(refused(auditor.reservation().get_reservation(get).await, Reason::ReservationNotFound));
    let name = format!("hospitals/some-things/capacityRequests/{}", &CLAIM[..36]);
    let get = GetCapacityRequestRequest { name };
    seen.note(refused(admin.hospital().get_capacity_request(get).await, Reason::CapacityRequestNotFound));
    let get = GetCapacityClaimRequest { slot, claim_id: CLAIM.to_owned() };
    let refusal = refused(auditor.capacity().get_capacity_claim(get).await, Reason::ClaimNotFound);
    assert_eq!(refusal.value("claimId"), CLAIM);
    seen.note(refusal);
}

async fn hospitals_and_slots(seen: &mut Seen, checkup: &Checkup) {
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    let slot = desk.open("twice", &[7], 3).await.remove(0);
    seen.note(refused(desk.register("twice", Desk::ZONE, Vec::new()).await, Reason::HospitalAlreadyExists));
    let create = |days| {
        let slot = Slot { date: Some(day_of(in_days(Desk::ZONE, days))), capacity: 1, ..Slot::default() };
        CreateSlotRequest { parent: "hospitals/twice".to_owned(), slot: Some(slot), ..CreateSlotRequest::default() }
    };
    seen.note(refused(admin.hospital().create_slot(create(7)).await, Reason::SlotAlreadyExists));
    seen.note(refused(admin.hospital().create_slot(create(-1)).await, Reason::DateInPast));
    desk.book("holder", &slot, "").await.expect("a place");
    let etag = desk.slot(&slot).await.expect("the slot").etag;
    seen.note(refused(capacity(&admin, &slot, Change::Capacity(0), &etag).await, Reason::CapacityBelowBooked));
    let delete = DeleteHospitalRequest { name: "hospitals/twice".to_owned(), ..DeleteHospitalRequest::default() };
    let refusal = refused(admin.hospital().delete_hospital(delete.clone()).await, Reason::HospitalHasBookings);
    assert_eq!((refusal.value("hospital"), refusal.value("activeBookingCount")), ("hospitals/twice", "1"));
    seen.note(refusal);
    let close = CloseSlotRequest { name: slot.clone(), ..CloseSlotRequest::default() };
    admin.hospital().close_slot(close).await.expect("closed");
    seen.note(refused(desk.book("late", &slot, "").await, Reason::SlotClosed));
    seen.note(decided_twice(checkup, &admin).await);
    admin.hospital().delete_hospital(DeleteHospitalRequest { force: true, ..delete }).await.expect("deleted");
    seen.note(refused(desk.book("late", &slot, "").await, Reason::HospitalDeleted));
}

/// Approves a capacity request twice.
async fn decided_twice(checkup: &Checkup, admin: &Party) -> Refusal {
    let slot = Desk::of(admin).open("wanted", &[7], 1).await.remove(0);
    let create = CreateCapacityRequestRequest {
        parent: "hospitals/wanted".to_owned(),
        capacity_request: Some(CapacityRequest { slot, additional_capacity: 2, ..CapacityRequest::default() }),
        request_id: String::new(),
    };
    let marketing = checkup.service("marketing").await;
    let made = marketing.hospital().create_capacity_request(create).await.expect("a request").into_inner();
    let approve = ApproveCapacityRequestRequest { name: made.name.clone(), ..ApproveCapacityRequestRequest::default() };
    admin.hospital().approve_capacity_request(approve.clone()).await.expect("approved");
    let refusal = refused(admin.hospital().approve_capacity_request(approve).await, Reason::CapacityRequestDecided);
    assert_eq!((refusal.value("capacityRequest"), refusal.value("state")), (made.name.as_str(), "APPROVED"));
    refusal
}

async fn bookings(seen: &mut Seen, checkup: &Checkup) {
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    let policy = BookingPolicy {
        cancellation_cutoff: Some(prost_types::Duration { seconds: 8784 * 3600, nanos: 0 }),
        ..BookingPolicy::default()
    };
    let request = CreateHospitalRequest {
        hospital: Some(Hospital {
            display_name: "No way back".to_owned(),
            time_zone: Desk::ZONE.to_owned(),
            booking_policy: Some(policy),
            ..Hospital::default()
        }),
        hospital_id: "no-way-back".to_owned(),
        initial_slots: [0, 7]
            .map(|days| Slot { date: Some(day_of(in_days(Desk::ZONE, days))), capacity: 1, ..Slot::default() })
            .to_vec(),
        ..CreateHospitalRequest::default()
    };
    admin.hospital().create_hospital(request).await.expect("a hospital");
    let slot = |days| testkit::slot_name("hospitals/no-way-back", in_days(Desk::ZONE, days));
    let kim = Desk::of(&checkup.customer("kim-of-bookings").await);
    let me = "kim-of-bookings";
    let booked = kim.book(me, &slot(7), "").await.expect("a place").name;
    seen.note(refused(kim.book(me, &slot(7), "").await, Reason::CustomerDateConflict));
    seen.note(refused(desk.book("late", &slot(7), "").await, Reason::SlotFull));
    queues(seen, &desk, &slot(7)).await;
    seen.note(refused(kim.book(me, &slot(0), "").await, Reason::OutsideBookingWindow));
    seen.note(refused(kim.cancel(&booked, "").await, Reason::CancellationClosed));
    seen.note(refused(kim.reschedule(&booked, &slot(0), "").await, Reason::RescheduleClosed));
    let complete = CompleteScreeningRequest { name: booked.clone(), ..CompleteScreeningRequest::default() };
    seen.note(refused(admin.screening().complete_screening(complete).await, Reason::DateNotReached));
    limits(seen, &desk, &kim, me).await;
    desk.cancel(&booked, "").await.expect("an admin cancels");
    seen.note(refused(desk.cancel(&booked, "").await, Reason::ScreeningStateInvalid));
}

/// Refusals of a second booking at a hospital that allows one, and of its move where it allows none.
async fn limits(seen: &mut Seen, desk: &Desk, customer: &Desk, me: &str) {
    let slots = desk.open("one-each", &[9, 10, 11], 2).await;
    let policy = BookingPolicy { reschedule_limit: Some(0), customer_limit: Some(1), ..BookingPolicy::default() };
    desk.set_policy("hospitals/one-each", policy).await.expect("a policy");
    let booked = customer.book(me, &slots[0], "").await.expect("the first").name;
    seen.note(refused(customer.book(me, &slots[1], "").await, Reason::CustomerLimitReached));
    seen.note(refused(customer.reschedule(&booked, &slots[2], "").await, Reason::RescheduleLimitReached));
    desk.cancel(&booked, "").await.expect("an admin cancels");
}

/// Refusals of bookings that would wait for a slot without a place.
async fn queues(seen: &mut Seen, desk: &Desk, full: &str) {
    let limit = |waitlist_limit| BookingPolicy { waitlist_limit, ..BookingPolicy::default() };
    desk.set_policy("hospitals/no-way-back", limit(Some(1))).await.expect("a policy");
    desk.join("first", full, "").await.expect("a place in the queue");
    let refusal = refused(desk.join("second", full, "").await, Reason::WaitlistFull);
    assert_eq!((refusal.value("slot"), refusal.value("waitlistLimit")), (full, "1"));
    seen.note(refusal);
    let always = Some(prost_types::Duration { seconds: 8784 * 3600, nanos: 0 });
    let closed = BookingPolicy { promotion_min_notice: always, ..limit(Some(0)) };
    desk.set_policy("hospitals/no-way-back", closed).await.expect("a policy");
    // That it is too late comes before that the queue is full.
    let refusal = refused(desk.join("third", full, "").await, Reason::WaitlistClosed);
    assert_eq!(refusal.value("slot"), full);
    seen.note(refusal);
}

async fn places(seen: &mut Seen, checkup: &Checkup) {
    let slot = Desk::of(&checkup.admin().await).open("tombstone", &[7], 1).await.remove(0);
    let screening = checkup.service("screening").await;
    let release = ReleaseCapacityRequest { slot: slot.clone(), claim_id: CLAIM.to_owned() };
    let tombstone = screening.capacity().release_capacity(release).await.expect("a release before its reserve");
    assert_eq!(tombstone.get_ref().state(), capacity::capacity_claim::State::Released);
    let reserve = ReserveCapacityRequest { slot, claim_id: CLAIM.to_owned(), allow_waitlist: true };
    let refusal = refused(screening.capacity().reserve_capacity(reserve).await, Reason::ClaimTerminated);
    assert_eq!((refusal.value("claimId"), refusal.value("state")), (CLAIM, "RELEASED"));
    seen.note(refusal);
}

/// Refusals by the door: bad credentials, and deadlines that are too short.
pub(super) async fn at_the_door(seen: &mut Seen) {
    let checkup = launch().start().await;
    let list = ListScreeningsRequest::default;
    let stranger = checkup.stranger().await;
    seen.note(refused(stranger.screening().list_screenings(list()).await, Reason::CredentialsMissing));
    let forger = checkup.party(Some("forged".to_owned())).await;
    seen.note(refused(forger.screening().list_screenings(list()).await, Reason::CredentialsInvalid));
    let kim = checkup.customer("kim").await;
    let page = GetMyPageRequest { name: "customers/lee/myPage".to_owned(), ..GetMyPageRequest::default() };
    seen.note(refused(kim.my_page().get_my_page(page).await, Reason::NotOwner));
    seen.note(refused(Desk::of(&kim).register("mine", Desk::ZONE, Vec::new()).await, Reason::RoleRequired));
    let wire = Wire::connect(checkup.addr()).await.expect("a connection");
    let path = "/checkup.hospital.v1.HospitalService/ListHospitals";
    let headers = [("grpc-timeout", "1n"), ("accept-language", PARTIES_READ)];
    let answer = wire.call(path, &headers, &[]).await.expect("an answer");
    seen.note(refused(Err::<(), _>(answer.status), Reason::DeadlineExceeded));
}

/// Refusals while Hospital does not run.
pub(super) async fn without_hospital(seen: &mut Seen) {
    let checkup = embedded().without("hospital").start().await;
    let kim = checkup.customer("kim").await;
    let slot = format!("hospitals/closed-down/slots/{}", in_days(Desk::ZONE, 7));
    seen.note(refused(Desk::of(&kim).book("kim", &slot, "").await, Reason::HospitalUnavailable));
    let request = CreateScreeningRequest {
        screening: Some(Screening { customer: "customers/kim".to_owned(), slot, ..Screening::default() }),
        accept_pending: true,
        ..CreateScreeningRequest::default()
    };
    let pending = kim.screening().create_screening(request).await.expect("accepted").into_inner();
    assert_eq!(pending.state(), screening::screening::State::Pending);

    // A view that never gets a write waits for it, but not without limit.
    let elsewhere = launch().start().await;
    let mut read = Request::new(GetMyPageRequest {
        name: "customers/kim/myPage".to_owned(),
        min_consistency_token: pending.consistency_token,
        ..GetMyPageRequest::default()
    });
    read.set_timeout(Duration::from_millis(500));
    let page = elsewhere.customer("kim").await.my_page().get_my_page(read).await;
    seen.note(refused(page, Reason::ViewLagging));
}

/// Refusals while Hospital answers late.
pub(super) async fn with_a_slow_hospital(seen: &mut Seen) {
    let proxy = FaultProxy::start().await;
    let checkup = launch().set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slot = Desk::of(&checkup.admin().await).open("slow", &[7], 5).await.remove(0);
    let kim = checkup.customer("kim").await;
    proxy.blackhole(Direction::ToClient);
    let request_id = seed("in progress").uuid().to_string();
    let first = {
        let (desk, slot, request_id) = (Desk::of(&kim), slot.clone(), request_id.clone());
        tokio::spawn(async move { desk.book("kim", &slot, &request_id).await })
    };
    let desk = Desk::of(&kim);
    eventually("the first to reach Hospital", async || {
        let booked = desk.booked(&slot).await?;
        if booked == 1 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    let hasty = Desk::of(&kim.clone().with_deadline(Duration::from_millis(500)));
    seen.note(refused(hasty.book("kim", &slot, &request_id).await, Reason::RequestInProgress));
    first.abort();
}

/// Refusals while Hospital's writer has room for only one request.
pub(super) async fn with_a_short_queue(seen: &mut Seen) {
    let checkup = launch().set("hospital.queue", 1).set("hospital.batch", 1).start().await;
    let slot = Desk::of(&checkup.admin().await).open("narrow", &[7], 10_000).await.remove(0);
    let screening = checkup.service("screening").await;
    let mut random = seed("short queue");
    let claims: Vec<String> = (0..100).map(|_| format!("{}.1", random.uuid())).collect();
    let answers = gather(start_together(claims.len(), |i| {
        let claim_id = claims[i].clone();
        let request = ReserveCapacityRequest { slot: slot.clone(), claim_id, ..ReserveCapacityRequest::default() };
        let screening = screening.clone();
        async move { screening.capacity().reserve_capacity(request).await }
    }))
    .await;
    let (held, turned_away): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(!held.is_empty(), "an overloaded service still works");
    let refusals: Vec<Refusal> = turned_away.into_iter().map(|answer| refused(answer, Reason::Overloaded)).collect();
    refusals.into_iter().for_each(|refusal| seen.note(refusal));
    let booked = Desk::of(&screening).booked(&slot).await;
    assert_eq!(booked, Ok(i32::try_from(held.len()).unwrap_or(0)), "whoever was turned away has nothing");
}

/// The refusal of a caller that has its share of calls under way.
pub(super) async fn with_a_small_share(seen: &mut Seen) {
    let checkup = embedded().set("server.max_calls_per_customer", 1).start().await;
    let kim = checkup.customer("kim").await;
    let wire = Wire::connect(checkup.addr()).await.expect("a connection");
    let path = "/checkup.screening.v1.ScreeningService/ListScreenings";
    let bearer = format!("Bearer {}", checkup.tokens().customer("kim"));
    let mut held = Vec::new();
    let refusal = eventually("a call that is held to have the only place", async || {
        // one that arrives while the call below is answered is refused itself, and the next look holds another
        held.push(wire.open_and_hold(path, &[("authorization", &bearer)]).await.map_err(|error| format!("{error:?}"))?);
        let list = kim.screening().list_screenings(ListScreeningsRequest::default()).await;
        list.err().ok_or_else(|| "the second call is answered".to_owned())
    })
    .await;
    let refusal = refused(Err::<(), _>(refusal), Reason::RateLimited);
    assert_eq!((refusal.value("caller"), refusal.value("limit")), ("customer:kim", "1"));
    assert_eq!(
        refusal.quotas,
        [("customer:kim".to_owned(), "lists among calls of ScreeningService under way: at most 1".to_owned())]
    );
    seen.note(refusal);
    drop((held, wire));
}
