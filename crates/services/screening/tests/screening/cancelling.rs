//! Cancelling: who may, until when, with which etag, and the events that it causes.

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::screening::State;
use contract::screening::v1::{CancelScreeningRequest, Screening};
use domain::window::BookingPolicy;
use fault::Reason;
use jiff::SignedDuration;
use testkit::{Party, refused};
use tonic::Status;

use crate::world::{World, ask, book, cancel, claim, options, read, slot, until};

const UNKNOWN: &str = "screenings/01890a5d-ac96-774b-bcce-b302099a8057";

async fn cancel_because(party: &Party, name: &str, reason: &str, etag: &str) -> Result<Screening, Status> {
    let request = CancelScreeningRequest {
        name: name.into(),
        reason: reason.into(),
        etag: etag.into(),
        ..CancelScreeningRequest::default()
    };
    party.screening().cancel_screening(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_cancel_says_who_and_why_and_frees_the_place() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 2);
    let (kim, park) = (world.customer("kim").await, world.customer("park").await);
    let kims = book(&kim, ask("kim", &slot)).await.unwrap();
    let parks = book(&park, ask("park", &slot)).await.unwrap();
    for (party, made, code, actor) in [
        (&kim, &kims, "CUSTOMER_REQUEST", "customer:kim"),
        (&world.admin("seoul").await, &parks, "ADMIN_REQUEST", "admin:lee"),
    ] {
        let cancelled = cancel_because(party, &made.name, "a cold", &made.etag).await.unwrap();
        assert_eq!((cancelled.state(), cancelled.version), (State::Cancelled, 2));
        assert_eq!((cancelled.state_reason.as_str(), cancelled.state_message.as_str()), (code, "a cold"));
        assert_ne!(cancelled.etag, made.etag);
        assert_ne!(cancelled.consistency_token, made.consistency_token);
        let event = world.facts_of(&made.name).await.remove(1);
        assert_eq!((event.actor.as_str(), event.aggregate_version), (actor, 2));
        let Some(Payload::ScreeningCancelled(fact)) = event.payload else { panic!("{event:?}") };
        assert_eq!((fact.reason.as_str(), fact.message.as_str()), (code, "a cold"));
        assert_eq!(fact.claim_id, claim(made).to_string());
    }
    world.deliver().await;
    assert_eq!(world.hospital.active(), []);
}

#[tokio::test]
async fn strangers_cannot_tell_foreign_from_unknown() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 2);
    let made = book(&world.customer("kim").await, ask("kim", &slot)).await.unwrap();
    let (stranger, elsewhere) = (world.customer("park").await, world.admin("busan").await);
    for party in [&stranger, &elsewhere] {
        let (foreign, unknown) = (
            refused(cancel(party, &made.name).await, Reason::NotOwner),
            refused(cancel(party, UNKNOWN).await, Reason::NotOwner),
        );
        assert_eq!((foreign.message, foreign.metadata), (unknown.message, unknown.metadata));
        let (foreign, unknown) = (
            refused(read(party, &made.name).await, Reason::NotOwner),
            refused(read(party, UNKNOWN).await, Reason::NotOwner),
        );
        assert_eq!((foreign.message, foreign.metadata), (unknown.message, unknown.metadata));
    }
    let refusal = refused(cancel(&world.admin("*").await, UNKNOWN).await, Reason::ScreeningNotFound);
    assert_eq!(refusal.value("screening"), UNKNOWN);
    refused(read(&world.desk.served.auditor().await, UNKNOWN).await, Reason::ScreeningNotFound);
    refused(cancel(&world.desk.served.auditor().await, &made.name).await, Reason::RoleRequired);
    refused(cancel(&world.desk.served.service("hospital").await, &made.name).await, Reason::RoleRequired);
    refused(cancel(&world.desk.served.party(None).await, &made.name).await, Reason::CredentialsMissing);
    assert_eq!(read(&world.desk.served.auditor().await, &made.name).await.unwrap(), made);
    assert_eq!(read(&world.admin("busan,seoul").await, &made.name).await.unwrap(), made);
}

#[tokio::test]
async fn customers_are_bound_by_the_cut_off_of_booking_time_and_admins_are_not() {
    let world = World::start().await;
    let slot = slot("seoul", 7);
    let policy = BookingPolicy { cancellation_cutoff: SignedDuration::from_hours(24), ..BookingPolicy::default() };
    world.hospital.open_under(&slot, 2, policy);
    let kims = book(&world.customer("kim").await, ask("kim", &slot)).await.unwrap();
    let parks = book(&world.customer("park").await, ask("park", &slot)).await.unwrap();

    let two_days_before = until(slot.date, 0) - SignedDuration::from_hours(48);
    let world = world.restarted(options(), two_days_before).await;
    cancel(&world.customer("park").await, &parks.name).await.unwrap();

    let the_day_before = until(slot.date, 0) - SignedDuration::from_hours(23);
    let world = world.restarted(options(), the_day_before).await;
    let kim = world.customer("kim").await;
    let refusal = refused(cancel(&kim, &kims.name).await, Reason::CancellationClosed);
    let closes: jiff::Timestamp = refusal.value("closesAt").parse().unwrap();
    let midnight = slot.date.in_tz("Asia/Seoul").unwrap().timestamp();
    assert_eq!(midnight.duration_since(closes), SignedDuration::from_hours(24));
    assert_eq!(refusal.value("screening"), kims.name);
    // the state of the booking is checked before the cut-off
    let over = refused(cancel(&world.customer("park").await, &parks.name).await, Reason::ScreeningStateInvalid);
    assert_eq!(over.value("state"), "CANCELLED");
    assert_eq!(cancel(&world.admin("seoul").await, &kims.name).await.unwrap().state(), State::Cancelled);
}

#[tokio::test]
async fn a_stale_etag_changes_nothing() {
    let world = World::start().await;
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &world.slot("seoul", 7, 2))).await.unwrap();
    let refusal = refused(cancel_because(&kim, &made.name, "", "\"7\"").await, Reason::EtagMismatch);
    assert_eq!(refusal.resource, Some(("Screening".into(), made.name.clone())));
    assert_eq!(read(&kim, &made.name).await.unwrap(), made);
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let world = World::start().await;
    let request = CancelScreeningRequest {
        name: "x".into(),
        reason: "x".repeat(501),
        etag: "a\u{0}b".into(),
        request_id: "x".into(),
    };
    let answer = world.customer("kim").await.screening().cancel_screening(request).await;
    assert_eq!(refused(answer, Reason::FieldInvalid).fields(), ["name", "reason", "etag", "request_id"]);
}
