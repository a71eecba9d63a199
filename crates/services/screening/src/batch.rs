//! The writer's batch handler. `domain` decides every change of this service, and a batch is one transaction.
//!
//! A batch is loaded at once, decided command by command on a working copy, and saved at once. If a batch that was
//! committed runs again, it changes nothing: bookings are recognised by their ids, other calls by their request
//! records, and events by their inbox keys.

mod load;
#[cfg(test)]
mod tests;
mod work;

use async_trait::async_trait;
use domain::access::Scope;
use domain::event::Cause;
use domain::ids::{ClaimId, ScreeningId, SlotId};
use domain::request::Request;
use domain::screening::{self, Booking, Queued, Reschedule, Revocation, Screening, Terms};
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
use crate::tables;
use crate::tables::watch::{self, Orphan};
use work::Work;

pub(crate) use work::service_actor;

#[derive(Debug)]
pub(crate) enum Command {
    /// Writes a new booking.
    Book(Book),
    /// Settles a PENDING or WAITLISTED booking, or fences a claim of a move.
    Settle(Settle),
    /// Changes a booking for a caller.
    Change(BookingChange),
    /// Moves a booking to a slot on which it got a place.
    Reschedule(Move),
    /// Applies Hospital's events.
    Consume(Vec<ClaimEvent>),
    /// Stores an event that cannot be applied.
    StoreDeadLetter(DeadLetter, InboxKey),
    /// Fences claims that no booking holds, and finds those of bookings that wait.
    Fence(Vec<Orphan>),
    /// Stops watching claims whose places Hospital has back, and those about which it was asked.
    Unwatch(Vec<ClaimId>),
    /// Reports refusals of full slots.
    Report(RefusalReport),
    /// Deletes request records from before this time.
    Purge(Timestamp),
}

/// A new booking, after Hospital answered or did not.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    /// The call, if its caller chose a request_id. Otherwise the booking's own id makes it unique.
    pub(crate) request: Option<Request>,
    pub(crate) cause: Cause,
    pub(crate) booking: Booking,
    /// The terms that Hospital answered with, or what is known from earlier answers.
    pub(crate) terms: Terms,
    pub(crate) holds: Holds,
}

/// What Hospital gave for a new booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Place,
    /// A position in the queue of the slot.
    Ticket(Queued),
    /// Nothing is known, because Hospital is out of reach. The booking is written as PENDING.
    Nothing,
}

/// A move of a booking for a caller, after Hospital gave a place.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) request: Request,
    /// The bookings that the caller may see.
    pub(crate) scope: Scope,
    pub(crate) id: ScreeningId,
    pub(crate) asked: Reschedule,
    /// The generation of the claim that has the place.
    pub(crate) generation: i32,
    /// The terms that Hospital answered with the place.
    pub(crate) terms: Terms,
    pub(crate) cause: Cause,
}

/// The result of a [`Book`] or a [`Move`].
#[derive(Debug)]
pub(crate) enum Booked {
    /// The booking is stored.
    Row(Box<Screening>),
    Refused(Fault),
    /// The move is refused, and the claim that it brought is fenced.
    Left(Fault),
    /// The id or the claim was fenced before the booking could be written.
    Fenced,
}

/// What Hospital's answer means for a PENDING or WAITLISTED booking, or for one that is to move.
#[derive(Debug, Clone)]
pub(crate) struct Settle {
    pub(crate) id: ScreeningId,
    pub(crate) command: screening::Command,
    pub(crate) cause: Cause,
}

/// A change of a booking for a caller.
#[derive(Debug, Clone)]
pub(crate) struct BookingChange {
    pub(crate) request: Request,
    /// The bookings that the caller may see.
    pub(crate) scope: Scope,
    pub(crate) id: ScreeningId,
    pub(crate) command: screening::Command,
    pub(crate) cause: Cause,
}

/// An event of Hospital, reduced to what concerns this service.
#[derive(Debug, Clone)]
pub(crate) struct ClaimEvent {
    /// Where the event stands in its log; the inbox uses it to detect a repetition.
    pub(crate) inbox_key: InboxKey,
    pub(crate) event_id: Uuid,
    /// The cause of what this event brings about.
    pub(crate) cause: Cause,
    pub(crate) fact: ClaimFact,
}

impl ClaimEvent {
    /// Whether the inbox has to store this event by itself. Events about claims that were made or got a place need no
    /// entry where events come without an order: once the screening has a row, which is never deleted, the event of a
    /// claim that was made changes nothing, or has a claim released that was released before; and a row waits once in
    /// its life, so only the first delivery can find it waiting. Where events come in order, each one moves the cursor.
    pub(crate) fn is_remembered(&self) -> bool {
        matches!(self.inbox_key, InboxKey::Ordered { .. }) || matches!(self.fact, ClaimFact::Revoked { .. })
    }
}

