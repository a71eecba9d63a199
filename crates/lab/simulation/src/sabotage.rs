//! Plants bugs. If the precaution is a row, a trigger deletes the row. If it is a rule or a handler, another one
//! replaces it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use contract::event::v1::event_envelope::Payload;
use domain::retention::Aggregate;
use domain::screening::{Command, Conflict, Decision, Event, Screening, State, decide};
use fault::Fault;
use jiff::Timestamp;
use relay::{Consumer, Handler, Incoming, Versions};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use store::dead_letter::DeadLetter;
use store::inbox::{InboxKey, Part};
use store::{Connection, Location};
use tokio::runtime::Handle;

use crate::mutant::Mutant;
use crate::site::Site;

/// The name of Hospital's consumer of releases.
const RELEASES: &str = "hospital-releases";

/// Plants a mutant's trigger in the database of a service. `side` is the runtime on which databases work.
pub(crate) fn plant(mutant: Option<Mutant>, service: &str, database: &Path, side: &Handle) -> turmoil::Result {
    let Some(sql) = mutant.and_then(|mutant| trigger(mutant, service)) else { return Ok(()) };
    execute(sql, database, side)
}

/// Executes SQL on a database without its service's knowledge.
fn execute(sql: &str, database: &Path, side: &Handle) -> turmoil::Result {
    number(sql, database, side).map(drop)
}

/// Executes SQL on a database without its service's knowledge. Returns the number that it asks for, if it asks for one.
pub(crate) fn number(sql: &str, database: &Path, side: &Handle) -> Result<Option<i64>, Box<dyn std::error::Error>> {
    let url = format!("sqlite://{}", database.display());
    let executing = async {
        let connection = sea_orm::Database::connect(url).await?;
        let row = connection.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?;
        let number = row.map(|row| row.try_get_by_index(0)).transpose()?;
        connection.close().await?;
        Ok::<_, DbErr>(number)
    };
    // On a thread of its own: this thread belongs to a runtime that tokio does not let block, and here it must block.
    let executed = std::thread::scope(|scope| scope.spawn(|| side.block_on(executing)).join());
    executed.map_err(|_| "work beside a service panicked")?.map_err(Into::into)
}

fn trigger(mutant: Mutant, service: &str) -> Option<&'static str> {
    match (mutant, service) {
        (Mutant::NoFence, screening::NAME) => Some(
            "CREATE TRIGGER IF NOT EXISTS no_fence AFTER INSERT ON screening WHEN NEW.customer IS NULL \
             BEGIN DELETE FROM screening WHERE id = NEW.id; END",
        ),
        // 2 is RELEASED. The release of an existing claim is an update, not an insert.
        (Mutant::NoTombstone, hospital::NAME) => Some(
            "CREATE TRIGGER IF NOT EXISTS no_tombstone AFTER INSERT ON claim WHEN NEW.state = 2 \
             BEGIN DELETE FROM claim WHERE screening = NEW.screening AND generation = NEW.generation; END",
        ),
        // A first claim has no booking yet. The later ones are those of moves.
        (Mutant::LeakedMove, screening::NAME) => Some(
            "CREATE TRIGGER IF NOT EXISTS leaked_move AFTER INSERT ON orphan_watch WHEN NEW.generation > 1 \
             BEGIN DELETE FROM orphan_watch WHERE screening = NEW.screening AND generation = NEW.generation; END",
        ),
        // 4 is WAITING.
        (Mutant::NewcomerFirst, hospital::NAME) => Some(
            "CREATE TRIGGER IF NOT EXISTS newcomer_first AFTER INSERT ON claim WHEN NEW.state = 4 \
             BEGIN UPDATE claim SET waitlist_ticket = -NEW.waitlist_ticket \
             WHERE screening = NEW.screening AND generation = NEW.generation; END",
        ),
        // 11 is WAITLISTED.
        (Mutant::DroppedPromotion, screening::NAME) => Some(
            "CREATE TRIGGER IF NOT EXISTS dropped_promotion AFTER INSERT ON screening WHEN NEW.state = 11 \
             BEGIN DELETE FROM orphan_watch WHERE screening = NEW.id; END",
        ),
        (Mutant::LeaseWithoutEpoch, _) => Some(
            "CREATE TRIGGER IF NOT EXISTS no_epoch AFTER UPDATE ON relay_lease WHEN NEW.epoch > 1 \
             BEGIN UPDATE relay_lease SET epoch = 1; END",
        ),
        _ => None,
    }
}

/// The rules that Screening decides by.
pub(crate) fn rules(mutant: Option<Mutant>) -> screening::Rules {
    match mutant {
        Some(Mutant::ConfirmWithoutGuard) => unguarded,
        Some(Mutant::CommitFencedMove) => forgetful,
        Some(Mutant::NoLimit) => generous,
        _ => decide,
    }
}

/// The rules without the guard: a granted place confirms its booking whatever has happened to it meanwhile.
fn unguarded(row: Option<&Screening>, command: &Command, now: Timestamp) -> Result<Decision, Fault> {
    match (row, command) {
        (Some(row), Command::Confirm { booking, terms, .. }) if !row.is_fence() && row.state != State::Confirmed => {
            Ok(Decision::Change(Event::Confirmed(booking.clone(), terms.clone())))
        }
        _ => decide(row, command, now),
    }
}

