//! UpdateScreening: the customer's name is corrected, and nothing else.

use contract::screening::v1::screening::State;
use contract::screening::v1::{CreateScreeningRequest, Screening, UpdateScreeningRequest};
use fault::Reason;
use prost_types::FieldMask;
use testkit::{Party, refused};
use tonic::Status;

use crate::world::{World, ask, ask_patiently, book, cancel, names, read};

const NAME: &str = "customer_display_name";

fn named(request: CreateScreeningRequest, name: &str) -> CreateScreeningRequest {
    let screening = Screening { customer_display_name: name.into(), ..request.screening.unwrap_or_default() };
    CreateScreeningRequest { screening: Some(screening), ..request }
}

async fn correct(party: &Party, screening: Screening, paths: &[&str]) -> Result<Screening, Status> {
    let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    let request = UpdateScreeningRequest { screening: Some(screening), update_mask };
    party.screening().update_screening(request).await.map(tonic::Response::into_inner)
}

fn content(name: &str, display_name: &str, etag: &str) -> Screening {
    Screening {
        name: name.into(),
        customer_display_name: display_name.into(),
        etag: etag.into(),
        ..Screening::default()
    }
}

#[tokio::test]
async fn a_name_is_corrected_and_nothing_else_changes() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    let made = book(&kim, named(ask("kim", &slot), "Kim Jiwoo")).await.unwrap();
    let sent = Screening { state: State::Cancelled.into(), slot: "x".into(), ..content(&made.name, "Kim Jiwon", "") };
    let corrected = correct(&kim, sent, &[]).await.unwrap();
    assert_ne!(corrected.update_time, made.update_time);
    let expected =
        Screening { customer_display_name: "Kim Jiwon".into(), update_time: corrected.update_time, ..made.clone() };
    assert_eq!(corrected, expected);
    assert_eq!(read(&kim, &made.name).await.unwrap(), expected);
    assert_eq!(names(&world.facts_of(&made.name).await), ["screening_confirmed"], "no event tells of it");

    // the same again changes nothing, not even the time
    assert_eq!(correct(&kim, content(&made.name, "Kim Jiwon", &made.etag), &[NAME]).await.unwrap(), expected);
    // without a mask an empty name is no change; with one it removes the name
    assert_eq!(correct(&kim, content(&made.name, "", ""), &[]).await.unwrap(), expected);
    let admin = world.admin("seoul").await;
    assert_eq!(correct(&admin, content(&made.name, "", ""), &["*"]).await.unwrap().customer_display_name, "");

    // also once the booking has ended
    cancel(&kim, &made.name).await.unwrap();
    let late = correct(&admin, content(&made.name, "Kim", "\"2\""), &[NAME]).await.unwrap();
    assert_eq!((late.state(), late.version, late.customer_display_name.as_str()), (State::Cancelled, 2, "Kim"));
}

#[tokio::test]
async fn only_who_may_cancel_a_booking_corrects_it() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let made = book(&world.customer("kim").await, named(ask("kim", &slot), "Kim")).await.unwrap();
    let wrong = || content(&made.name, "Lee", "");
    refused(correct(&world.customer("park").await, wrong(), &[]).await, Reason::NotOwner);
    refused(correct(&world.customer("park").await, content(&made.name, "", ""), &[]).await, Reason::NotOwner);
    refused(correct(&world.admin("busan").await, wrong(), &[]).await, Reason::NotOwner);
    refused(correct(&world.desk.served.auditor().await, wrong(), &[]).await, Reason::RoleRequired);
    let admin = world.admin("*").await;
    let unknown = content("screenings/01890a5d-ac96-774b-bcce-b302099a8057", "Lee", "");
    refused(correct(&admin, unknown, &[]).await, Reason::ScreeningNotFound);
    refused(correct(&admin, content(&made.name, "Lee", "\"7\""), &[]).await, Reason::EtagMismatch);
    for path in ["slot", "customer", "state", "screening.customer_display_name"] {
        let refusal = refused(correct(&admin, wrong(), &[NAME, path]).await, Reason::FieldInvalid);
        assert_eq!(refusal.value("field"), "update_mask", "{path}");
    }
    refused(correct(&admin, wrong(), &["*", NAME]).await, Reason::FieldInvalid);
    let long = refused(correct(&admin, content(&made.name, &"x".repeat(101), ""), &[]).await, Reason::FieldInvalid);
    assert_eq!(long.value("field"), "screening.customer_display_name");
    assert_eq!(read(&admin, &made.name).await.unwrap(), made);
}

#[tokio::test]
async fn a_correction_outlives_the_confirmation_of_a_parked_booking() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let kim = world.customer("kim").await;
    world.wire.refuse();
    let request = named(ask_patiently("kim", &slot), "Kim Jiwoo");
    let parked = book(&kim, request.clone()).await.unwrap();
    let corrected = correct(&kim, content(&parked.name, "Kim Jiwon", ""), &[]).await.unwrap();
    assert_eq!((corrected.state(), corrected.version), (State::Pending, 1));
    world.wire.heal();
    let confirmed = world.becomes(&kim, &parked.name, State::Confirmed).await;
    assert_eq!(confirmed.customer_display_name, "Kim Jiwon");
    // a repetition of the first request brings the first name along
    assert_eq!(book(&kim, request).await.unwrap(), confirmed);
}
