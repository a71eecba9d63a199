//! R27 to R30 at the side of Screening: claims that a move asked for and did not use. A retry continues with such a
//! claim, or it is fenced in the row of the booking and its place is given back.

use std::time::Duration;

use contract::screening::v1::screening::State;
use contract::screening::v1::{RescheduleScreeningRequest, Screening};
use domain::capacity::ClaimState;
use domain::ids::ClaimId;
use fault::Reason;
use screening::Options;
use sea_orm::{ConnectionTrait, Statement};
use testkit::{Party, eventually, gather, refused, start_together};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::hospital::{Fate, Gate};
use crate::unknown::{lost, soon, until_given_back};
use crate::world::{
    World, ask, ask_to_move, ask_to_move_once, book, cancel, claim, names, next_claim, read, reschedule,
};

/// A grace that passes soon, and all the time for Hospital.
fn patient() -> Options {
    let patient = Duration::from_secs(30);
    Options { hospital_attempt: patient, hospital_timeout: patient, ..soon() }
}

/// A move whose place is taken, and whose answer from Hospital is held until the gate opens.
struct HeldUp {
    gate: Gate,
    call: Vec<JoinHandle<Result<Screening, Status>>>,
}

impl HeldUp {
    /// Begins a move with this claim, and waits until it has its place.
    async fn begin(world: &World, party: &Party, request: RescheduleScreeningRequest, claim: ClaimId) -> Self {
        let gate = Gate::closed();
        world.hospital.next([Fate::AnswerAfter(gate.clone())]);
        let call = start_together(1, |_| {
            let (party, request) = (party.clone(), request.clone());
            async move { reschedule(&party, request).await }
        });
        until_taken(world, claim).await;
        Self { gate, call }
    }

    async fn end(self) -> Result<Screening, Status> {
        self.gate.open();
        gather(self.call).await.remove(0)
    }
}

async fn until_taken(world: &World, claim: ClaimId) {
    eventually("the new place to be taken", async || match world.hospital.claim(claim) {
        Some(ClaimState::Active) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// The later claim of a booking by `by` generations.
fn later(made: &Screening, by: i32) -> ClaimId {
    ClaimId { generation: made.claim_generation + by, ..claim(made) }
}

/// Asserts that a booking is as it was, and that it reported nothing more.
async fn untouched(world: &World, party: &Party, made: &Screening) {
    assert_eq!(read(party, &made.name).await.unwrap(), *made);
    assert_eq!(names(&world.facts_of(&made.name).await), ["screening_confirmed"]);
    assert_eq!(world.hospital.claim(claim(made)), Some(ClaimState::Active));
}

#[tokio::test]
async fn r29_after_a_lost_answer_the_same_request_continues_with_its_claim() {
    let world = World::start().await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    world.hospital.next(lost(Fate::LoseAnswer));
    let asked = ask_to_move_once(&made.name, &to);
    let refusal = refused(reschedule(&kim, asked.clone()).await, Reason::HospitalUnavailable);
    assert_eq!((refusal.code, refusal.value("slot")), (Code::Unavailable, to.to_string().as_str()));
    assert!(refusal.retry_after.is_some());
    untouched(&world, &kim, &made).await;
    until_taken(&world, next_claim(&made)).await;

    let moved = reschedule(&kim, asked).await.unwrap();
    assert_eq!((moved.slot.clone(), moved.version, claim(&moved)), (to.to_string(), 3, next_claim(&made)));
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&moved)]);
}

#[tokio::test]
async fn r29_a_place_that_nobody_asks_for_again_is_given_back_and_the_booking_stays() {
    let world = World::start_with(soon()).await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    world.hospital.next(lost(Fate::LoseAnswer));
    let asked = ask_to_move_once(&made.name, &to);
    refused(reschedule(&kim, asked.clone()).await, Reason::HospitalUnavailable);
    until_given_back(&world, next_claim(&made)).await;
    // no event of the booking tells of it, so Screening itself asks Hospital
    assert!(world.hospital.releases().contains(&next_claim(&made)), "{:?}", world.hospital.releases());
    untouched(&world, &kim, &made).await;

    // the same request goes on under the next claim
    let moved = reschedule(&kim, asked.clone()).await.unwrap();
    assert_eq!((moved.version, claim(&moved)), (3, later(&made, 2)));
    assert_eq!(reschedule(&kim, asked).await.unwrap(), moved);
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&moved)]);
}

#[tokio::test]
async fn r29_a_late_commit_cannot_use_the_claim_that_was_fenced() {
    let world = World::start_with(patient()).await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    let move_to = ask_to_move_once(&made.name, &to);
    let held_up = HeldUp::begin(&world, &kim, move_to, next_claim(&made)).await;
    until_given_back(&world, next_claim(&made)).await;
    untouched(&world, &kim, &made).await;

    let moved = held_up.end().await.unwrap();
    assert_eq!((moved.slot.clone(), moved.version, claim(&moved)), (to.to_string(), 3, later(&made, 2)));
    assert_eq!(world.hospital.claim(next_claim(&made)), Some(ClaimState::Released));
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&moved)]);
}

#[tokio::test]
async fn r29_a_release_that_hospital_does_not_hear_is_asked_for_again() {
    let world = World::start_with(soon()).await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    world.hospital.next(lost(Fate::LoseAnswer));
    refused(reschedule(&kim, ask_to_move_once(&made.name, &to)).await, Reason::HospitalUnavailable);
    world.wire.refuse();
    world.deliver().await;
    eventually("the claim to be fenced", async || {
        let reader = world.desk.service.database.reader();
        let sql = "SELECT count(*) FROM screening WHERE fenced_generation = 2";
        let statement = Statement::from_string(reader.get_database_backend(), sql);
        let fenced: i64 = reader.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        if fenced == 1 { Ok(()) } else { Err(format!("{fenced} are")) }
    })
    .await;
    assert_eq!(world.hospital.claim(next_claim(&made)), Some(ClaimState::Active));
    world.wire.heal();
    until_given_back(&world, next_claim(&made)).await;
    untouched(&world, &kim, &made).await;
}

