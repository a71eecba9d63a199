//! R30: the same move more than once, two moves of one booking, and a move against the rule of one booking a date.

use contract::hospital::v1::BookingPolicy;
use contract::screening::v1::Screening;
use contract::screening::v1::screening::State;
use fault::Reason;
use testkit::{Desk, Party, in_days, refused, rush, seed};

use super::{agree, booked_on, ends, settles};
use crate::launch;
use crate::races::{all_screenings, claims};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r30_sixteen_duplicates_are_one_move() {
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("moved-once", &[7, 8, 9], 10).await;
    let kim = Desk::of(&checkup.customer("kim").await);
    let booked = kim.book("kim", &slots[0], "").await.expect("a place");
    let request_id = seed("r30").uuid().to_string();
    let duplicates = checkup.served().connections(4).await;
    let token = checkup.tokens().customer("kim");
    let answers = rush(16, |i| {
        let desk = Desk::of(&Party::new(duplicates[i % 4].clone(), Some(&token)));
        // UUIDs are compared without regard to case.
        let request_id = if i % 2 == 0 { request_id.clone() } else { request_id.to_uppercase() };
        let (name, to) = (booked.name.clone(), slots[1].clone());
        async move { desk.reschedule(&name, &to, &request_id).await }
    })
    .await;
    for answer in answers {
        let same = answer.expect("a duplicate gets the answer of the first");
        assert_eq!((same.slot.as_str(), same.version, same.state()), (slots[1].as_str(), 3, State::Confirmed));
    }
    let auditor = checkup.auditor().await;
    settles(&auditor, &[(&slots[0], 0), (&slots[1], 1)]).await;
    let moved = kim.screening(&booked.name).await.expect("the booking");
    assert_eq!(moved.version, 3, "moved once");
    assert_eq!(kim.reschedule(&booked.name, &slots[1], &request_id).await.expect("a replay"), moved);
    let reused = refused(kim.reschedule(&booked.name, &slots[2], &request_id).await, Reason::RequestIdReused);
    assert_eq!(reused.value("requestId"), request_id);

    // A replay answers what is there now, and moves nothing back.
    let on = kim.reschedule(&booked.name, &slots[2], "").await.expect("moved on");
    assert_eq!((on.version, on.slot.as_str()), (5, slots[2].as_str()));
    assert_eq!(kim.reschedule(&booked.name, &slots[1], &request_id).await.expect("a replay"), on);
    settles(&auditor, &[(&slots[0], 0), (&slots[1], 0), (&slots[2], 1)]).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r30_without_a_request_id_a_repetition_changes_nothing() {
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("clicked-twice", &[7, 8], 10).await;
    let kim = checkup.customer("kim").await;
    let booked = Desk::of(&kim).book("kim", &slots[0], "").await.expect("a place");
    let answers = rush(16, |_| {
        let (desk, name, to) = (Desk::of(&kim), booked.name.clone(), slots[1].clone());
        async move { desk.reschedule(&name, &to, "").await }
    })
    .await;
    for answer in answers {
        let same = answer.expect("whoever comes later finds it there");
        assert_eq!((same.slot.as_str(), same.version), (slots[1].as_str(), 3));
    }
    settles(&checkup.auditor().await, &[(&slots[0], 0), (&slots[1], 1)]).await;
    agree(&checkup).await;
}

/// Moves each booking to two slots at once, as its customer saw it or as it is. Returns the two answers for each.
async fn torn(
    movers: &[Party],
    made: &[Screening],
    slots: &[String],
    as_seen: bool,
) -> Vec<[Result<Screening, tonic::Status>; 2]> {
    let mut answers = rush(2 * made.len(), |i| {
        let (mover, target) = (i % made.len(), i / made.len());
        let (desk, seen, to) = (Desk::of(&movers[mover]), made[mover].clone(), slots[1 + target].clone());
        async move {
            if as_seen { desk.reschedule_as_seen(&seen, &to).await } else { desk.reschedule(&seen.name, &to, "").await }
        }
    })
    .await;
    let others = answers.split_off(made.len());
    answers.into_iter().zip(others).map(|(one, other)| [one, other]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r30_of_two_moves_of_what_both_saw_one_is_made() {
    const MOVERS: usize = 12;
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("seen-by-both", &[7, 8, 9], 50).await;
    let movers = checkup.served().customers("mover", MOVERS, 4).await;
    let made = booked_on(&slots[0], &movers, "mover").await;
    let auditor = checkup.auditor().await;
    let mut arrived = [0, 0];
    for (before, [one, other]) in made.iter().zip(torn(&movers, &made, &slots, true).await) {
        let (winner, target, loser) = match (one, other) {
            (Ok(winner), loser) => (winner, 0, loser),
            (loser, Ok(winner)) => (winner, 1, loser),
            (one, other) => panic!("one of them is the first: {one:?}, {other:?}"),
        };
        assert_eq!((winner.slot.as_str(), winner.version), (slots[1 + target].as_str(), 3));
        let refusal = refused(loser, Reason::EtagMismatch);
        assert_eq!(refusal.value("currentEtag"), winner.etag);
        assert_eq!(ends(&auditor, &before.name, (State::Confirmed, &slots[1 + target], 3)).await, winner);
        arrived[target] += 1;
    }
    println!("{arrived:?} of {MOVERS}");
    settles(&auditor, &[(&slots[0], 0), (&slots[1], arrived[0]), (&slots[2], arrived[1])]).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r30_of_two_moves_without_an_etag_the_last_stands() {
    const MOVERS: usize = 12;
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("seen-by-none", &[7, 8, 9], 50).await;
    let movers = checkup.served().customers("mover", MOVERS, 4).await;
    let made = booked_on(&slots[0], &movers, "mover").await;
    let auditor = checkup.auditor().await;
    let mut arrived = [0, 0];
    for (before, answers) in made.iter().zip(torn(&movers, &made, &slots, false).await) {
        let [one, other] = answers.map(|answer| answer.expect("each is judged by what the other left"));
        assert_eq!((one.slot.as_str(), other.slot.as_str()), (slots[1].as_str(), slots[2].as_str()));
        let (target, last) = if one.version > other.version { (0, &one) } else { (1, &other) };
        assert_eq!(one.version + other.version, 3 + 5, "one after the other");
        assert_eq!(ends(&auditor, &before.name, (State::Confirmed, &last.slot, 5)).await, *last);
        arrived[target] += 1;
    }
    println!("{arrived:?} of {MOVERS}");
    settles(&auditor, &[(&slots[0], 0), (&slots[1], arrived[0]), (&slots[2], arrived[1])]).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r30_a_move_and_a_booking_for_one_date_are_one_booking() {
    const MOVERS: usize = 24;
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let from = admin.open("other-date", &[7], 50).await.remove(0);
    let to = admin.open("same-date", &[9], 50).await.remove(0);
    let elsewhere = admin.open("same-date-too", &[9], 50).await.remove(0);
    let movers = checkup.served().customers("mover", MOVERS, 8).await;
    let made = booked_on(&from, &movers, "mover").await;
    let mut answers = rush(2 * MOVERS, |i| {
        let (mover, desk) = (i % MOVERS, Desk::of(&movers[i % MOVERS]));
        let (name, to, elsewhere) = (made[mover].name.clone(), to.clone(), elsewhere.clone());
        async move {
            if i < MOVERS {
                desk.reschedule(&name, &to, "").await
            } else {
                desk.book(&format!("mover-{mover}"), &elsewhere, "").await
            }
        }
    })
    .await;

    let bookings = answers.split_off(MOVERS);
    let (auditor, date) = (checkup.auditor().await, in_days(Desk::ZONE, 9));
    let (mut moved, mut booked) = (0, 0);
    for (before, (answer, booking)) in made.iter().zip(answers.into_iter().zip(bookings)) {
        let there = match (answer, booking) {
            (Ok(there), refusal) => {
                let refusal = refused(refusal, Reason::CustomerDateConflict);
                assert_eq!(refusal.value("screening"), before.name);
                moved += 1;
                there
            }
            (refusal, Ok(there)) => {
                let refusal = refused(refusal, Reason::CustomerDateConflict);
                assert_eq!(refusal.value("screening"), there.name);
                let now = Desk::of(&auditor).screening(&before.name).await.expect("the booking");
                assert_eq!(now, *before, "a refusal leaves the booking as it was");
                booked += 1;
                there
            }
            (one, other) => panic!("one of them is the first: {one:?}, {other:?}"),
        };
        let filter = format!("customer=\"{}\" AND date=\"{date}\" AND state=CONFIRMED", before.customer);
        let active = all_screenings(&auditor, &filter).await;
        assert_eq!(active, [there], "one on that date");
    }
    println!("{moved} moved, {booked} booked");
    settles(&auditor, &[(&from, booked), (&to, moved), (&elsewhere, booked)]).await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r30_the_own_date_is_no_conflict_and_never_free_in_between() {
    const HOSPITALS: usize = 6;
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let mut slots = Vec::new();
    let often = BookingPolicy { reschedule_limit: Some(100), ..BookingPolicy::default() };
    for i in 0..HOSPITALS {
        slots.extend(admin.open(&format!("clinic-{i}"), &[7], 5).await);
        admin.set_policy(&format!("hospitals/clinic-{i}"), often).await.expect("a policy");
    }
    let kim = checkup.customer("kim").await;
    let booked = Desk::of(&kim).book("kim", &slots[0], "").await.expect("a place");
    // One after the other to every hospital, while somebody asks for a second booking on that date again and again.
    let mut answers = rush(2, |i| {
        let (desk, name, slots) = (Desk::of(&kim), booked.name.clone(), slots.clone());
        async move {
            let mut answers = Vec::new();
            for slot in &slots[1..] {
                answers.push(if i == 0 {
                    desk.reschedule(&name, slot, "").await
                } else {
                    desk.book("kim", slot, "").await
                });
            }
            answers
        }
    })
    .await;
    let (bookings, moves) = (answers.remove(1), answers.remove(0));
    for (version, answer) in (3..).step_by(2).zip(moves) {
        assert_eq!(answer.expect("its own date is no conflict").version, version);
    }
    for answer in bookings {
        assert_eq!(refused(answer, Reason::CustomerDateConflict).value("screening"), booked.name);
    }
    let auditor = checkup.auditor().await;
    let last = slots.len() - 1;
    let expected: Vec<(&str, usize)> =
        slots.iter().enumerate().map(|(i, slot)| (slot.as_str(), usize::from(i == last))).collect();
    settles(&auditor, &expected).await;
    assert_eq!(claims(&auditor, &slots[0], "RELEASED").await.len(), 1);
    agree(&checkup).await;
}
