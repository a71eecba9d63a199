//! The writer's unit: loads the ledgers a batch of events is about, folds, and saves them with history and announcements.

use std::collections::BTreeSet;

use ::store::dead_letter::{self, DeadLetter};
use ::store::inbox::{self, Mark};
use ::store::{Transaction, Unit, outbox};
use async_trait::async_trait;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, ReservationChanged, ReservationRegistered};
use domain::event::{Cause, envelope};
use domain::ids::ScreeningId;
use domain::reservation::{Announced, Announcement};
use domain::screening_fact::ScreeningFact;
use runtime::clock::Clock;
use runtime::entropy::uuid_v7;
use sea_orm::DbErr;
use uuid::Uuid;

use crate::NAME;
use crate::policy::SCREENINGS;
use crate::store;

/// One event, decoded; without a fact where it says nothing about a screening.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) mark: Mark,
    pub(crate) event_id: Uuid,
    pub(crate) fact: Option<ScreeningFact>,
}

/// What changes the ledger.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes events in.
    Consume(Vec<Arrived>),
    /// Keeps an event that cannot be taken in.
    Bury(DeadLetter, Mark),
}

/// The writer's unit.
#[derive(Debug)]
pub(crate) struct Ledger {
    clock: Clock,
}

impl Ledger {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Folds facts into the ledgers they are about.
    async fn fold(&self, transaction: &Transaction, facts: &[(Uuid, &ScreeningFact)]) -> Result<(), DbErr> {
        let screenings: BTreeSet<ScreeningId> = facts.iter().map(|(_, fact)| fact.screening()).collect();
        let before = store::load_for_update(transaction, &screenings).await?;
        let mut after = before.clone();
        let (mut entries, mut envelopes) = (Vec::new(), Vec::new());
        for (event_id, fact) in facts {
            let effects = after.entry(fact.screening()).or_default().apply(fact);
            entries.extend(effects.entry);
            for announcement in effects.announcements {
                envelopes.push(self.announce(*event_id, fact, announcement));
            }
        }
        store::save(transaction, &before, &after).await?;
        store::save_history(transaction, entries).await?;
        outbox::append(transaction, envelopes).await
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
        let cause = Cause {
            actor: format!("service:{NAME}"),
            request_id: String::new(),
            causation_id: event_id.to_string(),
            traceparent,
        };
        envelope(NAME, &cause, self.clock.now(), uuid_v7(), reservation, version, payload)
    }
}

#[async_trait]
impl Unit for Ledger {
    type Command = Command;
    type Answer = ();

    async fn execute(&self, transaction: &Transaction, batch: &[&Command]) -> Result<Vec<()>, DbErr> {
        let (mut arrived, mut buried) = (Vec::new(), Vec::new());
        for command in batch {
            match command {
                Command::Consume(events) => arrived.extend(events),
                Command::Bury(letter, mark) => buried.push((letter, mark)),
            }
        }
        let marks: Vec<&Mark> = arrived.iter().map(|event| &event.mark).collect();
        let fresh = inbox::admit(transaction, SCREENINGS, &marks).await?;
        let facts: Vec<_> = arrived
            .iter()
            .zip(fresh)
            .filter_map(|(event, fresh)| Some((event.event_id, event.fact.as_ref().filter(|_| fresh)?)))
            .collect();
        self.fold(transaction, &facts).await?;
        for (letter, mark) in buried {
            if inbox::admit(transaction, SCREENINGS, &[mark]).await? == [true] {
                dead_letter::put(transaction, letter).await?;
            }
        }
        Ok(vec![(); batch.len()])
    }
}
