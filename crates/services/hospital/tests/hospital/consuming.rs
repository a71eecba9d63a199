//! Events that give places back: each takes effect once, in any order and beside any other change.

use contract::capacity::v1::capacity_claim::State;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, ScreeningCancelled, ScreeningRejected, ScreeningSnapshot};
use fault::Reason;
use relay::{Handler, Incoming};
use sea_orm::{ConnectionTrait, Statement};
use store::dead_letter::DeadLetter;
use store::inbox::InboxKey;
use testkit::refused;
use uuid::Uuid;

use crate::support::{House, assert_slot_adds_up, claim, claims, facts, get_slot, reserve};

fn handler(house: &House) -> &dyn Handler {
    house.service.consumers[0].handler.as_ref()
}

/// The reasons why events about a resource were ignored.
async fn ignored_reasons(connection: &impl ConnectionTrait, aggregate: &str) -> Vec<String> {
    let sql = "SELECT reason FROM ignored_event WHERE aggregate = $1 ORDER BY ignore_time";
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, [aggregate.into()]);
    let rows = connection.query_all_raw(statement).await.expect("ignored events");
    rows.iter().map(|row| row.try_get_by_index(0).expect("a reason")).collect()
}

/// An event that ends the claim of this number: cancelled if the number is even, rejected if it is odd.
fn event(slot: &str, number: u128, inbox_key: impl FnOnce(Uuid) -> InboxKey) -> Incoming {
    let event_id = Uuid::from_u128(1_000_000 + number);
    let screening = Some(ScreeningSnapshot { slot: slot.into(), ..ScreeningSnapshot::default() });
    let claim_id = claim(number);
    let payload = if number.is_multiple_of(2) {
        Payload::ScreeningCancelled(ScreeningCancelled { screening, claim_id, ..ScreeningCancelled::default() })
    } else {
        Payload::ScreeningRejected(ScreeningRejected { screening, claim_id, reason: "SLOT_FULL".into() })
    };
    let envelope = EventEnvelope {
        event_id: event_id.to_string(),
        aggregate: format!("screenings/{}", Uuid::from_u128(number)),
        aggregate_version: 2,
        actor: "customer:kim".into(),
        request_id: "asked".into(),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        payload: Some(payload),
        ..EventEnvelope::default()
    };
    Incoming { envelope, event_id, inbox_key: inbox_key(event_id) }
}

fn unordered(event_id: Uuid) -> InboxKey {
    InboxKey::alone(event_id)
}

fn ordered(position: i64) -> impl FnOnce(Uuid) -> InboxKey {
    move |event_id| InboxKey::at("screening".into(), position, event_id)
}

#[tokio::test]
async fn the_consumer_hears_of_what_makes_a_booking_leave_its_place() {
    let (house, _dir) = House::start().await;
    let [consumer] = house.service.consumers.as_slice() else { panic!("one consumer") };
    assert_eq!(consumer.name, "hospital-releases");
    assert_eq!(
        consumer.filter,
        [
            "checkup.v1.screening.screening_cancelled.*",
            "checkup.v1.screening.screening_rejected.*",
            "checkup.v1.screening.screening_rescheduled.*",
            "checkup.v1.screening.screening_waitlist_ended.*"
        ]
    );
    house.stop().await;
}

#[tokio::test]
async fn an_event_gives_a_place_back_once() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let screening = house.screening().await;
    for number in 0..6 {
        reserve(&screening, &slot, &claim(number)).await.unwrap();
    }
    let batch: Vec<Incoming> = (0..4).map(|number| event(&slot, number, unordered)).collect();
    for _ in 0..3 {
        handler(&house).handle(&batch).await.unwrap();
    }
    assert_eq!(assert_slot_adds_up(&screening, &slot).await.booked_count, 2);
    let events = house.sound_events().await;
    assert_eq!(facts(&events)["capacity_released"], 4);
    let event = events.last().unwrap();
    assert_eq!(event.actor, "service:hospital");
    assert_eq!(
        (event.request_id.as_str(), event.causation_id.as_str()),
        ("asked", batch[3].event_id.to_string().as_str())
    );
    assert!(event.traceparent.contains("4bf92f3577b34da6a3ce929d0e0e4736"));
    house.stop().await;
}

