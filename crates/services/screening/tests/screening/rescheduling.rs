//! Moving a booking to another slot: what is answered and reported, who may, the refusals in their order,
//! validate_only, and repetitions.

use contract::event::v1::event_envelope::Payload;
use contract::screening::v1::screening::State;
use contract::screening::v1::{RescheduleScreeningRequest, Screening};
use domain::capacity::ClaimState;
use domain::civil::encode_date;
use domain::token::ConsistencyToken;
use domain::window::{BookingPolicy, MAX_OFFSET};
use fault::Reason;
use jiff::SignedDuration;
use testkit::{Party, Refusal, eventually, refused};

use crate::refusing::hopeless;
use crate::world::{
    World, ask, ask_once, ask_to_move, ask_to_move_once, book, cancel, claim, names, next_claim, options, read,
    reschedule, slot, until,
};

const UNKNOWN: &str = "screenings/01890a5d-ac96-774b-bcce-b302099a8057";

/// Moves by a call and only judges it. Both must be refused for this reason.
async fn refused_and_judged(party: &Party, request: RescheduleScreeningRequest, reason: Reason) -> Refusal {
    let judged = RescheduleScreeningRequest { validate_only: true, ..request.clone() };
    let (called, judged) =
        (refused(reschedule(party, request).await, reason), refused(reschedule(party, judged).await, reason));
    let keys = |refusal: &Refusal| refusal.metadata.keys().cloned().collect::<Vec<_>>();
    assert_eq!((keys(&called), &called.resource), (keys(&judged), &judged.resource));
    called
}

#[tokio::test]
async fn a_move_takes_the_new_place_and_tells_of_the_old_one() {
    let world = World::start().await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 9, 1));
    let kim = world.customer("kim").await;
    let mut request = ask_once("kim", &from);
    request.screening.as_mut().unwrap().customer_display_name = "김철수".into();
    let made = book(&kim, request).await.unwrap();
    let asked = RescheduleScreeningRequest {
        reason: "a trip".into(),
        etag: made.etag.clone(),
        ..ask_to_move_once(&made.name, &to)
    };
    let moved = reschedule(&kim, asked.clone()).await.unwrap();

    assert_eq!((moved.state(), moved.version, moved.claim_generation), (State::Confirmed, 3, 2));
    assert_eq!((moved.slot.clone(), moved.date), (to.to_string(), Some(encode_date(to.date))));
    assert_eq!((moved.hospital_display_name.as_str(), moved.time_zone.as_str()), ("Clinic busan", "Asia/Seoul"));
    assert_eq!((moved.state_reason.as_str(), moved.state_message.as_str()), ("CUSTOMER_REQUEST", "a trip"));
    let whose = |row: &Screening| (row.name.clone(), row.customer.clone(), row.customer_display_name.clone());
    assert_eq!((whose(&moved), &moved.create_time), (whose(&made), &made.create_time));
    let token = ConsistencyToken { screening: claim(&made).screening, version: 3 };
    assert_eq!((moved.consistency_token.clone(), moved.etag == made.etag), (token.encode(), false));
    assert_eq!(read(&kim, &made.name).await.unwrap(), moved);

    let events = world.facts_of(&made.name).await;
    assert_eq!(names(&events), ["screening_confirmed", "screening_rescheduled", "screening_confirmed"]);
    assert_eq!(events.iter().map(|event| event.aggregate_version).collect::<Vec<_>>(), [1, 2, 3]);
    for event in &events[1..] {
        assert_eq!((event.actor.as_str(), &event.request_id), ("customer:kim", &asked.request_id));
    }
    let Some(Payload::ScreeningRescheduled(left)) = &events[1].payload else { panic!("{events:?}") };
    let Some(Payload::ScreeningConfirmed(arrived)) = &events[2].payload else { panic!("{events:?}") };
    assert_eq!((left.previous_slot.clone(), left.previous_date), (from.to_string(), Some(encode_date(from.date))));
    assert_eq!(left.released_claim_id, claim(&made).to_string());
    assert_eq!((left.reason.as_str(), left.message.as_str()), ("CUSTOMER_REQUEST", "a trip"));
    assert_eq!((&left.reason, &left.message, &left.screening), (&arrived.reason, &arrived.message, &arrived.screening));
    let snapshot = arrived.screening.clone().unwrap();
    assert_eq!((snapshot.slot, snapshot.claim_generation), (to.to_string(), 2));

    // it holds two places until Hospital hears of the move, and never none
    for held in [claim(&made), claim(&moved)] {
        assert_eq!(world.hospital.claim(held), Some(ClaimState::Active));
    }
    world.deliver().await;
    assert_eq!(world.hospital.active(), [claim(&moved)]);
    assert_eq!(world.hospital.releases(), [], "by the event, and by no call");
}

