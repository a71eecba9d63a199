//! Events for other services: the envelope around a payload, and the subject it is published under.

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use jiff::Timestamp;
use uuid::Uuid;

use crate::access::Caller;
use crate::civil::encode_time;
use crate::request::Request;

/// The cause of a change: the part of an envelope that all events of one command share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// [`crate::access::Caller`] as text; `service:hospital`, for example, for a service's own reaction.
    pub actor: String,
    /// The request_id that the caller chose; empty if it chose none.
    pub request_id: String,
    /// The id of the event that caused this change; empty if no event did.
    pub causation_id: String,
    /// The W3C traceparent of the call or event.
    pub traceparent: String,
}

impl Cause {
    /// The cause of a change that a call makes. It passes on a request_id only if the caller chose it.
    #[must_use]
    pub fn of_call(caller: &Caller, request: Option<&Request>, traceparent: String) -> Self {
        let chosen = request.filter(|request| request.chosen);
        Self {
            actor: caller.to_string(),
            request_id: chosen.map(|request| request.key.id.to_string()).unwrap_or_default(),
            causation_id: String::new(),
            traceparent,
        }
    }

    /// The cause of a service's reaction to an event.
    #[must_use]
    pub fn of_event(service: &str, event_id: Uuid, traceparent: String) -> Self {
        Self { causation_id: event_id.to_string(), ..Self::own(service, traceparent) }
    }

    /// The cause of work that a service does by itself. `traceparent` may be empty.
    #[must_use]
    pub fn own(service: &str, traceparent: String) -> Self {
        let actor = Caller::Service(service.to_owned()).to_string();
        Self { actor, request_id: String::new(), causation_id: String::new(), traceparent }
    }
}

/// Something that happened: the resource it is about, the version of that resource, and the payload. It becomes an
/// event envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// The resource name of the one resource whose state it reports.
    pub aggregate: String,
    /// The version of that resource after the change.
    pub version: i64,
    /// The payload of the event.
    pub payload: Payload,
}

/// Wraps a payload. `aggregate` is the name of the resource that it reports; `version` is that resource's version.
#[must_use]
pub fn envelope(
    producer: &str,
    cause: &Cause,
    now: Timestamp,
    id: Uuid,
    aggregate: String,
    version: i64,
    payload: Payload,
) -> EventEnvelope {
    EventEnvelope {
        event_id: id.to_string(),
        aggregate,
        aggregate_version: version,
        occur_time: Some(encode_time(now)),
        producer: producer.to_owned(),
        actor: cause.actor.clone(),
        request_id: cause.request_id.clone(),
        causation_id: cause.causation_id.clone(),
        traceparent: cause.traceparent.clone(),
        payload: Some(payload),
    }
}

/// The type of aggregate a payload reports, and the fact's name in subjects, for example `screening_confirmed`.
#[must_use]
pub fn fact(payload: &Payload) -> (&'static str, &'static str) {
    match payload {
        Payload::HospitalRegistered(_) => ("hospital", "hospital_registered"),
        Payload::HospitalUpdated(_) => ("hospital", "hospital_updated"),
        Payload::HospitalDeletionStarted(_) => ("hospital", "hospital_deletion_started"),
        Payload::HospitalDeleted(_) => ("hospital", "hospital_deleted"),
        Payload::SlotOpened(_) => ("slot", "slot_opened"),
        Payload::SlotCapacityChanged(_) => ("slot", "slot_capacity_changed"),
        Payload::SlotClosed(_) => ("slot", "slot_closed"),
        Payload::CapacityReserved(_) => ("claim", "capacity_reserved"),
        Payload::CapacityReleased(_) => ("claim", "capacity_released"),
        Payload::CapacityRevoked(_) => ("claim", "capacity_revoked"),
        Payload::CapacityWaitlisted(_) => ("claim", "capacity_waitlisted"),
        Payload::ScreeningPending(_) => ("screening", "screening_pending"),
        Payload::ScreeningConfirmed(_) => ("screening", "screening_confirmed"),
        Payload::ScreeningRejected(_) => ("screening", "screening_rejected"),
        Payload::ScreeningCancelled(_) => ("screening", "screening_cancelled"),
        Payload::ScreeningForceCancelled(_) => ("screening", "screening_force_cancelled"),
        Payload::ScreeningWaitlisted(_) => ("screening", "screening_waitlisted"),
        Payload::ScreeningWaitlistEnded(_) => ("screening", "screening_waitlist_ended"),
        Payload::ScreeningRefused(_) => ("slot", "screening_refused"),
        Payload::ScreeningRescheduled(_) => ("screening", "screening_rescheduled"),
        Payload::ScreeningAttendanceRecorded(_) => ("screening", "screening_attendance_recorded"),
        Payload::ReservationRegistered(_) => ("reservation", "reservation_registered"),
        Payload::ReservationChanged(_) => ("reservation", "reservation_changed"),
        Payload::CapacityIncreaseRequested(_) => ("capacity_request", "capacity_increase_requested"),
        Payload::CapacityIncreaseDecided(_) => ("capacity_request", "capacity_increase_decided"),
    }
}

