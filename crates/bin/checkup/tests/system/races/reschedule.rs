//! R27 to R31: bookings that move, against the places of their targets, against whatever else becomes of them, against
//! faults and against each other.

mod faults;
mod requests;
mod time;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::{CloseSlotRequest, DeleteHospitalRequest};
use screening::screening::State;
use screening::{CancelScreeningRequest, CompleteScreeningRequest, Screening};
use testkit::{Desk, Party, eventually, gather, in_days, refused, rush, seed, slot_name};
use tonic::{Response, Status};

use super::capacity::{watch_claims, watch_counts};
use super::{agree, claims};
use crate::launch;

/// Books one place of a slot for each of these customers, `prefix-0` and so on.
async fn booked_on(slot: &str, customers: &[Party], prefix: &str) -> Vec<Screening> {
    rush(customers.len(), |i| {
        let (desk, slot, customer) = (Desk::of(&customers[i]), slot.to_owned(), format!("{prefix}-{i}"));
        async move { desk.book(&customer, &slot, "").await.expect("a place") }
    })
    .await
}

/// Waits until each slot has so many places taken, by as many claims: what a move left or did not use is given back.
async fn settles(auditor: &Party, expected: &[(&str, usize)]) {
    eventually("every place that no booking holds to be given back", async || {
        for (slot, count) in expected {
            let booked = Desk::of(auditor).booked(slot).await?;
            let held = claims(auditor, slot, "ACTIVE").await.len();
            if usize::try_from(booked) != Ok(*count) || held != *count {
                return Err(format!("{slot}: {booked} booked and {held} claims, not {count}"));
            }
        }
        Ok(())
    })
    .await;
}

