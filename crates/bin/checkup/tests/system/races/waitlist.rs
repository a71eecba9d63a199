//! R19 to R26: bookings that wait for a place, against newcomers, against whatever else becomes of the place and of
//! them, against the clock, against faults and against each other.

mod customers;
mod faults;
mod limits;
mod queue;
mod storm;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::capacity::v1::CapacityClaim;
use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::{
    ApproveCapacityRequestRequest, CapacityRequest, CreateCapacityRequestRequest, ListSlotsRequest,
    SearchAvailabilityRequest, Slot,
};
use screening::Screening;
use screening::screening::State;
use testkit::{Checkup, Desk, Party, day_of, eventually, gather, in_days, refused, rush, wait_limit};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Status;

use self::queue::{Press, Queue};
use super::{agree, all_screenings, check_counts, claims};
use crate::launch;

/// Waits until the first `count` of these bookings have a place, in the version after that in which they waited, and
/// the others still wait.
async fn promoted(auditor: &Party, slot: &str, names: &[&str], count: usize) {
    eventually(&format!("the first {count} of {} to have a place", names.len()), async || {
        let seen: BTreeMap<String, (State, i64)> = of_slot(auditor, slot).await;
        let wrong = names.iter().enumerate().find_map(|(i, name)| {
            let expected = if i < count { (State::Confirmed, 2) } else { (State::Waitlisted, 1) };
            let found = seen.get(*name).copied();
            (found != Some(expected)).then(|| format!("number {i}, {name}, is {found:?}, not {expected:?}"))
        });
        wrong.map_or(Ok(()), Err)
    })
    .await;
}

/// The state and the version of every booking of a slot.
async fn of_slot(auditor: &Party, slot: &str) -> BTreeMap<String, (State, i64)> {
    let rows = all_screenings(auditor, &format!("slot=\"{slot}\"")).await;
    rows.into_iter().map(|row| (row.name.clone(), (row.state(), row.version))).collect()
}

/// Waits until the slot counts so many taken places and so many who wait, and has as many claims.
async fn counts(auditor: &Party, slot: &str, booked: usize, waiting: usize) -> Slot {
    eventually("the slot to count its claims", async || {
        let now = Desk::of(auditor).slot(slot).await.map_err(|status| status.to_string())?;
        let held = [claims(auditor, slot, "ACTIVE").await.len(), claims(auditor, slot, "WAITING").await.len()];
        let counted =
            [now.booked_count, now.waitlisted_count].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        if held == counted && counted == [booked, waiting] { Ok(now) } else { Err(format!("{held:?} claims, {now:?}")) }
    })
    .await
}

/// Checks what every reader of a slot must see at any time: no place is free on sale while somebody waits.
fn check_queue(slot: &Slot) -> Result<(), String> {
    check_counts(slot)?;
    let is_on_sale = slot.state() == hospital::slot::State::Open;
    let is_passed_on = slot.waitlisted_count == 0 || slot.remaining_count == 0 || !is_on_sale;
    if is_passed_on { Ok(()) } else { Err(format!("a place was free while somebody waited: {slot:?}")) }
}

/// Reads a slot by every method and checks its queue until `stop` is set. Returns the number of rounds.
async fn watch_queue(reader: Party, slot: String, stop: Arc<AtomicBool>) -> Result<usize, String> {
    let text = |status: Status| status.to_string();
    let (hospital, _) = slot.split_once("/slots/").expect("a slot's name");
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        check_queue(&Desk::of(&reader).slot(&slot).await.map_err(text)?)?;
        let list = ListSlotsRequest { parent: hospital.to_owned(), ..ListSlotsRequest::default() };
        let listed = reader.hospital().list_slots(list).await.map_err(text)?.into_inner();
        let search = SearchAvailabilityRequest {
            start_date: Some(day_of(in_days(Desk::ZONE, 0))),
            end_date: Some(day_of(in_days(Desk::ZONE, 60))),
            hospitals: vec![hospital.to_owned()],
            ..SearchAvailabilityRequest::default()
        };
        let free = reader.hospital().search_availability(search).await.map_err(text)?.into_inner();
        listed.slots.iter().chain(&testkit::slots_of(free)).try_for_each(check_queue)?;
        looks += 1;
    }
    Ok(looks)
}

/// Readers of a slot's queue, until [`Watch::end`].
struct Watch {
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Result<usize, String>>>,
}

impl Watch {
    async fn over(checkup: &Checkup, slot: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for _ in 0..2 {
            readers.push(tokio::spawn(watch_queue(checkup.stranger().await, slot.to_owned(), Arc::clone(&stop))));
        }
        Self { stop, readers }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for looks in gather(self.readers).await {
            assert!(looks.expect("no look shows a place to a newcomer") > 0, "the readers looked while it went on");
        }
    }
}

