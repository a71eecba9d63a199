//! R29: between the new claim and the commit of a move, an answer is lost or the process dies.
//!
//! Screening reaches Hospital through a proxy that the test can break. Every other call goes directly to the process.

use std::time::Duration;

use contract::screening::v1::Screening;
use contract::screening::v1::screening::State;
use fault::Reason;
use testkit::{Checkup, Desk, Direction, FaultProxy, Party, eventually, eventually_within, refused, seed};

use super::{agree, settles};
use crate::launch;
use crate::races::claims;
use crate::races::faults::{SETTLED, behind_a_proxy_with};

/// A time that is longer than any test.
const NEVER: &str = "1h";

/// A process behind a proxy with these settings, a booking of kim, and an empty slot to move it to.
struct Scene {
    proxy: FaultProxy,
    checkup: Checkup,
    kim: Party,
    booked: Screening,
    from: String,
    to: String,
}

impl Scene {
    async fn set(id: &str, settings: &[(&str, &str)]) -> Self {
        let launch = settings.iter().fold(launch(), |launch, (key, value)| launch.set(key, value));
        let (proxy, checkup, from) = behind_a_proxy_with(launch, id).await;
        let to = Desk::of(&checkup.admin().await).open(&format!("{id}-target"), &[8], 10).await.remove(0);
        let kim = checkup.customer("kim").await;
        let booked = Desk::of(&kim).book("kim", &from, "").await.expect("a place");
        Self { proxy, checkup, kim, booked, from, to }
    }

    /// Lets the connections to Hospital carry answers again.
    fn repair(&self) {
        self.proxy.reset();
        self.proxy.heal();
    }

    /// Moves the booking once the way to Hospital is open again.
    async fn moved(&self, kim: &Party, request_id: &str) -> Screening {
        eventually("the way to be open again", async || {
            let moved = Desk::of(kim).reschedule(&self.booked.name, &self.to, request_id).await;
            moved.map_err(|status| status.to_string())
        })
        .await
    }

    /// The claim of the booking with this generation.
    fn claim(&self, generation: i32) -> String {
        format!("{}.{generation}", self.booked.name.trim_start_matches("screenings/"))
    }
}

