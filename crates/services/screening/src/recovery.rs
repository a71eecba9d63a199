//! Restores bookings that Screening lost, from what the other services know.
//!
//! It runs while the service is stopped. Restored rows are published again under the versions that they have, so
//! consumers that have applied these versions change nothing. A second run changes nothing at all.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use domain::event::{Cause, envelope};
use domain::ids::{ClaimId, ScreeningId, SlotId};
use domain::recovery::{Answered, given_up};
use domain::request::RequestKey;
use domain::screening::{Screening, State, state_fact};
use fault::Fault;
use jiff::Timestamp;
use runtime::clock::Clock;
use runtime::entropy::uuid_v7;
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};
use store::past::{self, Gap};
use store::request_record::{self, Record};
use store::{BatchHandler, Database, DbErr, Transaction, outbox};

use crate::NAME;
use crate::batch::service_actor;
use crate::tables::row::{self, Column, Entity};
use crate::tables::watch::{self, Orphan};
use crate::tables::{CustomerDate, CustomerSlot, active, by_ids, present, waiting};
use store::Fetch as _;

/// The names of this service's durable consumers.
pub const CONSUMERS: &[&str] = &[crate::CONSUMER];

/// What the other services know and this service has lost.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Bookings in their newest known state.
    pub bookings: Vec<Screening>,
    /// Calls that were answered. A call about a booking that is missing here is skipped.
    pub answered: Vec<Answered>,
    /// Claims that hold places which their bookings have left. The service has them released once it runs.
    pub left: Vec<(ClaimId, SlotId)>,
    /// The greatest position of this service's log that any consumer has read. The log continues after it.
    pub read: i64,
    /// The gap of the log to close, because nothing that was lost in it is missing once this is written.
    pub closes: Option<Gap>,
}

/// What was recovered, as a report for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bookings that were missing and are restored.
    pub made: Vec<ScreeningId>,
    /// Bookings that were older here and are brought up to date.
    pub changed: Vec<ScreeningId>,
    /// Bookings that were ended, because the same customer made a later one for the same date, or joined the same queue
    /// later.
    pub ended: Vec<ScreeningId>,
}

/// Reads at most `limit` rows in the order of their ids, fences included, after `after`.
///
/// # Errors
/// Fails if the database does.
pub async fn bookings(database: &Database, after: Option<ScreeningId>, limit: u64) -> Result<Vec<Screening>, DbErr> {
    let mut select = Entity::find();
    if let Some(after) = after {
        select = select.filter(Column::Id.gt(after.0));
    }
    let rows = select.order_by_asc(Column::Id).limit(limit).fetch(database.reader()).await?;
    rows.into_iter().map(row::Model::into_domain).collect()
}

/// Reads the rows with these ids, fences included.
///
/// # Errors
/// Fails if the database does.
pub async fn find(
    database: &Database,
    ids: impl IntoIterator<Item = ScreeningId>,
) -> Result<HashMap<ScreeningId, Screening>, DbErr> {
    by_ids(database.reader(), ids).await
}

/// Filters the calls that have no request record here.
///
/// # Errors
/// Fails if the database does.
pub async fn unrecorded(database: &Database, answered: Vec<Answered>) -> Result<Vec<Answered>, DbErr> {
    let keys: Vec<&RequestKey> = answered.iter().map(|call| &call.key).collect();
    let held = request_record::find(database.reader(), &keys).await?;
    let missing = |call: &Answered| !held.contains_key(&call.key);
    Ok(answered.iter().filter(|call| missing(call)).cloned().collect())
}

/// Writes what the other services know.
///
/// # Errors
/// Fails if the writer does. Then nothing was written, or the outcome is unknown; in both cases it may be run again.
pub async fn recover(database: &Database, known: Known, clock: Clock) -> Result<Recovered, Fault> {
    store::writer::run_once(NAME, RecoveryHandler(clock), database.clone(), known).await
}

/// The batch handler of the recovery's only command.
struct RecoveryHandler(Clock);

