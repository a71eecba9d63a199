//! The keys that a batch names, collected so that each table is read once.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{HospitalId, SlotId};
use domain::request::RequestKey;
use uuid::Uuid;

use crate::command::{Ask, Change, ClaimRequest, Command};
use crate::tables::revocation::Target;

/// The keys to load. Rows that are loaded may add more.
#[derive(Debug, Default)]
pub(super) struct LoadPlan {
    /// Hospitals that may change and therefore are locked.
    pub(super) changing: BTreeSet<HospitalId>,
    /// Hospitals that are only read.
    pub(super) hospitals: BTreeSet<HospitalId>,
    /// Hospitals whose active bookings are counted.
    pub(super) counted: BTreeSet<HospitalId>,
    /// Hospitals whose slots may all change.
    pub(super) whole: BTreeSet<HospitalId>,
    pub(super) slots: BTreeSet<SlotId>,
    /// Slots whose queues are needed, with how many places this batch may free there; `None`: any number.
    pub(super) queues: BTreeMap<SlotId, Option<u64>>,
    /// Screenings whose claims may change: claims are looked up by the first half of their id.
    pub(super) screenings: BTreeSet<Uuid>,
    pub(super) requests: BTreeSet<Uuid>,
    /// Revocations that may be under way.
    pub(super) revocations: BTreeSet<Target>,
    /// Revocations whose next chunk is needed.
    pub(super) chunks: BTreeSet<Target>,
    /// Keys of the request records to read.
    pub(super) keys: Vec<RequestKey>,
}

impl LoadPlan {
    /// The keys that the commands of a batch name.
    pub(super) fn of(batch: &[&Command]) -> Self {
        let mut plan = Self::default();
        for command in batch {
            match command {
                Command::Reserve(claim_request, _) => {
                    plan.hospitals.insert(claim_request.slot.hospital.clone());
                    plan.claim_request(claim_request);
                }
                Command::Release(claim_request) => plan.release(claim_request),
                Command::Consume(events) => events
                    .iter()
                    .filter_map(|event| event.claim_request.as_ref())
                    .for_each(|claim_request| plan.release(claim_request)),
                Command::Ask(ask) => plan.ask(ask),
                Command::Revoke(target) => {
                    plan.revocations.insert(target.clone());
                    plan.chunks.insert(target.clone());
                    match target {
                        Target::Hospital(hospital) => plan.changing(hospital),
                        Target::Slot(slot) => drop(plan.slots.insert(slot.clone())),
                    }
                }
                Command::StoreDeadLetter(..) | Command::Purge(_) => {}
            }
        }
        plan
    }

    fn claim_request(&mut self, claim_request: &ClaimRequest) {
        self.slots.insert(claim_request.slot.clone());
        self.screenings.insert(claim_request.claim.screening.0);
    }

    fn release(&mut self, claim_request: &ClaimRequest) {
        self.claim_request(claim_request);
        let freed = self.queues.entry(claim_request.slot.clone()).or_insert(Some(0));
        *freed = freed.map(|freed| freed + 1);
    }

    /// Adds a slot whose free places may go to any number of its queue.
    pub(super) fn offering(&mut self, slot: &SlotId) {
        self.queues.insert(slot.clone(), None);
    }

    /// Adds a hospital that may change, or that must not change before this batch commits.
    pub(super) fn changing(&mut self, hospital: &HospitalId) {
        self.changing.insert(hospital.clone());
        self.counted.insert(hospital.clone());
    }

    /// Adds a slot that an admin changes, and its hospital, whose time zone says when the date is over.
    fn administered(&mut self, slot: &SlotId) {
        self.hospitals.insert(slot.hospital.clone());
        self.slots.insert(slot.clone());
    }

    fn ask(&mut self, ask: &Ask) {
        self.keys.push(ask.request.key.clone());
        match &ask.change {
            Change::CreateHospital { id, slots, .. } | Change::CreateSlots { hospital: id, slots } => {
                self.changing(id);
                let slot = |date| SlotId::new(id.clone(), date);
                self.slots.extend(slots.iter().map(|new| slot(new.date)));
            }
            Change::UpdateHospital { id, .. } => self.changing(id),
            Change::DeleteHospital { id, .. } => {
                self.changing(id);
                self.whole.insert(id.clone());
            }
            Change::SetCapacity { slot, .. } => {
                self.administered(slot);
                self.offering(slot);
            }
            Change::ReopenSlot { slot, .. } => {
                self.administered(slot);
                self.offering(slot);
                self.revocations.insert(Target::Slot(slot.clone()));
            }
            Change::CloseSlot { slot, cancel_bookings, .. } => {
                self.administered(slot);
                if *cancel_bookings {
                    self.revocations.insert(Target::Slot(slot.clone()));
                    self.chunks.insert(Target::Slot(slot.clone()));
                }
            }
            Change::CloseSlots { hospital, dates, cancel_bookings, .. } => {
                self.hospitals.insert(hospital.clone());
                let slots: Vec<SlotId> = dates.iter().map(|date| SlotId::new(hospital.clone(), *date)).collect();
                if *cancel_bookings {
                    self.revocations.extend(slots.iter().cloned().map(Target::Slot));
                }
                self.slots.extend(slots);
            }
            Change::AskForCapacity { increase, .. } => {
                self.hospitals.insert(increase.slot.hospital.clone());
                self.slots.insert(increase.slot.clone());
            }
            Change::Decide { id, .. } => {
                self.hospitals.insert(id.hospital.clone());
                self.requests.insert(id.uid);
            }
        }
    }
}