#[tokio::test]
async fn a_moved_booking_stands_under_the_terms_of_its_new_hospital() {
    let world = World::start().await;
    let (from, to) = (world.slot("seoul", 7, 1), slot("busan", 9));
    let policy = BookingPolicy { cancellation_cutoff: SignedDuration::from_hours(48), ..BookingPolicy::default() };
    world.hospital.open_under(&to, 1, policy);
    let made = book(&world.customer("kim").await, ask("kim", &from)).await.unwrap();
    reschedule(&world.admin("busan,seoul").await, ask_to_move(&made.name, &to)).await.unwrap();

    let world = world.restarted(options(), until(to.date, 0) - SignedDuration::from_hours(47)).await;
    let kim = world.customer("kim").await;
    let midnight = to.date.in_tz("Asia/Seoul").unwrap().timestamp();
    for refusal in [
        refused(cancel(&kim, &made.name).await, Reason::CancellationClosed),
        refused(reschedule(&kim, ask_to_move(&made.name, &from)).await, Reason::RescheduleClosed),
    ] {
        let closes: jiff::Timestamp = refusal.value("closesAt").parse().unwrap();
        assert_eq!(midnight.duration_since(closes), SignedDuration::from_hours(48));
        assert_eq!(refusal.value("screening"), made.name);
    }
    let cancelled = cancel(&world.admin("busan").await, &made.name).await.unwrap();
    assert_eq!((cancelled.state(), cancelled.version), (State::Cancelled, 4));
    world.deliver().await;
    assert_eq!(world.hospital.active(), []);
}

#[tokio::test]
async fn a_booking_that_is_there_already_is_answered_as_it_is_and_the_request_is_remembered() {
    let world = World::start().await;
    let (here, there) = (world.slot("seoul", 7, 1), world.slot("seoul", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &here)).await.unwrap();
    let asked = ask_to_move_once(&made.name, &here);
    // Hospital is not asked
    world.wire.refuse();
    for validate_only in [true, false, false] {
        let asked = RescheduleScreeningRequest { validate_only, ..asked.clone() };
        assert_eq!(reschedule(&kim, asked).await.unwrap(), made);
    }
    world.wire.heal();
    assert_eq!(world.facts_of(&made.name).await.len(), 1);
    let elsewhere = RescheduleScreeningRequest { slot: there.to_string(), ..asked.clone() };
    refused(reschedule(&kim, elsewhere).await, Reason::RequestIdReused);

    // what was remembered does not move it back
    let on = ask_to_move_once(&made.name, &there);
    let moved = eventually("the way to be open again", async || {
        reschedule(&kim, on.clone()).await.map_err(|status| status.to_string())
    })
    .await;
    assert_eq!(reschedule(&kim, asked).await.unwrap(), moved);
}

#[tokio::test]
async fn customers_move_their_own_and_admins_what_both_hospitals_are_theirs_of() {
    let world = World::start().await;
    let (from, to) = (world.slot("seoul", 7, 2), world.slot("busan", 7, 2));
    let made = book(&world.customer("kim").await, ask("kim", &from)).await.unwrap();
    let asked = || ask_to_move(&made.name, &to);
    for hospitals in ["seoul", "busan", "jeju"] {
        refused_and_judged(&world.admin(hospitals).await, asked(), Reason::NotOwner).await;
    }
    // a stranger cannot tell what is not theirs from what is not there
    let stranger = world.customer("park").await;
    let foreign = refused_and_judged(&stranger, asked(), Reason::NotOwner).await;
    let unknown = refused_and_judged(&stranger, ask_to_move(UNKNOWN, &to), Reason::NotOwner).await;
    assert_eq!((foreign.message, foreign.metadata), (unknown.message, unknown.metadata));
    let everywhere = world.admin("*").await;
    let missing = refused_and_judged(&everywhere, ask_to_move(UNKNOWN, &to), Reason::ScreeningNotFound).await;
    assert_eq!(missing.value("screening"), UNKNOWN);
    refused(reschedule(&world.desk.served.auditor().await, asked()).await, Reason::RoleRequired);
    refused(reschedule(&world.desk.served.service("hospital").await, asked()).await, Reason::RoleRequired);
    refused(reschedule(&world.desk.served.party(None).await, asked()).await, Reason::CredentialsMissing);
    assert_eq!(world.hospital.active(), [claim(&made)], "nobody of them took a place");

    let moved = reschedule(&world.admin("busan,seoul").await, asked()).await.unwrap();
    assert_eq!((moved.version, moved.state_reason.as_str()), (3, "ADMIN_REQUEST"));
    assert_eq!(world.facts_of(&made.name).await[1].actor, "admin:lee");
}

