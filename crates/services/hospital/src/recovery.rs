//! Restores claims, counts and capacities that Hospital lost, from what the other services know.
//!
//! It runs while the service is stopped. Everything is one transaction, and a second run changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use contract::capacity::v1::capacity_claim::State;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, HospitalRegistered};
use domain::access::Caller;
use domain::capacity::{
    Claim, ClaimState, Fact, RevokeReason, Slot, SlotState, serve_queue, state_fact, withdraw_slot,
};
use domain::civil;
use domain::demand::Places;
use domain::event::{Cause, envelope};
use domain::hospital::{Hospital, HospitalState, delete};
use domain::ids::{ClaimId, HospitalId, SlotId};
use domain::recovery::{self, ExpectedClaim};
use domain::window::BookingPolicy;
use fault::Fault;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use runtime::clock::Clock;
use runtime::entropy::{uuid_v4, uuid_v7};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Condition, Expr, ExprTrait};
use sea_orm::{QueryOrder, QuerySelect};
use store::past::{self, Gap};
use store::rows::{among, insert_all, replace_all};
use store::{BatchHandler, Database, DbErr, Transaction, outbox};

use crate::NAME;
use crate::tables::revocation::{Revocation, Target};
use crate::tables::{KEYS, claim, hospital, read, revocation, slot, slot_key};
use store::{Connection, Fetch as _};

pub use domain::hospital::Terms;

/// The names of this service's durable consumers.
pub const CONSUMERS: &[&str] = &[crate::CONSUMER];

/// What the other services know and this service has lost.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Claims that are missing here or are in another state than their bookings require; see [`claims_to_change`].
    pub claims: Vec<ExpectedClaim>,
    /// Places of slots, of newer versions than here; see [`newer_places`].
    pub places: Vec<Places>,
    /// Hospitals whose deletion has begun or ended.
    pub gone: BTreeSet<HospitalId>,
    /// Time zones, for hospitals that are missing here.
    pub time_zones: BTreeMap<HospitalId, String>,
    /// The greatest position of this service's log that any consumer has read. The log continues after it.
    pub read: i64,
    /// The gap of the log to close, because nothing that was lost in it is missing once this is written.
    pub closes: Option<Gap>,
}

/// What was recovered, as a report for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Claims that are ACTIVE now.
    pub taken: Vec<ClaimId>,
    /// Claims that are WAITING now.
    pub waiting: Vec<ClaimId>,
    /// Claims that are RELEASED or REVOKED now.
    pub ended: Vec<ClaimId>,
    /// Slots with their capacity now and their capacity before; `None` if the slot was missing.
    pub slots: Vec<(SlotId, i32, Option<i32>)>,
    /// Slots that were closed, because an admin had cancelled their bookings.
    pub closed: Vec<SlotId>,
    /// Hospitals that were missing and are registered again.
    pub registered: Vec<HospitalId>,
    /// Hospitals whose deletion was begun again.
    pub deleted: Vec<HospitalId>,
}

/// Reads at most `limit` claims in the order of their ids, after `after`.
///
/// # Errors
/// Fails if the database does.
pub async fn claims(database: &Database, after: Option<ClaimId>, limit: u64) -> Result<Vec<Claim>, DbErr> {
    let mut select = claim::Entity::find();
    if let Some(after) = after {
        let key = Expr::tuple([Expr::col(claim::Column::Screening), Expr::col(claim::Column::Generation)]);
        select = select.filter(key.gt(Expr::tuple([Expr::val(after.screening.0), Expr::val(after.generation)])));
    }
    let select = select.order_by_asc(claim::Column::Screening).order_by_asc(claim::Column::Generation).limit(limit);
    select.fetch(database.reader()).await?.into_iter().map(Claim::try_from).collect()
}