#[derive(Debug, Clone)]
pub(crate) enum ClaimFact {
    /// A claim was made, which holds a place or waits for one.
    Made { claim: ClaimId, slot: SlotId },
    /// A claim that waited got a place.
    Promoted { claim: ClaimId, slot: SlotId },
    /// Hospital took a claim away.
    Revoked {
        claim: ClaimId,
        slot: SlotId,
        reason: Revocation,
        /// What the admin wrote.
        message: String,
    },
    /// The event does not concern this service.
    Other,
}

/// How many bookings full slots refused since the last report.
#[derive(Debug, Clone)]
pub(crate) struct RefusalReport {
    /// Identifies the report, so that a repetition counts once.
    pub(crate) request: Request,
    /// How many refusals each slot had.
    pub(crate) counts: Vec<(SlotId, i64)>,
}

/// The result of a command.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The result of a [`Command::Book`] or a [`Command::Reschedule`].
    Booked(Booked),
    /// The result of a [`Command::Settle`] or a [`Command::Change`].
    Row(Result<Box<Screening>, Fault>),
    /// The result of a [`Command::Fence`].
    Fenced(Unsettled),
    /// The result of any other command.
    Done,
}

/// Claims of a [`Command::Fence`] about which Hospital is to be asked. They stay watched until it has answered.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Unsettled {
    /// The claims to release. No event tells Hospital of these.
    pub(crate) left: Vec<Orphan>,
    /// The bookings whose claims waited at last, as far as their rows tell.
    pub(crate) waiting: Vec<Screening>,
}

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
        // as precise as the database stores it, so that an answer and a later read agree
        let now = timestamp(micros(self.clock.now()));
        let mut work = load::load(transaction, batch, self.rules, now).await?;
        let answers = batch.iter().map(|command| work.run(command)).collect();
        save(transaction, work, batch).await?;
        Ok(answers)
    }
}

/// Writes the results of a batch, one statement per table.
async fn save(transaction: &Transaction, work: Work, batch: &[&Command]) -> Result<(), DbErr> {
    let effects = work.into_effects();
    tables::row::update(transaction, effects.changed).await?;
    tables::row::insert(transaction, effects.created).await?;
    tables::limit::insert(transaction, effects.newly_limited.iter()).await?;
    request_record::insert(transaction, effects.records).await?;
    watch::insert(transaction, &effects.watched).await?;
    watch::delete(transaction, &effects.unwatched).await?;
    tables::refusal::save(transaction, &effects.reported).await?;
    inbox::record_ignored(transaction, effects.ignored).await?;
    outbox::append(transaction, &effects.events).await?;
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

/// A handle on the writer that returns the right type of answer for each command.
#[derive(Debug, Clone)]
pub(crate) struct ScreeningWriter {
    writer: Writer<ScreeningBatchHandler>,
}

impl ScreeningWriter {
    pub(crate) fn new(writer: Writer<ScreeningBatchHandler>) -> Self {
        Self { writer }
    }

    /// Runs a [`Command::Book`] or a [`Command::Reschedule`].
    pub(crate) async fn booked(&self, command: Command, deadline: Instant) -> Result<Booked, Fault> {
        match self.writer.submit(command, deadline).await? {
            Answer::Booked(booked) => Ok(booked),
            Answer::Row(_) | Answer::Fenced(_) | Answer::Done => Err(mismatch()),
        }
    }

    /// Fences claims that no booking holds. Returns those about which Hospital is to be asked.
    pub(crate) async fn fence(&self, orphans: Vec<Orphan>, deadline: Instant) -> Result<Unsettled, Fault> {
        match self.writer.submit(Command::Fence(orphans), deadline).await? {
            Answer::Fenced(unsettled) => Ok(unsettled),
            Answer::Booked(_) | Answer::Row(_) | Answer::Done => Err(mismatch()),
        }
    }

    /// Runs a [`Command::Settle`]. Returns the booking as it is afterwards.
    pub(crate) async fn settle(&self, settle: Settle, deadline: Instant) -> Result<Screening, Fault> {
        self.row(Command::Settle(settle), deadline).await
    }

    /// Changes a booking. Returns it as it is afterwards.
    pub(crate) async fn change(&self, change: BookingChange, deadline: Instant) -> Result<Screening, Fault> {
        self.row(Command::Change(change), deadline).await
    }

    async fn row(&self, command: Command, deadline: Instant) -> Result<Screening, Fault> {
        match self.writer.submit(command, deadline).await? {
            Answer::Row(row) => row.map(|row| *row),
            Answer::Booked(_) | Answer::Fenced(_) | Answer::Done => Err(mismatch()),
        }
    }

    /// Runs a command that has no result.
    pub(crate) async fn done(&self, command: Command, deadline: Instant) -> Result<(), Fault> {
        match self.writer.submit(command, deadline).await? {
            Answer::Done => Ok(()),
            Answer::Booked(_) | Answer::Row(_) | Answer::Fenced(_) => Err(mismatch()),
        }
    }
}

fn mismatch() -> Fault {
    Fault::internal("the batch handler answered another command")
}
