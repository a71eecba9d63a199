//! Loads the rows that a batch needs: locks first, in an order that all batches share, then plain reads.
//!
//! Capacity requests, revocations and hospitals that may change are locked before slots, and slots in the order of
//! their keys. A booking also depends on its hospital, which is read after the slot's lock was granted: a deletion
//! changes every slot of its hospital, so a booking that waited for the lock sees the deletion. SQLite locks the whole
//! file instead of rows.

use std::collections::{BTreeMap, HashMap, VecDeque};

use domain::capacity::{Claim, Slot};
use domain::hospital::{CapacityRequest, Held, Hospital};
use domain::ids::{CapacityRequestId, ClaimId, HospitalId, SlotId};
use domain::request::RequestKey;
use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::{Condition, QueryOrder, QuerySelect};
use store::Transaction;
use store::request_record::{self, Record};
use store::rows::among;

use super::CLAIMS_PER_CHUNK;
use super::plan::LoadPlan;
use super::table::Table;
use super::world::{Chunk, World};
use crate::tables::revocation::{Revocation, Stretch, Target, candidates, stretch};
use crate::tables::{KEYS, capacity_request, claim, hospital, read, revocation, slot, slot_key};
use store::{Connection, Fetch as _};

impl World {
    /// Loads the rows that the plan names, and the rows that those name in turn.
    pub(super) async fn load(transaction: &Transaction, mut plan: LoadPlan, now: Timestamp) -> Result<Self, DbErr> {
        let keys: Vec<&RequestKey> = plan.keys.iter().collect();
        let records = request_record::find(transaction, &keys).await?;
        plan.replays(&records);
        let requests = lock_requests(transaction, &plan).await?;
        for request in requests.values() {
            plan.slots.insert(request.slot.clone());
            plan.offering(&request.slot);
        }
        let revocations = lock_revocations(transaction, &plan).await?;
        let mut hospitals = lock_hospitals(transaction, &plan).await?;
        let stretches = plan_chunks(transaction, &mut plan, &revocations, &hospitals, now).await?;
        let slots = lock_slots(transaction, &plan).await?;
        let keys: Vec<&RequestKey> = plan.keys.iter().collect();
        request_record::ensure_unanswered(transaction, &keys, &records).await?;
        let mut claims = load_claims(transaction, &plan).await?;
        let chunks = load_chunks(transaction, stretches, &revocations, &mut claims).await?;
        let queues = load_queues(transaction, &plan, &slots, now, &mut claims).await?;
        let unread: Vec<&str> =
            plan.hospitals.iter().filter(|id| !plan.changing.contains(*id)).map(HospitalId::segment).collect();
        if !unread.is_empty() {
            hospitals.extend(read::known_hospitals(transaction, unread).await?);
        }
        let counted: Vec<&Hospital> = hospitals.values().filter(|one| plan.counted.contains(&one.id)).collect();
        let elsewhere = count_elsewhere(transaction, &counted, &slots, now).await?;
        Ok(Self {
            now,
            hospitals: Table::new(hospitals),
            slots: Table::new(slots.into_iter().map(|slot| (slot.id.clone(), slot))),
            claims: Table::new(claims.into_iter().map(|claim| (claim.id, claim))),
            requests: Table::new(requests),
            revocations: Table::new(revocations),
            chunks,
            queues,
            elsewhere,
            records,
            answered: Vec::new(),
            events: Vec::new(),
        })
    }
}

impl LoadPlan {
    /// Adds the resources that answer replays: a request may not name them itself.
    fn replays(&mut self, records: &HashMap<RequestKey, Record>) {
        for record in records.values() {
            if let Ok(hospital) = HospitalId::parse(&record.resource) {
                self.hospitals.insert(hospital.clone());
                self.counted.insert(hospital);
            } else if let Ok(request) = CapacityRequestId::parse(&record.resource) {
                self.requests.insert(request.uid);
            }
        }
    }
}