#[async_trait]
impl BatchHandler for RecoveryHandler {
    type Command = Known;
    type Answer = Recovered;

    async fn execute(&self, transaction: &Transaction, batch: &[&Known]) -> Result<Vec<Recovered>, DbErr> {
        let mut answers = Vec::with_capacity(batch.len());
        for known in batch {
            answers.push(run(transaction, known, self.0.now()).await?);
        }
        Ok(answers)
    }
}

async fn run(transaction: &Transaction, known: &Known, now: Timestamp) -> Result<Recovered, DbErr> {
    past::advance_log(transaction, known.read).await?;
    let mut held = by_ids(transaction, known.bookings.iter().map(|row| row.id)).await?;
    let newer = |row: &&Screening| held.get(&row.id).is_none_or(|held| row.version > held.version);
    let mut rows: Vec<Screening> = known.bookings.iter().filter(newer).cloned().collect();
    let mut ended = alone_on_their_dates(transaction, &mut rows, &mut held).await?;
    ended.extend(alone_in_their_queues(transaction, &mut rows, &mut held).await?);

    let mut recovered = Recovered { ended, ..Recovered::default() };
    let (mut created, mut changed) = (Vec::new(), Vec::new());
    for row in &rows {
        match held.remove(&row.id) {
            None => {
                recovered.made.push(row.id);
                created.push(row.clone());
            }
            Some(before) => {
                recovered.changed.push(row.id);
                changed.push((before, row.clone()));
            }
        }
    }
    // A booking may have moved to a date that another one has left since. So all of them leave their dates before any
    // comes to its new one.
    let moved = changed.iter().filter(|(before, row)| before.slot != row.slot && before.state.is_active());
    let nowhere = |before: &Screening| (before.clone(), Screening { state: State::Cancelled, ..before.clone() });
    row::update(transaction, moved.map(|(before, _)| nowhere(before)).collect()).await?;
    // updates first: a booking that ended makes room for one that is restored
    row::update(transaction, changed).await?;
    row::insert(transaction, created).await?;
    let claims: HashSet<ClaimId> = rows.iter().map(Screening::claim).collect();
    watch::delete(transaction, &claims).await?;
    // the events of their promotions may have been consumed by what was lost, so Hospital is asked
    let waiting = rows.iter().filter(|row| row.state == State::Waitlisted).map(|row| (row.claim(), &row.slot));
    let left = known.left.iter().map(|(claim, slot)| (*claim, slot));
    let due = left.chain(waiting).map(|(claim, slot)| due_at_once(claim, slot));
    watch::insert(transaction, &due.collect::<Vec<_>>()).await?;
    let cause = Cause {
        actor: service_actor(),
        request_id: String::new(),
        causation_id: String::new(),
        traceparent: String::new(),
    };
    let facts = rows.iter().map(|row| {
        envelope(NAME, &cause, row.update_time, uuid_v7(), row.id.to_string(), row.version, state_fact(row))
    });
    outbox::append(transaction, &facts.collect::<Vec<_>>()).await?;
    restore_requests(transaction, &known.answered).await?;
    if let Some(gap) = known.closes {
        past::close(transaction, gap, now).await?;
    }
    Ok(recovered)
}

/// A claim to look at as soon as the service runs.
fn due_at_once(claim: ClaimId, slot: &SlotId) -> Orphan {
    let (seen, event_id) = (Timestamp::UNIX_EPOCH, uuid_v7());
    Orphan { claim, slot: slot.clone(), seen, event_id, traceparent: String::new() }
}

/// Restores the request records of calls, so that a repetition gets the same answer.
async fn restore_requests(transaction: &Transaction, answered: &[Answered]) -> Result<(), DbErr> {
    let here = present(transaction, answered.iter().map(|call| call.screening).collect()).await?;
    let record = |call: &Answered| Record {
        key: call.key.clone(),
        fingerprint: Vec::new(),
        resource: call.screening.to_string(),
        time: call.time,
    };
    let records = answered.iter().filter(|call| here.contains(&call.screening)).map(record);
    request_record::restore(transaction, records.collect()).await
}

