//! A batch while it is decided: a working copy of the loaded rows, and the effects to write.

mod claims;

use std::collections::{BTreeMap, HashMap, HashSet, hash_map};
use std::mem;

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, ScreeningRefused};
use domain::civil::encode_date;
use domain::event::{Cause, envelope};
use domain::ids::{ClaimId, ScreeningId, SlotId};
use domain::request::{Request, RequestKey};
use domain::screening::{self, Booking, Conflict, CustomerBookings, Decision, Event, Screening, Terms, apply, facts};
use fault::{Fault, Reason};
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::entropy::uuid_v7;
use store::dead_letter::DeadLetter;
use store::inbox::Ignored;
use store::request_record::Record;

use super::{Answer, Book, Booked, BookingChange, Command, Holds, Move, RefusalReport, Settle, Unsettled};
use crate::NAME;
use crate::Rules;
use crate::tables::limit::CustomerHospital;
use crate::tables::watch::Orphan;
use crate::tables::{CustomerDate, CustomerSlot};

/// What a batch writes.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Rows to replace: as they were, and as they are now.
    pub(super) changed: Vec<(Screening, Screening)>,
    /// Rows to insert.
    pub(super) created: Vec<Screening>,
    /// Customers whom a hospital limits, and who had booked at none like it.
    pub(super) newly_limited: Vec<CustomerHospital>,
    /// Records of answered requests.
    pub(super) records: Vec<Record>,
    /// Claims to watch, because no booking holds them yet or an event about them may have come too early.
    pub(super) watched: Vec<Orphan>,
    /// Claims that need no watch any more.
    pub(super) unwatched: HashSet<ClaimId>,
    /// The version of each slot's report, and whether the slot had a report before.
    pub(super) reported: BTreeMap<SlotId, (bool, i64)>,
    pub(super) ignored: Vec<Ignored>,
    /// Events to publish, in the order they came about.
    pub(super) events: Vec<EventEnvelope>,
    pub(super) dead_letters: Vec<DeadLetter>,
}

/// A row as it is now.
#[derive(Debug)]
struct Entry {
    row: Screening,
    touched: bool,
    /// The stored row, if there is one. Set when the row is touched.
    before: Option<Screening>,
}

/// The other bookings of the customers of a batch.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// The active ones.
    pub(super) active: HashMap<CustomerDate, ScreeningId>,
    /// The WAITLISTED ones of customers who may join a queue by this batch.
    pub(super) waiting: HashMap<CustomerSlot, ScreeningId>,
    /// Those that count against the limits of hospitals that have one.
    pub(super) held: HashMap<CustomerHospital, CustomerBookings>,
    /// The customers among these whom no transaction has counted before.
    pub(super) newly_limited: Vec<CustomerHospital>,
}

/// The working copy of a batch.
#[derive(Debug)]
pub(super) struct Work {
    now: Timestamp,
    rules: Rules,
    records: HashMap<RequestKey, Record>,
    rows: HashMap<ScreeningId, Entry>,
    /// Screenings that have a row. These rows are not loaded, because only their existence matters.
    booked: HashSet<ScreeningId>,
    /// Touched rows in the order of their first change.
    order: Vec<ScreeningId>,
    others: Others,
    versions: HashMap<SlotId, i64>,
    /// Whether each event that the inbox stores is new, in the order of the batch.
    fresh: std::vec::IntoIter<bool>,
    effects: Effects,
}

impl Work {
    pub(super) fn new(
        (now, rules): (Timestamp, Rules),
        records: HashMap<RequestKey, Record>,
        (rows, booked): (HashMap<ScreeningId, Screening>, HashSet<ScreeningId>),
        others: Others,
        versions: HashMap<SlotId, i64>,
        fresh: Vec<bool>,
    ) -> Self {
        let rows = rows.into_iter().map(|(id, row)| (id, Entry { row, touched: false, before: None })).collect();
        let (order, effects) = (Vec::new(), Effects::default());
        let fresh = fresh.into_iter();
        Self { now, rules, records, rows, booked, order, others, versions, fresh, effects }
    }

    pub(super) fn into_effects(mut self) -> Effects {
        for id in self.order {
            if let Some(entry) = self.rows.remove(&id) {
                match entry.before {
                    Some(before) => self.effects.changed.push((before, entry.row)),
                    None => self.effects.created.push(entry.row),
                }
            }
        }
        self.effects.newly_limited = self.others.newly_limited;
        self.effects
    }

