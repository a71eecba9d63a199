//! R19, R20 and R25 under faults: an answer is lost, or the process dies, between a ticket, a promotion and the
//! booking.
//!
//! Screening reaches Hospital through a proxy that the test can break. Every other call goes directly to the process.

use std::time::Duration;

use contract::screening::v1 as screening;
use fault::Reason;
use screening::screening::State;
use screening::{CreateScreeningRequest, Screening};
use testkit::{Checkup, Desk, Direction, FaultProxy, Party, eventually, eventually_within, refused, rush, seed};

use super::{Queue, agree, counts, promoted};
use crate::launch;
use crate::races::faults::{SETTLED, behind_a_proxy_with};
use crate::races::{all_screenings, claims};

/// A time that is longer than any test.
const NEVER: &str = "1h";

/// A process behind a proxy, and a slot whose only place is taken.
struct Scene {
    proxy: FaultProxy,
    checkup: Checkup,
    queue: Queue,
    kim: Party,
}

impl Scene {
    async fn set(id: &str, settings: &[(&str, &str)]) -> Self {
        let launch = settings.iter().fold(launch(), |launch, (key, value)| launch.set(key, value));
        let (proxy, checkup, _) = behind_a_proxy_with(launch, id).await;
        let queue = Queue::set(&checkup, &format!("{id}-full"), 1, 0).await;
        let kim = checkup.customer("kim").await;
        Self { proxy, checkup, queue, kim }
    }

    /// Joins the queue, and Hospital's answer is lost.
    async fn lost(&self, request_id: &str) {
        let hurried = Desk::of(&self.kim.clone().with_deadline(Duration::from_secs(2)));
        self.proxy.blackhole(Direction::ToClient);
        let lost = hurried.join("kim", &self.queue.slot, request_id).await;
        assert!(refused(lost, Reason::HospitalUnavailable).retry_after.is_some(), "it says when to come back");
        assert_eq!(claims(&self.checkup.auditor().await, &self.queue.slot, "WAITING").await.len(), 1);
    }

    /// Lets the connections to Hospital carry answers again.
    fn repair(&self) {
        self.proxy.reset();
        self.proxy.heal();
    }