/// Leaves each customer at most one active booking per date: the one that came to it last, by being made or moved. It
/// could only come after the others had ended or left, even if no service remembers that they did.
async fn alone_on_their_dates(
    transaction: &Transaction,
    rows: &mut Vec<Screening>,
    held: &mut HashMap<ScreeningId, Screening>,
) -> Result<Vec<ScreeningId>, DbErr> {
    let is_active = |row: &Screening| row.state.is_active();
    let customers = rows.iter().filter(|row| is_active(row)).filter_map(|row| row.customer.as_ref());
    let active_bookings = active(transaction, customers).await?;
    let given: HashSet<ScreeningId> = rows.iter().map(|row| row.id).collect();
    let others = active_bookings.into_values().filter(|id| !given.contains(id));
    let others = by_ids(transaction, others).await?;
    let dates: HashSet<CustomerDate> = rows.iter().filter(|row| is_active(row)).filter_map(date_of).collect();
    for (id, other) in others {
        if date_of(&other).is_some_and(|date| dates.contains(&date)) {
            rows.push(other.clone());
            held.insert(id, other);
        }
    }
    rows.sort_by_key(|row| (came(row), row.id));
    let mut last: HashMap<CustomerDate, usize> = HashMap::new();
    let mut ended = Vec::new();
    for index in 0..rows.len() {
        let Some(date) = date_of(&rows[index]).filter(|_| is_active(&rows[index])) else { continue };
        if let Some(earlier) = last.insert(date, index) {
            rows[earlier] = given_up(&rows[earlier]);
            ended.push(rows[earlier].id);
        }
    }
    // rows that were added for this comparison and did not change need no write
    rows.retain(|row| held.get(&row.id) != Some(row));
    Ok(ended)
}

/// When a booking came to its date. One that moved or got its place from a queue came there after it was made; nothing
/// else of its customer was active there while it was PENDING, so for one that was, it makes no difference.
fn came(row: &Screening) -> Timestamp {
    if row.version > 1 { row.update_time } else { row.create_time }
}

/// Leaves each customer at most one WAITLISTED booking per slot: the one that joined last. It could only join after the
/// others had left the queue.
async fn alone_in_their_queues(
    transaction: &Transaction,
    rows: &mut Vec<Screening>,
    held: &mut HashMap<ScreeningId, Screening>,
) -> Result<Vec<ScreeningId>, DbErr> {
    let joined: HashSet<CustomerSlot> = rows.iter().filter_map(queue_of).collect();
    let given: HashSet<ScreeningId> = rows.iter().map(|row| row.id).collect();
    let others = waiting(transaction, joined.iter().map(|(customer, _)| customer)).await?;
    let others = others.into_iter().filter(|(queue, id)| joined.contains(queue) && !given.contains(id));
    for (id, other) in by_ids(transaction, others.map(|(_, id)| id)).await? {
        rows.push(other.clone());
        held.insert(id, other);
    }
    rows.sort_by_key(|row| (row.create_time, row.id));
    let mut last: HashMap<CustomerSlot, usize> = HashMap::new();
    let mut ended = Vec::new();
    for index in 0..rows.len() {
        let Some(queue) = queue_of(&rows[index]) else { continue };
        if let Some(earlier) = last.insert(queue, index) {
            rows[earlier] = given_up(&rows[earlier]);
            ended.push(rows[earlier].id);
        }
    }
    // rows that were added for this comparison and did not change need no write
    rows.retain(|row| held.get(&row.id) != Some(row));
    Ok(ended)
}

/// The queue that a booking waits in.
fn queue_of(row: &Screening) -> Option<CustomerSlot> {
    let customer = row.customer.clone().filter(|_| row.state == State::Waitlisted);
    customer.map(|customer| (customer, row.slot.clone()))
}

fn date_of(row: &Screening) -> Option<CustomerDate> {
    row.customer.clone().map(|customer| (customer, row.slot.date))
}
