//! Events of Hospital about places taken and taken away: once, twice, late, or before a booking exists.

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::screening::State;
use domain::capacity::ClaimState;
use fault::Reason;
use screening::Options;
use sea_orm::{ConnectionTrait, Statement};
use store::dead_letter::{self, DeadLetter};
use store::inbox::InboxKey;
use testkit::{eventually, refused};

use crate::hospital::{Fate, Gate};
use crate::world::{World, ask, ask_once, book, cancel, claim, list, names, options, read};

/// The reasons why events about a resource were ignored.
async fn ignored_reasons(connection: &impl ConnectionTrait, aggregate: &str) -> Vec<String> {
    let sql = "SELECT reason FROM ignored_event WHERE aggregate = $1 ORDER BY ignore_time";
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, [aggregate.into()]);
    let rows = connection.query_all_raw(statement).await.expect("ignored events");
    rows.iter().map(|row| row.try_get_by_index(0).expect("a reason")).collect()
}

#[tokio::test]
async fn bookings_of_a_deleted_hospital_are_force_cancelled_once() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 9);
    let mut made = Vec::new();
    for customer in ["kim", "park", "choi"] {
        made.push(book(&world.customer(customer).await, ask(customer, &slot)).await.unwrap());
    }
    world.hospital.delete(&slot.hospital, "the building is unsafe");
    let events = world.hospital.events();
    world.feed(&events).await;
    world.feed(&events).await;
    let admin = world.admin("seoul").await;
    for screening in &made {
        let seen = read(&admin, &screening.name).await.unwrap();
        assert_eq!((seen.state(), seen.version), (State::ForceCancelled, 2));
        assert_eq!(seen.state_reason, "HOSPITAL_DELETED");
        assert_eq!(seen.state_message, "the building is unsafe");
        let facts = world.facts_of(&screening.name).await;
        assert_eq!(names(&facts), ["screening_confirmed", "screening_force_cancelled"]);
        let Some(Payload::ScreeningForceCancelled(fact)) = &facts[1].payload else { panic!() };
        assert_eq!((fact.reason.as_str(), fact.message.as_str()), ("HOSPITAL_DELETED", "the building is unsafe"));
        assert_eq!(facts[1].actor, "admin:lee");
        assert!(events.iter().any(|event| event.event_id == facts[1].causation_id));
        assert!(!facts[1].traceparent.is_empty());
        // the inbox recognised the second delivery, so it was not recorded as ignored
        let reader = world.desk.service.database.reader();
        assert_eq!(ignored_reasons(reader, &screening.name).await, Vec::<String>::new());
    }
    let refusal = refused(cancel(&admin, &made[0].name).await, Reason::ScreeningStateInvalid);
    assert_eq!(refusal.value("state"), "FORCE_CANCELLED");
}

/// R5 and R6: the row keeps its first final state.
#[tokio::test]
async fn a_revocation_that_comes_after_a_cancel_is_recorded_as_ignored() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 9);
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &slot)).await.unwrap();
    cancel(&kim, &made.name).await.unwrap();
    world.hospital.delete(&slot.hospital, "closing down");
    world.deliver().await;
    assert_eq!(read(&kim, &made.name).await.unwrap().state(), State::Cancelled);
    let reader = world.desk.service.database.reader();
    assert_eq!(ignored_reasons(reader, &made.name).await.len(), 1);
    assert_eq!(world.hospital.claim(claim(&made)).map(|state| state != ClaimState::Active), Some(true));
}

/// R4 with the worst timing: the place is taken away before its booking is written.
#[tokio::test]
async fn a_revocation_without_a_row_keeps_the_late_commit_out() {
    let patient = std::time::Duration::from_secs(30);
    let world = World::start_with(Options { hospital_attempt: patient, hospital_timeout: patient, ..options() }).await;
    let slot = world.slot("seoul", 7, 9);
    let kim = world.customer("kim").await;
    let gate = Gate::closed();
    world.hospital.next([Fate::AnswerAfter(gate.clone())]);
    let call = testkit::start_together(1, |_| {
        let (kim, request) = (kim.clone(), ask_once("kim", &slot));
        async move { book(&kim, request).await }
    });
    eventually("the place to be taken", async || match world.hospital.active().len() {
        1 => Ok(()),
        taken => Err(format!("{taken} are")),
    })
    .await;
    world.hospital.delete(&slot.hospital, "closing down");
    world.deliver().await;
    assert_eq!(names(&world.announced().await), ["screening_force_cancelled"]);
    gate.open();
    refused(testkit::gather(call).await.remove(0), Reason::HospitalDeleted);
    assert_eq!(list(&world.admin("*").await, "").await.unwrap(), []);
    assert_eq!(world.hospital.active(), []);
}