/// Waits until so many places of a slot are taken.
async fn until_taken(party: &Party, slot: &str, count: i32) {
    let desk = Desk::of(party);
    eventually_within(SETTLED, &format!("{count} places to be taken"), async || {
        let booked = desk.booked(slot).await?;
        if booked == count { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r29_after_a_lost_answer_the_same_request_id_moves_with_the_same_claim() {
    let scene = Scene::set("move-lost", &[("screening.reconcile_grace", NEVER)]).await;
    let (auditor, desk) = (scene.checkup.auditor().await, Desk::of(&scene.kim));
    let hurried = Desk::of(&scene.kim.clone().with_deadline(Duration::from_secs(2)));
    let request_id = seed("r29 continued").uuid().to_string();
    scene.proxy.blackhole(Direction::ToClient);
    let lost = hurried.reschedule(&scene.booked.name, &scene.to, &request_id).await;
    assert!(refused(lost, Reason::HospitalUnavailable).retry_after.is_some(), "it says when to come back");
    assert_eq!(desk.screening(&scene.booked.name).await.expect("the booking"), scene.booked, "still where it was");
    settles(&auditor, &[(&scene.from, 1), (&scene.to, 1)]).await;

    scene.repair();
    let moved = scene.moved(&scene.kim, &request_id).await;
    assert_eq!((moved.state(), moved.version, moved.claim_generation), (State::Confirmed, 3, 2));
    let held = claims(&auditor, &scene.to, "ACTIVE").await;
    assert_eq!(held.iter().map(|held| held.claim_id.as_str()).collect::<Vec<_>>(), [scene.claim(2)], "no second claim");
    settles(&auditor, &[(&scene.from, 0), (&scene.to, 1)]).await;
    agree(&scene.checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r29_a_place_that_nobody_asks_for_again_is_given_back_and_the_booking_stays() {
    let scene = Scene::set("move-dropped", &[]).await;
    let (auditor, desk) = (scene.checkup.auditor().await, Desk::of(&scene.kim));
    let hurried = Desk::of(&scene.kim.clone().with_deadline(Duration::from_secs(2)));
    let request_id = seed("r29 dropped").uuid().to_string();
    scene.proxy.blackhole(Direction::ToClient);
    refused(hurried.reschedule(&scene.booked.name, &scene.to, &request_id).await, Reason::HospitalUnavailable);
    scene.repair();
    until_taken(&scene.kim, &scene.to, 0).await;
    assert_eq!(desk.screening(&scene.booked.name).await.expect("the booking"), scene.booked, "still where it was");
    settles(&auditor, &[(&scene.from, 1), (&scene.to, 0)]).await;
    agree(&scene.checkup).await;

    // The same request goes on under the next claim. The one that was given back stays so.
    let moved = scene.moved(&scene.kim, &request_id).await;
    assert_eq!((moved.state(), moved.version, moved.claim_generation), (State::Confirmed, 3, 3));
    let released = claims(&auditor, &scene.to, "RELEASED").await;
    assert_eq!(released.iter().map(|one| one.claim_id.as_str()).collect::<Vec<_>>(), [scene.claim(2)]);
    settles(&auditor, &[(&scene.from, 0), (&scene.to, 1)]).await;
    assert_eq!(scene.moved(&scene.kim, &request_id).await, moved, "a replay");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r29_a_commit_that_comes_after_the_fence_takes_another_claim() {
    // The grace passes while the call still waits for its first answer.
    let patient = [
        ("screening.hospital_timeout", "25s"),
        ("screening.hospital_attempt", "25s"),
        ("screening.reconcile_grace", "1s"),
    ];
    let scene = Scene::set("move-fenced", &patient).await;
    scene.proxy.blackhole(Direction::ToClient);
    let asking = {
        let (desk, name, to) = (Desk::of(&scene.kim), scene.booked.name.clone(), scene.to.clone());
        tokio::spawn(async move { desk.reschedule(&name, &to, "").await })
    };
    until_taken(&scene.kim, &scene.to, 1).await;
    // The release reaches Hospital, and its answer is held like that of the call, which does not know of it.
    until_taken(&scene.kim, &scene.to, 0).await;
    assert!(!asking.is_finished(), "the call still waits for the answer that it has a place");
    scene.proxy.heal();
    let moved = asking.await.expect("the call ends").expect("it moves with another claim");
    assert_eq!((moved.state(), moved.slot.as_str(), moved.version), (State::Confirmed, scene.to.as_str(), 3));
    assert!(moved.claim_generation > 2, "the second one was fenced: {moved:?}");
    let auditor = scene.checkup.auditor().await;
    settles(&auditor, &[(&scene.from, 0), (&scene.to, 1)]).await;
    let held = claims(&auditor, &scene.to, "ACTIVE").await;
    assert_eq!(held[0].claim_id, scene.claim(moved.claim_generation));
    agree(&scene.checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r29_a_crash_between_the_claim_and_the_move_leaves_the_booking_where_it_was() {
    let Scene { proxy, checkup, kim, booked, from, to } = Scene::set("move-crashed", &[]).await;
    let request_id = seed("r29 crash").uuid().to_string();
    proxy.blackhole(Direction::ToClient);
    let asking = {
        let (desk, name, to, request_id) = (Desk::of(&kim), booked.name.clone(), to.clone(), request_id.clone());
        tokio::spawn(async move { desk.reschedule(&name, &to, &request_id).await })
    };
    until_taken(&kim, &to, 1).await;
    let launch = checkup.kill().await;
    asking.await.expect("the call ends").expect_err("the process is gone");

    let checkup = launch.start().await;
    proxy.forward_to(checkup.addr());
    let kim = checkup.customer("kim").await;
    let scene = Scene { proxy, checkup, kim, booked, from, to };
    scene.repair();
    until_taken(&scene.kim, &scene.to, 0).await;
    let desk = Desk::of(&scene.kim);
    assert_eq!(desk.screening(&scene.booked.name).await.expect("the booking"), scene.booked, "still where it was");
    agree(&scene.checkup).await;

    let moved = scene.moved(&scene.kim, &request_id).await;
    assert_eq!((moved.version, moved.claim_generation), (3, 3), "the same request goes on");
    settles(&scene.checkup.auditor().await, &[(&scene.from, 0), (&scene.to, 1)]).await;
    agree(&scene.checkup).await;
}
