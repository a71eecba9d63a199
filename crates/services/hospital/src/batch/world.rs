//! The rows that a batch is decided on, in memory, and how their changes are written.

use std::collections::HashMap;

use contract::event::v1::EventEnvelope;
use domain::capacity::{Claim, Fact, Slot, Step};
use domain::event::{Cause, envelope};
use domain::hospital::{CapacityRequest, Hospital};
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
    /// Active bookings on slots that are not loaded, for each hospital whose bookings are counted.
    pub(super) elsewhere: HashMap<HospitalId, i64>,
    /// Records of requests that were answered before this batch.
    pub(super) records: HashMap<RequestKey, Record>,
    /// Records of requests that this batch answers.
    pub(super) answered: Vec<Record>,
    /// Events to append to the outbox.
    pub(super) events: Vec<EventEnvelope>,
}

impl World {
    /// How many active bookings a hospital of the plan's `counted` has, by [`Hospital::counts_from`].
    pub(super) fn active(&self, hospital: &Hospital) -> i64 {
        let from = hospital.counts_from(self.now);
        let counted = |id: &SlotId| id.hospital == hospital.id && id.date >= from;
        let loaded = self.slots.iter().filter(|(id, _)| counted(id)).map(|(_, slot)| i64::from(slot.booked));
        self.elsewhere.get(&hospital.id).copied().unwrap_or(0) + loaded.sum::<i64>()
    }

    pub(super) fn view(&self, hospital: &Hospital) -> HospitalView {
        HospitalView { hospital: hospital.clone(), active: self.active(hospital) }
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
