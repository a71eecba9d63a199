//! R25 and R26: the same ticket asked for more than once, and more tickets than there may be.

use std::collections::BTreeSet;

use capacity::capacity_claim::State as ClaimState;
use capacity::{CapacityClaim, ReleaseCapacityRequest, ReserveCapacityRequest};
use contract::capacity::v1 as capacity;
use contract::hospital::v1::BookingPolicy;
use contract::screening::v1 as screening;
use fault::Reason;
use screening::screening::State;
use testkit::{Desk, Party, refused, rush, seed};
use tonic::{Response, Status};

use super::{Queue, agree, counts, promoted, turned_away};
use crate::launch;
use crate::races::{all_screenings, claims};

async fn reserve(party: &Party, slot: &str, claim_id: &str, allow_waitlist: bool) -> Result<CapacityClaim, Status> {
    let (slot, claim_id) = (slot.to_owned(), claim_id.to_owned());
    let request = ReserveCapacityRequest { slot, claim_id, allow_waitlist };
    party.capacity().reserve_capacity(request).await.map(Response::into_inner)
}

async fn release(party: &Party, slot: &str, claim_id: &str) {
    let request = ReleaseCapacityRequest { slot: slot.to_owned(), claim_id: claim_id.to_owned() };
    party.capacity().release_capacity(request).await.expect("released");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r25_a_repeated_claim_is_answered_as_it_is_by_then() {
    // No booking has these claims, and none is looked for.
    let checkup = launch().set("screening.reconcile_grace", "1h").start().await;
    let slot = Desk::of(&checkup.admin().await).open("asked-again", &[7], 1).await.remove(0);
    let (mine, mut random) = (checkup.service("screening").await, seed("r25"));
    let [holder, first, second] = [(); 3].map(|()| format!("{}.1", random.uuid()));
    reserve(&mine, &slot, &holder, true).await.expect("a place");
    let status = reserve(&mine, &slot, &first, false).await;
    assert_eq!(refused(status, Reason::SlotFull).value("waitlistOpen"), "true");
    let joined = reserve(&mine, &slot, &first, true).await.expect("a ticket");
    let behind = reserve(&mine, &slot, &second, true).await.expect("a ticket");
    assert_eq!((joined.state(), joined.waitlist_position), (ClaimState::Waiting, 1));
    assert_eq!((behind.state(), behind.waitlist_position), (ClaimState::Waiting, 2));
    assert!(0 < joined.waitlist_ticket && joined.waitlist_ticket < behind.waitlist_ticket);
    assert_eq!(joined.terms.as_ref().map(|terms| terms.time_zone.as_str()), Some(Desk::ZONE));

    // The place is given back while both tickets are asked for again and again.
    let answers = rush(33, |i| {
        let (mine, slot, holder) = (mine.clone(), slot.clone(), holder.clone());
        let claim = if i % 4 < 2 { first.clone() } else { second.clone() };
        async move {
            if i == 32 {
                release(&mine, &slot, &holder).await;
                return None;
            }
            Some((i % 4 < 2, reserve(&mine, &slot, &claim, i % 2 == 0).await.expect("the claim as it is")))
        }
    })
    .await;
    for (is_first, answer) in answers.into_iter().flatten() {
        match (is_first, answer.state()) {
            (true, ClaimState::Active) => assert_eq!((answer.waitlist_ticket, answer.waitlist_position), (0, 0)),
            (true, _) => assert_eq!(CapacityClaim { terms: joined.terms.clone(), ..answer }, joined),
            (false, _) => {
                assert_eq!((answer.state(), answer.waitlist_ticket), (ClaimState::Waiting, behind.waitlist_ticket));
                assert!(answer.waitlist_position <= 2, "a queue only moves forward");
            }
        }
    }
    for allow_waitlist in [true, false] {
        let now = reserve(&mine, &slot, &first, allow_waitlist).await.expect("promoted");
        assert_eq!((now.state(), now.promotion_close_time), (ClaimState::Active, None));
        let now = reserve(&mine, &slot, &second, allow_waitlist).await.expect("waits");
        assert_eq!((now.state(), now.waitlist_position), (ClaimState::Waiting, 1));
    }
    counts(&checkup.auditor().await, &slot, 1, 1).await;
    for claim in [&second, &first] {
        release(&mine, &slot, claim).await;
        let status = reserve(&mine, &slot, claim, true).await;
        assert_eq!(refused(status, Reason::ClaimTerminated).value("state"), "RELEASED");
    }
    counts(&checkup.auditor().await, &slot, 0, 0).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r25_sixteen_duplicates_are_one_ticket() {
    let checkup = launch().start().await;
    let queue = Queue::set(&checkup, "clicked-often", 1, 0).await;
    let request_id = seed("r25 duplicates").uuid().to_string();
    let duplicates = checkup.served().connections(4).await;
    let token = checkup.tokens().customer("kim");
    let answers = rush(16, |i| {
        let desk = Desk::of(&Party::new(duplicates[i % 4].clone(), Some(&token)));
        let (slot, request_id) = (queue.slot.clone(), request_id.clone());
        async move { desk.join("kim", &slot, &request_id).await }
    })
    .await;
    let names: BTreeSet<String> = answers
        .into_iter()
        .map(|answer| {
            let joined = answer.expect("a duplicate gets the answer of the first");
            assert_eq!((joined.state(), joined.waitlist_position, joined.version), (State::Waitlisted, 1, 1));
            joined.name
        })
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let auditor = checkup.auditor().await;
    counts(&auditor, &queue.slot, 1, 1).await;

    // Whether it may wait is no content of the request: the same request_id goes on in either way.
    let kim = Desk::of(&checkup.customer("kim").await);
    let again = kim.book("kim", &queue.slot, &request_id).await.expect("a replay");
    assert_eq!((again.state(), names.contains(&again.name)), (State::Waitlisted, true));
    turned_away(Desk::of(&checkup.customer("lee").await).book("lee", &queue.slot, "").await, &queue.slot);
    queue.cancel(0).await;
    let promoted = kim.becomes(&again.name, State::Confirmed).await;
    for answer in [kim.join("kim", &queue.slot, &request_id).await, kim.book("kim", &queue.slot, &request_id).await] {
        assert_eq!(answer.expect("a replay"), promoted, "as it is by now");
    }
    counts(&auditor, &queue.slot, 1, 0).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_as_many_as_may_wait_do_and_the_others_hear_that_the_queue_is_full() {
    const LIMIT: usize = 5;
    const ASKERS: usize = 40;
    let checkup = launch().start().await;
    let queue = Queue::set(&checkup, "short-queue", 2, 0).await;
    let admin = Desk::of(&checkup.admin().await);
    let limit = async |limit: usize| {
        let waitlist_limit = i32::try_from(limit).ok();
        let policy = BookingPolicy { waitlist_limit, ..BookingPolicy::default() };
        admin.set_policy("hospitals/short-queue", policy).await.expect("a policy");
    };
    limit(LIMIT).await;
    let askers = checkup.served().customers("asker", ASKERS, 8).await;
    let answers = rush(ASKERS, |i| {
        let (desk, slot) = (Desk::of(&askers[i]), queue.slot.clone());
        async move { desk.join(&format!("asker-{i}"), &slot, "").await }
    })
    .await;
    let (waiting, turned_away): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    for answer in turned_away {
        let refusal = refused(answer, Reason::WaitlistFull);
        assert_eq!((refusal.value("slot"), refusal.value("waitlistLimit")), (queue.slot.as_str(), "5"));
    }
    let mut waiting: Vec<_> = waiting.into_iter().flatten().map(|row| (row.waitlist_position, row.name)).collect();
    waiting.sort();
    assert_eq!(waiting.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let auditor = checkup.auditor().await;
    counts(&auditor, &queue.slot, 2, LIMIT).await;
    assert_eq!(all_screenings(&auditor, "").await.len(), 2 + LIMIT, "a refusal leaves nothing behind");

    // Who waits keeps waiting where the limit is lowered, and a newcomer hears that it could not wait.
    limit(0).await;
    let late = Desk::of(&checkup.customer("late").await);
    assert_eq!(refused(late.book("late", &queue.slot, "").await, Reason::SlotFull).value("waitlistOpen"), "false");
    queue.cancel(0).await;
    let names: Vec<&str> = waiting.iter().map(|(_, name)| name.as_str()).collect();
    promoted(&auditor, &queue.slot, &names, 1).await;
    counts(&auditor, &queue.slot, 2, LIMIT - 1).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_nobody_waits_twice_for_one_slot() {
    const TURNS: usize = 12;
    let checkup = launch().start().await;
    let queue = Queue::set(&checkup, "once-each", 1, 0).await;
    let kim = checkup.customer("kim").await;
    let answers = rush(TURNS, |_| {
        let (desk, slot) = (Desk::of(&kim), queue.slot.clone());
        async move { desk.join("kim", &slot, "").await }
    })
    .await;
    let winner = answers.iter().flatten().next().cloned().expect("one of them");
    for answer in answers.into_iter().filter(|answer| answer.as_ref().ok() != Some(&winner)) {
        assert_eq!(refused(answer, Reason::CustomerDateConflict).value("screening"), winner.name);
    }
    let auditor = checkup.auditor().await;
    counts(&auditor, &queue.slot, 1, 1).await;
    assert_eq!(all_screenings(&auditor, "customer=\"customers/kim\" AND state=WAITLISTED").await.len(), 1);

    // Who has a place on that date does not wait for another one.
    let elsewhere = Desk::of(&checkup.admin().await).open("elsewhere", &[7], 5).await.remove(0);
    let kim = Desk::of(&kim);
    let booked = kim.book("kim", &elsewhere, "").await.expect("who waits is not booked");
    let full = Queue::set(&checkup, "another-one", 1, 0).await;
    for slot in [&full.slot, &queue.slot] {
        let refusal = refused(kim.join("kim", slot, "").await, Reason::CustomerDateConflict);
        assert!([&booked.name, &winner.name].contains(&&refusal.value("screening").to_owned()), "{refusal:?}");
    }
    // Who left may join again.
    kim.cancel(&booked.name, "").await.expect("cancelled");
    kim.cancel(&winner.name, "").await.expect("left");
    let again = kim.join("kim", &queue.slot, "").await.expect("a new ticket");
    assert_ne!(again.name, winner.name);
    counts(&auditor, &queue.slot, 1, 1).await;
    assert!(claims(&auditor, &full.slot, "WAITING").await.is_empty());
    agree(&checkup).await;
}