    pub(super) fn run(&mut self, command: &Command) -> Answer {
        match command {
            Command::Book(book) => Answer::Booked(self.book(book)),
            Command::Settle(settle) => Answer::Row(self.settle(settle).map(Box::new)),
            Command::Change(change) => Answer::Row(self.change(change).map(Box::new)),
            Command::Consume(events) => {
                for event in events {
                    if !event.is_remembered() || self.fresh.next() == Some(true) {
                        self.apply_claim_event(event);
                    }
                }
                Answer::Done
            }
            Command::StoreDeadLetter(dead_letter, _) => {
                if self.fresh.next() == Some(true) {
                    self.effects.dead_letters.push(dead_letter.clone());
                }
                Answer::Done
            }
            Command::Reschedule(moving) => Answer::Booked(self.reschedule(moving).unwrap_or_else(Booked::Refused)),
            Command::Fence(orphans) => {
                let mut unsettled = Unsettled::default();
                orphans.iter().for_each(|orphan| self.fence(orphan, &mut unsettled));
                Answer::Fenced(unsettled)
            }
            Command::Unwatch(claims) => {
                self.effects.unwatched.extend(claims);
                Answer::Done
            }
            Command::Report(report) => {
                self.report(report);
                Answer::Done
            }
            Command::Purge(_) => Answer::Done,
        }
    }

    fn row(&self, id: ScreeningId) -> Option<&Screening> {
        self.rows.get(&id).map(|entry| &entry.row)
    }

    fn book(&mut self, book: &Book) -> Booked {
        let Book { request, cause, booking, terms, holds } = book;
        let same = |row: &Screening| row.was_made_for(&booking.customer, &booking.slot);
        match self.replay(request.as_ref(), same) {
            Err(fault) => return Booked::Refused(fault),
            // An earlier answer with another booking stands. A retry for the same booking may bring the place that its
            // PENDING first call could not get.
            Ok(Some(row)) if row.id != booking.id => return Booked::Row(Box::new(row)),
            Ok(_) => {}
        }
        let joins_queue = booking.joins_waitlist && *holds != Holds::Place;
        let conflict = match holds {
            // the limit is judged with Hospital's answer
            Holds::Nothing => self.date_conflict(booking, joins_queue),
            Holds::Place | Holds::Ticket(_) => self.conflict(booking, terms, joins_queue),
        };
        let (booking, terms) = (booking.clone(), terms.clone());
        let command = match *holds {
            Holds::Place => screening::Command::Confirm { booking, terms, conflict },
            Holds::Ticket(queued) => screening::Command::Queue { booking, terms, queued, conflict },
            Holds::Nothing => screening::Command::Park { booking, terms, conflict },
        };
        let id = book.booking.id;
        match (self.rules)(self.row(id), &command, self.now) {
            Ok(Decision::Change(event)) => {
                let row = self.transition(id, &event, cause);
                self.record(request.as_ref(), &row);
                Booked::Row(Box::new(row))
            }
            Ok(Decision::Refuse(event, fault)) => {
                self.transition(id, &event, cause);
                Booked::Refused(fault)
            }
            Ok(Decision::Keep) => match self.row(id) {
                Some(row) => Booked::Row(Box::new(row.clone())),
                None => Booked::Refused(Fault::internal("a booking was kept that is not there")),
            },
            Ok(Decision::Fenced) => Booked::Fenced,
            Ok(Decision::Ignore(why)) => Booked::Refused(Fault::internal(why)),
            Err(fault) => Booked::Refused(fault),
        }
    }

    /// Another booking of the customer that is active on the date of this one, or waits in the queue that it would
    /// join.
    fn date_conflict(&self, booking: &Booking, joins_queue: bool) -> Option<Conflict> {
        let Booking { id, customer, slot, .. } = booking;
        let Others { active, waiting, .. } = &self.others;
        let active = active.get(&(customer.clone(), slot.date));
        let in_queue = if joins_queue { waiting.get(&(customer.clone(), slot.clone())) } else { None };
        active.into_iter().chain(in_queue).copied().find(|other| other != id).map(Conflict::Date)
    }

    /// What bars this booking: another one on its date, or the limit that these terms have.
    fn conflict(&self, booking: &Booking, terms: &Terms, joins_queue: bool) -> Option<Conflict> {
        let Booking { id, customer, slot, .. } = booking;
        let held = || self.others.held.get(&(customer.clone(), slot.hospital.clone()));
        self.date_conflict(booking, joins_queue).or_else(|| held()?.conflict(*id, terms, self.now))
    }

