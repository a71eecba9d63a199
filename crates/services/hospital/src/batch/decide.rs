//! Turns commands into changes of the loaded rows by the rules of `domain`. A refusal changes nothing.

use std::collections::BTreeSet;

use domain::capacity::{
    Administered, CapacityChange, ClaimState, Fact, Slot, Step, close_slot, open_slot, release, reopen_slot, reserve,
    revoke, set_capacity, slot_not_found, withdraw_slot,
};
use domain::civil::today;
use domain::event::Cause;
use domain::hospital::{
    self, CapacityIncrease, Draft, Hospital, HospitalState, approve, ask_for_capacity, capacity_request_not_found,
    finish_deletion, hospital_not_found, reject,
};
use domain::ids::{CapacityRequestId, HospitalId, SlotId};
use fault::Fault;
use jiff::civil::Date;
use store::inbox::Ignored;
use store::request_record::Record;
use uuid::Uuid;

use super::world::World;
use crate::command::{Answer, Ask, Change, ClaimRequest, Event, NewSlot, Outcome};
use crate::tables::revocation::{Revocation, Target};

/// An outcome, and the name of the resource that answers a replay of the request.
type Decided = Result<(Outcome, String), Fault>;

impl World {
    pub(super) fn reserve(&mut self, claim_request: &ClaimRequest, allow_waitlist: bool) -> Answer {
        let ClaimRequest { slot, claim, cause } = claim_request;
        let hospital = self.hospitals.get(&slot.hospital);
        let (existing, offered) = (self.claims.get(claim), self.slots.get(slot));
        let step = reserve(slot, *claim, existing, hospital, offered, allow_waitlist, self.now)?;
        let terms = hospital.map(|hospital| hospital.terms(slot.date));
        self.keep(cause, &step);
        // who joined last waits behind all others
        let position = step.slot.filter(|_| step.claim.state != ClaimState::Active).map(|slot| slot.waiting);
        Ok(Outcome::Claim(step.claim, terms, position))
    }

    pub(super) fn release(&mut self, claim_request: &ClaimRequest) -> Answer {
        let ClaimRequest { slot, claim, cause } = claim_request;
        let queue = self.queue(slot, 1);
        let (step, promoted) = release(slot, *claim, self.claims.get(claim), self.slots.get(slot), &queue, self.now)?;
        self.keep(cause, &step);
        self.promote(cause, &promoted);
        Ok(Outcome::Claim(step.claim, None, None))
    }

    fn promote(&mut self, cause: &Cause, promoted: &[Step]) {
        for step in promoted {
            self.keep(cause, step);
        }
    }

    /// Gives back the places that events name. Returns the events whose release the rules refuse.
    pub(super) fn consume(&mut self, events: &[&Event]) -> Vec<Ignored> {
        let mut ignored = Vec::new();
        for event in events {
            let Some(claim_request) = &event.claim_request else { continue };
            if let Err(fault) = self.release(claim_request) {
                let (aggregate, reason) = (claim_request.claim.to_string(), fault.message().to_owned());
                ignored.push(Ignored { event_id: event.id, aggregate, reason, time: self.now });
            }
        }
        ignored
    }

    /// Makes a change at most once per request id. A replay gets the resource as it is now.
    pub(super) fn ask(&mut self, ask: &Ask) -> Answer {
        let Ask { request, cause, change } = ask;
        if let Some(record) = self.records.get(&request.key) {
            request.matches(&record.fingerprint)?;
            return self.replay(change, &record.resource);
        }
        let (outcome, resource) = self.change(cause, change)?;
        let record =
            Record { key: request.key.clone(), fingerprint: request.fingerprint.to_vec(), resource, time: self.now };
        self.records.insert(request.key.clone(), record.clone());
        self.answered.push(record);
        Ok(outcome)
    }