/// Waits until a booking is in this state, on this slot, in this version.
async fn ends(auditor: &Party, name: &str, expected: (State, &str, i64)) -> Screening {
    eventually("a booking to settle", async || {
        let seen = Desk::of(auditor).screening(name).await.map_err(|status| status.to_string())?;
        let is_there = (seen.state(), seen.slot.as_str(), seen.version) == expected;
        if is_there { Ok(seen) } else { Err(format!("{seen:?}, not {expected:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r27_sixty_move_to_six_places_and_six_get_one() {
    const MOVERS: usize = 60;
    const PLACES: usize = 6;
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let from = admin.open("left-behind", &[7], 100).await.remove(0);
    let to = admin.open("sought-after", &[9], 6).await.remove(0);
    let movers = checkup.served().customers("mover", MOVERS, 8).await;
    let made = booked_on(&from, &movers, "mover").await;
    let (auditor, stop) = (checkup.auditor().await, Arc::new(AtomicBool::new(false)));
    let mut readers = Vec::new();
    for slot in [&from, &to] {
        readers.push(tokio::spawn(watch_counts(checkup.stranger().await, slot.clone(), Arc::clone(&stop))));
    }
    readers.push(tokio::spawn(watch_claims(auditor.clone(), to.clone(), PLACES, Arc::clone(&stop))));

    let answers = rush(MOVERS, |i| {
        let (desk, name, to) = (Desk::of(&movers[i]), made[i].name.clone(), to.clone());
        async move { desk.reschedule(&name, &to, "").await }
    })
    .await;
    let (mut moved, mut stayed) = (0, 0);
    for (before, answer) in made.iter().zip(answers) {
        match answer {
            Ok(now) => {
                assert_eq!((&now.name, now.slot.as_str(), now.version), (&before.name, to.as_str(), 3));
                assert_eq!(now.state(), State::Confirmed);
                moved += 1;
            }
            Err(status) => {
                let refusal = refused(Err::<(), _>(status), Reason::SlotFull);
                assert_eq!((refusal.value("slot"), refusal.value("remaining")), (to.as_str(), "0"));
                let now = Desk::of(&auditor).screening(&before.name).await.expect("the booking");
                assert_eq!(now, *before, "a refusal leaves the booking as it was");
                stayed += 1;
            }
        }
    }
    assert_eq!((moved, stayed), (PLACES, MOVERS - PLACES));
    settles(&auditor, &[(&from, stayed), (&to, moved)]).await;
    assert_eq!(claims(&auditor, &from, "RELEASED").await.len(), moved, "each place came back once");
    stop.store(true, Ordering::Relaxed);
    for looks in gather(readers).await {
        assert!(looks.expect("no look shows too much") > 0, "the readers looked while it went on");
    }
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r27_a_target_without_a_place_changes_nothing() {
    const MOVERS: usize = 8;
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    let from = desk.open("staying", &[7], 50).await.remove(0);
    let closed = desk.open("closed-now", &[8], 50).await.remove(0);
    let gone = desk.open("gone-now", &[9], 50).await.remove(0);
    let full = desk.open("full-now", &[10], 1).await.remove(0);
    let movers = checkup.served().customers("mover", MOVERS, 4).await;
    let made = booked_on(&from, &movers, "mover").await;
    desk.book("holder", &full, "").await.expect("the only place");
    let close = CloseSlotRequest { name: closed.clone(), ..CloseSlotRequest::default() };
    admin.hospital().close_slot(close).await.expect("an admin closes");
    let delete = DeleteHospitalRequest { name: "hospitals/gone-now".to_owned(), ..DeleteHospitalRequest::default() };
    admin.hospital().delete_hospital(delete).await.expect("an admin deletes");

    let later = in_days(Desk::ZONE, 30);
    let targets = [
        (closed, Reason::SlotClosed),
        (gone, Reason::HospitalDeleted),
        (full.clone(), Reason::SlotFull),
        (slot_name("hospitals/staying", later), Reason::SlotNotFound),
        (slot_name("hospitals/nowhere", later), Reason::HospitalNotFound),
    ];
    let answers = rush(MOVERS * targets.len(), |i| {
        let (mover, (slot, reason)) = (i % MOVERS, targets[i / MOVERS].clone());
        let (desk, name) = (Desk::of(&movers[mover]), made[mover].name.clone());
        async move { (desk.reschedule(&name, &slot, "").await, reason) }
    })
    .await;
    answers.into_iter().for_each(|(answer, reason)| drop(refused(answer, reason)));
    let auditor = checkup.auditor().await;
    for before in &made {
        assert_eq!(Desk::of(&auditor).screening(&before.name).await.expect("the booking"), *before);
    }
    settles(&auditor, &[(&from, MOVERS), (&full, 1)]).await;
    assert!(claims(&auditor, &from, "RELEASED").await.is_empty(), "no old place was given back");
    agree(&checkup).await;
}

/// Moves all bookings at once, while an admin cancels a slot with its bookings after so many turns of the scheduler.
async fn move_while_cancelling(
    (movers, made, to): (&[Party], &[Screening], &str),
    (admin, cancelled, turn): (&Party, &str, u64),
) -> Vec<Result<Screening, Status>> {
    let answers = rush(made.len() + 1, |i| {
        let close = CloseSlotRequest {
            name: cancelled.to_owned(),
            cancel_bookings: true,
            reason: "no water".to_owned(),
            ..CloseSlotRequest::default()
        };
        let admin = admin.clone();
        let work = (i < made.len()).then(|| (Desk::of(&movers[i]), made[i].name.clone(), to.to_owned()));
        async move {
            let Some((desk, name, to)) = work else {
                for _ in 0..turn {
                    tokio::task::yield_now().await;
                }
                admin.hospital().close_slot(close).await.expect("an admin closes");
                return None;
            };
            Some(desk.reschedule(&name, &to, "").await)
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r28_the_cancellation_of_the_slot_that_is_left_ends_only_what_has_not_moved() {
    const MOVERS: usize = 50;
    let mut random = seed("r28 left");
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let from = Desk::of(&admin).open("dried-up", &[7], 100).await.remove(0);
    let to = Desk::of(&admin).open("refuge", &[8], 100).await.remove(0);
    let movers = checkup.served().customers("mover", MOVERS, 4).await;
    let made = booked_on(&from, &movers, "mover").await;
    let turn = random.below(MOVERS as u64);
    let answers = move_while_cancelling((&movers, &made, &to), (&admin, &from, turn)).await;

    let auditor = checkup.auditor().await;
    let mut moved = 0;
    for (before, answer) in made.iter().zip(answers) {
        match answer {
            Ok(now) => {
                assert_eq!((now.state(), now.slot.as_str(), now.version), (State::Confirmed, to.as_str(), 3));
                moved += 1;
            }
            Err(status) => {
                let refusal = refused(Err::<(), _>(status), Reason::ScreeningStateInvalid);
                assert_eq!(refusal.value("state"), "FORCE_CANCELLED");
                let now = ends(&auditor, &before.name, (State::ForceCancelled, &from, 2)).await;
                assert_eq!((now.state_reason.as_str(), now.state_message.as_str()), ("SLOT_CANCELLED", "no water"));
            }
        }
    }
    println!("{moved} of {MOVERS} moved before the cancellation reached them");
    settles(&auditor, &[(&from, 0), (&to, moved)]).await;
    agree(&checkup).await;
    // the revocation of the claim that they left has arrived by now, and ended none of them
    let confirmed = super::all_screenings(&auditor, &format!("slot=\"{to}\" AND state=CONFIRMED")).await;
    assert_eq!(confirmed.len(), moved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r28_the_cancellation_of_the_target_ends_only_what_has_moved() {
    const MOVERS: usize = 50;
    let mut random = seed("r28 target");
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let from = Desk::of(&admin).open("safe-haven", &[7], 100).await.remove(0);
    let to = Desk::of(&admin).open("dried-up", &[8], 100).await.remove(0);
    let movers = checkup.served().customers("mover", MOVERS, 4).await;
    let made = booked_on(&from, &movers, "mover").await;
    let turn = random.below(MOVERS as u64);
    let answers = move_while_cancelling((&movers, &made, &to), (&admin, &to, turn)).await;

    let auditor = checkup.auditor().await;
    let mut stayed = 0;
    for (before, answer) in made.iter().zip(answers) {
        match answer {
            Ok(now) => {
                assert_eq!((now.slot.as_str(), now.version), (to.as_str(), 3));
                let now = ends(&auditor, &before.name, (State::ForceCancelled, &to, 4)).await;
                assert_eq!((now.state_reason.as_str(), now.state_message.as_str()), ("SLOT_CANCELLED", "no water"));
            }
            Err(status) => {
                refused(Err::<(), _>(status), Reason::SlotClosed);
                let now = Desk::of(&auditor).screening(&before.name).await.expect("the booking");
                assert_eq!(now, *before, "a place that was taken away again moved nothing");
                stayed += 1;
            }
        }
    }
    println!("{stayed} of {MOVERS} came too late to move");
    settles(&auditor, &[(&from, stayed), (&to, 0)]).await;
    agree(&checkup).await;
}

async fn cancel(party: &Party, name: &str, etag: &str) -> Result<Screening, Status> {
    let request =
        CancelScreeningRequest { name: name.to_owned(), etag: etag.to_owned(), ..CancelScreeningRequest::default() };
    party.screening().cancel_screening(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r28_of_a_move_and_a_cancel_the_first_committed_wins() {
    const MOVERS: usize = 40;
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let from = admin.open("undecided", &[7], 100).await.remove(0);
    let to = admin.open("alternative", &[8], 100).await.remove(0);
    let movers = checkup.served().customers("mover", MOVERS, 8).await;
    let made = booked_on(&from, &movers, "mover").await;
    // every other cancel has the etag of the booking before the move
    let has_etag = |i: usize| i.is_multiple_of(2);
    let mut answers = rush(2 * MOVERS, |i| {
        let (party, before, to) = (movers[i % MOVERS].clone(), made[i % MOVERS].clone(), to.clone());
        async move {
            if i < MOVERS {
                return Desk::of(&party).reschedule(&before.name, &to, "").await;
            }
            cancel(&party, &before.name, if has_etag(i - MOVERS) { &before.etag } else { "" }).await
        }
    })
    .await;

    let auditor = checkup.auditor().await;
    let cancels = answers.split_off(MOVERS);
    let mut still_there = 0;
    for (i, (moved, cancelled)) in answers.into_iter().zip(cancels).enumerate() {
        let name = &made[i].name;
        match (moved, cancelled) {
            (Ok(moved), Ok(cancelled)) => {
                assert!(!has_etag(i), "{name} was cancelled with an etag from before it moved");
                assert_eq!((moved.version, cancelled.version), (3, 4), "moved, then cancelled");
                ends(&auditor, name, (State::Cancelled, &to, 4)).await;
            }
            (Err(status), Ok(cancelled)) => {
                let refusal = refused(Err::<(), _>(status), Reason::ScreeningStateInvalid);
                assert_eq!((refusal.value("state"), cancelled.version), ("CANCELLED", 2));
                ends(&auditor, name, (State::Cancelled, &from, 2)).await;
            }
            (Ok(moved), Err(status)) => {
                let refusal = refused(Err::<(), _>(status), Reason::EtagMismatch);
                assert!(has_etag(i) && refusal.value("currentEtag") == moved.etag, "{refusal:?}");
                ends(&auditor, name, (State::Confirmed, &to, 3)).await;
                still_there += 1;
            }
            (Err(moved), Err(cancelled)) => panic!("one of them is the first: {moved:?}, {cancelled:?}"),
        }
    }
    settles(&auditor, &[(&from, 0), (&to, still_there)]).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r28_of_a_move_and_an_attendance_one_stands() {
    const MOVERS: usize = 20;
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let from = admin.open("came-or-not", &[1], 50).await.remove(0);
    let to = admin.open("some-other-day", &[9], 50).await.remove(0);
    let movers = checkup.served().customers("mover", MOVERS, 4).await;
    let made = booked_on(&from, &movers, "mover").await;
    // On the date itself an admin can record that the customer came, and can still move the booking.
    let checkup = checkup.stop().await.set("clock.offset", "24h").start().await;
    let admin = checkup.admin().await;
    let mut answers = rush(2 * MOVERS, |i| {
        let (admin, name, to) = (admin.clone(), made[i % MOVERS].name.clone(), to.clone());
        async move {
            if i < MOVERS {
                return Desk::of(&admin).reschedule(&name, &to, "").await;
            }
            let request = CompleteScreeningRequest { name, ..CompleteScreeningRequest::default() };
            admin.screening().complete_screening(request).await.map(Response::into_inner)
        }
    })
    .await;

    let auditor = checkup.auditor().await;
    let completions = answers.split_off(MOVERS);
    let (mut moved, mut came) = (0, 0);
    for (before, (answer, completed)) in made.iter().zip(answers.into_iter().zip(completions)) {
        if answer.is_ok() {
            refused(completed, Reason::DateNotReached);
            ends(&auditor, &before.name, (State::Confirmed, &to, 3)).await;
            moved += 1;
        } else {
            let refusal = refused(answer, Reason::ScreeningStateInvalid);
            assert_eq!(refusal.value("state"), "COMPLETED");
            assert_eq!(completed.expect("the customer came").version, 2);
            ends(&auditor, &before.name, (State::Completed, &from, 2)).await;
            came += 1;
        }
    }
    println!("{moved} of {MOVERS} moved, and {came} came");
    settles(&auditor, &[(&from, came), (&to, moved)]).await;
    agree(&checkup).await;
}
