//! Attendance: admins of the hospital record it once the date has begun.

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::screening::State;
use contract::screening::v1::{CompleteScreeningRequest, MarkNoShowRequest, Screening};
use fault::Reason;
use jiff::SignedDuration;
use testkit::{Party, refused};
use tonic::Status;

use crate::world::{World, ask, book, cancel, names, options, until};

async fn complete(party: &Party, name: &str, etag: &str) -> Result<Screening, Status> {
    let request =
        CompleteScreeningRequest { name: name.into(), etag: etag.into(), ..CompleteScreeningRequest::default() };
    party.screening().complete_screening(request).await.map(tonic::Response::into_inner)
}

async fn no_show(party: &Party, name: &str, etag: &str) -> Result<Screening, Status> {
    let request = MarkNoShowRequest { name: name.into(), etag: etag.into(), ..MarkNoShowRequest::default() };
    party.screening().mark_no_show(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn attendance_is_recorded_when_the_date_has_come() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 9);
    let mut made = Vec::new();
    for customer in ["kim", "park", "choi"] {
        made.push(book(&world.customer(customer).await, ask(customer, &slot)).await.unwrap().name);
    }
    let [came, missed, cancelled] = made.as_slice() else { panic!() };
    cancel(&world.customer("choi").await, cancelled).await.unwrap();

    let admin = world.admin("seoul").await;
    let early = refused(complete(&admin, came, "").await, Reason::DateNotReached);
    assert_eq!(early.value("timeZone"), "Asia/Seoul");
    assert_eq!(
        (early.value("today"), early.value("screening")),
        (&*testkit::in_days("Asia/Seoul", 0).to_string(), &**came)
    );

    let world = world.restarted(options(), until(slot.date, 9)).await;
    let admin = world.admin("seoul").await;
    refused(no_show(&admin, missed, "").await, Reason::DateNotReached);
    refused(complete(&admin, came, "\"3\"").await, Reason::EtagMismatch);
    let completed = complete(&admin, came, "\"1\"").await.unwrap();
    assert_eq!((completed.state(), completed.version, completed.state_reason.as_str()), (State::Completed, 2, ""));
    let again = refused(complete(&admin, came, "").await, Reason::ScreeningStateInvalid);
    assert_eq!(again.value("state"), "COMPLETED");
    refused(complete(&admin, cancelled, "").await, Reason::ScreeningStateInvalid);

    let world = world.restarted(options(), until(slot.date, 9) + SignedDuration::from_hours(24)).await;
    let admin = world.admin("seoul").await;
    let over = refused(cancel(&admin, missed).await, Reason::DateInPast);
    assert_eq!((over.value("date"), over.value("timeZone")), (&*slot.date.to_string(), "Asia/Seoul"));
    refused(cancel(&world.customer("park").await, missed).await, Reason::CancellationClosed);
    assert_eq!(no_show(&admin, missed, "").await.unwrap().state(), State::NoShow);
    refused(no_show(&admin, missed, "").await, Reason::ScreeningStateInvalid);
    refused(no_show(&admin, came, "").await, Reason::ScreeningStateInvalid);
    refused(cancel(&admin, missed).await, Reason::ScreeningStateInvalid);
    // a correction
    let corrected = complete(&admin, missed, "").await.unwrap();
    assert_eq!((corrected.state(), corrected.version), (State::Completed, 3));
    let events = world.facts_of(missed).await;
    let recorded = "screening_attendance_recorded";
    assert_eq!(names(&events), ["screening_confirmed", recorded, recorded]);
    let attended = events[1..].iter().map(|event| match &event.payload {
        Some(Payload::ScreeningAttendanceRecorded(fact)) => fact.attended,
        other => panic!("{other:?}"),
    });
    assert_eq!(attended.collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn only_admins_of_the_hospital_record_it_and_a_repetition_answers_the_same() {
    let world = World::start().await;
    let slot = world.slot("seoul", 7, 1);
    let made = book(&world.customer("kim").await, ask("kim", &slot)).await.unwrap();
    let world = world.restarted(options(), until(slot.date, 9)).await;
    refused(complete(&world.customer("kim").await, &made.name, "").await, Reason::RoleRequired);
    refused(no_show(&world.desk.served.auditor().await, &made.name, "").await, Reason::RoleRequired);
    refused(complete(&world.admin("busan").await, &made.name, "").await, Reason::NotOwner);
    let request = CompleteScreeningRequest {
        name: made.name.clone(),
        request_id: "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30".into(),
        ..CompleteScreeningRequest::default()
    };
    let mut client = world.admin("seoul").await.screening();
    let first = client.complete_screening(request.clone()).await.unwrap().into_inner();
    let second = client.complete_screening(request).await.unwrap().into_inner();
    assert_eq!(first, second);
    assert_eq!(world.facts_of(&made.name).await.len(), 2);
}
