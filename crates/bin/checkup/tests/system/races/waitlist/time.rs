//! R24: a promotion against the clock, and against the closing and the deletion of what is waited for.

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::{BookingPolicy, CloseSlotRequest, DeleteHospitalRequest, GetHospitalRequest, ReopenSlotRequest};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use screening::Screening;
use screening::screening::State;
use testkit::{
    Checkup, Desk, Party, Random, eventually, eventually_within, in_days, refused, refused_one_of, seed, wait_limit,
};

use super::{Queue, Watch, agree, check_queue, counts, of_slot, promoted, turned_away};
use crate::launch;
use crate::races::claims;

/// The beginning of the date of a [`Queue`].
fn midnight() -> Timestamp {
    let zone = TimeZone::get(Desk::ZONE).expect("a zone");
    in_days(Desk::ZONE, 7).to_zoned(zone).expect("a midnight").timestamp()
}

/// Waits until the clock shows this.
async fn until(instant: Timestamp) {
    eventually_within(wait_limit(), "a moment", async || {
        if Timestamp::now() >= instant { Ok(()) } else { Err(instant.to_string()) }
    })
    .await;
}

/// Sets until how long before a date who joins from now on gets a place.
async fn set_notice(admin: &Party, hospital: &str, notice: SignedDuration) {
    let notice = prost_types::Duration { seconds: notice.as_secs(), nanos: 0 };
    let policy = BookingPolicy { promotion_min_notice: Some(notice), ..BookingPolicy::default() };
    Desk::of(admin).set_policy(hospital, policy).await.expect("a policy");
}