    fn replay(&self, change: &Change, resource: &str) -> Answer {
        match change {
            Change::CreateHospital { .. } | Change::UpdateHospital { .. } | Change::DeleteHospital { .. } => {
                let id = HospitalId::parse(resource).map_err(|malformed| Fault::internal(malformed.0))?;
                let hospital = self.hospitals.get(&id).ok_or_else(|| hospital_not_found(&id))?;
                Ok(Outcome::Hospital(self.view(hospital)))
            }
            Change::CreateSlots { hospital, slots } => {
                let slots = slots.iter().map(|new| self.slot(&SlotId::new(hospital.clone(), new.date)));
                Ok(Outcome::Slots(slots.map(|slot| slot.cloned()).collect::<Result<_, _>>()?))
            }
            Change::CloseSlots { hospital, dates, .. } => Ok(Outcome::Slots(self.closable(hospital, dates)?)),
            Change::SetCapacity { slot, .. } | Change::CloseSlot { slot, .. } | Change::ReopenSlot { slot, .. } => {
                Ok(Outcome::Slots(vec![self.slot(slot)?.clone()]))
            }
            Change::AskForCapacity { .. } | Change::Decide { .. } => {
                let id = CapacityRequestId::parse(resource).map_err(|malformed| Fault::internal(malformed.0))?;
                let request = self.requests.get(&id).ok_or_else(|| capacity_request_not_found(&id))?;
                Ok(Outcome::CapacityRequest(request.clone()))
            }
        }
    }

    fn change(&mut self, cause: &Cause, change: &Change) -> Decided {
        match change {
            Change::CreateHospital { id, uid, draft, slots } => self.create_hospital(cause, id, *uid, draft, slots),
            Change::UpdateHospital { id, change, etag } => self.update_hospital(cause, id, change, etag),
            Change::DeleteHospital { id, force, reason, etag } => self.delete_hospital(cause, id, *force, reason, etag),
            Change::CreateSlots { hospital, slots } => self.create_slots(cause, hospital, slots),
            Change::SetCapacity { slot, change, etag } => self.set_capacity(cause, slot, *change, etag),
            Change::CloseSlot { slot, cancel_bookings, reason, etag } => {
                self.close_slot(cause, slot, *cancel_bookings, reason, etag)
            }
            Change::CloseSlots { hospital, dates, cancel_bookings, reason } => {
                self.close_slots(cause, hospital, dates, *cancel_bookings, reason)
            }
            Change::ReopenSlot { slot, etag } => self.reopen_slot(cause, slot, etag),
            Change::AskForCapacity { id, increase } => self.ask_for_capacity(cause, id, increase),
            Change::Decide { id, approve, note, etag } => self.decide(cause, id, *approve, note, etag),
        }
    }

    fn hospital(&self, id: &HospitalId) -> Result<&Hospital, Fault> {
        self.hospitals.get(id).ok_or_else(|| hospital_not_found(id))
    }

    fn slot(&self, id: &SlotId) -> Result<&Slot, Fault> {
        self.slots.get(id).ok_or_else(|| slot_not_found(id))
    }

    fn administered(&self, id: &SlotId) -> Result<(&Hospital, &Slot), Fault> {
        let slot = self.slot(id)?;
        Ok((self.hospital(&id.hospital)?, slot))
    }

    fn answer_hospital(&self, hospital: &Hospital) -> Decided {
        Ok((Outcome::Hospital(self.view(hospital)), hospital.id.to_string()))
    }

    fn answer_slot(&self, id: &SlotId) -> Decided {
        Ok((Outcome::Slots(vec![self.slot(id)?.clone()]), id.to_string()))
    }

    fn put_slot(&mut self, cause: &Cause, changed: Option<(Slot, Fact)>) {
        if let Some((slot, fact)) = changed {
            self.slots.put(slot.id.clone(), slot);
            self.emit(cause, fact);
        }
    }

    fn administer(&mut self, cause: &Cause, changed: Option<Administered>) {
        if let Some(Administered { slot, fact, promoted }) = changed {
            self.put_slot(cause, Some((slot, fact)));
            self.promote(cause, &promoted);
        }
    }

    fn create_hospital(
        &mut self,
        cause: &Cause,
        id: &HospitalId,
        uid: Uuid,
        draft: &Draft,
        slots: &[NewSlot],
    ) -> Decided {
        let (hospital, registered) = hospital::register(id, uid, draft, self.hospitals.get(id), self.now)?;
        let opened = self.open_slots(&hospital, slots)?;
        self.hospitals.put(id.clone(), hospital.clone());
        self.emit(cause, registered);
        opened.into_iter().for_each(|opened| self.put_slot(cause, Some(opened)));
        self.answer_hospital(&hospital)
    }

    fn open_slots(&self, hospital: &Hospital, slots: &[NewSlot]) -> Result<Vec<(Slot, Fact)>, Fault> {
        let open = |new: &NewSlot| {
            let id = SlotId::new(hospital.id.clone(), new.date);
            open_slot(hospital, new.date, new.capacity, self.slots.get(&id), self.now)
        };
        slots.iter().map(open).collect()
    }

