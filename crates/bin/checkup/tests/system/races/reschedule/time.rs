//! R31: until when a place can be left, and by whom. What a date that is over allows is in [`crate::past`].

use std::time::Duration;

use contract::hospital::v1 as hospital;
use fault::Reason;
use hospital::{BookingPolicy, CreateHospitalRequest, Hospital, Slot};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use testkit::{Desk, Party, Refusal, day_of, eventually_within, in_days, refused, slot_name};

use super::{agree, settles};
use crate::launch;

/// The days until the dates of [`open_with_cutoff`].
const DAYS: [i32; 2] = [7, 8];

/// Makes a hospital whose bookings can be cancelled until so long before their dates. Returns its two slots.
async fn open_with_cutoff(admin: &Party, id: &str, cutoff: SignedDuration) -> Vec<String> {
    let cutoff = prost_types::Duration { seconds: cutoff.as_secs(), nanos: 0 };
    let policy = BookingPolicy { cancellation_cutoff: Some(cutoff), ..BookingPolicy::default() };
    let dates = DAYS.map(|days| in_days(Desk::ZONE, days));
    let slots = dates.map(|date| Slot { date: Some(day_of(date)), capacity: 1_000, ..Slot::default() });
    let request = CreateHospitalRequest {
        hospital: Some(Hospital {
            display_name: format!("Hospital {id}"),
            time_zone: Desk::ZONE.to_owned(),
            booking_policy: Some(policy),
            ..Hospital::default()
        }),
        hospital_id: id.to_owned(),
        initial_slots: slots.to_vec(),
        ..CreateHospitalRequest::default()
    };
    admin.hospital().create_hospital(request).await.expect("a hospital");
    dates.map(|date| slot_name(&format!("hospitals/{id}"), date)).to_vec()
}

/// The beginning of the date so many days from today.
fn midnight(days: i32) -> Timestamp {
    let zone = TimeZone::get(Desk::ZONE).expect("a zone");
    in_days(Desk::ZONE, days).to_zoned(zone).expect("a midnight").timestamp()
}

fn closes_at(refusal: &Refusal) -> Timestamp {
    refusal.value("closesAt").parse().expect("an instant in RFC 3339")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r31_the_cut_off_of_the_place_that_is_held_binds_the_customer_alone() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let always = SignedDuration::from_hours(8784);
    let strict = open_with_cutoff(&admin, "no-way-out", always).await;
    let lenient = open_with_cutoff(&admin, "free-to-go", SignedDuration::ZERO).await;
    let kim = Desk::of(&checkup.customer("kim").await);
    let booked = kim.book("kim", &strict[0], "").await.expect("a place");
    for target in [&strict[1], &lenient[0]] {
        let refusal = refused(kim.reschedule(&booked.name, target, "").await, Reason::RescheduleClosed);
        assert_eq!(refusal.value("screening"), booked.name);
        assert_eq!(closes_at(&refusal), midnight(DAYS[0]) - always);
    }
    assert_eq!(kim.screening(&booked.name).await.expect("the booking"), booked);

    let moved = Desk::of(&admin).reschedule(&booked.name, &lenient[0], "").await.expect("admins are exempt");
    assert_eq!((moved.version, moved.state_reason.as_str()), (3, "ADMIN_REQUEST"));
    let moved = kim.reschedule(&booked.name, &lenient[1], "").await.expect("the place that is held now can be left");
    assert_eq!((moved.version, moved.state_reason.as_str()), (5, "CUSTOMER_REQUEST"));
    // The cut-off of the place to move to begins to bind with the move.
    kim.reschedule(&booked.name, &strict[1], "").await.expect("the target's cut-off does not matter");
    let refusal = refused(kim.reschedule(&booked.name, &lenient[0], "").await, Reason::RescheduleClosed);
    assert_eq!(closes_at(&refusal), midnight(DAYS[1]) - always);
    let expected = [(&*strict[0], 0), (&*strict[1], 1), (&*lenient[0], 0), (&*lenient[1], 0)];
    settles(&checkup.auditor().await, &expected).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r31_a_move_is_judged_by_the_moment_at_which_it_is_judged() {
    // The cut-off is a few seconds ahead.
    const AHEAD: SignedDuration = SignedDuration::from_secs(8);
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let to = open_with_cutoff(&admin, "open-house", SignedDuration::ZERO).await.remove(0);
    let until_then = midnight(DAYS[0]).duration_since(Timestamp::now()) - AHEAD;
    let cutoff = SignedDuration::from_secs(until_then.as_secs());
    let from = open_with_cutoff(&admin, "closing-soon", cutoff).await.remove(0);
    let served = checkup.served();
    let mut visits = 0;
    let refusal = eventually_within(Duration::from_secs(30), "the cut-off", async || {
        visits += 1;
        let customer = format!("visitor-{visits}");
        let desk = Desk::of(&served.customer(&customer).await);
        let name = desk.book(&customer, &from, "").await.expect("a place").name;
        match desk.reschedule(&name, &to, "").await {
            Ok(moved) => Err(format!("{} was moved", moved.name)),
            refusal => Ok(refused(refusal, Reason::RescheduleClosed)),
        }
    })
    .await;
    assert!(visits > 1, "before the cut-off it could be moved");
    assert_eq!(closes_at(&refusal), midnight(DAYS[0]) - cutoff);
    assert!(closes_at(&refusal) <= Timestamp::now(), "nobody is refused before it");
    settles(&checkup.auditor().await, &[(&from, 1), (&to, visits - 1)]).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r31_an_admin_has_to_administer_both_hospitals() {
    let checkup = launch().start().await;
    let root = Desk::of(&checkup.admin().await);
    let from = root.open("left-bank", &[7], 5).await.remove(0);
    let to = root.open("right-bank", &[8], 5).await.remove(0);
    let booked = root.book("kim", &from, "").await.expect("a place");
    let admin = async |hospitals: &str| {
        let token = checkup.tokens().admin("lee", hospitals);
        Desk::of(&checkup.party(Some(token)).await)
    };
    for hospitals in ["left-bank", "right-bank", "some-bank"] {
        refused(admin(hospitals).await.reschedule(&booked.name, &to, "").await, Reason::NotOwner);
    }
    let stranger = Desk::of(&checkup.customer("park").await);
    refused(stranger.reschedule(&booked.name, &to, "").await, Reason::NotOwner);
    let auditor = checkup.auditor().await;
    settles(&auditor, &[(&from, 1), (&to, 0)]).await;
    assert_eq!(root.screening(&booked.name).await.expect("the booking"), booked);

    let both = admin("left-bank,right-bank").await;
    let moved = both.reschedule(&booked.name, &to, "").await.expect("both are theirs");
    assert_eq!((moved.version, moved.state_reason.as_str()), (3, "ADMIN_REQUEST"));
    // From now on it is a booking of the other hospital alone.
    refused(admin("left-bank").await.screening(&booked.name).await, Reason::NotOwner);
    assert_eq!(admin("right-bank").await.screening(&booked.name).await.expect("theirs now"), moved);
    settles(&auditor, &[(&from, 0), (&to, 1)]).await;
    agree(&checkup).await;
}