async fn lock_requests(
    transaction: &dyn Connection,
    plan: &LoadPlan,
) -> Result<BTreeMap<CapacityRequestId, CapacityRequest>, DbErr> {
    if plan.requests.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = capacity_request::Entity::find()
        .filter(capacity_request::Column::Uid.is_in(plan.requests.iter().copied()))
        .order_by_asc(capacity_request::Column::Uid)
        .lock_exclusive()
        .fetch(transaction)
        .await?;
    let requests = rows.into_iter().map(CapacityRequest::try_from);
    requests.map(|request| request.map(|request| (request.id.clone(), request))).collect()
}

async fn lock_revocations(
    transaction: &dyn Connection,
    plan: &LoadPlan,
) -> Result<BTreeMap<Target, Revocation>, DbErr> {
    if plan.revocations.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = revocation::Entity::find()
        .filter(revocation::Column::Target.is_in(plan.revocations.iter().map(Target::key)))
        .order_by_asc(revocation::Column::Target)
        .lock_exclusive()
        .fetch(transaction)
        .await?;
    let revocations = rows.into_iter().map(Revocation::try_from);
    revocations.map(|found| found.map(|found| (found.target.clone(), found))).collect()
}

async fn lock_hospitals(
    transaction: &dyn Connection,
    plan: &LoadPlan,
) -> Result<BTreeMap<HospitalId, Hospital>, DbErr> {
    if plan.changing.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = hospital::Entity::find()
        .filter(hospital::Column::Id.is_in(plan.changing.iter().map(HospitalId::segment)))
        .order_by_asc(hospital::Column::Id)
        .lock_exclusive()
        .fetch(transaction)
        .await?;
    let hospitals = rows.into_iter().map(Hospital::try_from);
    hospitals.map(|hospital| hospital.map(|hospital| (hospital.id.clone(), hospital))).collect()
}

/// Finds the slots with the next claims to revoke, for revocations under way and for cancellations that may begin, and
/// adds them to the plan. Their claims are read after the slots are locked, so that nobody else can change them.
/// Midnight changes nothing here: a deletion leaves out the dates that were over when it began, and a slot that is
/// cancelled was not over then.
async fn plan_chunks(
    transaction: &dyn Connection,
    plan: &mut LoadPlan,
    revocations: &BTreeMap<Target, Revocation>,
    hospitals: &BTreeMap<HospitalId, Hospital>,
    now: Timestamp,
) -> Result<Vec<(Target, Stretch)>, DbErr> {
    let mut stretches = Vec::with_capacity(plan.chunks.len());
    for target in plan.chunks.clone() {
        let cursor = revocations.get(&target).and_then(|revocation| revocation.cursor.as_ref());
        let begin = match &target {
            Target::Hospital(id) => hospitals.get(id).map(|hospital| hospital.counts_from(now)),
            Target::Slot(_) => None,
        };
        let from = cursor.map(|(slot, _)| slot.date).max(begin);
        let stretch = stretch(transaction, &target, from, CLAIMS_PER_CHUNK).await?;
        plan.slots.extend(stretch.slots.iter().cloned());
        stretches.push((target, stretch));
    }
    Ok(stretches)
}

/// Loads the next ACTIVE claims of those slots and adds them to `claims`.
async fn load_chunks(
    transaction: &dyn Connection,
    stretches: Vec<(Target, Stretch)>,
    revocations: &BTreeMap<Target, Revocation>,
    claims: &mut Vec<Claim>,
) -> Result<HashMap<Target, Chunk>, DbErr> {
    let mut chunks = HashMap::new();
    for (target, Stretch { slots, last }) in stretches {
        let cursor = revocations.get(&target).and_then(|revocation| revocation.cursor.as_ref());
        let found = candidates(transaction, &slots, cursor, CLAIMS_PER_CHUNK).await?;
        let last = last && found.len() < CLAIMS_PER_CHUNK;
        let named = found.iter().map(|claim| (claim.slot.clone(), claim.id)).collect();
        claims.extend(found);
        chunks.insert(target, Chunk { claims: named, last });
    }
    Ok(chunks)
}

