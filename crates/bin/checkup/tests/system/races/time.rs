//! R14: dates are civil dates in the hospital's time zone, and the machine's own time zone never matters.
//!
//! The configuration can shift the process's clock, so that a slot made today is a slot of the past a day later.

use std::time::Duration;

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::{BookingPolicy, CreateHospitalRequest, CreateSlotRequest, Hospital, Slot, UpdateHospitalRequest};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use screening::screening::State;
use screening::{CompleteScreeningRequest, MarkNoShowRequest, Screening};
use testkit::{Desk, Party, Refusal, day_of, eventually_within, in_days, refused, slot_name};
use tonic::{Response, Status};

use crate::{embedded, launch};

/// The configuration key that shifts the clock of the process.
const CLOCK: &str = "clock.offset";
/// The first and the last place on earth where a date begins. They are 25 hours apart, so they never share a date.
const EARLY: &str = "Pacific/Kiritimati";
const LATE: &str = "Pacific/Pago_Pago";

async fn create_slot(admin: &Party, parent: &str, date: Date, capacity: i32) -> Result<Slot, Status> {
    let slot = Slot { date: Some(day_of(date)), capacity, ..Slot::default() };
    let request = CreateSlotRequest { parent: parent.to_owned(), slot: Some(slot), ..CreateSlotRequest::default() };
    admin.hospital().create_slot(request).await.map(Response::into_inner)
}

fn instant(refusal: &Refusal, key: &str) -> Timestamp {
    refusal.value(key).parse().expect("an instant in RFC 3339")
}

