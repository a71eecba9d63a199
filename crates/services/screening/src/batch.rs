//! What the writer does: every change of this service, decided in `domain` and written set-wise in one transaction.
//!
//! A batch is loaded at once, decided command by command over a working copy, and saved at once. Running a committed batch
//! again changes nothing: bookings by their ids, other calls by their request records, events by their inbox keys.

#[cfg(test)]
mod tests;
mod work;

use std::collections::HashSet;

use async_trait::async_trait;
use domain::access::Scope;
use domain::event::Cause;
use domain::ids::{ClaimId, ScreeningId, SlotId};
use domain::request::Request;
use domain::screening::{self, Booking, Revocation, Screening, Terms};
use fault::Fault;
use jiff::Timestamp;
use runtime::clock::Clock;
use sea_orm::DbErr;
use store::dead_letter::{self, DeadLetter};
use store::inbox::{self, InboxKey};
use store::{BatchHandler, Transaction, Writer, micros, outbox, request_record, timestamp};
use tokio::time::Instant;
use uuid::Uuid;

use crate::Rules;
use crate::reactions::CONSUMER;
use crate::tables;
use crate::tables::watch::{self, Orphan};
use work::Work;

pub(crate) use work::service_actor;

/// One request to change something.
#[derive(Debug)]
pub(crate) enum Command {
    /// Writes a new booking.
    Book(Book),
    /// Moves a PENDING booking on, for the resolver.
    Settle(Settle),
    /// Changes a booking, for a caller.
    Change(BookingChange),
    /// Applies events.
    Consume(Vec<ClaimEvent>),
    /// Keeps an event that cannot be applied.
    StoreDeadLetter(DeadLetter, InboxKey),
    /// Gives up claims that nobody has booked.
    Fence(Vec<Orphan>),
    /// Reports refused demand.
    Report(RefusalReport),
    /// Forgets requests answered before this.
    Purge(Timestamp),
}

/// A booking that Hospital has answered, or could not.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    /// The call, where its caller chose a request_id. Where not, the booking's own id is as unique.
    pub(crate) request: Option<Request>,
    /// Who books, and in which trace.
    pub(crate) cause: Cause,
    /// What.
    pub(crate) booking: Booking,
    /// What Hospital said along with the place, or what is known from before.
    pub(crate) terms: Terms,
    /// Whether it waits for Hospital.
    pub(crate) parked: bool,
}

/// What became of a [`Book`].
#[derive(Debug)]
pub(crate) enum Booked {
    /// There is this booking.
    Row(Box<Screening>),
    /// The caller is refused.
    Refused(Fault),
    /// The id is used up.
    Fenced,
}

/// What the resolver found out about a PENDING booking.
#[derive(Debug, Clone)]
pub(crate) struct Settle {
    /// Which one.
    pub(crate) id: ScreeningId,
    /// What follows.
    pub(crate) command: screening::Command,
    /// Why, and in which trace.
    pub(crate) cause: Cause,
}

/// A change of a booking that a caller asks for.
#[derive(Debug, Clone)]
pub(crate) struct BookingChange {
    /// The call.
    pub(crate) request: Request,
    /// What its caller may see.
    pub(crate) scope: Scope,
    /// Which booking.
    pub(crate) id: ScreeningId,
    /// What is asked.
    pub(crate) command: screening::Command,
    /// Who asks, and in which trace.
    pub(crate) cause: Cause,
}

/// An event, as far as it concerns this service.
#[derive(Debug, Clone)]
pub(crate) struct ClaimEvent {
    /// What the inbox recognises it by.
    pub(crate) inbox_key: InboxKey,
    /// Its id.
    pub(crate) event_id: Uuid,
    /// What a reaction to it is caused by.
    pub(crate) cause: Cause,
    /// What it says.
    pub(crate) fact: ClaimFact,
}