/// How many of these bookings, from the first on, have a place. The others are all in `state`.
async fn prefix(auditor: &Party, slot: &str, names: &[&str], state: State) -> usize {
    eventually("every booking to settle", async || {
        let seen = of_slot(auditor, slot).await;
        let states: Vec<State> = names.iter().map(|name| seen[*name].0).collect();
        let count = states.iter().take_while(|state| **state == State::Confirmed).count();
        let others = states[count..].iter().all(|found| *found == state);
        if others { Ok(count) } else { Err(format!("{count} have a place, then {:?}", &states[count..])) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r24_after_its_time_nobody_is_promoted_and_a_free_place_goes_on_sale() {
    const PLACES: usize = 30;
    const WAITING: usize = 40;
    /// The first places come back in time, and the last ones too late, in any case.
    const EARLY: usize = 8;
    const LATE: usize = 5;
    // Long enough to set the scene, and then the other releases come around the end of it.
    let ahead = SignedDuration::try_from(wait_limit() / 2).expect("a span");
    let checkup = launch().start().await;
    let (admin, auditor) = (checkup.admin().await, checkup.auditor().await);
    let mut queue = Queue::set(&checkup, "closing-soon", PLACES, 0).await;
    let notice = SignedDuration::from_secs((midnight().duration_since(Timestamp::now()) - ahead).as_secs());
    set_notice(&admin, "hospitals/closing-soon", notice).await;
    let closes_at = midnight() - notice;
    queue.wait(&checkup, "in-time", WAITING).await;
    let names = queue.names();
    for i in 0..EARLY {
        queue.cancel(i).await;
    }
    promoted(&auditor, &queue.slot, &names, EARLY).await;
    assert!(Timestamp::now() < closes_at, "the scene is set in time");
    until(closes_at - SignedDuration::from_millis(150)).await;
    let mut in_time = EARLY;
    for i in EARLY..PLACES - LATE {
        queue.cancel(i).await;
        in_time += usize::from(Timestamp::now() < closes_at);
    }
    until(closes_at).await;
    for i in PLACES - LATE..PLACES {
        queue.cancel(i).await;
    }
    let count = prefix(&auditor, &queue.slot, &names, State::Expired).await;
    println!("{count} of {PLACES} places were given back in time, {in_time} cancels were answered in time");
    assert!((EARLY..=PLACES - LATE).contains(&count) && count <= in_time + 1, "{count} promotions, {in_time} cancels");
    let now = counts(&auditor, &queue.slot, count, 0).await;
    assert_eq!(usize::try_from(now.remaining_count), Ok(PLACES - count), "what came too late goes on sale");
    for (_, joined) in &queue.waiters[count..] {
        let seen = Desk::of(&auditor).screening(&joined.name).await.expect("the booking");
        assert_eq!((seen.state_reason.as_str(), seen.version), ("PROMOTION_CLOSED", 2));
    }
    let newcomer = Desk::of(&checkup.customer("newcomer").await);
    newcomer.book("newcomer", &queue.slot, "").await.expect("a free place");
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r24_the_time_that_held_at_the_joining_counts() {
    let checkup = launch().start().await;
    let (admin, auditor) = (checkup.admin().await, checkup.auditor().await);
    let queue = Queue::set(&checkup, "stricter-now", 1, 2).await;
    let day = SignedDuration::from_hours(24);
    let told = |row: &Screening| row.promotion_close_time.map(|time| time.seconds);
    assert_eq!(told(&queue.waiters[0].1), Some((midnight() - day).as_second()));
    set_notice(&admin, "hospitals/stricter-now", day * 300).await;
    let late = Desk::of(&checkup.customer("late").await);
    let refusal = refused(late.join("late", &queue.slot, "").await, Reason::WaitlistClosed);
    assert_eq!(refusal.value("closesAt"), (midnight() - day * 300).to_string());
    assert_eq!(refused(late.book("late", &queue.slot, "").await, Reason::SlotFull).value("waitlistOpen"), "false");
    queue.cancel(0).await;
    promoted(&auditor, &queue.slot, &queue.names(), 1).await;
    let waiting = claims(&auditor, &queue.slot, "WAITING").await;
    let closes: Vec<_> = waiting.iter().map(|claim| claim.promotion_close_time.map(|time| time.seconds)).collect();
    assert_eq!(closes, [told(&queue.waiters[1].1)]);
    agree(&checkup).await;
}

/// A number of cancels after which an admin acts: not none, and not all.
fn some(places: usize, random: &mut Random) -> usize {
    1 + usize::try_from(random.below(places as u64 - 2)).unwrap_or(0)
}

async fn close(admin: &Party, slot: &str, cancel_bookings: bool) {
    let (name, reason) = (slot.to_owned(), "no water".to_owned());
    let request = CloseSlotRequest { name, reason, cancel_bookings, ..CloseSlotRequest::default() };
    admin.hospital().close_slot(request).await.expect("an admin closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r24_on_a_closed_slot_freed_places_rest_and_reopened_they_go_to_the_queue() {
    const PLACES: usize = 12;
    const WAITING: usize = 20;
    const NEWCOMERS: usize = 24;
    let mut random = seed("r24 closing");
    let checkup = launch().start().await;
    let (admin, auditor) = (checkup.admin().await, checkup.auditor().await);
    let queue = Queue::set(&checkup, "shut", PLACES, WAITING).await;
    let watch = Watch::over(&checkup, &queue.slot).await;
    let slot = queue.slot.clone();
    let closing = || {
        let (admin, slot) = (admin.clone(), slot.clone());
        async move { close(&admin, &slot, false).await }
    };
    queue.released_until(some(PLACES, &mut random), closing).await;
    let names = queue.names();
    let resting = eventually("every place to be given back", async || {
        let held = claims(&auditor, &slot, "RELEASED").await.len();
        if held == PLACES { Ok(()) } else { Err(format!("{held} were given back")) }
    });
    resting.await;
    let count = prefix(&auditor, &slot, &names, State::Waitlisted).await;
    println!("{count} of {PLACES} places were given back before the closing");
    let now = counts(&auditor, &slot, count, WAITING - count).await;
    assert_eq!(usize::try_from(now.remaining_count), Ok(PLACES - count));
    let late = Desk::of(&checkup.customer("late").await);
    for answer in [late.join("late", &slot, "").await, late.book("late", &slot, "").await] {
        refused(answer, Reason::SlotClosed);
    }
    agree(&checkup).await;

    let newcomers = checkup.served().customers("newcomer", NEWCOMERS, 8).await;
    let reopened = testkit::rush(NEWCOMERS + 1, |i| {
        let (admin, slot, newcomer) = (admin.clone(), slot.clone(), newcomers.get(i).map(Desk::of));
        async move {
            let Some(desk) = newcomer else {
                let reopen = ReopenSlotRequest { name: slot, ..ReopenSlotRequest::default() };
                return Some(admin.hospital().reopen_slot(reopen).await.expect("reopened").into_inner());
            };
            let answer = desk.book(&format!("newcomer-{i}"), &slot, "").await;
            if refused_one_of(answer.clone(), &[Reason::SlotClosed, Reason::SlotFull]).reason == "SLOT_FULL" {
                turned_away(answer, &slot);
            }
            None
        }
    })
    .await;
    reopened.iter().flatten().try_for_each(check_queue).expect("the answer of the reopening shows no free place");
    promoted(&auditor, &slot, &names, PLACES).await;
    counts(&auditor, &slot, PLACES, WAITING - PLACES).await;
    watch.end().await;
    agree(&checkup).await;
}

/// Waits until every booking of the slot has ended, and checks that who waited was told why.
async fn all_ended(checkup: &Checkup, queue: &Queue, reason: &str, message: &str) {
    let auditor = checkup.auditor().await;
    counts(&auditor, &queue.slot, 0, 0).await;
    for (_, joined) in &queue.waiters {
        let seen = Desk::of(&auditor).becomes(&joined.name, State::ForceCancelled).await;
        assert_eq!((seen.state_reason.as_str(), seen.state_message.as_str()), (reason, message), "{seen:?}");
        assert_eq!((seen.waitlist_position, seen.promotion_close_time), (0, None));
    }
    for (state, _) in of_slot(&auditor, &queue.slot).await.values() {
        assert!([State::Cancelled, State::ForceCancelled].contains(state), "{state:?}");
    }
    agree(checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r24_a_cancelled_slot_ends_all_waiting() {
    const PLACES: usize = 10;
    let mut random = seed("r24 cancelling");
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let queue = Queue::set(&checkup, "called-off", PLACES, 30).await;
    let watch = Watch::over(&checkup, &queue.slot).await;
    // everything that could promote somebody, at the same time
    let cancelling = || {
        let (admin, slot) = (admin.clone(), queue.slot.clone());
        async move {
            close(&admin, &slot, true).await;
            Desk::of(&admin).add_places(&slot, 5).await.expect("more places, off sale");
        }
    };
    queue.released_until(some(PLACES, &mut random), cancelling).await;
    all_ended(&checkup, &queue, "SLOT_CANCELLED", "no water").await;
    watch.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r24_a_deleted_hospital_ends_all_waiting() {
    const PLACES: usize = 10;
    let mut random = seed("r24 deletion");
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let queue = Queue::set(&checkup, "torn-down", PLACES, 30).await;
    let deletion = |name: &str, force| DeleteHospitalRequest {
        name: name.to_owned(),
        force,
        reason: "no water".to_owned(),
        ..DeleteHospitalRequest::default()
    };
    let deleting = || {
        let (admin, request) = (admin.clone(), deletion("hospitals/torn-down", true));
        async move { drop(admin.hospital().delete_hospital(request).await.expect("an admin deletes")) }
    };
    queue.released_until(some(PLACES, &mut random), deleting).await;
    all_ended(&checkup, &queue, "HOSPITAL_DELETED", "no water").await;

    // Nobody has a place here: who waits does not hold up the deletion.
    let waiting = Queue::set(&checkup, "never-began", 0, 3).await;
    let request = deletion("hospitals/never-began", false);
    admin.hospital().delete_hospital(request).await.expect("no booking is active");
    all_ended(&checkup, &waiting, "HOSPITAL_DELETED", "no water").await;
    let deleted = eventually("the deletion to end", async || {
        let request = GetHospitalRequest { name: "hospitals/never-began".to_owned() };
        let now = admin.hospital().get_hospital(request).await.map_err(|status| status.to_string())?.into_inner();
        if now.state() == hospital::hospital::State::Deleted { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(deleted.revocation_progress.map(|progress| (progress.revoked, progress.total)), Some((3, 3)));
}
