//! Reactions to Hospital's events: claims that were made or got a place, and claims that were taken away.
//!
//! Events are decoded here. The writer's transaction decides what follows from them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{CapacityReserved, CapacityRevoked, CapacityWaitlisted};
use domain::event::{Cause, subject_filter};
use domain::ids::{ClaimId, Malformed, SlotId};
use domain::screening::Revocation;
use fault::Fault;
use relay::{Consumer, Handler, Incoming};
use runtime::trace::TraceContext;
use store::Database;
use store::dead_letter::DeadLetter;
use store::inbox::InboxKey;
use tokio::time::Instant;

use crate::CONSUMER;
use crate::NAME;
use crate::batch::{ClaimEvent, ClaimFact, Command, ScreeningWriter};

/// How long a batch of events may wait for its transaction. After that it is delivered again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The consumers that this service declares.
pub(crate) fn consumers(writer: &ScreeningWriter, database: &Database) -> Vec<Consumer> {
    let filter =
        ["capacity_reserved", "capacity_revoked", "capacity_waitlisted"].map(|fact| subject_filter("claim", fact));
    vec![Consumer {
        name: CONSUMER,
        filter: filter.into(),
        handler: Arc::new(Claims { writer: writer.clone() }),
        database: database.clone(),
        pace: None,
    }]
}

struct Claims {
    writer: ScreeningWriter,
}

#[async_trait]
impl Handler for Claims {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let claim_events: Result<Vec<_>, Malformed> = batch.iter().map(read).collect();
        let claim_events =
            claim_events.map_err(|Malformed(what)| Fault::internal(format!("an event is malformed: it {what}")))?;
        self.writer.done(Command::Consume(claim_events), Instant::now() + COMMIT_TIMEOUT).await
    }

    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault> {
        self.writer.done(Command::StoreDeadLetter(dead_letter, inbox_key), Instant::now() + COMMIT_TIMEOUT).await
    }
}

fn read(incoming: &Incoming) -> Result<ClaimEvent, Malformed> {
    let Incoming { envelope, event_id, inbox_key } = incoming;
    let traceparent = TraceContext::parse_or_new(&envelope.traceparent).traceparent();
    let mut cause = Cause::of_event(NAME, *event_id, traceparent);
    let fact = match &envelope.payload {
        Some(Payload::CapacityReserved(CapacityReserved {
            slot,
            claim_id,
            remaining_count: _,
            slot_version: _,
            capacity: _,
            booked_count: _,
            date: _,
            from_waitlist,
            waitlisted_count: _,
        })) => {
            let (claim, slot) = (ClaimId::parse(claim_id)?, SlotId::parse(slot)?);
            // no cause but this service: who gave the place up does not book it
            if *from_waitlist { ClaimFact::Promoted { claim, slot } } else { ClaimFact::Made { claim, slot } }
        }
        Some(Payload::CapacityWaitlisted(CapacityWaitlisted {
            slot,
            claim_id,
            waitlist_ticket: _,
            waitlisted_count: _,
            slot_version: _,
            date: _,
            remaining_count: _,
            capacity: _,
            booked_count: _,
            promotion_close_time: _,
        })) => ClaimFact::Made { claim: ClaimId::parse(claim_id)?, slot: SlotId::parse(slot)? },
        Some(Payload::CapacityRevoked(CapacityRevoked {
            slot,
            claim_id,
            reason,
            message,
            slot_version: _,
            remaining_count: _,
            capacity: _,
            booked_count: _,
            date: _,
            waitlisted_count: _,
        })) => {
            cause.request_id.clone_from(&envelope.request_id);
            if !envelope.actor.is_empty() {
                // the actor who took the place away also ends the booking
                cause.actor.clone_from(&envelope.actor);
            }
            ClaimFact::Revoked {
                claim: ClaimId::parse(claim_id)?,
                slot: SlotId::parse(slot)?,
                reason: Revocation::from_name(reason)
                    .ok_or_else(|| Malformed("must give the code of a revocation".to_owned()))?,
                message: message.clone(),
            }
        }
        _ => ClaimFact::Other,
    };
    Ok(ClaimEvent { inbox_key: inbox_key.clone(), event_id: *event_id, cause, fact })
}