impl ClaimEvent {
    /// Whether the inbox has to remember it by itself. A place that was taken matters until its screening has a row, and rows never
    /// go away: heard again, it changes nothing. Events that come in order have a cursor, which every one of them moves.
    pub(crate) fn is_remembered(&self) -> bool {
        matches!(self.inbox_key, InboxKey::Ordered { .. }) || matches!(self.fact, ClaimFact::Revoked { .. })
    }
}

/// What an event says.
#[derive(Debug, Clone)]
pub(crate) enum ClaimFact {
    /// A place was taken.
    Reserved {
        /// By which claim.
        claim: ClaimId,
        /// Where.
        slot: SlotId,
    },
    /// A place was taken away.
    Revoked {
        /// Of which claim.
        claim: ClaimId,
        /// Where.
        slot: SlotId,
        /// Why.
        reason: Revocation,
        /// The admin's words.
        message: String,
    },
    /// Nothing of concern.
    Other,
}

/// Demand that full slots turned away since the last report.
#[derive(Debug, Clone)]
pub(crate) struct RefusalReport {
    /// The identity of this report.
    pub(crate) request: Request,
    /// How many refusals each slot had.
    pub(crate) counts: Vec<(SlotId, i64)>,
}

/// What a command leads to.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Of a [`Command::Book`].
    Booked(Booked),
    /// Of a [`Command::Settle`] or a [`Command::Change`].
    Row(Result<Box<Screening>, Fault>),
    /// Of the others.
    Done,
}

/// The batch handler of Screening's writer.
#[derive(Debug)]
pub(crate) struct ScreeningBatchHandler {
    clock: Clock,
    rules: Rules,
}

impl ScreeningBatchHandler {
    pub(crate) fn new(clock: Clock, rules: Rules) -> Self {
        Self { clock, rules }
    }
}

#[async_trait]
impl BatchHandler for ScreeningBatchHandler {
    type Command = Command;
    type Answer = Answer;

    async fn execute(&self, transaction: &Transaction, batch: &[&Command]) -> Result<Vec<Answer>, DbErr> {
        // as precise as it is stored, so that an answer and a later read say the same
        let now = timestamp(micros(self.clock.now()));
        let mut work = load(transaction, batch, self.rules, now).await?;
        let answers = batch.iter().map(|command| work.run(command)).collect();
        save(transaction, work, batch).await?;
        Ok(answers)
    }
}

/// Reads, in one statement a table, what the batch is about; and which of its events are new.
async fn load(transaction: &Transaction, batch: &[&Command], rules: Rules, now: Timestamp) -> Result<Work, DbErr> {
    let (mut keys, mut ids, mut customers, mut inbox_keys, mut slots) =
        (vec![], HashSet::new(), vec![], vec![], vec![]);
    let mut taken = Vec::new();
    for command in batch {
        match command {
            Command::Book(book) => {
                keys.extend(book.request.as_ref().map(|request| &request.key));
                ids.insert(book.booking.id);
                customers.push(&book.booking.customer);
            }
            Command::Settle(settle) => {
                ids.insert(settle.id);
            }
            Command::Change(change) => {
                keys.push(&change.request.key);
                ids.insert(change.id);
            }
            Command::Consume(events) => {
                inbox_keys.extend(events.iter().filter(|event| event.is_remembered()).map(|event| &event.inbox_key));
                for event in events {
                    match &event.fact {
                        // of a place that was taken only matters whether somebody booked it
                        ClaimFact::Reserved { claim, .. } => taken.push(claim.screening),
                        ClaimFact::Revoked { claim, .. } => drop(ids.insert(claim.screening)),
                        ClaimFact::Other => {}
                    }
                }
            }
            Command::StoreDeadLetter(_, inbox_key) => inbox_keys.push(inbox_key),
            Command::Fence(orphans) => ids.extend(orphans.iter().map(|orphan| orphan.claim.screening)),
            Command::Report(report) => {
                keys.push(&report.request.key);
                slots.extend(report.counts.iter().map(|(slot, _)| slot));
            }
            Command::Purge(_) => {}
        }
    }
    let records = request_record::find(transaction, &keys).await?;
    ids.extend(records.values().filter_map(|record| ScreeningId::parse(&record.resource).ok()));
    let rows = if ids.is_empty() { Default::default() } else { tables::by_ids_for_update(transaction, ids).await? };
    let booked = tables::present(transaction, taken).await?;
    if !rows.is_empty() {
        // nobody was waited for where nothing was locked
        request_record::ensure_unanswered(transaction, &keys, &records).await?;
    }
    let active = tables::active(transaction, customers).await?;
    let versions = tables::refusal::versions(transaction, slots).await?;
    let fresh =
        if inbox_keys.is_empty() { Vec::new() } else { inbox::admit(transaction, CONSUMER, &inbox_keys).await? };
    Ok(Work::new((now, rules), records, (rows, booked), active, versions, fresh))
}