#[tokio::test]
async fn an_ordered_road_is_remembered_by_its_cursor() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let screening = house.screening().await;
    reserve(&screening, &slot, &claim(2)).await.unwrap();
    handler(&house).handle(&[event(&slot, 2, ordered(7))]).await.unwrap();
    handler(&house).handle(&[event(&slot, 4, ordered(7)), event(&slot, 6, ordered(9))]).await.unwrap();
    let ended = claims(&screening, &slot, "").await;
    let ids: Vec<_> = ended.iter().map(|claim| claim.claim_id.clone()).collect();
    assert_eq!(ids, [claim(2), claim(6)], "what was seen before is not looked at again");
    let cursors = store::inbox::cursors(house.service.database.reader(), "hospital-releases").await.unwrap();
    assert_eq!(cursors["screening"], 9);
    house.stop().await;
}

#[tokio::test]
async fn a_release_that_comes_before_its_reserve_leaves_a_tombstone() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let screening = house.screening().await;
    let nowhere = "hospitals/nowhere/slots/2999-01-01";
    handler(&house).handle(&[event(&slot, 1, unordered), event(nowhere, 3, unordered)]).await.unwrap();
    let late = refused(reserve(&screening, &slot, &claim(1)).await, Reason::ClaimTerminated);
    assert_eq!(late.value("state"), "RELEASED");
    refused(reserve(&screening, nowhere, &claim(3)).await, Reason::ClaimTerminated);
    let after = get_slot(&screening, &slot).await;
    assert_eq!((after.booked_count, after.version), (0, 1), "a tombstone takes and gives no place");
    assert_eq!(claims(&screening, &slot, "state=RELEASED").await[0].state(), State::Released);
    house.sound_events().await;
    house.stop().await;
}

#[tokio::test]
async fn an_event_that_names_another_slot_is_recorded_as_ignored() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2], 10).await;
    let screening = house.screening().await;
    reserve(&screening, &slots[0], &claim(2)).await.unwrap();
    handler(&house).handle(&[event(&slots[1], 2, unordered)]).await.unwrap();
    assert_eq!(get_slot(&screening, &slots[0]).await.booked_count, 1);
    let reasons = ignored_reasons(house.service.database.reader(), &claim(2)).await;
    assert_eq!(reasons.len(), 1);
    house.stop().await;
}

#[tokio::test]
async fn a_broken_event_is_named_and_can_become_a_dead_letter() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let screening = house.screening().await;
    reserve(&screening, &slot, &claim(2)).await.unwrap();
    let broken = event("hospitals/seoul/slots/yesterday", 4, unordered);
    let fault = handler(&house).handle(&[event(&slot, 2, unordered), broken.clone()]).await.unwrap_err();
    assert_eq!(fault.code(), fault::Code::Internal);
    assert_eq!(get_slot(&screening, &slot).await.booked_count, 1, "nothing of the batch happened");
    let dead_letter = DeadLetter {
        consumer: "hospital-releases".into(),
        event_id: broken.event_id.to_string(),
        subject: "checkup.v1.screening.screening_cancelled.x".into(),
        payload: vec![1, 2, 3],
        error: "malformed slot".into(),
        attempts: 10,
        time: house.now(),
    };
    handler(&house).store_dead_letter(dead_letter, broken.inbox_key).await.unwrap();
    assert_eq!(store::dead_letter::count(house.service.database.reader()).await.unwrap(), 1);
    handler(&house).handle(&[event(&slot, 2, unordered)]).await.unwrap();
    assert_eq!(get_slot(&screening, &slot).await.booked_count, 0);
    house.stop().await;
}