#[tokio::test]
async fn a_claim_that_has_ended_is_followed_by_the_next_one() {
    let world = World::start().await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    world.hospital.hear_of_the_end(&to, next_claim(&made));
    let moved = reschedule(&kim, ask_to_move(&made.name, &to)).await.unwrap();
    assert_eq!((moved.version, claim(&moved)), (3, later(&made, 2)));
    assert_eq!(world.hospital.reserves(), [claim(&made), next_claim(&made), claim(&moved)]);
}

#[tokio::test]
async fn r30_a_claim_that_another_move_left_on_another_slot_is_fenced_after_a_pause() {
    let world = World::start_with(soon()).await;
    let (from, to, elsewhere) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1), world.slot("jeju", 9, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    let abandoned = next_claim(&made);
    world.hospital.take(&elsewhere, abandoned);
    let moved = reschedule(&kim, ask_to_move(&made.name, &to)).await.unwrap();
    assert_eq!((moved.slot.clone(), claim(&moved)), (to.to_string(), later(&made, 2)));
    // the other move had a moment to commit
    assert_eq!(world.hospital.reserves(), [claim(&made), abandoned, abandoned, claim(&moved)]);
    until_given_back(&world, abandoned).await;
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&moved)]);
    assert_eq!(read(&kim, &made.name).await.unwrap(), moved);
}

#[tokio::test]
async fn r28_a_move_whose_booking_was_cancelled_meanwhile_gives_its_place_back() {
    for delivered_first in [true, false] {
        let world = World::start_with(patient()).await;
        let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
        let kim = world.customer("kim").await;
        let made = book(&kim, ask("kim", &from)).await.unwrap();
        let move_to = ask_to_move_once(&made.name, &to);
        let held_up = HeldUp::begin(&world, &kim, move_to.clone(), next_claim(&made)).await;
        let cancelled = cancel(&kim, &made.name).await.unwrap();
        if delivered_first {
            until_given_back(&world, next_claim(&made)).await;
        }
        let refusal = refused(held_up.end().await, Reason::ScreeningStateInvalid);
        assert_eq!((refusal.value("state"), refusal.value("screening")), ("CANCELLED", made.name.as_str()));
        until_given_back(&world, next_claim(&made)).await;
        assert!(world.hospital.releases().contains(&next_claim(&made)));
        assert_eq!(world.hospital.active(), []);
        assert_eq!(read(&kim, &made.name).await.unwrap(), cancelled);
        assert_eq!(names(&world.facts_of(&made.name).await), ["screening_confirmed", "screening_cancelled"]);
        // a retry is judged afresh, and hears the same
        refused(reschedule(&kim, move_to).await, Reason::ScreeningStateInvalid);
    }
}

#[tokio::test]
async fn r30_a_move_that_finds_its_date_taken_gives_its_place_back() {
    let world = World::start_with(patient()).await;
    let (from, to, same_date) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1), world.slot("jeju", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    let move_to = ask_to_move_once(&made.name, &to);
    let held_up = HeldUp::begin(&world, &kim, move_to.clone(), next_claim(&made)).await;
    let other = book(&kim, ask("kim", &same_date)).await.unwrap();
    let refusal = refused(held_up.end().await, Reason::CustomerDateConflict);
    assert_eq!(refusal.value("screening"), other.name);
    until_given_back(&world, next_claim(&made)).await;
    untouched(&world, &kim, &made).await;

    // once the date is free, the same request moves it
    cancel(&kim, &other.name).await.unwrap();
    let moved = reschedule(&kim, move_to).await.unwrap();
    assert_eq!((moved.version, claim(&moved)), (3, later(&made, 2)));
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&moved)]);
}

#[tokio::test]
async fn r28_a_claim_that_is_revoked_while_its_move_is_under_way_moves_nothing() {
    let world = World::start_with(patient()).await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    let held_up = HeldUp::begin(&world, &kim, ask_to_move_once(&made.name, &to), next_claim(&made)).await;
    world.hospital.delete(&to.hospital, "closing down");
    world.deliver().await;
    refused(held_up.end().await, Reason::HospitalDeleted);
    untouched(&world, &kim, &made).await;
    assert_eq!(world.hospital.active(), [claim(&made)]);
}

#[tokio::test]
async fn r28_a_revocation_ends_a_moved_booking_by_the_claim_that_it_holds() {
    let world = World::start().await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    let moved = reschedule(&kim, ask_to_move(&made.name, &to)).await.unwrap();
    // the claim that it left is revoked before Hospital hears that it was left
    world.hospital.delete(&from.hospital, "sold");
    world.deliver().await;
    assert_eq!(read(&kim, &made.name).await.unwrap(), moved);
    assert_eq!(world.hospital.active(), [claim(&moved)]);

    world.hospital.delete(&to.hospital, "closing down");
    world.deliver().await;
    let forced = read(&kim, &made.name).await.unwrap();
    assert_eq!((forced.state(), forced.version), (State::ForceCancelled, 4));
    assert_eq!((forced.state_reason.as_str(), forced.state_message.as_str()), ("HOSPITAL_DELETED", "closing down"));
    assert_eq!(forced.slot, to.to_string());
    assert_eq!(world.hospital.active(), []);
}