    fn update_hospital(
        &mut self,
        cause: &Cause,
        id: &HospitalId,
        change: &hospital::HospitalChange,
        etag: &str,
    ) -> Decided {
        let hospital = self.hospital(id)?;
        let Some((changed, fact)) = hospital::update(hospital, change, etag, self.now)? else {
            return self.answer_hospital(hospital);
        };
        self.hospitals.put(id.clone(), changed.clone());
        self.emit(cause, fact);
        self.answer_hospital(&changed)
    }

    fn delete_hospital(&mut self, cause: &Cause, id: &HospitalId, force: bool, reason: &str, etag: &str) -> Decided {
        let hospital = self.hospital(id)?;
        let Some((deleted, facts)) = hospital::delete(hospital, self.held(hospital), force, reason, etag, self.now)?
        else {
            return self.answer_hospital(hospital);
        };
        let slots: Vec<Slot> =
            self.slots.iter().filter(|(slot, _)| slot.hospital == *id).map(|(_, slot)| slot.clone()).collect();
        for slot in slots {
            self.slots.put(slot.id.clone(), withdraw_slot(&slot, self.now));
        }
        if deleted.state() == HospitalState::Deleting {
            self.begin_revocation(Target::Hospital(id.clone()), reason, cause, 0);
        }
        self.hospitals.put(id.clone(), deleted.clone());
        facts.into_iter().for_each(|fact| self.emit(cause, fact));
        self.answer_hospital(&deleted)
    }

    fn create_slots(&mut self, cause: &Cause, hospital: &HospitalId, slots: &[NewSlot]) -> Decided {
        let opened = self.open_slots(self.hospital(hospital)?, slots)?;
        let answered = opened.iter().map(|(slot, _)| slot.clone()).collect();
        opened.into_iter().for_each(|opened| self.put_slot(cause, Some(opened)));
        Ok((Outcome::Slots(answered), hospital.to_string()))
    }

    fn set_capacity(&mut self, cause: &Cause, id: &SlotId, change: CapacityChange, etag: &str) -> Decided {
        let queue = self.queue(id, usize::MAX);
        let (hospital, slot) = self.administered(id)?;
        let changed = set_capacity(hospital, slot, change, etag, None, &queue, self.now)?;
        self.administer(cause, changed);
        self.answer_slot(id)
    }

    fn close_slot(&mut self, cause: &Cause, id: &SlotId, cancel: bool, reason: &str, etag: &str) -> Decided {
        let (hospital, slot) = self.administered(id)?;
        let closed = close_slot(hospital, slot, cancel, reason, etag, self.now)?;
        let target = Target::Slot(id.clone());
        // A cancellation that is under way keeps its reason and its cause.
        if closed.is_some() && self.revocations.get(&target).is_none() {
            self.put_slot(cause, closed);
            if cancel {
                let revoked = self.revoke_candidates(&target, reason, cause);
                if self.slot(id)?.to_cancel(true) > 0 {
                    self.begin_revocation(target, reason, cause, revoked);
                }
            }
        }
        self.answer_slot(id)
    }

    /// The slots of these dates that are not over.
    fn closable(&self, id: &HospitalId, dates: &BTreeSet<Date>) -> Result<Vec<Slot>, Fault> {
        let hospital = self.hospital(id)?;
        let today = today(self.now, &hospital.time_zone);
        let slots = dates.range(today..).map(|date| SlotId::new(id.clone(), *date));
        Ok(slots.filter_map(|slot| self.slots.get(&slot).cloned()).collect())
    }

    fn close_slots(
        &mut self,
        cause: &Cause,
        id: &HospitalId,
        dates: &BTreeSet<Date>,
        cancel: bool,
        reason: &str,
    ) -> Decided {
        self.hospital(id)?.require_active()?;
        for slot in self.closable(id, dates)? {
            self.close_slot(cause, &slot.id, cancel, reason, "")?;
        }
        Ok((Outcome::Slots(self.closable(id, dates)?), id.to_string()))
    }

    fn reopen_slot(&mut self, cause: &Cause, id: &SlotId, etag: &str) -> Decided {
        let revoking = self.revocations.get(&Target::Slot(id.clone())).is_some();
        let queue = self.queue(id, usize::MAX);
        let (hospital, slot) = self.administered(id)?;
        let opened = reopen_slot(hospital, slot, etag, revoking, &queue, self.now)?;
        self.administer(cause, opened);
        self.answer_slot(id)
    }

