//! Reads the rows that a batch needs, one statement per table. What no command of the batch needs is not read.

use std::collections::{BTreeSet, HashMap, HashSet};

use domain::ids::{CustomerId, HospitalId, ScreeningId, SlotId};
use domain::request::RequestKey;
use domain::screening::{self, Booking, CustomerBookings, FIRST_GENERATION, Screening, State, Terms};
use jiff::Timestamp;
use sea_orm::DbErr;
use store::inbox::{self, InboxKey};
use store::{Transaction, request_record};

use super::work::{Others, Work};
use super::{Book, ClaimEvent, ClaimFact, Command, Holds};
use crate::tables::limit::{self, CustomerHospital};
use crate::tables::{self, refusal};
use crate::{CONSUMER, Rules};

/// What the commands of a batch need.
#[derive(Debug, Default)]
struct Wanted<'a> {
    keys: Vec<&'a RequestKey>,
    ids: HashSet<ScreeningId>,
    /// Screenings of which only matters whether they have a row.
    made: Vec<ScreeningId>,
    /// Customers whose active bookings matter.
    customers: Vec<&'a CustomerId>,
    /// Customers whose WAITLISTED bookings matter, because a booking of theirs may join a queue.
    joining: Vec<&'a CustomerId>,
    /// Bookings that may come to a new date. The active bookings of their customers matter.
    moving: Vec<ScreeningId>,
    /// Bookings that may become active, if they wait. The active bookings of their customers matter then.
    settling: Vec<ScreeningId>,
    /// Customers whose bookings at a hospital matter, because it limits them.
    limited: BTreeSet<CustomerHospital>,
    /// Bookings that may come to another hospital, which limits them.
    limited_moves: Vec<(ScreeningId, &'a HospitalId)>,
    inbox_keys: Vec<&'a InboxKey>,
    slots: Vec<&'a SlotId>,
}

impl<'a> Wanted<'a> {
    fn add(&mut self, command: &'a Command) {
        match command {
            Command::Book(Book { request, booking, terms, holds, .. }) => {
                if *holds != Holds::Nothing {
                    self.limit(booking, terms);
                }
                self.keys.extend(request.as_ref().map(|request| &request.key));
                self.ids.insert(booking.id);
                self.customers.push(&booking.customer);
                self.joining.extend((booking.joins_waitlist && *holds != Holds::Place).then_some(&booking.customer));
            }
            Command::Settle(settle) => {
                self.ids.insert(settle.id);
                self.settling.push(settle.id);
                match &settle.command {
                    screening::Command::Confirm { booking, terms, .. } => self.limit(booking, terms),
                    screening::Command::Queue { booking, terms, .. } => {
                        self.limit(booking, terms);
                        self.joining.push(&booking.customer);
                    }
                    _ => {}
                }
            }
            Command::Change(change) => {
                self.keys.push(&change.request.key);
                self.ids.insert(change.id);
            }
            Command::Reschedule(one) => {
                self.keys.push(&one.request.key);
                self.ids.insert(one.id);
                self.moving.push(one.id);
                let limited = one.terms.customer_limit.map(|_| (one.id, &one.asked.slot.hospital));
                self.limited_moves.extend(limited);
            }
            Command::Consume(events) => events.iter().for_each(|event| self.add_event(event)),
            Command::StoreDeadLetter(_, inbox_key) => self.inbox_keys.push(inbox_key),
            Command::Fence(orphans) => self.ids.extend(orphans.iter().map(|orphan| orphan.claim.screening)),
            Command::Report(report) => {
                self.keys.push(&report.request.key);
                self.slots.extend(report.counts.iter().map(|(slot, _)| slot));
            }
            Command::Purge(_) | Command::Unwatch(_) => {}
        }
    }

    fn limit(&mut self, booking: &Booking, terms: &Terms) {
        if terms.customer_limit.is_some() {
            self.limited.insert((booking.customer.clone(), booking.slot.hospital.clone()));
        }
    }

    fn add_event(&mut self, event: &'a ClaimEvent) {
        if event.is_remembered() {
            self.inbox_keys.push(&event.inbox_key);
        }
        match &event.fact {
            // a first claim only needs to know whether its screening has a row
            ClaimFact::Made { claim, .. } if claim.generation == FIRST_GENERATION => self.made.push(claim.screening),
            ClaimFact::Made { claim, .. } | ClaimFact::Revoked { claim, .. } => {
                self.ids.insert(claim.screening);
            }
            ClaimFact::Promoted { claim, .. } => {
                self.ids.insert(claim.screening);
                self.settling.push(claim.screening);
            }
            ClaimFact::Other => {}
        }
    }
}

/// Reads what a batch needs, and finds out which of its events are new.
pub(super) async fn load(
    transaction: &Transaction,
    batch: &[&Command],
    rules: Rules,
    now: Timestamp,
) -> Result<Work, DbErr> {
    let mut wanted = Wanted::default();
    batch.iter().for_each(|command| wanted.add(command));
    let Wanted { keys, mut ids, made, mut customers, joining, moving, settling, .. } = wanted;
    let Wanted { mut limited, limited_moves, inbox_keys, slots, .. } = wanted;
    let records = request_record::find(transaction, &keys).await?;
    ids.extend(records.values().filter_map(|record| ScreeningId::parse(&record.resource).ok()));
    let rows = if ids.is_empty() { Default::default() } else { tables::by_ids_for_update(transaction, ids).await? };
    let booked = tables::present(transaction, made).await?;
    if !rows.is_empty() {
        // if nothing was locked, this transaction did not wait for another one
        request_record::ensure_unanswered(transaction, &keys, &records).await?;
    }
    let waits = |row: &&Screening| row.state == State::Waitlisted;
    let settled = settling.iter().filter_map(|id| rows.get(id)).filter(waits);
    let moved = moving.iter().filter_map(|id| rows.get(id));
    customers.extend(moved.chain(settled).filter_map(|row| row.customer.as_ref()));
    let held = held(transaction, &mut limited, &limited_moves, &rows).await?;
    let active = tables::active(transaction, customers).await?;
    let waiting = tables::waiting(transaction, joining).await?;
    let versions = refusal::versions(transaction, slots).await?;
    let fresh =
        if inbox_keys.is_empty() { Vec::new() } else { inbox::admit(transaction, CONSUMER, &inbox_keys).await? };
    let others = Others { active, waiting, held, newly_limited: limited.into_iter().collect() };
    Ok(Work::new((now, rules), records, (rows, booked), others, versions, fresh))
}

/// The bookings of the customers whose number a hospital limits. Afterwards `limited` has those whom no transaction
/// has counted before.
async fn held(
    transaction: &Transaction,
    limited: &mut BTreeSet<CustomerHospital>,
    moves: &[(ScreeningId, &HospitalId)],
    rows: &HashMap<ScreeningId, Screening>,
) -> Result<HashMap<CustomerHospital, CustomerBookings>, DbErr> {
    for (id, hospital) in moves {
        let row = rows.get(id).filter(|row| row.slot.hospital != **hospital);
        limited.extend(row.and_then(|row| row.customer.clone()).map(|customer| (customer, (*hospital).clone())));
    }
    let known = limit::lock(transaction, limited).await?;
    // after they are locked, so that it sees what the others wrote
    let mut found =
        limit::held(transaction, limited.iter().map(|(customer, hospital)| (customer, hospital)).collect()).await?;
    let held = limited.iter().map(|key| (key.clone(), found.remove(key).unwrap_or_default())).collect();
    limited.retain(|key| !known.contains(key));
    Ok(held)
}
