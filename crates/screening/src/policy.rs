//! Reactions to what Hospital announces: places taken and places taken away.
//!
//! It reads events into what this service understands of them; what follows is decided in the writer's transaction.

use std::sync::Arc;
use std::time::Duration;

use ::store::Database;
use ::store::dead_letter::DeadLetter;
use ::store::inbox::Mark;
use async_trait::async_trait;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{CapacityReserved, CapacityRevoked};
use domain::event::{Cause, subject_filter};
use domain::ids::{ClaimId, Malformed, SlotId};
use domain::screening::Revocation;
use fault::Fault;
use relay::{Consumer, Handler, Incoming};
use runtime::trace::TraceContext;
use tokio::time::Instant;

use crate::NAME;
use crate::unit::{Command, Heard, Ledger, News};

/// The consumer of Hospital's claims.
pub(crate) const CONSUMER: &str = "screening-capacity";

/// How long a batch of events may take to be written; it comes again after that.
const PATIENCE: Duration = Duration::from_secs(10);

/// What this service wants to hear.
pub(crate) fn consumers(ledger: &Ledger, database: &Database) -> Vec<Consumer> {
    let filter = ["capacity_reserved", "capacity_revoked"].map(|fact| subject_filter("claim", fact));
    vec![Consumer {
        name: CONSUMER,
        filter: filter.into(),
        handler: Arc::new(Claims { ledger: ledger.clone() }),
        database: database.clone(),
        pace: None,
    }]
}

struct Claims {
    ledger: Ledger,
}

#[async_trait]
impl Handler for Claims {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let heard: Result<Vec<_>, Malformed> = batch.iter().map(read).collect();
        let heard = heard.map_err(|Malformed(what)| Fault::internal(format!("an event is malformed: it {what}")))?;
        self.ledger.done(Command::Consume(heard), Instant::now() + PATIENCE).await
    }

    async fn bury(&self, letter: DeadLetter, mark: Mark) -> Result<(), Fault> {
        self.ledger.done(Command::Bury(letter, mark), Instant::now() + PATIENCE).await
    }
}

fn read(incoming: &Incoming) -> Result<Heard, Malformed> {
    let Incoming { envelope, event_id, mark } = incoming;
    let traceparent = TraceContext::from_traceparent_or_new(&envelope.traceparent).traceparent();
    let mut cause = Cause::of_event(NAME, *event_id, traceparent);
    cause.request_id.clone_from(&envelope.request_id);
    if !envelope.actor.is_empty() {
        // who took the place away is who ends the booking
        cause.actor.clone_from(&envelope.actor);
    }
    let news = match &envelope.payload {
        Some(Payload::CapacityReserved(CapacityReserved {
            slot,
            claim_id,
            remaining_count: _,
            slot_version: _,
            capacity: _,
            booked_count: _,
        })) => News::Reserved { claim: ClaimId::parse(claim_id)?, slot: SlotId::parse(slot)? },
        Some(Payload::CapacityRevoked(CapacityRevoked {
            slot,
            claim_id,
            reason,
            message,
            slot_version: _,
            remaining_count: _,
            capacity: _,
            booked_count: _,
        })) => News::Revoked {
            claim: ClaimId::parse(claim_id)?,
            slot: SlotId::parse(slot)?,
            reason: Revocation::from_name(reason)
                .ok_or_else(|| Malformed("must give a known reason for a revocation".to_owned()))?,
            message: message.clone(),
        },
        _ => News::Other,
    };
    Ok(Heard { mark: mark.clone(), event_id: *event_id, cause, news })
}