/// The terms that a booking of this slot would get now. `None` if the hospital is missing here.
///
/// # Errors
/// Fails if the database does.
pub async fn terms(database: &Database, slot: &SlotId) -> Result<Option<Terms>, DbErr> {
    let held = held_hospitals(database.reader(), &BTreeSet::from([slot.hospital.clone()])).await?;
    Ok(held.into_values().next().map(|hospital| hospital.terms(slot.date)))
}

/// Filters the claims that are missing here or have another state than expected, and adds those that hold a place which
/// their booking left when it moved, or which no move of it can use.
///
/// # Errors
/// Fails if the database does.
pub async fn claims_to_change(database: &Database, expected: Vec<ExpectedClaim>) -> Result<Vec<ExpectedClaim>, DbErr> {
    let held = held_claims(database.reader(), &expected).await?;
    let differs =
        |expected: &ExpectedClaim| expected.make(held.get(&expected.claim), 0, Timestamp::UNIX_EPOCH).is_some();
    let of_bookings: HashMap<_, _> = expected.iter().map(|one| (one.claim.screening, one)).collect();
    let is_left = |claim: &&Claim| of_bookings.get(&claim.id.screening).is_some_and(|one| one.has_left(claim));
    let mut left: Vec<ExpectedClaim> = held.values().filter(is_left).map(ExpectedClaim::left).collect();
    left.sort_by_key(|one| one.claim);
    Ok(expected.into_iter().filter(differs).chain(left).collect())
}

/// Filters the places that are of a newer version than the slot here, or whose slot is missing here.
///
/// # Errors
/// Fails if the database does.
pub async fn newer_places(database: &Database, places: Vec<Places>) -> Result<Vec<Places>, DbErr> {
    let held = held_slots(database.reader(), places.iter().map(|places| &places.slot)).await?;
    let newer = |places: &Places| held.get(&places.slot).is_none_or(|slot| places.slot_version > slot.version);
    Ok(places.into_iter().filter(newer).collect())
}

/// Filters the hospitals that are not deleted here. A hospital that is missing here counts as not deleted.
///
/// # Errors
/// Fails if the database does.
pub async fn active(database: &Database, hospitals: BTreeSet<HospitalId>) -> Result<BTreeSet<HospitalId>, DbErr> {
    let held = held_hospitals(database.reader(), &hospitals).await?;
    let active = |id: &HospitalId| held.get(id).is_none_or(|hospital| hospital.deletion.is_none());
    Ok(hospitals.into_iter().filter(active).collect())
}

async fn held_claims(
    connection: &dyn Connection,
    expected: &[ExpectedClaim],
) -> Result<HashMap<ClaimId, Claim>, DbErr> {
    let mut held = HashMap::new();
    for expected in expected.chunks(KEYS) {
        let ids = expected.iter().map(|expected| expected.claim.screening.0);
        let rows = claim::Entity::find().filter(among(connection, claim::Column::Screening, ids));
        for row in rows.fetch(connection).await? {
            let claim = Claim::try_from(row)?;
            held.insert(claim.id, claim);
        }
    }
    Ok(held)
}

async fn held_slots<'a>(
    connection: &dyn Connection,
    slots: impl Iterator<Item = &'a SlotId>,
) -> Result<HashMap<SlotId, Slot>, DbErr> {
    let keys: Vec<String> = slots.map(slot_key).collect();
    let mut held = HashMap::new();
    for keys in keys.chunks(KEYS) {
        let rows = slot::Entity::find().filter(among(connection, slot::Column::Id, keys.to_vec()));
        for row in rows.fetch(connection).await? {
            let slot = Slot::try_from(row)?;
            held.insert(slot.id.clone(), slot);
        }
    }
    Ok(held)
}