    fn settle(&mut self, settle: &Settle) -> Result<Screening, Fault> {
        let mut command = settle.command.clone();
        match &mut command {
            screening::Command::Confirm { booking, terms, conflict } => {
                *conflict = self.conflict(booking, terms, false);
            }
            screening::Command::Queue { booking, terms, conflict, .. } => {
                *conflict = self.conflict(booking, terms, true);
            }
            _ => {}
        }
        match (self.rules)(self.row(settle.id), &command, self.now)? {
            Decision::Change(event) => Ok(self.transition(settle.id, &event, &settle.cause)),
            Decision::Keep => {
                self.row(settle.id).cloned().ok_or_else(|| Fault::internal("a booking was kept that is not there"))
            }
            Decision::Refuse(_, fault) => Err(fault),
            Decision::Fenced => Err(Fault::internal("a booking that is settled is a fence")),
            Decision::Ignore(why) => Err(Fault::internal(why)),
        }
    }

    fn change(&mut self, change: &BookingChange) -> Result<Screening, Fault> {
        let BookingChange { request, scope, id, command, cause } = change;
        if !self.row(*id).is_some_and(|row| row.is_visible(scope)) {
            return Err(scope.absent(screening::not_found(*id), "screening"));
        }
        if let Some(row) = self.replay(Some(request), |row| row.id == *id)? {
            return Ok(row);
        }
        match (self.rules)(self.row(*id), command, self.now)? {
            Decision::Change(event) => {
                let row = self.transition(*id, &event, cause);
                self.record(Some(request), &row);
                Ok(row)
            }
            Decision::Keep => self.row(*id).cloned().ok_or_else(|| Fault::internal("a row that was judged is gone")),
            Decision::Refuse(..) | Decision::Fenced | Decision::Ignore(_) => {
                Err(Fault::internal("a caller's change was decided like one of ours"))
            }
        }
    }

    /// Moves a booking at most once per request id. A claim that is not needed after all is given back by the
    /// reconciler, to which its event comes.
    fn reschedule(&mut self, moving: &Move) -> Result<Booked, Fault> {
        let Move { request, scope, id, asked, generation, terms, cause } = moving;
        let shown = self.row(*id).filter(|row| row.is_visible(scope)).and_then(|row| row.customer.clone());
        let customer = shown.ok_or_else(|| scope.absent(screening::not_found(*id), "screening"))?;
        let changes_hospital = self.row(*id).is_some_and(|row| row.slot.hospital != asked.slot.hospital);
        if let Some(row) = self.replay(Some(request), |row| row.id == *id)? {
            return Ok(Booked::Row(Box::new(row)));
        }
        let date = self.others.active.get(&(customer.clone(), asked.slot.date)).copied().filter(|other| other != id);
        let held = self.others.held.get(&(customer, asked.slot.hospital.clone()));
        let conflict =
            date.map(Conflict::Date).or_else(|| held?.conflict(*id, terms, self.now).filter(|_| changes_hospital));
        let (asked, terms) = (asked.clone(), terms.clone());
        let command = screening::Command::Reschedule { asked, generation: *generation, terms, conflict };
        let row = match (self.rules)(self.row(*id), &command, self.now)? {
            Decision::Change(event) => self.transition(*id, &event, cause),
            Decision::Keep => self.row(*id).cloned().ok_or_else(|| Fault::internal("a row that was judged is gone"))?,
            Decision::Refuse(event, refusal) => {
                self.transition(*id, &event, cause);
                return Ok(Booked::Left(refusal));
            }
            Decision::Fenced => return Ok(Booked::Fenced),
            Decision::Ignore(why) => return Err(Fault::internal(why)),
        };
        self.record(Some(request), &row);
        Ok(Booked::Row(Box::new(row)))
    }