#[tokio::test]
async fn a_move_is_refused_for_the_first_reason_that_holds() {
    let world = World::start().await;
    let from = slot("strict", 20);
    // no customer can cancel or move what was booked here
    let policy = BookingPolicy { cancellation_cutoff: MAX_OFFSET, ..BookingPolicy::default() };
    world.hospital.open_under(&from, 1, policy);
    let (kim, admin) = (world.customer("kim").await, world.admin("*").await);
    let ended = book(&kim, ask("kim", &world.slot("seoul", 8, 1))).await.unwrap();
    cancel(&kim, &ended.name).await.unwrap();
    let other = book(&kim, ask("kim", &world.slot("seoul", 9, 1))).await.unwrap();
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    let before = world.hospital.reserves().len();

    // a hospital that is not there, on a date that the customer has a booking on
    let nowhere = slot("nowhere", 9);
    let stale = |name: &str| RescheduleScreeningRequest { etag: "\"7\"".into(), ..ask_to_move(name, &nowhere) };
    let refusal = refused_and_judged(&kim, stale(&ended.name), Reason::ScreeningStateInvalid).await;
    assert_eq!((refusal.value("state"), refusal.value("screening")), ("CANCELLED", ended.name.as_str()));
    let refusal = refused_and_judged(&kim, stale(&made.name), Reason::EtagMismatch).await;
    assert_eq!(refusal.value("currentEtag"), made.etag);
    assert_eq!(refusal.resource, Some(("Screening".into(), made.name.clone())));
    let asked = ask_to_move(&made.name, &nowhere);
    let refusal = refused_and_judged(&kim, asked.clone(), Reason::RescheduleClosed).await;
    assert_eq!(refusal.value("screening"), made.name);
    let refusal = refused_and_judged(&admin, asked.clone(), Reason::CustomerDateConflict).await;
    assert_eq!(refusal.value("screening"), other.name);
    assert_eq!(world.hospital.reserves().len(), before, "refused before any place was asked for");
    cancel(&kim, &other.name).await.unwrap();
    refused_and_judged(&admin, asked, Reason::HospitalNotFound).await;
    assert_eq!(read(&kim, &made.name).await.unwrap(), made);
    assert_eq!(world.facts_of(&made.name).await.len(), 1);
}

#[tokio::test]
async fn what_hospital_refuses_leaves_the_booking_and_its_place() {
    let options = screening::Options { report_interval: std::time::Duration::from_secs(60), ..options() };
    let world = World::start_with(options).await;
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &world.slot("seoul", 20, 1))).await.unwrap();
    for (slot, reason, keys) in hopeless(&world) {
        let refusal = refused_and_judged(&kim, ask_to_move_once(&made.name, &slot), reason).await;
        for key in keys {
            assert!(!refusal.value(key).is_empty(), "{key}");
        }
    }
    assert_eq!(read(&kim, &made.name).await.unwrap(), made);
    assert_eq!(world.announced().await.len(), 1);
    assert_eq!(world.hospital.active(), [claim(&made)]);
    // no attempt used up a claim
    let moved = reschedule(&kim, ask_to_move(&made.name, &world.slot("busan", 21, 1))).await.unwrap();
    assert_eq!(moved.claim_generation, 2);
}