async fn held_hospitals(
    connection: &dyn Connection,
    hospitals: &BTreeSet<HospitalId>,
) -> Result<HashMap<HospitalId, Hospital>, DbErr> {
    let ids: Vec<String> = hospitals.iter().map(|id| id.segment().to_owned()).collect();
    let mut held = HashMap::new();
    for ids in ids.chunks(KEYS) {
        let rows = hospital::Entity::find().filter(among(connection, hospital::Column::Id, ids.to_vec()));
        for row in rows.fetch(connection).await? {
            let hospital = Hospital::try_from(row)?;
            held.insert(hospital.id.clone(), hospital);
        }
    }
    Ok(held)
}

/// Writes what the other services know, and moves the log beyond every position that was read of it.
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
            answers.push(Recovery::begin(self.0.now()).run(transaction, known).await?);
        }
        Ok(answers)
    }
}

struct Recovery {
    now: Timestamp,
    cause: Cause,
    events: Vec<EventEnvelope>,
    recovered: Recovered,
}

impl Recovery {
    fn begin(now: Timestamp) -> Self {
        let actor = Caller::Service(NAME.to_owned()).to_string();
        let cause = Cause { actor, request_id: String::new(), causation_id: String::new(), traceparent: String::new() };
        Self { now, cause, events: Vec::new(), recovered: Recovered::default() }
    }

    fn emit(&mut self, fact: Fact) {
        let Fact { aggregate, version, payload } = fact;
        self.events.push(envelope(NAME, &self.cause, self.now, uuid_v7(), aggregate, version, payload));
    }

    async fn run(mut self, transaction: &Transaction, known: &Known) -> Result<Recovered, DbErr> {
        let cancelled = |expected: &ExpectedClaim, reason| expected.state == ClaimState::Revoked(reason);
        let closed: BTreeSet<SlotId> = known
            .claims
            .iter()
            .filter(|expected| cancelled(expected, RevokeReason::SlotCancelled))
            .map(|expected| expected.slot.clone())
            .collect();
        let mut gone = known.gone.clone();
        let deleted = known.claims.iter().filter(|expected| cancelled(expected, RevokeReason::HospitalDeleted));
        gone.extend(deleted.map(|expected| expected.slot.hospital.clone()));

        past::advance_log(transaction, known.read).await?;
        self.register(transaction, known, &gone).await?;
        let mut touched = self.claims(transaction, &known.claims).await?;
        touched.extend(closed.iter().cloned());
        touched.extend(known.places.iter().map(|places| places.slot.clone()));
        self.slots(transaction, &touched, &known.places, &closed).await?;
        self.delete(transaction, gone).await?;
        outbox::append(transaction, &self.events).await?;
        if let Some(gap) = known.closes {
            past::close(transaction, gap, self.now).await?;
        }
        Ok(self.recovered)
    }

    /// Registers the hospitals that are missing here, with the names and time zones that others know.
    async fn register(
        &mut self,
        transaction: &dyn Connection,
        known: &Known,
        gone: &BTreeSet<HospitalId>,
    ) -> Result<(), DbErr> {
        let mut named: BTreeMap<&HospitalId, (&str, &str)> = BTreeMap::new();
        for id in gone.iter().chain(known.places.iter().map(|places| &places.slot.hospital)) {
            named.insert(id, (id.segment(), known.time_zones.get(id).map_or("", String::as_str)));
        }
        for ExpectedClaim { slot, terms, .. } in &known.claims {
            let naming = named.entry(&slot.hospital).or_insert_with(|| (slot.hospital.segment(), ""));
            if !terms.hospital_display_name.is_empty() {
                *naming = (&terms.hospital_display_name, &terms.time_zone);
            }
        }
        let all = named.keys().map(|id| (*id).clone()).collect();
        let held = held_hospitals(transaction, &all).await?;
        let mut rows = Vec::new();
        for (id, (display_name, time_zone)) in named.into_iter().filter(|(id, _)| !held.contains_key(*id)) {
            let hospital = Hospital {
                id: id.clone(),
                uid: uuid_v4(),
                display_name: display_name.to_owned(),
                time_zone: civil::time_zone(time_zone).unwrap_or(TimeZone::UTC),
                policy: BookingPolicy::default(),
                deletion: None,
                version: recovery::VERSION_HEADROOM,
                create_time: self.now,
                update_time: self.now,
            };
            rows.push(hospital::ActiveModel::from(&hospital));
            self.recovered.registered.push(id.clone());
            let registered = HospitalRegistered { time_zone: time_zone.to_owned(), ..hospital.registered() };
            let payload = Payload::HospitalRegistered(registered);
            self.emit(Fact { aggregate: id.to_string(), version: hospital.version, payload });
        }
        insert_all(transaction, rows).await
    }