/// The subject: `checkup.v1.{aggregate type}.{fact}.{producer}`. A broker keeps state per subject and walks through the
/// subjects for every event that a consumer reads. So there are a few dozen subjects, however many aggregates there
/// are.
#[must_use]
pub fn subject(envelope: &EventEnvelope) -> String {
    let (kind, fact) = envelope.payload.as_ref().map_or(("unknown", "unknown"), fact);
    let producer = if envelope.producer.is_empty() { "unknown" } else { &envelope.producer };
    format!("checkup.v1.{kind}.{fact}.{producer}")
}

/// The subject filter that selects one fact of every aggregate. It also matches old subjects, which did not end with
/// the producer's name.
#[must_use]
pub fn subject_filter(kind: &str, fact: &str) -> String {
    format!("checkup.v1.{kind}.{fact}.*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_subjects_as_facts_however_many_aggregates() {
        let subject_of = |aggregate: &str| {
            let payload = Payload::CapacityReserved(contract::event::v1::CapacityReserved::default());
            let (aggregate, producer) = (aggregate.to_owned(), "hospital".to_owned());
            subject(&EventEnvelope { aggregate, producer, payload: Some(payload), ..EventEnvelope::default() })
        };
        assert_eq!(
            subject_of("hospitals/a/slots/2027-01-04/claims/1.1"),
            "checkup.v1.claim.capacity_reserved.hospital"
        );
        assert_eq!(
            subject_of("hospitals/a/slots/2027-01-04/claims/1.1"),
            subject_of("hospitals/b/slots/2027-01-04/claims/2.1")
        );
        assert_eq!(subject(&EventEnvelope::default()), "checkup.v1.unknown.unknown.unknown");
    }

    #[test]
    fn a_cause_says_who_acted_upon_what() {
        let (id, trace) = (Uuid::from_u128(7), || "00-1-2-01".to_owned());
        let text = |cause: Cause| [cause.actor, cause.request_id, cause.causation_id, cause.traceparent];
        let kim = Caller::Customer(crate::ids::CustomerId::from_segment("kim").unwrap());
        let request = |chosen| Request::new(&kim, "CreateScreening", chosen, Uuid::nil(), &EventEnvelope::default());
        let (chosen, fresh) = (request(Some(id)), request(None));
        let id = id.to_string();
        assert_eq!(text(Cause::of_call(&kim, Some(&chosen), trace())), ["customer:kim", id.as_str(), "", "00-1-2-01"]);
        for request in [Some(&fresh), None] {
            assert_eq!(text(Cause::of_call(&kim, request, trace())), ["customer:kim", "", "", "00-1-2-01"]);
        }
        let reaction = Cause::of_event("reservation", Uuid::from_u128(7), trace());
        assert_eq!(text(reaction), ["service:reservation", "", id.as_str(), "00-1-2-01"]);
        assert_eq!(text(Cause::own("hospital", String::new())), ["service:hospital", "", "", ""]);
    }

    #[test]
    fn reasons_are_those_of_the_contract() {
        use contract::error::v1::Reason as Contract;
        for reason in fault::Reason::ALL {
            assert!(Contract::from_str_name(reason.name()).is_some(), "{} is not in error.proto", reason.name());
        }
        let declared = (1..=200).filter_map(|number| Contract::try_from(number).ok()).count();
        assert_eq!(declared, fault::Reason::ALL.len());
    }
}
