//! Reactions to what other services report: a booking that ended without attendance, or moved to another slot, gives
//! its place back.
//!
//! Events may be repeated, late, or earlier than the reservation they end. The rules of claims make this harmless.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    ScreeningCancelled, ScreeningRejected, ScreeningRescheduled, ScreeningSnapshot, ScreeningWaitlistEnded,
};
use domain::event::{Cause, subject_filter};
use domain::ids::{ClaimId, SlotId};
use fault::Fault;
use relay::{Consumer, Handler, Incoming};
use runtime::trace::TraceContext;
use store::dead_letter::DeadLetter;
use store::inbox::InboxKey;
use store::{Database, Writer};
use tokio::time::Instant;

use crate::CONSUMER;
use crate::NAME;
use crate::batch::HospitalBatchHandler;
use crate::command::{ClaimRequest, Command, Event};

/// How long a batch of events may wait for its transaction. After that it is delivered again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// The facts of Screening that name a claim to release.
const FACTS: [&str; 4] =
    ["screening_cancelled", "screening_rejected", "screening_rescheduled", "screening_waitlist_ended"];

/// The consumers that this service declares.
pub(crate) fn consumers(writer: Writer<HospitalBatchHandler>, database: Database) -> Vec<Consumer> {
    vec![Consumer {
        name: CONSUMER,
        filter: FACTS.map(|fact| subject_filter("screening", fact)).to_vec(),
        handler: Arc::new(Releases { writer }),
        database,
        pace: None,
    }]
}

struct Releases {
    writer: Writer<HospitalBatchHandler>,
}

#[async_trait]
impl Handler for Releases {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let events = batch.iter().map(read).collect::<Result<_, _>>()?;
        self.submit(Command::Consume(events)).await
    }

    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault> {
        self.submit(Command::StoreDeadLetter(Box::new(dead_letter), inbox_key)).await
    }
}

impl Releases {
    async fn submit(&self, command: Command) -> Result<(), Fault> {
        self.writer.submit(command, Instant::now() + COMMIT_TIMEOUT).await?.map(drop)
    }
}

fn read(incoming: &Incoming) -> Result<Event, Fault> {
    let Incoming { envelope, event_id, inbox_key } = incoming;
    let (inbox_key, event_id) = (inbox_key.clone(), *event_id);
    let slot_of = |screening: &Option<ScreeningSnapshot>| {
        screening.as_ref().map(|screening| screening.slot.clone()).unwrap_or_default()
    };
    let (slot, claim_id) = match &envelope.payload {
        Some(Payload::ScreeningCancelled(ScreeningCancelled { screening, claim_id, reason: _, message: _ })) => {
            (slot_of(screening), claim_id)
        }
        Some(Payload::ScreeningRejected(ScreeningRejected { screening, claim_id, reason: _ })) => {
            (slot_of(screening), claim_id)
        }
        Some(Payload::ScreeningWaitlistEnded(ScreeningWaitlistEnded {
            screening,
            state: _,
            reason: _,
            claim_id,
            message: _,
        })) => (slot_of(screening), claim_id),
        Some(Payload::ScreeningRescheduled(ScreeningRescheduled {
            screening: _,
            previous_slot,
            previous_date: _,
            released_claim_id,
            reason: _,
            message: _,
        })) => (previous_slot.clone(), released_claim_id),
        _ => return Ok(Event { inbox_key, id: event_id, claim_request: None }),
    };
    if claim_id.is_empty() {
        return Ok(Event { inbox_key, id: event_id, claim_request: None });
    }
    let malformed = |field: &str| Fault::internal(format!("the event {event_id} has a malformed {field}"));
    let traceparent = TraceContext::parse_or_new(&envelope.traceparent).traceparent();
    let request_id = envelope.request_id.clone();
    let cause = Cause { request_id, ..Cause::of_event(NAME, event_id, traceparent) };
    let claim_request = ClaimRequest {
        // The cancellation of a program's booking waits as a dead letter for the version that knows its slot.
        slot: SlotId::parse_requested(&slot).map_err(|_| malformed("slot"))?,
        claim: ClaimId::parse(claim_id).map_err(|_| malformed("claim_id"))?,
        cause,
    };
    Ok(Event { inbox_key, id: event_id, claim_request: Some(claim_request) })
}

#[cfg(test)]
mod tests {
    use contract::event::v1::EventEnvelope;
    use uuid::Uuid;

    use super::*;

    fn incoming(payload: Payload) -> Incoming {
        let envelope = EventEnvelope { payload: Some(payload), ..EventEnvelope::default() };
        let inbox_key = InboxKey::at("screening".into(), 1, Uuid::from_u128(7));
        Incoming { envelope, event_id: Uuid::from_u128(7), inbox_key }
    }

    fn rejected(slot: &str, claim_id: &str) -> Incoming {
        let screening = Some(ScreeningSnapshot { slot: slot.into(), ..ScreeningSnapshot::default() });
        incoming(Payload::ScreeningRejected(ScreeningRejected {
            screening,
            claim_id: claim_id.into(),
            reason: String::new(),
        }))
    }

    #[test]
    fn an_event_names_the_place_it_frees() {
        let claim = format!("{}.1", Uuid::from_u128(9));
        let claim_request = read(&rejected("hospitals/seoul/slots/2027-01-04", &claim)).unwrap().claim_request.unwrap();
        assert_eq!(
            (claim_request.slot.to_string().as_str(), claim_request.claim.to_string()),
            ("hospitals/seoul/slots/2027-01-04", claim)
        );
        assert_eq!(claim_request.cause.actor, "service:hospital");
        assert_eq!(claim_request.cause.causation_id, Uuid::from_u128(7).to_string());
    }

    #[test]
    fn a_move_frees_the_place_that_it_leaves() {
        let slot = |date: &str| format!("hospitals/seoul/slots/{date}");
        let screening = Some(ScreeningSnapshot { slot: slot("2027-01-05"), ..ScreeningSnapshot::default() });
        let moved = ScreeningRescheduled {
            screening,
            previous_slot: slot("2027-01-04"),
            released_claim_id: format!("{}.1", Uuid::from_u128(9)),
            ..ScreeningRescheduled::default()
        };
        let claim_request = read(&incoming(Payload::ScreeningRescheduled(moved))).unwrap().claim_request.unwrap();
        assert_eq!(claim_request.slot.to_string(), slot("2027-01-04"));
        assert_eq!(claim_request.claim.generation, 1);
    }

    #[test]
    fn an_event_without_a_claim_frees_nothing_and_a_broken_one_is_refused() {
        assert_eq!(read(&rejected("", "")).unwrap().claim_request, None);
        let claim = format!("{}.1", Uuid::from_u128(9));
        let program = "hospitals/seoul/slots/2027-01-04~heart";
        for (slot, claim) in [("", claim.as_str()), ("hospitals/seoul/slots/2027-01-04", "x"), (program, &claim)] {
            assert_eq!(read(&rejected(slot, claim)).unwrap_err().code(), fault::Code::Internal);
        }
        let cancelled = ScreeningCancelled { claim_id: claim, ..ScreeningCancelled::default() };
        assert!(read(&incoming(Payload::ScreeningCancelled(cancelled))).is_err());
    }
}