    /// Inserts and ends claims. Returns the slots that have to be counted again.
    async fn claims(
        &mut self,
        transaction: &dyn Connection,
        expected: &[ExpectedClaim],
    ) -> Result<BTreeSet<SlotId>, DbErr> {
        let held = held_claims(transaction, expected).await?;
        let slots = held_slots(transaction, expected.iter().map(|expected| &expected.slot)).await?;
        // who waited longest waits in front, behind those whose tickets are left
        let mut tickets: HashMap<&SlotId, i64> = slots.iter().map(|(id, slot)| (id, slot.version)).collect();
        let mut in_order: Vec<&ExpectedClaim> = expected.iter().collect();
        in_order.sort_by_key(|expected| expected.since);
        let (mut made, mut changed, mut touched) = (Vec::new(), Vec::new(), BTreeSet::new());
        for expected in in_order {
            let before = held.get(&expected.claim);
            let ticket = tickets.entry(&expected.slot).or_insert(0);
            let Some(claim) = expected.make(before, *ticket + 1, self.now) else { continue };
            touched.insert(claim.slot.clone());
            let reported = match claim.state {
                ClaimState::Active => &mut self.recovered.taken,
                ClaimState::Waiting(_) => {
                    *ticket += 1;
                    &mut self.recovered.waiting
                }
                ClaimState::Released | ClaimState::Revoked(_) => &mut self.recovered.ended,
            };
            reported.push(claim.id);
            let rows = if before.is_some() { &mut changed } else { &mut made };
            rows.push(claim::ActiveModel::from(&claim));
        }
        insert_all(transaction, made).await?;
        replace_all(transaction, changed).await?;
        Ok(touched)
    }

    /// Counts the slots again and gives them the newest known capacity.
    async fn slots(
        &mut self,
        transaction: &dyn Connection,
        touched: &BTreeSet<SlotId>,
        places: &[Places],
        closed: &BTreeSet<SlotId>,
    ) -> Result<(), DbErr> {
        let held = held_slots(transaction, touched.iter()).await?;
        let counts = counted_claims(transaction, touched).await?;
        let places: HashMap<&SlotId, &Places> = places.iter().map(|places| (&places.slot, places)).collect();
        let (mut made, mut changed) = (Vec::new(), Vec::new());
        for id in touched {
            let before = held.get(id);
            let state = closed.contains(id).then_some(SlotState::Closed);
            let state = state.filter(|_| before.is_none_or(|slot| slot.state == SlotState::Open));
            let count = |state: State| {
                let count = counts.get(&(slot_key(id), state as i32)).copied().unwrap_or(0);
                i32::try_from(count).unwrap_or(i32::MAX)
            };
            let claims = (count(State::Active), count(State::Waiting));
            let slot = recovery::slot(id, before, places.get(id).copied(), claims, state, self.now);
            if state.is_some() {
                self.recovered.closed.push(id.clone());
            }
            self.recovered.slots.push((id.clone(), slot.capacity, before.map(|slot| slot.capacity)));
            self.emit(state_fact(&slot, before.map(|slot| slot.capacity)));
            let slot = self.serve(transaction, slot).await?;
            let rows = if before.is_some() { &mut changed } else { &mut made };
            rows.push(slot::ActiveModel::from(&slot));
        }
        insert_all(transaction, made).await?;
        replace_all(transaction, changed).await
    }