fn midnight(date: Date, zone: &str) -> Timestamp {
    date.to_zoned(TimeZone::get(zone).expect("a zone")).expect("a midnight").timestamp()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_today_is_the_hospitals_today() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    for (id, zone) in [("first-dawn", EARLY), ("last-dusk", LATE)] {
        desk.register(id, zone, Vec::new()).await.expect("a hospital");
    }
    let (today_early, today_late) = (in_days(EARLY, 0), in_days(LATE, 0));
    assert!(today_late < today_early);

    // The same date is still ahead at one end of the world and over at the other.
    create_slot(&admin, "hospitals/last-dusk", today_late, 5).await.expect("a slot of today");
    let refusal = refused(create_slot(&admin, "hospitals/first-dawn", today_late, 5).await, Reason::DateInPast);
    assert_eq!((refusal.value("today"), refusal.value("timeZone")), (today_early.to_string().as_str(), EARLY));

    let kim = Desk::of(&checkup.customer("kim").await);
    let same_day = slot_name("hospitals/last-dusk", today_late);
    let refusal = refused(kim.book("kim", &same_day, "").await, Reason::OutsideBookingWindow);
    assert_eq!((refusal.value("today"), refusal.value("timeZone")), (today_late.to_string().as_str(), LATE));
    assert_eq!(instant(&refusal, "closesAt"), midnight(today_late, LATE), "bookable until the date begins");
    assert_eq!(
        instant(&refusal, "opensAt"),
        midnight(today_late, LATE) - SignedDuration::from_hours(8784),
        "from 366 days before"
    );
    create_slot(&admin, "hospitals/last-dusk", today_late + 1.day(), 5).await.expect("a slot of tomorrow");
    let tomorrow = slot_name("hospitals/last-dusk", today_late + 1.day());
    assert_eq!(kim.book("kim", &tomorrow, "").await.expect("tomorrow").state(), State::Confirmed);

    // Two days later, the slot of tomorrow is over: it can be neither booked nor opened.
    let launch = checkup.stop().await.set(CLOCK, "48h");
    let checkup = launch.start().await;
    let lee = Desk::of(&checkup.customer("lee").await);
    let refusal = refused(lee.book("lee", &tomorrow, "").await, Reason::DateInPast);
    assert_eq!(refusal.value("timeZone"), LATE);
    let seen: Date = refusal.value("today").parse().expect("a date");
    assert!(seen > today_late + 1.day(), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_the_window_is_the_policy_of_the_hospital() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let hours = |hours: i64| Some(prost_duration(hours));
    let policy = BookingPolicy { min_notice: hours(72), max_advance: hours(240), ..BookingPolicy::default() };
    let request = CreateHospitalRequest {
        hospital: Some(Hospital {
            display_name: "By appointment".to_owned(),
            time_zone: Desk::ZONE.to_owned(),
            booking_policy: Some(policy),
            ..Hospital::default()
        }),
        hospital_id: "by-appointment".to_owned(),
        ..CreateHospitalRequest::default()
    };
    admin.hospital().create_hospital(request).await.expect("a hospital");
    let date = |days| in_days(Desk::ZONE, days);
    for days in [2, 6, 20] {
        create_slot(&admin, "hospitals/by-appointment", date(days), 5).await.expect("a slot");
    }
    let kim = checkup.customer("kim").await;
    let desk = Desk::of(&kim);
    let slot = |days| slot_name("hospitals/by-appointment", date(days));
    for (days, why) in [(2, "too late"), (20, "too early")] {
        let refusal = refused(desk.book("kim", &slot(days), "").await, Reason::OutsideBookingWindow);
        let begin = midnight(date(days), Desk::ZONE);
        assert_eq!(instant(&refusal, "closesAt"), begin - SignedDuration::from_hours(72), "{why}");
        assert_eq!(instant(&refusal, "opensAt"), begin - SignedDuration::from_hours(240), "{why}");
    }
    let booked = desk.book("kim", &slot(6), "").await.expect("inside the window");

    // The cut-off is the one at the time of the booking, whatever the policy is now.
    let policy = BookingPolicy { cancellation_cutoff: hours(8784), ..BookingPolicy::default() };
    let hospital =
        Hospital { name: "hospitals/by-appointment".to_owned(), booking_policy: Some(policy), ..Hospital::default() };
    let request = UpdateHospitalRequest { hospital: Some(hospital), update_mask: None };
    admin.hospital().update_hospital(request).await.expect("an admin updates");
    desk.cancel(&booked.name, "").await.expect("the old cut-off holds");
    let booked = desk.book("kim", &slot(6), "").await.expect("a booking under the new policy");
    let refusal = refused(desk.cancel(&booked.name, "").await, Reason::CancellationClosed);
    assert_eq!(refusal.value("screening"), booked.name);
    assert_eq!(
        instant(&refusal, "closesAt"),
        midnight(date(6), Desk::ZONE) - SignedDuration::from_hours(8784),
        "the cut-off counts back from the date"
    );
    let by_admin = Desk::of(&admin).cancel(&booked.name, "").await.expect("admins are exempt");
    assert_eq!((by_admin.state(), by_admin.state_reason.as_str()), (State::Cancelled, "ADMIN_REQUEST"));
}

fn prost_duration(hours: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: hours * 3600, nanos: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_the_booking_window_closes_at_midnight() {
    // Embedded, because a mesh does not start fast enough. The clock starts a few seconds before the hospital's next
    // midnight.
    const BEFORE: SignedDuration = SignedDuration::from_secs(6);
    let tomorrow = in_days(Desk::ZONE, 1);
    let offset = midnight(tomorrow, Desk::ZONE).duration_since(Timestamp::now()) - BEFORE;
    let checkup = embedded().set(CLOCK, format!("{}ms", offset.as_millis())).start().await;
    let slot = Desk::of(&checkup.admin().await).open("cinderella", &[1], 100_000).await.remove(0);
    let served = checkup.served();
    let mut visits = 0;
    let refusal = eventually_within(Duration::from_secs(15), "midnight", async || {
        visits += 1;
        let customer = format!("visitor-{visits}");
        match Desk::of(&served.customer(&customer).await).book(&customer, &slot, "").await {
            Ok(booked) => Err(format!("{} was booked", booked.name)),
            refusal => Ok(refused(refusal, Reason::OutsideBookingWindow)),
        }
    })
    .await;
    assert!(visits > 1, "before midnight it could be booked");
    assert_eq!(refusal.value("today"), tomorrow.to_string());
    assert_eq!(instant(&refusal, "closesAt"), midnight(tomorrow, Desk::ZONE));
    let after = Desk::of(&served.customer("late").await).book("late", &slot, "").await;
    refused(after, Reason::OutsideBookingWindow);
}

async fn complete(admin: &Party, name: &str) -> Result<Screening, Status> {
    let request = CompleteScreeningRequest { name: name.to_owned(), ..CompleteScreeningRequest::default() };
    admin.screening().complete_screening(request).await.map(Response::into_inner)
}

async fn no_show(admin: &Party, name: &str) -> Result<Screening, Status> {
    let request = MarkNoShowRequest { name: name.to_owned(), ..MarkNoShowRequest::default() };
    admin.screening().mark_no_show(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_attendance_waits_for_the_date() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).open("attended", &[1], 5).await.remove(0);
    let mut names = Vec::new();
    for customer in ["kim", "lee", "park"] {
        let desk = Desk::of(&checkup.customer(customer).await);
        names.push(desk.book(customer, &slot, "").await.expect("a place").name);
    }
    let refusal = refused(complete(&admin, &names[0]).await, Reason::DateNotReached);
    assert_eq!(refusal.value("screening"), names[0]);
    assert_eq!(
        (refusal.value("today"), refusal.value("timeZone")),
        (in_days(Desk::ZONE, 0).to_string().as_str(), Desk::ZONE)
    );

    // On the date itself a booking can be completed, but not marked as NO_SHOW.
    let launch = checkup.stop().await.set(CLOCK, "24h");
    let checkup = launch.start().await;
    let admin = checkup.admin().await;
    assert_eq!(complete(&admin, &names[0]).await.expect("the date has come").state(), State::Completed);
    refused(no_show(&admin, &names[1]).await, Reason::DateNotReached);
    let refusal = refused(complete(&admin, &names[0]).await, Reason::ScreeningStateInvalid);
    assert_eq!(refusal.value("state"), "COMPLETED");
    let cancel = Desk::of(&checkup.customer("lee").await).cancel(&names[1], "").await;
    refused(cancel, Reason::CancellationClosed);

    // On the day after, NO_SHOW can be corrected. COMPLETED cannot.
    let launch = checkup.stop().await.set(CLOCK, "48h");
    let checkup = launch.start().await;
    let admin = checkup.admin().await;
    assert_eq!(no_show(&admin, &names[1]).await.expect("the date is over").state(), State::NoShow);
    let corrected = complete(&admin, &names[1]).await.expect("a correction");
    assert_eq!((corrected.state(), corrected.version), (State::Completed, 3));
    refused(no_show(&admin, &names[1]).await, Reason::ScreeningStateInvalid);
    assert_eq!(no_show(&admin, &names[2]).await.expect("the date is over").state(), State::NoShow);
    assert_eq!(Desk::of(&admin).booked(&slot).await, Ok(3), "attendance gives no place back");
}