/// The rules without the fence of a move: a granted claim moves its booking even if it was given back meanwhile.
fn forgetful(row: Option<&Screening>, command: &Command, now: Timestamp) -> Result<Decision, Fault> {
    match (row, command) {
        (Some(row), Command::Reschedule { .. }) => {
            decide(Some(&Screening { fenced_generation: 0, ..row.clone() }), command, now)
        }
        _ => decide(row, command, now),
    }
}

/// The rules without a limit on the bookings of a customer.
fn generous(row: Option<&Screening>, command: &Command, now: Timestamp) -> Result<Decision, Fault> {
    let mut command = command.clone();
    match &mut command {
        Command::Confirm { conflict, .. } | Command::Queue { conflict, .. } | Command::Reschedule { conflict, .. } => {
            conflict.take_if(|conflict| matches!(conflict, Conflict::Limit(_)));
        }
        _ => {}
    }
    decide(row, &command, now)
}

/// The consumer, changed if the mutant changes its handler.
pub(crate) fn over(consumer: Consumer, site: &Arc<Site>) -> Consumer {
    if site.plan.mutant == Some(Mutant::FirstOfFrame) {
        let handler = Arc::new(FirstOfFrame(Arc::clone(&consumer.handler)));
        return Consumer { handler, ..consumer };
    }
    let Location::Sqlite(database) = consumer.database.location().clone() else { return consumer };
    let (inner, site) = (Arc::clone(&consumer.handler), Arc::clone(site));
    let handler: Arc<dyn Handler> = match site.plan.mutant {
        Some(Mutant::ReplayTwice) if consumer.name == RELEASES => Arc::new(Counting { inner, database, site }),
        Some(Mutant::LatePromotion) if consumer.name == RELEASES => Arc::new(Queueless { inner, database, site }),
        _ => return consumer,
    };
    Consumer { handler, ..consumer }
}

/// The versions that a producer looks up, changed if the mutant changes them.
pub(crate) fn known_to(versions: Arc<dyn Versions>, site: &Arc<Site>) -> Arc<dyn Versions> {
    if site.plan.mutant == Some(Mutant::ForgetsNewest) { Arc::new(TooNew(versions)) } else { versions }
}

/// Versions that are too high by one, so every event seems to be an old one.
#[derive(Debug)]
struct TooNew(Arc<dyn Versions>);

#[async_trait]
impl Versions for TooNew {
    async fn of(
        &self,
        connection: &dyn Connection,
        aggregates: HashSet<Aggregate>,
    ) -> Result<HashMap<Aggregate, i64>, DbErr> {
        let mut versions = self.0.of(connection, aggregates).await?;
        versions.values_mut().for_each(|version| *version += 1);
        Ok(versions)
    }
}

/// A handler that takes the first event of a frame for the whole.
struct FirstOfFrame(Arc<dyn Handler>);

#[async_trait]
impl Handler for FirstOfFrame {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let first = |event: &Incoming| {
            let mut event = event.clone();
            let (InboxKey::Ordered { part, .. } | InboxKey::Unordered { part, .. }) = &mut event.inbox_key;
            let index = std::mem::replace(part, Part::WHOLE).index;
            (index == 0).then_some(event)
        };
        self.0.handle(&batch.iter().filter_map(first).collect::<Vec<_>>()).await
    }

    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault> {
        self.0.store_dead_letter(dead_letter, inbox_key).await
    }
}

/// A handler that gives back one more place each time an event is repeated.
struct Counting {
    inner: Arc<dyn Handler>,
    database: PathBuf,
    site: Arc<Site>,
}

#[async_trait]
impl Handler for Counting {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let events: Vec<_> = batch.iter().map(|event| (event.event_id, slot(event))).collect();
        self.inner.handle(batch).await?;
        let again = events.into_iter().filter(|(event, _)| self.site.applied.again(*event));
        for slot in again.filter_map(|(_, slot)| slot) {
            let slot = slot.replace("hospitals/", "").replace("slots/", "");
            let sql = format!("UPDATE slot SET booked_count = max(booked_count - 1, 0) WHERE id = '{slot}'");
            execute(&sql, &self.database, &self.site.side).map_err(|error| Fault::internal(error.to_string()))?;
        }
        Ok(())
    }

    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault> {
        self.inner.store_dead_letter(dead_letter, inbox_key).await
    }
}

/// A handler for which nobody waits for a place.
struct Queueless {
    inner: Arc<dyn Handler>,
    database: PathBuf,
    site: Arc<Site>,
}

impl Queueless {
    /// Makes it too late for everybody who waits, or undoes that with another sign.
    fn close(&self, sign: &str) -> Result<(), Fault> {
        let sql = format!("UPDATE claim SET promotion_close_time = {sign}abs(promotion_close_time) WHERE state = 4");
        execute(&sql, &self.database, &self.site.side).map_err(|error| Fault::internal(error.to_string()))
    }
}

#[async_trait]
impl Handler for Queueless {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        self.close("-")?;
        let outcome = self.inner.handle(batch).await;
        self.close("+")?;
        outcome
    }

    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault> {
        self.inner.store_dead_letter(dead_letter, inbox_key).await
    }
}

/// The slot whose place an event gives back.
fn slot(event: &Incoming) -> Option<String> {
    match event.envelope.payload.clone()? {
        Payload::ScreeningCancelled(cancelled) if !cancelled.claim_id.is_empty() => Some(cancelled.screening?.slot),
        Payload::ScreeningRejected(rejected) if !rejected.claim_id.is_empty() => Some(rejected.screening?.slot),
        Payload::ScreeningRescheduled(moved) => Some(moved.previous_slot),
        _ => None,
    }
}