    /// Joins once the way to Hospital is open again.
    async fn joined(&self, request_id: &str) -> Screening {
        eventually("the way to be open again", async || {
            let joined = Desk::of(&self.kim).join("kim", &self.queue.slot, request_id).await;
            joined.map_err(|status| status.to_string())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r25_after_a_lost_answer_the_same_request_id_keeps_its_ticket() {
    let scene = Scene::set("ticket-lost", &[("screening.reconcile_grace", NEVER)]).await;
    let auditor = scene.checkup.auditor().await;
    let request_id = seed("r25 continued").uuid().to_string();
    scene.lost(&request_id).await;
    let lee = Desk::of(&scene.checkup.customer("lee").await);
    scene.repair();
    let behind = eventually("the way to be open again", async || {
        lee.join("lee", &scene.queue.slot, "").await.map_err(|status| status.to_string())
    })
    .await;
    assert_eq!(behind.waitlist_position, 2, "the ticket of the lost answer counts");
    // Who does not wait any more meets the ticket and hears what any newcomer does.
    let full = refused(Desk::of(&scene.kim).book("kim", &scene.queue.slot, &request_id).await, Reason::SlotFull);
    assert_eq!(full.value("slot"), scene.queue.slot);
    let joined = scene.joined(&request_id).await;
    assert_eq!((joined.state(), joined.waitlist_position), (State::Waitlisted, 1));
    let uid = joined.name.trim_start_matches("screenings/");
    let waiting = claims(&auditor, &scene.queue.slot, "WAITING").await;
    assert!(waiting.iter().any(|claim| claim.claim_id == format!("{uid}.1")), "no second ticket: {waiting:?}");
    scene.queue.cancel(0).await;
    promoted(&auditor, &scene.queue.slot, &[&joined.name, &behind.name], 1).await;
    counts(&auditor, &scene.queue.slot, 1, 1).await;
    agree(&scene.checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r25_after_a_lost_answer_the_same_request_id_finds_itself_promoted() {
    let scene = Scene::set("promotion-lost", &[("screening.reconcile_grace", NEVER)]).await;
    let auditor = scene.checkup.auditor().await;
    let request_id = seed("r25 promoted").uuid().to_string();
    scene.lost(&request_id).await;
    scene.queue.cancel(0).await;
    counts(&auditor, &scene.queue.slot, 1, 0).await;
    scene.repair();
    let booked = scene.joined(&request_id).await;
    assert_eq!((booked.state(), booked.version), (State::Confirmed, 1), "it never knew that it waited");
    assert_eq!(claims(&auditor, &scene.queue.slot, "ACTIVE").await.len(), 1);
    agree(&scene.checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r25_a_ticket_that_nobody_asks_for_again_is_given_back() {
    let scene = Scene::set("ticket-dropped", &[]).await;
    let auditor = scene.checkup.auditor().await;
    scene.lost(&seed("r25 dropped").uuid().to_string()).await;
    // by then it may have a place, which then passes on
    scene.queue.cancel(0).await;
    scene.repair();
    eventually_within(SETTLED, "the ticket and the place to be given back", async || {
        let now = Desk::of(&auditor).slot(&scene.queue.slot).await.map_err(|status| status.to_string())?;
        if (now.booked_count, now.waitlisted_count) == (0, 0) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert!(all_screenings(&auditor, "customer=\"customers/kim\"").await.is_empty(), "a fence is nobody's screening");
    agree(&scene.checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r20_a_pending_booking_joins_the_queue_if_it_wants_to() {
    // Its answers are waited for shortly, so that it becomes PENDING.
    let scene = Scene::set("parked", &[]).await;
    let auditor = scene.checkup.auditor().await;
    scene.proxy.blackhole(Direction::ToClient);
    let mut parked = Vec::new();
    for (customer, join_waitlist) in [("lee", true), ("park", false)] {
        let party = scene.checkup.customer(customer).await;
        let booking = Screening {
            customer: format!("customers/{customer}"),
            slot: scene.queue.slot.clone(),
            ..Screening::default()
        };
        let request = CreateScreeningRequest {
            screening: Some(booking),
            accept_pending: true,
            join_waitlist,
            ..CreateScreeningRequest::default()
        };
        let pending = party.screening().create_screening(request).await.expect("accepted").into_inner();
        assert_eq!(pending.state(), State::Pending);
        parked.push(pending.name);
    }
    scene.repair();
    let desk = Desk::of(&auditor);
    let queued = eventually_within(SETTLED, "the one that joins to wait", async || {
        let seen = desk.screening(&parked[0]).await.map_err(|status| status.to_string())?;
        if seen.state() == State::Waitlisted { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert_eq!((queued.version, queued.waitlist_position), (2, 1));
    let rejected = eventually_within(SETTLED, "the other one to be rejected", async || {
        let seen = desk.screening(&parked[1]).await.map_err(|status| status.to_string())?;
        if seen.state() == State::Rejected { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await;
    assert_eq!(rejected.state_reason, "SLOT_FULL");
    scene.queue.cancel(0).await;
    assert_eq!(desk.becomes(&parked[0], State::Confirmed).await.version, 3);
    counts(&auditor, &scene.queue.slot, 1, 0).await;
    agree(&scene.checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r20_a_kill_in_the_middle_of_promotions_lets_nobody_sleep_on() {
    const ROUNDS: usize = 6;
    const PLACES: usize = 12;
    const WAITING: usize = 20;
    let mut random = seed("r20 kill");
    let mut checkup = launch().start().await;
    let days: Vec<i32> = (7..).take(ROUNDS).collect();
    let slots = Desk::of(&checkup.admin().await).open("interrupted", &days, PLACES as i32).await;
    for (round, slot) in slots.into_iter().enumerate() {
        let queue = Queue::on(&checkup, slot, &format!("round-{round}"), PLACES, WAITING).await;
        let ids: Vec<String> = (0..PLACES).map(|_| random.uuid().to_string()).collect();
        let cancels = testkit::start_together(PLACES, |i| {
            let ((desk, name), id) = (queue.holder(i), ids[i].clone());
            async move { drop(desk.cancel(&name, &id).await) }
        });
        // The nemesis: the kill comes at a random moment of the releases and promotions.
        tokio::time::sleep(Duration::from_millis(random.below(120))).await;
        let launch = checkup.kill().await;
        testkit::gather(cancels).await;
        checkup = launch.start().await;
        let (served, tokens) = (checkup.served(), checkup.tokens());
        rush(PLACES, |i| {
            let (served, name, id) = (served.clone(), queue.holders[i].1.name.clone(), ids[i].clone());
            let token = tokens.customer(&format!("round-{round}-holder-{i}"));
            async move {
                let desk = Desk::of(&served.party(Some(token)).await);
                desk.cancel(&name, &id).await.expect("cancelled by the first call or by this one");
            }
        })
        .await;
        let auditor = checkup.auditor().await;
        promoted(&auditor, &queue.slot, &queue.names(), PLACES).await;
        counts(&auditor, &queue.slot, PLACES, WAITING - PLACES).await;
        agree(&checkup).await;
    }
}