    fn report(&mut self, report: &RefusalReport) {
        if self.records.contains_key(&report.request.key) {
            return;
        }
        for (slot, count) in &report.counts {
            let stored =
                self.effects.reported.get(slot).map_or_else(|| self.versions.contains_key(slot), |(stored, _)| *stored);
            let version = self.versions.entry(slot.clone()).or_insert(0);
            *version += 1;
            self.effects.reported.insert(slot.clone(), (stored, *version));
            let aggregate = format!("{slot}/refusals");
            let fact = Payload::ScreeningRefused(ScreeningRefused {
                slot: slot.to_string(),
                reason: Reason::SlotFull.name().to_owned(),
                count: *count,
                date: Some(encode_date(slot.date)),
            });
            let cause = Cause::own(NAME, String::new());
            self.effects.events.push(envelope(NAME, &cause, self.now, uuid_v7(), aggregate, *version, fact));
        }
        self.keep(&report.request, String::new());
    }

    /// Applies a decided event to a row and publishes it.
    fn transition(&mut self, id: ScreeningId, event: &Event, cause: &Cause) -> Screening {
        let before = self.row(id);
        let row = apply(before, event, self.now);
        let (was, left) = (before.map(|before| before.state), before.map(|before| before.slot.clone()));
        self.count(&row, left.as_ref());
        self.keep_one_a_date(&row, left.map(|slot| slot.date));
        self.follow_queue(&row, was, cause);
        for (version, fact) in facts(&row, event) {
            let fact = envelope(NAME, cause, self.now, uuid_v7(), id.to_string(), version, fact);
            self.effects.events.push(fact);
        }
        match self.rows.entry(id) {
            hash_map::Entry::Occupied(entry) if entry.get().touched => entry.into_mut().row.clone_from(&row),
            hash_map::Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                entry.before = Some(mem::replace(&mut entry.row, row.clone()));
                entry.touched = true;
                self.order.push(id);
            }
            hash_map::Entry::Vacant(entry) => {
                entry.insert(Entry { row: row.clone(), touched: true, before: None });
                self.order.push(id);
            }
        }
        row
    }

    /// Keeps the bookings that count against limits up to date with a row. `left` is the slot that it had before.
    fn count(&mut self, row: &Screening, left: Option<&SlotId>) {
        let Some(customer) = &row.customer else { return };
        let held = &mut self.others.held;
        if let Some(before) = left.and_then(|slot| held.get_mut(&(customer.clone(), slot.hospital.clone()))) {
            before.remove(row.id);
        }
        if CustomerBookings::counts(row.state)
            && let Some(now) = held.get_mut(&(customer.clone(), row.slot.hospital.clone()))
        {
            now.add(row.id, row.slot.date);
        }
    }

    /// Keeps what is known of active bookings up to date with a row. `left` is the date that it had before.
    fn keep_one_a_date(&mut self, row: &Screening, left: Option<Date>) {
        let Some(customer) = &row.customer else { return };
        let left = left.filter(|date| *date != row.slot.date).map(|date| (customer.clone(), date));
        if let Some(left) = left
            && self.others.active.get(&left) == Some(&row.id)
        {
            self.others.active.remove(&left);
        }
        let customer_date = (customer.clone(), row.slot.date);
        if row.state.is_active() {
            self.others.active.insert(customer_date, row.id);
        } else if self.others.active.get(&customer_date) == Some(&row.id) {
            self.others.active.remove(&customer_date);
        }
    }

    /// The booking that an earlier call with this request_id made or changed, as it is now. `same` says whether that
    /// booking is the one that this call is about. It decides when the record has no fingerprint.
    fn replay(&self, request: Option<&Request>, same: impl Fn(&Screening) -> bool) -> Result<Option<Screening>, Fault> {
        let Some(request) = request else { return Ok(None) };
        let Some(record) = self.records.get(&request.key) else { return Ok(None) };
        let id = ScreeningId::parse(&record.resource).ok();
        let row = id.and_then(|id| self.row(id));
        request.continues(&record.fingerprint, row.is_some_and(same))?;
        row.cloned().map(Some).ok_or_else(|| Fault::internal("a request record names no screening"))
    }

    fn record(&mut self, request: Option<&Request>, row: &Screening) {
        if let Some(request) = request
            && !self.records.contains_key(&request.key)
        {
            self.keep(request, row.id.to_string());
        }
    }

    fn keep(&mut self, request: &Request, resource: String) {
        let record =
            Record { key: request.key.clone(), fingerprint: request.fingerprint.to_vec(), resource, time: self.now };
        self.records.insert(request.key.clone(), record.clone());
        self.effects.records.push(record);
    }
}

/// The actor of changes that no caller asked for.
pub(crate) fn service_actor() -> String {
    domain::access::Caller::Service(NAME.to_owned()).to_string()
}
