//! Booking a place: the happy path, permissions, malformed requests, and validate_only.

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::screening::State;
use contract::screening::v1::{CreateScreeningRequest, Screening};
use domain::civil::encode_date;
use domain::token::ConsistencyToken;
use fault::Reason;
use prost::Message;
use testkit::refused;

use crate::world::{World, ask, ask_once, book, claim, list, names, read, slot};

#[tokio::test]
async fn a_booking_is_confirmed_under_the_terms_of_the_hospital() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 3);
    let kim = world.customer("kim").await;
    let mut request = ask_once("kim", &slot);
    request.screening.as_mut().unwrap().customer_display_name = "김철수".into();
    let made = book(&kim, request.clone()).await.unwrap();

    assert_eq!((made.state(), made.version, made.claim_generation), (State::Confirmed, 1, 1));
    assert_eq!((made.customer.as_str(), made.customer_display_name.as_str()), ("customers/kim", "김철수"));
    assert_eq!((made.slot.clone(), made.date), (slot.to_string(), Some(encode_date(slot.date))));
    assert_eq!((made.hospital_display_name.as_str(), made.time_zone.as_str()), ("Clinic seoul", "Asia/Seoul"));
    assert_eq!((made.state_reason.as_str(), made.state_message.as_str()), ("", ""));
    assert_eq!(made.create_time, made.update_time);
    let token = ConsistencyToken { screening: claim(&made).screening, version: 1 };
    assert_eq!(made.consistency_token, token.encode());
    assert_eq!(read(&kim, &made.name).await.unwrap(), made);
    assert_eq!(world.hospital.active(), [claim(&made)]);

    let events = world.announced().await;
    assert_eq!(names(&events), ["screening_confirmed"]);
    let event = &events[0];
    assert_eq!((event.aggregate.as_str(), event.aggregate_version), (made.name.as_str(), 1));
    assert_eq!((event.producer.as_str(), event.actor.as_str()), ("screening", "customer:kim"));
    assert_eq!(event.request_id, request.request_id);
    let Some(Payload::ScreeningConfirmed(fact)) = &event.payload else { panic!("{event:?}") };
    let snapshot = fact.screening.clone().unwrap();
    assert_eq!((snapshot.customer.as_str(), snapshot.slot), ("customers/kim", slot.to_string()));
    assert_eq!((snapshot.time_zone.as_str(), snapshot.claim_generation), ("Asia/Seoul", 1));
    let bytes = event.encode_to_vec();
    let name = "김철수".as_bytes();
    assert!(!bytes.windows(name.len()).any(|part| part == name), "a person's name is in an event");
}

#[tokio::test]
async fn customers_book_for_themselves_and_admins_at_their_hospitals() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 9);
    let made = book(&world.admin("seoul").await, ask("kim", &slot)).await.unwrap();
    assert_eq!(world.facts_of(&made.name).await[0].actor, "admin:lee");
    book(&world.admin("*").await, ask("park", &slot)).await.unwrap();

    refused(book(&world.customer("choi").await, ask("jung", &slot)).await, Reason::NotOwner);
    refused(book(&world.admin("busan,jeju").await, ask("jung", &slot)).await, Reason::NotOwner);
    refused(book(&world.desk.served.auditor().await, ask("jung", &slot)).await, Reason::RoleRequired);
    refused(book(&world.desk.served.service("marketing").await, ask("jung", &slot)).await, Reason::RoleRequired);
    refused(book(&world.desk.served.party(None).await, ask("jung", &slot)).await, Reason::CredentialsMissing);
    // permission is checked before existence
    let nowhere = crate::world::slot("nowhere", 7);
    refused(book(&world.customer("choi").await, ask("jung", &nowhere)).await, Reason::NotOwner);
    assert_eq!(world.hospital.active().len(), 2);
}

#[tokio::test]
async fn every_wrong_field_is_named_before_anything_else_is_looked_at() {
    let world = World::start().await;
    let request = CreateScreeningRequest {
        screening: Some(Screening {
            customer: "kim".into(),
            customer_display_name: "x".repeat(101),
            slot: "hospitals/seoul/slots/2027-13-01".into(),
            ..Screening::default()
        }),
        request_id: "seven".into(),
        ..CreateScreeningRequest::default()
    };
    let refusal = refused(book(&world.customer("kim").await, request).await, Reason::FieldInvalid);
    assert_eq!(
        refusal.complaints(),
        [
            ("screening.customer", "FIELD_INVALID"),
            ("screening.customer_display_name", "FIELD_INVALID"),
            ("screening.slot", "FIELD_INVALID"),
            ("request_id", "REQUEST_ID_MALFORMED"),
        ]
    );
    assert_eq!(refusal.value("field"), "screening.customer");
    let empty = refused(book(&world.customer("kim").await, Default::default()).await, Reason::FieldInvalid);
    assert_eq!(empty.fields(), ["screening"]);
    assert_eq!(world.hospital.reserves(), []);
}

#[tokio::test]
async fn validate_only_answers_what_the_call_would_and_stores_nothing() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    let request = ask_once("kim", &slot);
    let judged = book(&kim, CreateScreeningRequest { validate_only: true, ..request.clone() }).await.unwrap();
    assert_eq!((judged.state(), judged.version), (State::Confirmed, 1));
    assert_eq!(world.hospital.reserves(), []);
    assert_eq!(list(&kim, "").await.unwrap(), []);
    refused(read(&kim, &judged.name).await, Reason::NotOwner);

    // judging did not use up the request_id, and the booking equals the one that was judged
    let made = book(&kim, request.clone()).await.unwrap();
    let times = |screening: &Screening| Screening { create_time: None, update_time: None, ..screening.clone() };
    assert_eq!(times(&made), times(&judged));
    let replayed = book(&kim, CreateScreeningRequest { validate_only: true, ..request }).await.unwrap();
    assert_eq!(replayed, made);
    assert_eq!(world.announced().await.len(), 1);
}

#[tokio::test]
async fn what_a_screening_says_of_itself_is_ignored_in_a_request() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let mut request = ask("kim", &slot);
    let screening = request.screening.as_mut().unwrap();
    screening.name = "screenings/mine".into();
    screening.state = 77;
    screening.version = 12;
    screening.time_zone = "Mars/Olympus".into();
    let made = book(&world.customer("kim").await, request).await.unwrap();
    assert_eq!((made.state(), made.version, made.time_zone.as_str()), (State::Confirmed, 1, "Asia/Seoul"));
    assert_ne!(made.name, "screenings/mine");
}

#[tokio::test]
async fn a_name_that_is_none_is_a_wrong_field() {
    let world = World::start().await;
    let kim = world.customer("kim").await;
    for name in ["", "screenings/", "screenings/x", "reservations/01890a5d-ac96-774b-bcce-b302099a8057"] {
        assert_eq!(refused(read(&kim, name).await, Reason::FieldInvalid).fields(), ["name"]);
    }
    let unknown = slot("seoul", 7);
    assert_eq!(
        refused(book(&kim, ask("kim", &unknown)).await, Reason::HospitalNotFound).value("hospital"),
        "hospitals/seoul"
    );
}