    fn ask_for_capacity(&mut self, cause: &Cause, id: &CapacityRequestId, increase: &CapacityIncrease) -> Decided {
        let hospital = self.hospital(&id.hospital)?;
        hospital.require_active()?;
        let (request, fact) = ask_for_capacity(id.clone(), increase, hospital, self.slot(&increase.slot)?, self.now)?;
        self.requests.put(id.clone(), request.clone());
        self.emit(cause, fact);
        Ok((Outcome::CapacityRequest(request), id.to_string()))
    }

    fn decide(&mut self, cause: &Cause, id: &CapacityRequestId, yes: bool, note: &str, etag: &str) -> Decided {
        let request = self.requests.get(id).ok_or_else(|| capacity_request_not_found(id))?.clone();
        let queue = self.queue(&request.slot, usize::MAX);
        let hospital = self.hospital(&id.hospital)?;
        let decided = if yes {
            let slot = self.slot(&request.slot)?;
            let (decided, raised, decision) = approve(&request, hospital, slot, note, etag, &queue, self.now)?;
            self.administer(cause, Some(raised));
            self.emit(cause, decision);
            decided
        } else {
            let (decided, fact) = reject(&request, hospital, note, etag, self.now)?;
            self.emit(cause, fact);
            decided
        };
        self.requests.put(id.clone(), decided.clone());
        Ok((Outcome::CapacityRequest(decided), id.to_string()))
    }

    fn begin_revocation(&mut self, target: Target, message: &str, cause: &Cause, revoked: i64) {
        let revocation = Revocation {
            target: target.clone(),
            message: message.to_owned(),
            revoked,
            cursor: None,
            cause: cause.clone(),
        };
        self.revocations.put(target, revocation);
    }

    /// Revokes those of the target's loaded claims that have not ended. Returns how many.
    fn revoke_candidates(&mut self, target: &Target, message: &str, cause: &Cause) -> i64 {
        let mut revoked = 0;
        let claims = self.chunks.get(target).map(|chunk| chunk.claims.clone()).unwrap_or_default();
        for (slot, claim) in claims {
            if let (Some(claim), Some(slot)) = (self.claims.get(&claim), self.slots.get(&slot)) {
                let step = revoke(claim, slot, target.reason(), message, self.now);
                revoked += i64::from(self.keep(cause, &step));
            }
        }
        revoked
    }

    /// Revokes the next chunk, and ends the revocation once nothing is left. Returns whether another chunk follows.
    pub(super) fn revoke_chunk(&mut self, target: &Target) -> bool {
        let Some(revocation) = self.revocations.get(target).cloned() else { return false };
        let revoked = revocation.revoked + self.revoke_candidates(target, &revocation.message, &revocation.cause);
        let chunk = self.chunks.get(target);
        let exhausted = chunk.is_none_or(|chunk| chunk.last);
        if exhausted && self.left(target) == 0 {
            self.end_revocation(&revocation, revoked);
            return false;
        }
        // By the rules, no claim is left behind the last one. If one is left all the same, the next search starts at
        // the beginning.
        let cursor = chunk.filter(|_| !exhausted).and_then(|chunk| chunk.claims.last().cloned());
        self.revocations.put(target.clone(), Revocation { revoked, cursor, ..revocation });
        !exhausted
    }

    /// How many claims of the target have not ended.
    fn left(&self, target: &Target) -> i64 {
        match target {
            Target::Hospital(id) => self.hospitals.get(id).map_or(0, |hospital| self.held(hospital).total()),
            Target::Slot(slot) => self.slots.get(slot).map_or(0, |slot| i64::from(slot.to_cancel(true))),
        }
    }

    fn end_revocation(&mut self, revocation: &Revocation, revoked: i64) {
        self.revocations.remove(&revocation.target);
        let Target::Hospital(id) = &revocation.target else { return };
        let Some(hospital) = self.hospitals.get(id).filter(|hospital| hospital.state() == HospitalState::Deleting)
        else {
            return;
        };
        let (deleted, fact) = finish_deletion(hospital, revoked, self.now);
        self.hospitals.put(id.clone(), deleted);
        self.emit(&revocation.cause, fact);
    }
}
