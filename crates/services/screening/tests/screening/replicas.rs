//! Two replicas that share a database in PostgreSQL.

use contract::screening::v1::screening::State;
use domain::ids::ClaimId;
use domain::window::BookingPolicy;
use fault::Reason;
use mesh::for_tests;
use testkit::{eventually, gather, refused, start_together};

use crate::hospital::{Fate, Gate};
use crate::promoting::{HeldUp, about, patient};
use crate::unknown::soon;
use crate::world::{World, ask_once, ask_to_wait, book, cancel, claim, names, read, slot};

/// A world on a database of its own; `None` where there is no PostgreSQL.
async fn shared() -> Option<World> {
    let server = for_tests::or_skip("PostgreSQL", for_tests::postgres().await)?;
    let database = server.database("screening").await.unwrap();
    Some(World::start_shared(database, patient()).await)
}

/// One replica has asked for a place and not yet written the booking, while the other one consumes its promotion.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_another_replica_consumes_too_early_is_not_lost() {
    let Some(world) = shared().await else { return };
    let other = world.replica(patient()).await;
    let slot = world.slot("seoul", 7, 0);
    let kim = world.customer("kim").await;
    let held_up = HeldUp::begin(&world, &slot, vec![(kim.clone(), ask_to_wait("kim", &slot))]).await;
    world.hospital.raise(&slot, 1);
    other.feed(&about(&world, world.hospital.active()[0])[1..]).await;
    let waiting = held_up.end().await.remove(0).unwrap();
    assert_eq!(waiting.state(), State::Waitlisted);

    // no further event comes; the grace of one of them passes
    let third = world.replica(soon()).await;
    let promoted = world.becomes(&kim, &waiting.name, State::Confirmed).await;
    assert_eq!(promoted.version, 2);
    assert_eq!(world.hospital.active(), [claim(&waiting)]);
    assert_eq!(names(&world.facts_of(&waiting.name).await), ["screening_waitlisted", "screening_confirmed"]);
    for desk in [third, other] {
        desk.stop().await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r26_of_two_joins_at_two_replicas_one_waits() {
    let Some(world) = shared().await else { return };
    let other = world.replica(patient()).await;
    for round in 0..10 {
        let (slot, customer) = (world.slot("seoul", 7 + round, 0), format!("customer-{round}"));
        let parties = [world.customer(&customer).await, other.served.customer(&customer).await];
        let calls = parties.iter().map(|party| (party.clone(), ask_to_wait(&customer, &slot))).collect();
        let answers = HeldUp::begin(&world, &slot, calls).await.end().await;
        let (fine, refusals): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!((fine.len(), refusals.len()), (1, 1), "{refusals:?}");
        let waiting = fine.into_iter().next().unwrap().unwrap();
        let refusal = refused(refusals.into_iter().next().unwrap(), Reason::CustomerDateConflict);
        assert_eq!((waiting.state(), refusal.value("screening")), (State::Waitlisted, waiting.name.as_str()));
        world.deliver().await;
        assert_eq!(world.hospital.waiting(&slot), [claim(&waiting)], "the other ticket is given back");
    }
    other.stop().await;
    world.stop().await;
}

/// One replica consumes promotions while the other one books for the same customers on that date.
#[tokio::test(flavor = "multi_thread")]
async fn r22_of_a_promotion_and_an_own_booking_at_two_replicas_one_stays() {
    const COUNT: usize = 12;
    let Some(world) = shared().await else { return };
    let other = world.replica(patient()).await;
    let (slot, elsewhere) = (world.slot("seoul", 7, 0), world.slot("busan", 7, 100));
    let mut waiting = Vec::new();
    for i in 0..COUNT {
        let customer = format!("customer-{i}");
        waiting.push(book(&world.customer(&customer).await, ask_to_wait(&customer, &slot)).await.unwrap());
    }
    world.hospital.raise(&slot, i32::try_from(COUNT).unwrap());
    let events = world.hospital.events();
    let mut parties = Vec::new();
    for i in 0..COUNT {
        parties.push(other.served.customer(&format!("customer-{i}")).await);
    }
    let calls = start_together(COUNT, |i| {
        let (party, request) = (parties[i].clone(), ask_once(&format!("customer-{i}"), &elsewhere));
        async move { book(&party, request).await }
    });
    for event in events.chunks(1) {
        world.feed(event).await;
    }
    let booked = gather(calls).await;
    world.deliver().await;
    world.deliver().await;
    let mut kept: Vec<ClaimId> = Vec::new();
    for ((party, waited), booked) in parties.iter().zip(&waiting).zip(booked) {
        let seen = read(party, &waited.name).await.unwrap();
        match booked {
            Ok(own) => {
                assert_eq!((seen.state(), seen.state_reason.as_str()), (State::Expired, "CUSTOMER_DATE_CONFLICT"));
                kept.push(claim(&own));
            }
            Err(status) => {
                assert_eq!(seen.state(), State::Confirmed);
                let refusal = refused::<()>(Err(status), Reason::CustomerDateConflict);
                assert_eq!(refusal.value("screening"), waited.name);
                kept.push(claim(&seen));
            }
        }
    }
    let mut active = world.hospital.active();
    active.sort();
    kept.sort();
    assert_eq!(active, kept, "no other claim has a place");
    other.stop().await;
    world.stop().await;
}

/// Both replicas look at what is over, and one customer leaves meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn r24_what_is_over_expires_once_and_who_left_has_left() {
    let Some(world) = shared().await else { return };
    let slot = world.slot("seoul", 7, 0);
    let mut waiting = Vec::new();
    for i in 0..8 {
        let customer = format!("customer-{i}");
        waiting.push(book(&world.customer(&customer).await, ask_to_wait(&customer, &slot)).await.unwrap());
    }
    let world = crate::promoting::once_it_is_over(world, &slot).await;
    let other = world.replica_later(soon(), crate::promoting::after_the_close(&slot)).await;
    let left = cancel(&world.customer("customer-7").await, &waiting[7].name).await;
    let auditor = world.desk.served.auditor().await;
    for (i, waited) in waiting.iter().enumerate() {
        let expected = if i == 7 && left.is_ok() { State::Cancelled } else { State::Expired };
        world.becomes(&auditor, &waited.name, expected).await;
        let facts = names(&world.facts_of(&waited.name).await);
        assert_eq!(facts, ["screening_waitlisted", "screening_waitlist_ended"]);
    }
    world.deliver().await;
    assert_eq!(world.hospital.waiting(&slot), []);
    other.stop().await;
    world.stop().await;
}