/// Asserts that a newcomer, who does not wait, was told that the slot is full and that it could.
#[track_caller]
fn turned_away(answer: Result<Screening, Status>, slot: &str) {
    let refusal = refused(answer, Reason::SlotFull);
    let said = ["slot", "remaining", "waitlistOpen"].map(|key| refusal.value(key));
    assert_eq!(said, [slot, "0", "true"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r19_a_place_that_is_given_back_goes_to_the_queue_and_never_to_a_newcomer() {
    const PLACES: usize = 8;
    const WAITING: usize = 20;
    const NEWCOMERS: usize = 40;
    let checkup = launch().start().await;
    let queue = Queue::set(&checkup, "passing-on", PLACES, WAITING).await;
    let watch = Watch::over(&checkup, &queue.slot).await;
    let press = Press::on(&checkup, &queue.slot).await;
    let newcomers = checkup.served().customers("newcomer", NEWCOMERS, 8).await;
    let is_joining = |i: usize| i.is_multiple_of(4);
    let auditor = checkup.auditor().await;
    let answers = queue
        .released_while(&auditor, NEWCOMERS, |i| {
            let (desk, slot, customer) = (Desk::of(&newcomers[i]), queue.slot.clone(), format!("newcomer-{i}"));
            async move {
                if is_joining(i) {
                    desk.join(&customer, &slot, "").await
                } else {
                    desk.book(&customer, &slot, "").await
                }
            }
        })
        .await;

    let mut behind = Vec::new();
    for (i, answer) in answers.into_iter().enumerate() {
        if is_joining(i) {
            let joined = answer.expect("a later ticket");
            assert_eq!((joined.state(), joined.version), (State::Waitlisted, 1));
            assert!(joined.waitlist_position > i32::try_from(WAITING - PLACES).unwrap_or(0), "{joined:?}");
            behind.push(joined.name);
        } else {
            turned_away(answer, &queue.slot);
        }
    }
    let names: Vec<&str> = queue.names().into_iter().chain(behind.iter().map(String::as_str)).collect();
    promoted(&auditor, &queue.slot, &names, PLACES).await;
    counts(&auditor, &queue.slot, PLACES, names.len() - PLACES).await;
    press.end().await;
    watch.end().await;
    let tickets: Vec<i64> = in_order(claims(&auditor, &queue.slot, "ACTIVE").await, &names);
    assert!(tickets.is_sorted(), "promoted one after the other, in the order of the tickets: {tickets:?}");
    agree(&checkup).await;
}

/// The slot's versions at which these bookings got their places, in the order of `names`.
fn in_order(held: Vec<CapacityClaim>, names: &[&str]) -> Vec<i64> {
    let at: BTreeMap<String, i64> = held
        .into_iter()
        .map(|claim| {
            let (uid, _) = claim.claim_id.split_once('.').expect("a claim's id");
            (format!("screenings/{uid}"), claim.slot_version)
        })
        .collect();
    names.iter().filter_map(|name| at.get(*name).copied()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r20_nobody_waits_beside_the_last_place() {
    const SLOTS: usize = 24;
    const JOINERS: usize = 3;
    let checkup = launch().start().await;
    let days: Vec<i32> = (7..).take(SLOTS).collect();
    let slots = Desk::of(&checkup.admin().await).open("last-places", &days, 1).await;
    let holders = checkup.served().customers("holder", SLOTS, 4).await;
    let joiners = checkup.served().customers("joiner", SLOTS * JOINERS, 8).await;
    let held = rush(SLOTS, |i| {
        let (desk, slot) = (Desk::of(&holders[i]), slots[i].clone());
        async move { desk.book(&format!("holder-{i}"), &slot, "").await.expect("a place").name }
    })
    .await;
    // On each slot the only place is given back while three ask for one: at once, when the cancellation is answered and
    // its event is under way, or when the place is free.
    let (told, stages): (Vec<_>, Vec<_>) = (0..SLOTS).map(|_| watch::channel(0)).unzip();
    let told = Arc::new(told);
    let answers = rush(SLOTS * (JOINERS + 1), |i| {
        let (at, slot, joiner) = (i % SLOTS, slots[i % SLOTS].clone(), i.checked_sub(SLOTS));
        let desk = Desk::of(joiner.map_or(&holders[at], |joiner| &joiners[joiner]));
        let (held, told, mut stage) = (held[at].clone(), Arc::clone(&told), stages[at].clone());
        async move {
            if let Some(joiner) = joiner {
                stage.wait_for(|now| *now >= at % 3).await.expect("the stage comes");
                return desk.join(&format!("joiner-{joiner}"), &slot, "").await;
            }
            let cancelled = desk.cancel(&held, "").await;
            told[at].send_replace(1);
            let end = Instant::now() + wait_limit();
            while at % 3 == 2 && Instant::now() < end && desk.booked(&slot).await.expect("the slot") > 0 {}
            told[at].send_replace(2);
            cancelled
        }
    })
    .await;
    let auditor = checkup.auditor().await;
    let (mut at_once, joined) = (0, answers.into_iter().skip(SLOTS).map(|answer| answer.expect("a place or a ticket")));
    let mut of_slots: BTreeMap<String, Vec<Screening>> = BTreeMap::new();
    joined.for_each(|row| of_slots.entry(row.slot.clone()).or_default().push(row));
    for (slot, rows) in of_slots {
        counts(&auditor, &slot, 1, JOINERS - 1).await;
        let has = eventually("the first to have its place", async || {
            let seen = of_slot(&auditor, &slot).await;
            let confirmed: Vec<&String> =
                seen.iter().filter(|(_, (state, _))| *state == State::Confirmed).map(|(name, _)| name).collect();
            if let [one] = confirmed.as_slice() { Ok((*one).clone()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        let winner = rows.iter().find(|row| row.name == has).expect("one of those who asked");
        if winner.state() == State::Confirmed {
            at_once += 1;
        } else {
            assert_eq!(winner.waitlist_position, 1, "the first of the queue: {winner:?}");
        }
    }
    println!("{at_once} of {SLOTS} found the place free");
    agree(&checkup).await;
}

/// Marketing asks for more places on a slot. Returns the name of the request.
async fn ask_for(checkup: &Checkup, slot: &str, additional_capacity: i32) -> String {
    let (parent, _) = slot.split_once("/slots/").expect("a slot's name");
    let asked = CapacityRequest { slot: slot.to_owned(), additional_capacity, ..CapacityRequest::default() };
    let request = CreateCapacityRequestRequest {
        parent: parent.to_owned(),
        capacity_request: Some(asked),
        ..CreateCapacityRequestRequest::default()
    };
    let marketing = checkup.service("marketing").await;
    marketing.hospital().create_capacity_request(request).await.expect("a request").into_inner().name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r21_added_places_go_to_the_queue_and_a_reduction_takes_nobody_out_of_it() {
    const PLACES: usize = 3;
    const WAITING: usize = 12;
    const NEWCOMERS: usize = 24;
    let checkup = launch().start().await;
    let queue = Queue::set(&checkup, "extended", PLACES, WAITING).await;
    let (admin, auditor) = (checkup.admin().await, checkup.auditor().await);
    let desk = Desk::of(&admin);
    refused(desk.add_places(&queue.slot, -1).await, Reason::CapacityBelowBooked);
    counts(&auditor, &queue.slot, PLACES, WAITING).await;

    let request = ask_for(&checkup, &queue.slot, 3).await;
    let watch = Watch::over(&checkup, &queue.slot).await;
    let press = Press::on(&checkup, &queue.slot).await;
    let newcomers = checkup.served().customers("newcomer", NEWCOMERS, 8).await;
    let answers = rush(NEWCOMERS + 3, |i| {
        let (admin, desk, slot, name) = (admin.clone(), Desk::of(&admin), queue.slot.clone(), request.clone());
        let newcomer = newcomers.get(i).map(Desk::of);
        async move {
            if let Some(newcomer) = newcomer {
                turned_away(newcomer.book(&format!("newcomer-{i}"), &slot, "").await, &slot);
                return;
            }
            match i - NEWCOMERS {
                0 => drop(desk.add_places(&slot, 4).await.expect("four more")),
                1 => {
                    let approve = ApproveCapacityRequestRequest { name, ..ApproveCapacityRequestRequest::default() };
                    admin.hospital().approve_capacity_request(approve).await.expect("three more");
                }
                _ => drop(refused(desk.add_places(&slot, -1).await, Reason::CapacityBelowBooked)),
            }
        }
    })
    .await;
    drop(answers);
    promoted(&auditor, &queue.slot, &queue.names(), 7).await;
    let now = counts(&auditor, &queue.slot, PLACES + 7, WAITING - 7).await;
    assert_eq!((now.capacity, now.remaining_count), (10, 0));
    press.end().await;

    // More places than are waited for: what is left goes on sale, and may be taken away again.
    let now = desk.add_places(&queue.slot, 8).await.expect("eight more");
    assert_eq!((now.booked_count, now.remaining_count, now.waitlisted_count), (15, 3, 0), "at once");
    promoted(&auditor, &queue.slot, &queue.names(), WAITING).await;
    watch.end().await;
    Desk::of(&newcomers[0]).book("newcomer-0", &queue.slot, "").await.expect("a place is free now");
    assert_eq!(desk.add_places(&queue.slot, -2).await.expect("two less").remaining_count, 0);
    agree(&checkup).await;
}