/// Writes, in one statement a table, what was decided.
async fn save(transaction: &Transaction, work: Work, batch: &[&Command]) -> Result<(), DbErr> {
    let effects = work.into_effects();
    tables::row::update(transaction, effects.changed).await?;
    tables::row::insert(transaction, effects.created).await?;
    request_record::insert(transaction, effects.records).await?;
    watch::insert(transaction, &effects.watched).await?;
    watch::delete(transaction, &effects.unwatched).await?;
    tables::refusal::save(transaction, &effects.reported).await?;
    inbox::record_ignored(transaction, effects.ignored).await?;
    outbox::append(transaction, effects.events).await?;
    for dead_letter in &effects.dead_letters {
        dead_letter::put(transaction, dead_letter).await?;
    }
    let purge = batch.iter().filter_map(|command| match command {
        Command::Purge(limit) => Some(*limit),
        _ => None,
    });
    if let Some(limit) = purge.max() {
        request_record::purge(transaction, limit).await?;
    }
    Ok(())
}

/// The writer's handle, with an answer of the right type for each command.
#[derive(Debug, Clone)]
pub(crate) struct ScreeningWriter {
    writer: Writer<ScreeningBatchHandler>,
}

impl ScreeningWriter {
    pub(crate) fn new(writer: Writer<ScreeningBatchHandler>) -> Self {
        Self { writer }
    }

    /// Writes a booking.
    pub(crate) async fn book(&self, book: Book, deadline: Instant) -> Result<Booked, Fault> {
        match self.writer.submit(Command::Book(book), deadline).await? {
            Answer::Booked(booked) => Ok(booked),
            Answer::Row(_) | Answer::Done => Err(mismatch()),
        }
    }

    /// Moves a PENDING booking on; answers it as it is then.
    pub(crate) async fn settle(&self, settle: Settle, deadline: Instant) -> Result<Screening, Fault> {
        self.row(Command::Settle(settle), deadline).await
    }

    /// Changes a booking; answers it as it is then.
    pub(crate) async fn change(&self, change: BookingChange, deadline: Instant) -> Result<Screening, Fault> {
        self.row(Command::Change(change), deadline).await
    }

    async fn row(&self, command: Command, deadline: Instant) -> Result<Screening, Fault> {
        match self.writer.submit(command, deadline).await? {
            Answer::Row(row) => row.map(|row| *row),
            Answer::Booked(_) | Answer::Done => Err(mismatch()),
        }
    }

    /// Does what has no answer of its own.
    pub(crate) async fn done(&self, command: Command, deadline: Instant) -> Result<(), Fault> {
        match self.writer.submit(command, deadline).await? {
            Answer::Done => Ok(()),
            Answer::Booked(_) | Answer::Row(_) => Err(mismatch()),
        }
    }
}

fn mismatch() -> Fault {
    Fault::internal("the batch handler answered another command")
}
