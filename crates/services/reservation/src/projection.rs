//! Folds a batch of facts into the ledger: loads the rows of the screenings that the facts name, folds, and saves them
//! together with history and events.

use std::collections::BTreeSet;

use async_trait::async_trait;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, ReservationChanged, ReservationRegistered};
use domain::event::{Cause, envelope};
use domain::ids::{Malformed, ScreeningId};
use domain::reservation::{Announced, Announcement};
use domain::screening_fact::ScreeningFact;
use relay::{Admission, Incoming, Projection};
use runtime::clock::Clock;
use runtime::entropy::uuid_v7;
use sea_orm::DbErr;
use store::{Transaction, outbox};
use uuid::Uuid;

use crate::NAME;
use crate::tables;

/// A fact about a screening, and the id of the event that reported it.
#[derive(Debug)]
pub(crate) struct Fact {
    event_id: Uuid,
    screening: ScreeningFact,
}

/// Folds facts into the rows of their screenings.
#[derive(Debug)]
pub(crate) struct ReservationProjection {
    clock: Clock,
}

impl ReservationProjection {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    fn announce(&self, event_id: Uuid, fact: &ScreeningFact, announcement: Announcement) -> EventEnvelope {
        let Announcement { version, screening_version, what } = announcement;
        let (reservation, screening) = (fact.screening().reservation_name(), fact.screening().to_string());
        let payload = match what {
            Announced::Registered => {
                let reservation = reservation.clone();
                Payload::ReservationRegistered(ReservationRegistered { reservation, screening, screening_version })
            }
            Announced::Changed { old, new } => Payload::ReservationChanged(ReservationChanged {
                reservation: reservation.clone(),
                screening,
                old_state: old.name().to_owned(),
                new_state: new.name().to_owned(),
                screening_version,
            }),
        };
        let traceparent = match fact {
            ScreeningFact::Booking(booking) => booking.traceparent.clone(),
            ScreeningFact::Fence { .. } => String::new(),
        };
        let cause = Cause::of_event(NAME, event_id, traceparent);
        envelope(NAME, &cause, self.clock.now(), uuid_v7(), reservation, version, payload)
    }
}

#[async_trait]
impl Projection for ReservationProjection {
    type Fact = Fact;

    // this service must publish each of its own events once
    const ADMISSION: Admission = Admission::Once;

    fn decode(event: &Incoming) -> Result<Option<Fact>, Malformed> {
        let fact = ScreeningFact::decode(&event.envelope)?;
        Ok(fact.map(|screening| Fact { event_id: event.event_id, screening }))
    }

    async fn fold(&self, transaction: &Transaction, facts: Vec<&Fact>) -> Result<(), DbErr> {
        let screenings: BTreeSet<ScreeningId> = facts.iter().map(|fact| fact.screening.screening()).collect();
        let before = tables::load_for_update(transaction, &screenings).await?;
        let mut after = before.ledgers.clone();
        let (mut entries, mut envelopes) = (Vec::new(), Vec::new());
        for Fact { event_id, screening: fact } in facts {
            let effects = after.entry(fact.screening()).or_default().apply(fact);
            entries.extend(effects.entry);
            for announcement in effects.announcements {
                envelopes.push(self.announce(*event_id, fact, announcement));
            }
        }
        tables::save(transaction, &before, &after, entries).await?;
        outbox::append(transaction, &envelopes).await
    }
}