    /// Gives the places of a slot that are free now to its queue, before anybody else can take them.
    async fn serve(&mut self, transaction: &dyn Connection, slot: Slot) -> Result<Slot, DbErr> {
        if slot.waiting == 0 || slot.remaining() <= 0 {
            return Ok(slot);
        }
        let free = u64::from(slot.remaining().unsigned_abs());
        let queue = claim::queue(transaction, &slot.id, self.now, free).await?;
        let (mut served, mut promoted) = (slot, Vec::new());
        for step in serve_queue(&served, &queue, self.now) {
            self.recovered.waiting.retain(|waiting| *waiting != step.claim.id);
            self.recovered.taken.push(step.claim.id);
            promoted.push(claim::ActiveModel::from(&step.claim));
            step.fact.into_iter().for_each(|fact| self.emit(fact));
            served = step.slot.unwrap_or(served);
        }
        replace_all(transaction, promoted).await?;
        Ok(served)
    }

    /// Begins deletions again. Claims that are left are revoked once the service runs.
    async fn delete(&mut self, transaction: &dyn Connection, gone: BTreeSet<HospitalId>) -> Result<(), DbErr> {
        let held = held_hospitals(transaction, &gone).await?;
        let claims = read::held_at(transaction, held.values(), self.now).await?;
        let message = "the hospital was deleted";
        for hospital in held.into_values().filter(|hospital| hospital.deletion.is_none()) {
            let claims = claims.get(hospital.id.segment()).copied().unwrap_or_default();
            let begun = delete(&hospital, claims, true, message, "", self.now);
            let Ok(Some((deleting, facts))) = begun else { continue };
            replace_all(transaction, vec![hospital::ActiveModel::from(&deleting)]).await?;
            facts.into_iter().for_each(|fact| self.emit(fact));
            let slots = slot::Entity::find().filter(slot::Column::Hospital.eq(hospital.id.segment()));
            let slots = slots.fetch(transaction).await?.into_iter().map(Slot::try_from);
            let slots = slots.map(|slot| slot.map(|slot| slot::ActiveModel::from(&withdraw_slot(&slot, self.now))));
            replace_all(transaction, slots.collect::<Result<_, _>>()?).await?;
            if deleting.state() == HospitalState::Deleting {
                let target = Target::Hospital(hospital.id.clone());
                let cause = self.cause.clone();
                let left = Revocation { target, message: message.to_owned(), revoked: 0, cursor: None, cause };
                insert_all(transaction, vec![revocation::ActiveModel::from(&left)]).await?;
            }
            self.recovered.deleted.push(hospital.id);
        }
        Ok(())
    }
}

/// How many ACTIVE and how many WAITING claims each of these slots has, by the slot's key and the number of the state.
async fn counted_claims(
    connection: &dyn Connection,
    slots: &BTreeSet<SlotId>,
) -> Result<HashMap<(String, i32), i64>, DbErr> {
    let keys: Vec<String> = slots.iter().map(slot_key).collect();
    let mut counts = HashMap::new();
    for keys in keys.chunks(KEYS) {
        let of = Condition::all()
            .add(among(connection, claim::Column::Slot, keys.to_vec()))
            .add(claim::Column::State.is_in([State::Active as i32, State::Waiting as i32]));
        let counted = claim::Entity::find()
            .select_only()
            .columns([claim::Column::Slot, claim::Column::State])
            .column_as(claim::Column::Screening.count(), "claims")
            .filter(of)
            .group_by(claim::Column::Slot)
            .group_by(claim::Column::State);
        let found: Vec<(String, i32, i64)> = counted.fetch_values(connection).await?;
        counts.extend(found.into_iter().map(|(slot, state, claims)| ((slot, state), claims)));
    }
    Ok(counts)
}