/// The limit is judged where the bookings are written, by two replicas at once: for a customer whom no transaction has
/// counted before, and for one who was.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_bookings_at_two_replicas_the_limit_lets_one_through() {
    let Some(world) = shared().await else { return };
    let other = world.replica(patient()).await;
    let policy = BookingPolicy { customer_limit: Some(1), ..BookingPolicy::default() };
    for round in 0..10 {
        let customer = format!("customer-{}", round / 2);
        let parties = [world.customer(&customer).await, other.served.customer(&customer).await];
        let slots = [2 * round, 2 * round + 1].map(|day| slot("seoul", 7 + day));
        slots.iter().for_each(|slot| world.hospital.open_under(slot, 1, policy));
        let before = world.hospital.active().len();
        let gate = Gate::closed();
        world.hospital.next([Fate::AnswerAfter(gate.clone()), Fate::AnswerAfter(gate.clone())]);
        let calls = start_together(2, |i| {
            let (party, request) = (parties[i].clone(), ask_once(&customer, &slots[i]));
            async move { book(&party, request).await }
        });
        eventually("two places", async || match world.hospital.active().len() - before {
            2 => Ok(()),
            there => Err(format!("{there} of 2")),
        })
        .await;
        gate.open();
        let (fine, refusals): (Vec<_>, Vec<_>) = gather(calls).await.into_iter().partition(Result::is_ok);
        assert_eq!((fine.len(), refusals.len()), (1, 1), "{refusals:?}");
        let refusal = refused(refusals.into_iter().next().unwrap(), Reason::CustomerLimitReached);
        assert_eq!(refusal.value("limit"), "1");
        world.deliver().await;
        assert_eq!(world.hospital.active().len(), before + 1, "the other place is given back");
        // the next round is of a customer who was counted
        cancel(&parties[0], &fine.into_iter().next().unwrap().unwrap().name).await.unwrap();
        world.deliver().await;
    }
    other.stop().await;
    world.stop().await;
}