/// Loads the first claims of the queues that the plan needs and adds them to `claims`. They are read after their slot
/// is locked, so nobody else promotes them. A place is freed by a release at most, so no more of them are needed than
/// there are releases. Most slots have no queue and need no statement.
async fn load_queues(
    transaction: &dyn Connection,
    plan: &LoadPlan,
    slots: &[Slot],
    now: Timestamp,
    claims: &mut Vec<Claim>,
) -> Result<HashMap<SlotId, VecDeque<ClaimId>>, DbErr> {
    let mut queues = HashMap::new();
    for slot in slots.iter().filter(|slot| slot.waiting > 0) {
        let Some(wanted) = plan.queues.get(&slot.id) else { continue };
        let found = claim::queue(transaction, &slot.id, now, wanted.unwrap_or(u64::MAX >> 1)).await?;
        queues.insert(slot.id.clone(), found.iter().map(|claim| claim.id).collect());
        claims.extend(found);
    }
    Ok(queues)
}

async fn lock_slots(transaction: &dyn Connection, plan: &LoadPlan) -> Result<Vec<Slot>, DbErr> {
    let keys: Vec<String> = plan.slots.iter().filter(|id| !plan.whole.contains(&id.hospital)).map(slot_key).collect();
    let mut slots = Vec::with_capacity(keys.len());
    let whole = plan.whole.iter().map(HospitalId::segment);
    let mut lists: Vec<Condition> = keys
        .chunks(KEYS)
        .map(|keys| Condition::any().add(among(transaction, slot::Column::Id, keys.to_vec())))
        .collect();
    if !plan.whole.is_empty() {
        let first = lists.pop().unwrap_or_else(Condition::any);
        lists.push(first.add(slot::Column::Hospital.is_in(whole)));
    }
    for condition in lists {
        let rows = slot::Entity::find().filter(condition).order_by_asc(slot::Column::Id).lock_exclusive();
        for row in rows.fetch(transaction).await? {
            slots.push(Slot::try_from(row)?);
        }
    }
    Ok(slots)
}

async fn load_claims(transaction: &dyn Connection, plan: &LoadPlan) -> Result<Vec<Claim>, DbErr> {
    let screenings: Vec<Uuid> = plan.screenings.iter().copied().collect();
    let mut claims = Vec::with_capacity(screenings.len());
    for keys in screenings.chunks(KEYS) {
        let keys = among(transaction, claim::Column::Screening, keys.iter().copied());
        let rows = claim::Entity::find().filter(keys);
        for row in rows.fetch(transaction).await? {
            claims.push(Claim::try_from(row)?);
        }
    }
    Ok(claims)
}

/// How many claims each of these hospitals holds on slots that are not loaded.
async fn count_elsewhere(
    transaction: &dyn Connection,
    counted: &[&Hospital],
    slots: &[Slot],
    now: Timestamp,
) -> Result<HashMap<HospitalId, Held>, DbErr> {
    if counted.is_empty() {
        return Ok(HashMap::new());
    }
    let held = read::held_at(transaction, counted.iter().copied(), now).await?;
    let counts = counted.iter().map(|hospital| {
        let from = hospital.counts_from(now);
        let loaded = slots.iter().filter(|slot| slot.id.hospital == hospital.id && slot.id.date >= from);
        let mut elsewhere = held.get(hospital.id.segment()).copied().unwrap_or_default();
        for slot in loaded {
            elsewhere.active -= i64::from(slot.booked);
            elsewhere.waiting -= i64::from(slot.waiting);
        }
        (hospital.id.clone(), elsewhere)
    });
    Ok(counts.collect())
}
