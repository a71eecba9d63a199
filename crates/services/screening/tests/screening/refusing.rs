//! Hospital's refusals: they are passed on unchanged, store nothing, and a retry is judged afresh.

use std::time::Duration;

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::CreateScreeningRequest;
use domain::ids::SlotId;
use domain::window::BookingPolicy;
use fault::Reason;
use jiff::SignedDuration;
use testkit::{eventually, refused};

use crate::world::{World, ask, ask_once, book, list, names, options, slot};

/// One slot per reason of a refusal, with the metadata that the refusal carries.
pub(crate) fn hopeless(world: &World) -> Vec<(SlotId, Reason, Vec<&'static str>)> {
    let deleted = world.slot("deleted", 7, 1);
    world.hospital.delete(&deleted.hospital, "closing down");
    let full = world.slot("full", 7, 0);
    let closed = world.slot("closed", 7, 1);
    world.hospital.close(&closed);
    world.slot("elsewhen", 7, 1);
    let past = world.slot("past", -3, 1);
    let early = slot("early", 30);
    let policy = BookingPolicy { max_advance: SignedDuration::from_hours(24), ..BookingPolicy::default() };
    world.hospital.open_under(&early, 1, policy);
    vec![
        (slot("nowhere", 7), Reason::HospitalNotFound, vec!["hospital"]),
        (deleted, Reason::HospitalDeleted, vec!["hospital"]),
        (slot("elsewhen", 8), Reason::SlotNotFound, vec!["slot"]),
        (past, Reason::DateInPast, vec!["today", "timeZone"]),
        (early, Reason::OutsideBookingWindow, vec!["today", "timeZone", "opensAt", "closesAt"]),
        (closed, Reason::SlotClosed, vec!["slot"]),
        (full, Reason::SlotFull, vec!["slot", "remaining"]),
    ]
}

#[tokio::test]
async fn refusals_keep_their_reason_and_values_and_store_nothing() {
    let world = World::start_with(screening::Options { report_interval: Duration::from_secs(60), ..options() }).await;
    let kim = world.customer("kim").await;
    for (slot, reason, keys) in hopeless(&world) {
        let called = refused(book(&kim, ask_once("kim", &slot)).await, reason);
        for key in keys {
            assert!(!called.value(key).is_empty(), "{key}");
        }
        let judged = CreateScreeningRequest { validate_only: true, ..ask_once("kim", &slot) };
        let judged = refused(book(&kim, judged).await, reason);
        assert_eq!(judged.code, called.code);
        assert_eq!((&judged.resource, &judged.preconditions), (&called.resource, &called.preconditions));
        assert_eq!(judged.metadata.keys().collect::<Vec<_>>(), called.metadata.keys().collect::<Vec<_>>());
        for steady in ["slot", "hospital", "remaining", "today", "timeZone", "opensAt", "closesAt"] {
            assert_eq!(judged.metadata.get(steady), called.metadata.get(steady), "{steady}");
        }
    }
    assert_eq!(list(&kim, "").await.unwrap(), []);
    assert_eq!(world.announced().await, []);
}

#[tokio::test]
async fn the_customers_date_is_judged_before_the_hospital() {
    let world = World::start().await;
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &world.slot("seoul", 7, 1))).await.unwrap();
    for hospital in ["nowhere", "busan"] {
        for validate_only in [false, true] {
            let request = CreateScreeningRequest { validate_only, ..ask_once("kim", &slot(hospital, 7)) };
            let refusal = refused(book(&kim, request).await, Reason::CustomerDateConflict);
            assert_eq!(refusal.value("screening"), made.name);
            assert_eq!(refusal.resource, Some(("Screening".into(), made.name.clone())));
        }
    }
    assert_eq!(world.hospital.reserves().len(), 1);
}

#[tokio::test]
async fn r10_a_retry_after_a_refusal_is_judged_afresh() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 0);
    let kim = world.customer("kim").await;
    let request = ask_once("kim", &slot);
    assert_eq!(refused(book(&kim, request.clone()).await, Reason::SlotFull).value("remaining"), "0");
    world.hospital.close(&slot);
    refused(book(&kim, request.clone()).await, Reason::SlotClosed);
    world.hospital.open(&slot, 1);
    let made = book(&kim, request.clone()).await.unwrap();
    assert_eq!(book(&kim, request).await.unwrap().name, made.name);
}

#[tokio::test]
async fn demand_that_a_full_slot_turned_away_is_reported() {
    let world = World::start().await;
    let full = world.slot("full", 7, 0);
    let reported = async |slot: &SlotId| {
        let events = world.facts_of(&format!("{slot}/refusals")).await;
        let counts = events.iter().map(|event| match &event.payload {
            Some(Payload::ScreeningRefused(fact)) => {
                assert_eq!((fact.slot.clone(), fact.reason.as_str()), (slot.to_string(), "SLOT_FULL"));
                fact.count
            }
            other => panic!("{other:?}"),
        });
        (counts.sum::<i64>(), events.iter().map(|event| event.aggregate_version).collect::<Vec<_>>())
    };
    for round in 1..=2 {
        for customer in ["kim", "park", "choi"] {
            refused(book(&world.customer(customer).await, ask(customer, &full)).await, Reason::SlotFull);
        }
        let judged = CreateScreeningRequest { validate_only: true, ..ask("kim", &full) };
        refused(book(&world.customer("kim").await, judged).await, Reason::SlotFull);
        eventually("the report", async || {
            let seen = reported(&full).await;
            if seen.0 == 3 * round { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }
    let versions = reported(&full).await.1;
    assert!(versions.iter().copied().eq(1..=i64::try_from(versions.len()).unwrap()), "{versions:?}");
}

#[tokio::test]
async fn what_was_counted_is_reported_before_the_end() {
    let world =
        World::start_with(screening::Options { report_interval: Duration::from_secs(3_600), ..options() }).await;
    let full = world.slot("full", 7, 0);
    refused(book(&world.customer("kim").await, ask("kim", &full)).await, Reason::SlotFull);
    let world = world.restarted(options(), SignedDuration::ZERO).await;
    assert_eq!(names(&world.announced().await), ["screening_refused"]);
}
