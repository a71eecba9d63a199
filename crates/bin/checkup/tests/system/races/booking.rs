//! R12 and R13: one customer and one date.

use contract::screening::v1::screening::State;
use fault::Reason;
use testkit::{Desk, eventually, refused, refused_one_of, rush};

use super::all_screenings;
use crate::launch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_one_customer_asks_eight_hospitals_for_one_date() {
    const HOSPITALS: usize = 8;
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let mut slots = Vec::new();
    for i in 0..HOSPITALS {
        slots.extend(admin.open(&format!("clinic-{i}"), &[7], 5).await);
    }
    let kim = checkup.customer("kim").await;
    let answers = rush(HOSPITALS, |i| {
        let (desk, slot) = (Desk::of(&kim), slots[i].clone());
        async move { desk.book("kim", &slot, "").await }
    })
    .await;
    let winner = answers.iter().flatten().next().cloned().expect("one of them");
    for answer in answers.into_iter().filter(Result::is_err) {
        let refusal = refused(answer, Reason::CustomerDateConflict);
        assert_eq!(refusal.value("screening"), winner.name);
    }
    for slot in &slots {
        let expected = i32::from(*slot == winner.slot);
        eventually("a second claim not to be kept", async || {
            let booked = admin.booked(slot).await?;
            if booked == expected { Ok(()) } else { Err(format!("{slot}: {booked} booked")) }
        })
        .await;
    }
    let auditor = checkup.auditor().await;
    let active = all_screenings(&auditor, "customer=\"customers/kim\" AND state=CONFIRMED").await;
    assert_eq!(active.len(), 1);
    assert_eq!(active[0].name, winner.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r13_a_cancelled_date_can_be_booked_again_at_once() {
    let checkup = launch().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let slots = admin.open("change-of-mind", &[7, 8], 50).await;
    let kim = Desk::of(&checkup.customer("kim").await);
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..15 {
        let booked = kim.book("kim", &slots[0], "").await.expect("the date is free as soon as cancel returned");
        assert!(names.insert(booked.name.clone()), "every booking is a new one");
        kim.cancel(&booked.name, "").await.expect("kim cancels");
    }
    eventually("every place to come back", async || {
        let booked = kim.booked(&slots[0]).await?;
        if booked == 0 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;

    // The place comes back soon, but perhaps not at once.
    let narrow = admin.open("one-place", &[8], 1).await.remove(0);
    for _ in 0..10 {
        let booked = eventually("the one place to come back", async || match kim.book("kim", &narrow, "").await {
            Ok(booked) => Ok(booked),
            other => Err(refused_one_of(other, &[Reason::SlotFull]).message),
        })
        .await;
        assert_eq!(booked.state(), State::Confirmed);
        kim.cancel(&booked.name, "").await.expect("kim cancels");
    }
}
