//! What is read from an event, and which events are read.

use super::*;

fn envelope(payload: Payload) -> EventEnvelope {
    EventEnvelope {
        event_id: Uuid::from_u128(5).to_string(),
        aggregate_version: 2,
        occur_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
        actor: "customer:kim".into(),
        payload: Some(payload),
        ..EventEnvelope::default()
    }
}

fn snapshot(customer: &str) -> Option<ScreeningSnapshot> {
    Some(ScreeningSnapshot {
        screening: ScreeningId(Uuid::from_u128(7)).to_string(),
        customer: customer.into(),
        slot: "hospitals/seoul/slots/2027-01-04".into(),
        ..ScreeningSnapshot::default()
    })
}

#[test]
fn a_booking_and_a_fence_are_told_apart() {
    let screening = snapshot("customers/kim");
    let payload = Payload::ScreeningAttendanceRecorded(ScreeningAttendanceRecorded { screening, attended: false });
    let fact = ScreeningFact::decode(&envelope(payload)).unwrap().unwrap();
    let ScreeningFact::Booking(booking) = &fact else { panic!("{fact:?}") };
    assert_eq!((booking.state, fact.version()), (State::NoShow, 2));

    let payload = Payload::ScreeningConfirmed(ScreeningConfirmed { screening: snapshot(""), ..Default::default() });
    let fact = ScreeningFact::decode(&envelope(payload)).unwrap();
    assert_eq!(fact, Some(ScreeningFact::Fence { screening: ScreeningId(Uuid::from_u128(7)), version: 2 }));
}

#[test]
fn other_facts_are_none_of_ours_and_broken_ones_are_refused() {
    let other = Payload::HospitalDeleted(contract::event::v1::HospitalDeleted::default());
    assert_eq!(ScreeningFact::decode(&envelope(other)), Ok(None));
    assert_eq!(ScreeningFact::decode(&EventEnvelope::default()), Ok(None));

    let broken = Payload::ScreeningPending(ScreeningPending { screening: None });
    assert!(ScreeningFact::decode(&envelope(broken)).is_err());
    let mut unversioned =
        envelope(Payload::ScreeningPending(ScreeningPending { screening: snapshot("customers/kim") }));
    unversioned.aggregate_version = 0;
    assert!(ScreeningFact::decode(&unversioned).is_err());
}

#[test]
fn a_wait_is_read_with_its_place_and_its_end() {
    let read = |payload| {
        let fact = ScreeningFact::decode(&envelope(payload)).unwrap().unwrap();
        let ScreeningFact::Booking(booking) = fact else { panic!("{fact:?}") };
        booking
    };
    let (screening, promotion_close_time) =
        (snapshot("customers/kim"), Some(prost_types::Timestamp { seconds: 1_800_000_060, nanos: 0 }));
    let waits = read(Payload::ScreeningWaitlisted(ScreeningWaitlisted {
        screening: screening.clone(),
        position: 3,
        promotion_close_time,
    }));
    let closes_at = Timestamp::from_second(1_800_000_060).unwrap();
    assert_eq!((waits.state, waits.queued), (State::Waitlisted, Some(Queued { position: 3, closes_at })));
    assert!(!waits.waited_in_vain());
    let ended = |state: &str| {
        let (reason, message) = ("WHY".to_owned(), "a cold".to_owned());
        let screening = screening.clone();
        let state = state.to_owned();
        let ended = ScreeningWaitlistEnded { screening, state, reason, message, claim_id: String::new() };
        let fact = read(Payload::ScreeningWaitlistEnded(ended));
        assert!(fact.waited_in_vain());
        assert_eq!((fact.reason.as_str(), fact.message.as_str()), ("WHY", "a cold"));
        fact.state
    };
    assert_eq!(
        ["CANCELLED", "FORCE_CANCELLED", "EXPIRED"].map(ended),
        [State::Cancelled, State::ForceCancelled, State::Expired]
    );
    // whatever a later version calls it, it is over
    assert_eq!(["MOVED_ON", "", "CONFIRMED", "WAITLISTED"].map(ended), [State::Expired; 4]);
    let plain = ScreeningCancelled { screening, ..ScreeningCancelled::default() };
    assert!(!read(Payload::ScreeningCancelled(plain)).waited_in_vain());
}

#[test]
fn every_fact_that_is_understood_is_subscribed_to() {
    let screening = snapshot("customers/kim");
    let payloads = [
        Payload::ScreeningPending(ScreeningPending { screening: screening.clone() }),
        Payload::ScreeningConfirmed(ScreeningConfirmed { screening: screening.clone(), ..Default::default() }),
        Payload::ScreeningRejected(ScreeningRejected { screening: screening.clone(), ..Default::default() }),
        Payload::ScreeningCancelled(ScreeningCancelled { screening: screening.clone(), ..Default::default() }),
        Payload::ScreeningForceCancelled(ScreeningForceCancelled {
            screening: screening.clone(),
            ..Default::default()
        }),
        Payload::ScreeningRescheduled(ScreeningRescheduled { screening: screening.clone(), ..Default::default() }),
        Payload::ScreeningAttendanceRecorded(ScreeningAttendanceRecorded {
            screening: screening.clone(),
            attended: true,
        }),
        Payload::ScreeningWaitlisted(ScreeningWaitlisted { screening: screening.clone(), ..Default::default() }),
        Payload::ScreeningWaitlistEnded(ScreeningWaitlistEnded { screening, ..Default::default() }),
    ];
    for (payload, subject) in payloads.into_iter().zip(subjects()) {
        let (kind, fact) = crate::event::fact(&payload);
        assert_eq!(subject_filter(kind, fact), subject);
        assert!(ScreeningFact::decode(&envelope(payload)).unwrap().is_some());
    }
}
