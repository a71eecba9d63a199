//! Commits that are lost, or made and reported as failed: every acknowledged change is stored exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contract::capacity::v1 as capacity;
use contract::capacity::v1::capacity_claim::State;
use contract::hospital::v1;
use fault::Reason;
use jiff::SignedDuration;
use runtime::clock::Clock;
use sea_orm::ConnectionTrait;
use store::{Nemesis, Verdict};
use testkit::{Random, Refusal, eventually, refused, rush, seed};
use tonic::{Response, Status};
use v1::set_slot_capacity_request::Change;

use crate::support::{FILE, House, assert_slot_adds_up, claim, claims, get_slot, release, request_id, reserve};

/// Half of the commits succeed, a quarter are lost, and a quarter are made but reported as failed.
#[derive(Debug)]
struct Chaos(AtomicU64);

impl Nemesis for Chaos {
    fn at_commit(&self) -> Verdict {
        let turn = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        match Random::new(turn).below(4) {
            0 => Verdict::Lose,
            1 => Verdict::CommitAndFail,
            _ => Verdict::Commit,
        }
    }
}

/// Repeats the same call until the answer is not STORAGE_UNAVAILABLE.
async fn call_with_retries<T, F: Future<Output = Result<T, Status>>>(ask: impl Fn() -> F) -> Result<T, Refusal> {
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(status) => {
                let refusal = Refusal::of(&status).unwrap_or_else(|| panic!("{status:?}"));
                if refusal.reason != Reason::StorageUnavailable.name() {
                    return Err(refusal);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_commit_is_unknown_is_run_again() {
    let mut random = seed("a_batch_whose_commit_is_unknown_is_run_again");
    let (house, _dir) = House::start_under(Arc::new(Chaos(AtomicU64::new(random.below(u64::MAX))))).await;
    let admin = house.admin().await;
    let request = house.draft("seoul", &[1], 100);
    let request = v1::CreateHospitalRequest { request_id: request_id(), ..request };
    let create = || {
        let (mut rpc, request) = (admin.hospital(), request.clone());
        async move { rpc.create_hospital(request).await }
    };
    call_with_retries(create).await.unwrap();
    let slot = format!("hospitals/seoul/slots/{}", house.day(1));
    let screening = house.screening().await;
    let moves: Vec<u64> = (0..400).map(|_| random.below(10)).collect();
    let outcomes = rush(moves.len(), |i| {
        let (admin, screening, slot, step) = (admin.clone(), screening.clone(), slot.clone(), moves[i]);
        async move {
            let id = claim(i as u128);
            match step {
                0 => {
                    let change = Some(Change::Delta(1));
                    let (name, etag, request_id) = (slot, String::new(), request_id());
                    let request = v1::SetSlotCapacityRequest { name, change, etag, request_id };
                    let shift = || {
                        let (mut rpc, request) = (admin.hospital(), request.clone());
                        async move { rpc.set_slot_capacity(request).await }
                    };
                    (id, call_with_retries(shift).await.map(|_| None))
                }
                1..=3 => {
                    let taken = call_with_retries(|| reserve(&screening, &slot, &id)).await;
                    let released = call_with_retries(|| release(&screening, &slot, &id)).await.unwrap();
                    (id, taken.map(|_| Some(released.state())))
                }
                _ => (
                    id.clone(),
                    call_with_retries(|| reserve(&screening, &slot, &id)).await.map(|taken| Some(taken.state())),
                ),
            }
        }
    })
    .await;
    let shifts = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Ok(None))).count();
    let after = assert_slot_adds_up(&screening, &slot).await;
    assert_eq!(usize::try_from(after.capacity).unwrap(), 100 + shifts, "each shift counts once");
    let stored = claims(&screening, &slot, "").await;
    let state = |id: &str| stored.iter().find(|claim| claim.claim_id == id).map(capacity::CapacityClaim::state);
    for (id, outcome) in &outcomes {
        match outcome {
            Ok(Some(expected)) => assert_eq!(state(id), Some(*expected), "{id}"),
            Ok(None) => {}
            Err(refusal) => {
                assert_eq!(refusal.reason, "SLOT_FULL");
                assert_ne!(state(id), Some(State::Active), "{id}");
            }
        }
    }
    house.sound_events().await;
    house.stop().await;
}

#[tokio::test]
async fn request_ids_are_remembered_for_seven_days_and_then_forgotten() {
    let (house, dir) = House::start().await;
    let slot = house.hospital("seoul", &[30], 10).await.remove(0);
    let id = request_id();
    let shift = async |house: &House, delta| {
        let (name, change, etag) = (slot.clone(), Some(Change::Delta(delta)), String::new());
        let request = v1::SetSlotCapacityRequest { name, change, etag, request_id: id.clone() };
        house.admin().await.hospital().set_slot_capacity(request).await.map(Response::into_inner)
    };
    shift(&house, 1).await.unwrap();
    let made = house.now();
    house.stop().await;
    let hours_later = |hours: i64| {
        let then = made + SignedDuration::from_hours(hours);
        Clock::shifted(then.duration_since(Clock::system().now()))
    };
    let house = House::open(dir.path(), hours_later(7 * 24 - 1), None).await;
    refused(shift(&house, 2).await, Reason::RequestIdReused);
    house.stop().await;
    let house = House::open(dir.path(), hours_later(7 * 24 + 1), None).await;
    eventually("old request ids to be forgotten", async || shift(&house, 2).await.map_err(|status| status.to_string()))
        .await;
    assert_eq!(get_slot(&house.admin().await, &slot).await.capacity, 13);
    house.stop().await;
}

#[tokio::test]
async fn the_database_itself_refuses_a_slot_sold_beyond_its_capacity() {
    let (house, dir) = House::start().await;
    let slot = house.slot("seoul", 2).await;
    let path = dir.path().join(FILE);
    let other = sea_orm::Database::connect(format!("sqlite://{}?mode=rw", path.display())).await.unwrap();
    for wrong in ["booked_count = 3", "booked_count = -1", "capacity = -1"] {
        assert!(other.execute_unprepared(&format!("UPDATE slot SET {wrong}")).await.is_err(), "{wrong}");
    }
    other.execute_unprepared("UPDATE slot SET booked_count = 2").await.unwrap();
    assert_eq!(get_slot(&house.admin().await, &slot).await.remaining_count, 0);
    house.stop().await;
}