#[tokio::test]
async fn a_place_with_a_booking_is_left_alone_however_often_it_is_announced() {
    let world = World::start_with(Options { reconcile_grace: std::time::Duration::from_millis(30), ..options() }).await;
    let slot = world.slot("seoul", 7, 9);
    let kim = world.customer("kim").await;
    let gate = Gate::closed();
    world.hospital.next([Fate::AnswerAfter(gate.clone())]);
    let call = testkit::start_together(1, |_| {
        let (kim, request) = (kim.clone(), ask("kim", &slot));
        async move { book(&kim, request).await.unwrap() }
    });
    eventually("the place to be taken", async || match world.hospital.active().len() {
        1 => Ok(()),
        taken => Err(format!("{taken} are")),
    })
    .await;
    gate.open();
    let made = testkit::gather(call).await.remove(0);
    let events = world.hospital.events();
    world.feed(&events).await;
    world.feed(&events).await;
    // the end of another, orphaned claim shows that the reconciler has run since
    world.hospital.next([Fate::LoseAnswer, Fate::LoseAnswer, Fate::LoseAnswer]);
    refused(book(&world.customer("park").await, ask("park", &slot)).await, Reason::HospitalUnavailable);
    eventually("the orphan's end", async || {
        world.deliver().await;
        let active = world.hospital.active();
        if active == [claim(&made)] { Ok(()) } else { Err(format!("{active:?}")) }
    })
    .await;
    assert_eq!(read(&kim, &made.name).await.unwrap(), made);
}

/// A later version of Hospital has more reasons, and slots with programs: this one reads both.
#[tokio::test]
async fn a_revocation_with_a_code_of_a_later_version_cancels_the_booking() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 9);
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &slot)).await.unwrap();
    world.hospital.delete(&slot.hospital, "renovation");
    let mut events = world.hospital.events();
    for event in &mut events {
        if let Some(Payload::CapacityRevoked(fact)) = &mut event.payload {
            fact.reason = "CLOSURE".into();
        }
    }
    // a claim on a program's slot that nobody here has booked
    let mut elsewhere = events.iter().find(|event| matches!(event.payload, Some(Payload::CapacityRevoked(_))));
    let mut stranger = elsewhere.take().unwrap().clone();
    stranger.event_id = runtime::entropy::uuid_v7().to_string();
    let Some(Payload::CapacityRevoked(fact)) = &mut stranger.payload else { unreachable!() };
    fact.slot = format!("{slot}~heart");
    let fence = runtime::entropy::uuid_v7();
    fact.claim_id = format!("{fence}.1");
    events.push(stranger);
    world.feed(&events).await;
    // the fence stands on the program's slot, and not on the slot that has the whole date
    let facts = world.facts_of(&format!("screenings/{fence}")).await;
    let Some(Payload::ScreeningForceCancelled(fact)) = &facts[0].payload else { panic!("{facts:?}") };
    assert_eq!(fact.screening.as_ref().unwrap().slot, format!("{slot}~heart"));
    let rows = world.desk.service.database.reader();
    let sql = "SELECT count(*) FROM screening WHERE slot_date = $1";
    let stored =
        Statement::from_sql_and_values(rows.get_database_backend(), sql, [format!("{}~heart", slot.date).into()]);
    let count: i64 = rows.query_one_raw(stored).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    assert_eq!(count, 1);
    let seen = read(&kim, &made.name).await.unwrap();
    assert_eq!((seen.state(), seen.state_reason.as_str()), (State::ForceCancelled, "CLOSURE"));
}

#[tokio::test]
async fn a_malformed_event_harms_nobody_and_can_become_a_dead_letter() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 9);
    let made = book(&world.customer("kim").await, ask("kim", &slot)).await.unwrap();
    world.hospital.delete(&slot.hospital, "closing down");
    let mut events = world.hospital.events();
    let mut broken = events[0].clone();
    let Some(Payload::CapacityReserved(fact)) = &mut broken.payload else { panic!("{broken:?}") };
    fact.claim_id = "7".into();
    broken.event_id = runtime::entropy::uuid_v4().to_string();
    events.push(broken.clone());
    let handler = &world.desk.service.consumers[0].handler;
    let incoming = |envelope: &contract::event::v1::EventEnvelope| {
        let event_id = envelope.event_id.parse().unwrap();
        relay::Incoming { envelope: envelope.clone(), event_id, inbox_key: InboxKey::alone(event_id) }
    };
    let refusal = handler.handle(&events.iter().map(incoming).collect::<Vec<_>>()).await.unwrap_err();
    assert_eq!(refusal.reason(), Reason::Internal);
    let dead_letter = DeadLetter {
        consumer: world.desk.service.consumers[0].name.into(),
        event_id: broken.event_id.clone(),
        subject: "checkup.v1.claim.capacity_reserved.x".into(),
        payload: Vec::new(),
        error: "malformed".into(),
        attempts: 10,
        time: jiff::Timestamp::UNIX_EPOCH,
    };
    for _ in 0..2 {
        handler.store_dead_letter(dead_letter.clone(), incoming(&broken).inbox_key).await.unwrap();
    }
    let reader = world.desk.service.database.reader();
    assert_eq!(dead_letter::count(reader).await.unwrap(), 1);
    world.feed(&events[..events.len() - 1]).await;
    assert_eq!(read(&world.admin("*").await, &made.name).await.unwrap().state(), State::ForceCancelled);
}
