//! The limit of a hospital on the bookings of one customer, against bookings and moves of that customer at once.

use contract::hospital::v1::BookingPolicy;
use contract::screening::v1::Screening;
use contract::screening::v1::screening::State;
use fault::Reason;
use testkit::{Desk, Party, eventually, refused, rush};
use tonic::Status;

use super::agree;
use crate::launch;

const LIMIT: usize = 3;

/// Opens a hospital that lets each customer have [`LIMIT`] bookings, with a slot on each of these days.
async fn limited(admin: &Party, id: &str, days: &[i32]) -> Vec<String> {
    let desk = Desk::of(admin);
    let slots = desk.open(id, days, 5).await;
    let customer_limit = i32::try_from(LIMIT).ok();
    let policy = BookingPolicy { customer_limit, ..BookingPolicy::default() };
    desk.set_policy(&format!("hospitals/{id}"), policy).await.expect("a policy");
    slots
}

/// The bookings that were made; every other call heard that there may be no more.
fn made(answers: Vec<Result<Screening, Status>>) -> Vec<Screening> {
    let (made, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    for refusal in refusals {
        assert_eq!(refused(refusal, Reason::CustomerLimitReached).value("limit"), LIMIT.to_string());
    }
    made.into_iter().flatten().collect()
}

/// Waits until the slots have as many taken places as this, in sum.
async fn taken(admin: &Party, slots: &[String], expected: i32) {
    let desk = Desk::of(admin);
    eventually(&format!("{expected} taken places"), async || {
        let mut sum = 0;
        for slot in slots {
            sum += desk.booked(slot).await?;
        }
        if sum == expected { Ok(()) } else { Err(format!("{sum} are taken")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_bookings_at_once_as_many_as_the_hospital_allows_are_made() {
    const DATES: i32 = 16;
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let days: Vec<i32> = (7..7 + DATES).collect();
    let slots = limited(&admin, "few-each", &days).await;
    let served = checkup.served();
    let (connections, token) = (served.connections(4).await, checkup.tokens().customer("kim"));
    for round in 0..3 {
        let answers = rush(slots.len(), |i| {
            let desk = Desk::of(&Party::new(connections[i % 4].clone(), Some(&token)));
            let slot = slots[i].clone();
            // every other one would wait, too
            async move { if i % 2 == 0 { desk.book("kim", &slot, "").await } else { desk.join("kim", &slot, "").await } }
        })
        .await;
        let made = made(answers);
        assert_eq!(made.len(), LIMIT, "round {round}: {made:?}");
        assert!(made.iter().all(|row| row.state() == State::Confirmed));
        taken(&admin, &slots, i32::try_from(LIMIT).unwrap()).await;
        let kim = Desk::of(&checkup.customer("kim").await);
        for row in &made {
            kim.cancel(&row.name, "").await.expect("cancelled");
        }
        taken(&admin, &slots, 0).await;
    }
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_bookings_and_moves_to_a_hospital_at_once_as_many_as_it_allows_get_there() {
    const COUNT: usize = 6;
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let days: Vec<i32> = (7..19).collect();
    let elsewhere = Desk::of(&admin).open("elsewhere", &days, 5).await;
    let slots = limited(&admin, "few-each", &days).await;
    let kim = checkup.customer("kim").await;
    let desk = Desk::of(&kim);
    let mut booked = Vec::new();
    for slot in &elsewhere[..COUNT] {
        booked.push(desk.book("kim", slot, "").await.expect("no limit").name);
    }
    let answers = rush(2 * COUNT, |i| {
        let (desk, slots, booked) = (Desk::of(&kim), slots.clone(), booked.clone());
        async move {
            match i.checked_sub(COUNT) {
                None => desk.reschedule(&booked[i], &slots[i], "").await,
                Some(new) => desk.book("kim", &slots[COUNT + new], "").await,
            }
        }
    })
    .await;
    let there = made(answers);
    assert_eq!(there.len(), LIMIT, "{there:?}");
    let moved = there.iter().filter(|row| row.reschedule_count == 1).count();
    taken(&admin, &slots, i32::try_from(LIMIT).unwrap()).await;
    taken(&admin, &elsewhere, i32::try_from(COUNT - moved).unwrap()).await;
    // among themselves they move freely
    let free = slots[COUNT..].iter().find(|slot| there.iter().all(|row| row.slot != **slot)).expect("a free date");
    desk.reschedule(&there[0].name, free, "").await.expect("it stays at its hospital");
    agree(&checkup).await;
}