#[tokio::test]
async fn a_place_whose_date_is_over_is_left_by_nobody() {
    let world = World::start().await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("seoul", 40, 1));
    let made = book(&world.customer("kim").await, ask("kim", &from)).await.unwrap();
    let world = world.restarted(options(), until(from.date, 12)).await;
    let asked = || ask_to_move(&made.name, &to);
    // the cut-off of this hospital is the beginning of the date
    refused_and_judged(&world.customer("kim").await, asked(), Reason::RescheduleClosed).await;
    let world = world.restarted(options(), until(from.date, 12) + SignedDuration::from_hours(24)).await;
    refused_and_judged(&world.customer("kim").await, asked(), Reason::RescheduleClosed).await;
    let refusal = refused_and_judged(&world.admin("seoul").await, asked(), Reason::DateInPast).await;
    assert_eq!(refusal.value("timeZone"), "Asia/Seoul");
    assert_eq!(refusal.value("date"), from.date.to_string(), "the date of the place that is held");
    assert_eq!(world.hospital.active(), [claim(&made)]);
}

#[tokio::test]
async fn validate_only_answers_what_the_call_would_and_stores_nothing() {
    let world = World::start().await;
    let (from, to) = (world.slot("seoul", 7, 1), world.slot("busan", 8, 1));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask("kim", &from)).await.unwrap();
    let asked = RescheduleScreeningRequest { reason: "a trip".into(), ..ask_to_move_once(&made.name, &to) };
    let judge = || RescheduleScreeningRequest { validate_only: true, ..asked.clone() };
    let judged = reschedule(&kim, judge()).await.unwrap();
    assert_eq!((judged.state(), judged.version, judged.claim_generation), (State::Confirmed, 3, 2));
    assert_eq!(judged.slot, to.to_string());
    assert_eq!(world.hospital.claim(next_claim(&made)), None);
    assert_eq!(read(&kim, &made.name).await.unwrap(), made);
    assert_eq!(world.announced().await.len(), 1);

    // judging did not use up the request_id, and the move is the one that was judged
    let moved = reschedule(&kim, asked.clone()).await.unwrap();
    let timeless = |screening: &Screening| Screening { update_time: None, ..screening.clone() };
    assert_eq!(timeless(&moved), timeless(&judged));
    assert_eq!(reschedule(&kim, judge()).await.unwrap(), moved);
}

#[tokio::test]
async fn a_repetition_answers_the_booking_as_it_is_now() {
    let world = World::start().await;
    let [first, second, third] = [7, 8, 9].map(|days| world.slot("seoul", days, 2));
    let kim = world.customer("kim").await;
    let made = book(&kim, ask_once("kim", &first)).await.unwrap();
    let asked = ask_to_move_once(&made.name, &second);
    let moved = reschedule(&kim, asked.clone()).await.unwrap();
    assert_eq!(reschedule(&kim, asked.clone()).await.unwrap(), moved);
    for changed in [
        RescheduleScreeningRequest { slot: third.to_string(), ..asked.clone() },
        RescheduleScreeningRequest { reason: "other words".into(), ..asked.clone() },
        RescheduleScreeningRequest { etag: moved.etag.clone(), ..asked.clone() },
    ] {
        let refusal = refused(reschedule(&kim, changed).await, Reason::RequestIdReused);
        assert_eq!(refusal.value("requestId"), asked.request_id);
    }
    let on = reschedule(&kim, ask_to_move_once(&made.name, &third)).await.unwrap();
    assert_eq!((on.version, on.claim_generation), (5, 3));
    assert_eq!(reschedule(&kim, asked.clone()).await.unwrap(), on);
    let cancelled = cancel(&kim, &made.name).await.unwrap();
    assert_eq!(reschedule(&kim, asked).await.unwrap(), cancelled);
    assert_eq!((cancelled.version, world.facts_of(&made.name).await.len()), (6, 6));
    // the dates that it left are free
    book(&kim, ask("kim", &first)).await.unwrap();
    world.deliver().await;
    assert_eq!(world.hospital.active().len(), 1);
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let world = World::start().await;
    let request = RescheduleScreeningRequest {
        name: "x".into(),
        slot: "hospitals/seoul/slots/2027-13-01".into(),
        reason: "x".repeat(501),
        etag: "a\u{0}b".into(),
        validate_only: true,
        request_id: "x".into(),
    };
    let answer = reschedule(&world.customer("kim").await, request).await;
    assert_eq!(refused(answer, Reason::FieldInvalid).fields(), ["name", "slot", "reason", "etag", "request_id"]);
    assert_eq!(world.hospital.reserves(), []);
}
