//! What a batch is decided on, in memory, and the writing of what changed.

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

/// The claims a revocation comes to next.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// In order.
    pub(super) claims: Vec<(SlotId, ClaimId)>,
    /// Whether there is none behind them.
    pub(super) last: bool,
}

/// The rows a batch is about.
#[derive(Debug)]
pub(super) struct World {
    /// The instant everything is decided at.
    pub(super) now: Timestamp,
    /// Hospitals.
    pub(super) hospitals: Table<HospitalId, Hospital>,
    /// Slots.
    pub(super) slots: Table<SlotId, Slot>,
    /// Claims.
    pub(super) claims: Table<ClaimId, Claim>,
    /// Capacity requests.
    pub(super) requests: Table<CapacityRequestId, CapacityRequest>,
    /// Revocations under way.
    pub(super) revocations: Table<Target, Revocation>,
    /// What they come to next.
    pub(super) chunks: HashMap<Target, Chunk>,
    /// Active bookings on slots that are not loaded, for the hospitals whose bookings are counted.
    pub(super) elsewhere: HashMap<HospitalId, i64>,
    /// Requests answered before.
    pub(super) records: HashMap<RequestKey, Record>,
    /// Requests answered now.
    pub(super) answered: Vec<Record>,
    /// What happened.
    pub(super) events: Vec<EventEnvelope>,
}

impl World {
    /// How many active bookings a hospital has whose bookings are counted; see [`Hospital::counts_from`].
    pub(super) fn active(&self, hospital: &Hospital) -> i64 {
        let from = hospital.counts_from(self.now);
        let counted = |id: &SlotId| id.hospital == hospital.id && id.date >= from;
        let loaded = self.slots.iter().filter(|(id, _)| counted(id)).map(|(_, slot)| i64::from(slot.booked));
        self.elsewhere.get(&hospital.id).copied().unwrap_or(0) + loaded.sum::<i64>()
    }

    /// A hospital as it is now.
    pub(super) fn view(&self, hospital: &Hospital) -> HospitalView {
        HospitalView { hospital: hospital.clone(), active: self.active(hospital) }
    }

    /// Reports what happened.
    pub(super) fn emit(&mut self, cause: &Cause, fact: Fact) {
        let Fact { aggregate, version, payload } = fact;
        let id = entropy::uuid_v7();
        self.events.push(envelope(NAME, cause, self.now, id, aggregate, version, payload));
    }

    /// Keeps what a command did to a claim; says whether it did anything.
    pub(super) fn keep(&mut self, cause: &Cause, step: &Step) -> bool {
        let Some(fact) = &step.fact else { return false };
        self.claims.put(step.claim.id, step.claim.clone());
        if let Some(slot) = &step.slot {
            self.slots.put(slot.id.clone(), slot.clone());
        }
        self.emit(cause, fact.clone());
        true
    }

    /// Writes what changed.
    pub(super) async fn save(self, transaction: &impl ConnectionTrait) -> Result<(), DbErr> {
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
            revocation::Entity::delete_many().filter(ended).exec(transaction).await?;
        }
        outbox::append(transaction, self.events).await?;
        request_record::insert(transaction, self.answered).await
    }
}
