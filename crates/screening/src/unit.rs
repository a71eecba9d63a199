//! What the writer does: every change of this service, decided in `domain` and written set-wise in one transaction.
//!
//! A batch is loaded at once, decided command by command over a working copy, and saved at once. Running a committed batch
//! again changes nothing: bookings by their ids, other calls by their request records, events by their inbox marks.

#[cfg(test)]
mod tests;
mod work;

use std::collections::HashSet;

use ::store::dead_letter::{self, DeadLetter};
use ::store::inbox::{self, Mark};
use ::store::{Transaction, Unit, Writer, micros, outbox, request_record, timestamp};
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
use tokio::time::Instant;
use uuid::Uuid;

use crate::Rules;
use crate::policy::CONSUMER;
use crate::store;
use crate::store::watch::{self, Orphan};
use work::Work;

pub(crate) use work::ours;

/// One request to change something.
#[derive(Debug)]
pub(crate) enum Command {
    /// Writes a new booking.
    Book(Book),
    /// Moves a PENDING booking on, for the resolver.
    Settle(Settle),
    /// Changes a booking, for a caller.
    Change(Change),
    /// Applies events.
    Consume(Vec<Heard>),
    /// Keeps an event that cannot be applied.
    Bury(DeadLetter, Mark),
    /// Gives up claims that nobody has booked.
    Fence(Vec<Orphan>),
    /// Reports refused demand.
    Report(Report),
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
pub(crate) struct Change {
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
pub(crate) struct Heard {
    /// What the inbox recognises it by.
    pub(crate) mark: Mark,
    /// Its id.
    pub(crate) event_id: Uuid,
    /// What a reaction to it is caused by.
    pub(crate) cause: Cause,
    /// What it says.
    pub(crate) news: News,
}

impl Heard {
    /// Whether the inbox has to remember it by itself. A place that was taken matters until its screening has a row, and rows never
    /// go away: heard again, it changes nothing. Events that come in order have a cursor, which every one of them moves.
    pub(crate) fn is_remembered(&self) -> bool {
        matches!(self.mark, Mark::Ordered { .. }) || matches!(self.news, News::Revoked { .. })
    }
}

/// What an event says.
#[derive(Debug, Clone)]
pub(crate) enum News {
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
pub(crate) struct Report {
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

/// The unit of Screening's writer.
#[derive(Debug)]
pub(crate) struct ScreeningUnit {
    clock: Clock,
    rules: Rules,
}

impl ScreeningUnit {
    pub(crate) fn new(clock: Clock, rules: Rules) -> Self {
        Self { clock, rules }
    }
}

#[async_trait]
impl Unit for ScreeningUnit {
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
    let (mut keys, mut ids, mut customers, mut marks, mut slots) = (vec![], HashSet::new(), vec![], vec![], vec![]);
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
                marks.extend(events.iter().filter(|event| event.is_remembered()).map(|event| &event.mark));
                for event in events {
                    match &event.news {
                        // of a place that was taken only matters whether somebody booked it
                        News::Reserved { claim, .. } => taken.push(claim.screening),
                        News::Revoked { claim, .. } => drop(ids.insert(claim.screening)),
                        News::Other => {}
                    }
                }
            }
            Command::Bury(_, mark) => marks.push(mark),
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
    let rows = if ids.is_empty() { Default::default() } else { store::by_ids_for_update(transaction, ids).await? };
    let booked = store::present(transaction, taken).await?;
    if !rows.is_empty() {
        // nobody was waited for where nothing was locked
        request_record::still(transaction, &keys, &records).await?;
    }
    let active = store::active(transaction, customers).await?;
    let versions = store::refusal::versions(transaction, slots).await?;
    let fresh = if marks.is_empty() { Vec::new() } else { inbox::admit(transaction, CONSUMER, &marks).await? };
    Ok(Work::new((now, rules), records, (rows, booked), active, versions, fresh))
}

/// Writes, in one statement a table, what was decided.
async fn save(transaction: &Transaction, work: Work, batch: &[&Command]) -> Result<(), DbErr> {
    let effects = work.into_effects();
    store::row::update(transaction, effects.changed).await?;
    store::row::insert(transaction, effects.created).await?;
    request_record::insert(transaction, effects.records).await?;
    watch::insert(transaction, &effects.watched).await?;
    watch::delete(transaction, &effects.unwatched).await?;
    store::refusal::save(transaction, &effects.reported).await?;
    inbox::record_ignored(transaction, effects.ignored).await?;
    outbox::append(transaction, effects.events).await?;
    for letter in &effects.buried {
        dead_letter::put(transaction, letter).await?;
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
pub(crate) struct Ledger {
    writer: Writer<ScreeningUnit>,
}

impl Ledger {
    pub(crate) fn new(writer: Writer<ScreeningUnit>) -> Self {
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
    pub(crate) async fn change(&self, change: Change, deadline: Instant) -> Result<Screening, Fault> {
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
    Fault::internal("the unit answered another command")
}
