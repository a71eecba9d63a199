//! The rows that a batch is decided on, in memory, and how their changes are written.

use std::collections::{HashMap, VecDeque};

use contract::event::v1::EventEnvelope;
use domain::capacity::{Claim, ClaimState, Fact, Slot, Step};
use domain::event::{Cause, envelope};
use domain::hospital::{CapacityRequest, Held, Hospital};
use domain::ids::{CapacityRequestId, ClaimId, HospitalId, SlotId};
use domain::request::RequestKey;
use jiff::Timestamp;
use runtime::entropy;
use sea_orm::entity::prelude::*;
use store::outbox;
use store::request_record::{self, Record};
use store::rows::{insert_all, replace_all};

use super::table::Table;
use crate::NAME;
use crate::tables::read::HospitalView;
use crate::tables::revocation::{Revocation, Target};
use crate::tables::{capacity_request, claim, hospital, revocation, slot};
use store::{Connection, Run as _};

/// The claims that a revocation revokes next.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// In the order of slots and claim ids.
    pub(super) claims: Vec<(SlotId, ClaimId)>,
    /// Whether no claim follows these.
    pub(super) last: bool,
}

/// The rows that a batch needs.
#[derive(Debug)]
pub(super) struct World {
    /// The time at which every command of the batch is decided.
    pub(super) now: Timestamp,
    pub(super) hospitals: Table<HospitalId, Hospital>,
    pub(super) slots: Table<SlotId, Slot>,
    pub(super) claims: Table<ClaimId, Claim>,
    pub(super) requests: Table<CapacityRequestId, CapacityRequest>,
    pub(super) revocations: Table<Target, Revocation>,
    /// The next claims of each revocation.
    pub(super) chunks: HashMap<Target, Chunk>,
    /// The first claims of the queues, in the order of their tickets.
    pub(super) queues: HashMap<SlotId, VecDeque<ClaimId>>,
    /// Claims on slots that are not loaded, for each hospital whose claims are counted.
    pub(super) elsewhere: HashMap<HospitalId, Held>,
    /// Records of requests that were answered before this batch.
    pub(super) records: HashMap<RequestKey, Record>,
    /// Records of requests that this batch answers.
    pub(super) answered: Vec<Record>,
    /// Events to append to the outbox.
    pub(super) events: Vec<EventEnvelope>,
}

impl World {
    /// How many claims a hospital of the plan's `counted` holds, by [`Hospital::counts_from`].
    pub(super) fn held(&self, hospital: &Hospital) -> Held {
        let from = hospital.counts_from(self.now);
        let mut held = self.elsewhere.get(&hospital.id).copied().unwrap_or_default();
        for (_, slot) in self.slots.iter().filter(|(id, _)| id.hospital == hospital.id && id.date >= from) {
            held.active += i64::from(slot.booked);
            held.waiting += i64::from(slot.waiting);
        }
        held
    }

    pub(super) fn view(&self, hospital: &Hospital) -> HospitalView {
        HospitalView { hospital: hospital.clone(), held: self.held(hospital) }
    }

    /// The first claims of a slot's queue, at most `wanted`, as far as they are loaded. Those that do not wait any more
    /// are dropped from its front.
    pub(super) fn queue(&mut self, slot: &SlotId, wanted: usize) -> Vec<Claim> {
        let Some(queue) = self.queues.get_mut(slot) else { return Vec::new() };
        let waits = |id: &ClaimId| self.claims.get(id).filter(|claim| matches!(claim.state, ClaimState::Waiting(_)));
        while queue.front().is_some_and(|id| waits(id).is_none()) {
            queue.pop_front();
        }
        queue.iter().filter_map(waits).take(wanted).cloned().collect()
    }

    /// Adds an event for a fact.
    pub(super) fn emit(&mut self, cause: &Cause, fact: Fact) {
        let Fact { aggregate, version, payload } = fact;
        let id = entropy::uuid_v7();
        self.events.push(envelope(NAME, cause, self.now, id, aggregate, version, payload));
    }

    /// Keeps the changes that a command made to a claim. Returns whether there were any.
    pub(super) fn keep(&mut self, cause: &Cause, step: &Step) -> bool {
        let Some(fact) = &step.fact else { return false };
        self.claims.put(step.claim.id, step.claim.clone());
        if let ClaimState::Waiting(_) = step.claim.state {
            self.queues.entry(step.claim.slot.clone()).or_default().push_back(step.claim.id);
        }
        if let Some(slot) = &step.slot {
            self.slots.put(slot.id.clone(), slot.clone());
        }
        self.emit(cause, fact.clone());
        true
    }

    /// Writes the changed rows and the events.
    pub(super) async fn save(self, transaction: &dyn Connection) -> Result<(), DbErr> {
        insert_all(transaction, self.hospitals.added().map(hospital::ActiveModel::from).collect()).await?;
        replace_all(transaction, self.hospitals.replaced().map(hospital::ActiveModel::from).collect()).await?;
        insert_all(transaction, self.slots.added().map(slot::ActiveModel::from).collect()).await?;
        replace_all(transaction, self.slots.replaced().map(slot::ActiveModel::from).collect()).await?;
        insert_all(transaction, self.claims.added().map(claim::ActiveModel::from).collect()).await?;
        replace_all(transaction, self.claims.replaced().map(claim::ActiveModel::from).collect()).await?;
        insert_all(transaction, self.requests.added().map(capacity_request::ActiveModel::from).collect()).await?;
        replace_all(transaction, self.requests.replaced().map(capacity_request::ActiveModel::from).collect()).await?;
        insert_all(transaction, self.revocations.added().map(revocation::ActiveModel::from).collect()).await?;
        replace_all(transaction, self.revocations.replaced().map(revocation::ActiveModel::from).collect()).await?;
        let ended: Vec<String> = self.revocations.removed().map(Target::key).collect();
        if !ended.is_empty() {
            let ended = revocation::Column::Target.is_in(ended);
            revocation::Entity::delete_many().filter(ended).run(transaction).await?;
        }
        outbox::append(transaction, &self.events).await?;
        request_record::insert(transaction, self.answered).await
    }
}
