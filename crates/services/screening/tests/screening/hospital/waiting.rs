//! The queues of the fake Hospital.

use contract::capacity::v1::CapacityClaim;
use domain::capacity::{self, Administered, CapacityChange, Claim, ClaimState};
use domain::civil::encode_time;
use domain::ids::{ClaimId, SlotId};

use super::{FakeHospital, State};

/// The number of a claim's ticket; `None` if it does not wait.
fn number(claim: &Claim) -> Option<i64> {
    match claim.state {
        ClaimState::Waiting(ticket) => Some(ticket.number),
        ClaimState::Active | ClaimState::Released | ClaimState::Revoked(_) => None,
    }
}

impl FakeHospital {
    /// Raises the capacity of a slot as an admin does: who waits gets the new places.
    pub(crate) fn raise(&self, slot: &SlotId, capacity: i32) {
        let now = self.now();
        let mut state = self.state();
        let (hospital, queue) = (&state.hospitals[&slot.hospital], state.queue(slot));
        let change = CapacityChange::To(capacity);
        let raised = capacity::set_capacity(hospital, &state.slots[slot], change, "", None, &queue, now).unwrap();
        let Some(Administered { slot, fact: _, promoted }) = raised else { return };
        state.slots.insert(slot.id.clone(), slot);
        promoted.into_iter().for_each(|step| state.keep(step, now));
    }

    /// Forgets a claim, as a Hospital that was restored from a backup has.
    pub(crate) fn forget(&self, claim: ClaimId) {
        let mut state = self.state();
        let lost = state.claims.remove(&claim).unwrap();
        let slot = state.slots.get_mut(&lost.slot).unwrap();
        slot.waiting -= i32::from(number(&lost).is_some());
    }

    /// Makes it a Hospital of the version before, which has never heard of queues.
    pub(crate) fn age(&self) {
        self.state().is_old = true;
    }

    /// The claims that wait for a slot, in the order of their tickets.
    pub(crate) fn waiting(&self, slot: &SlotId) -> Vec<ClaimId> {
        self.state().queue(slot).iter().map(|claim| claim.id).collect()
    }
}

impl State {
    /// The claims that wait for a slot, in the order of their tickets.
    pub(super) fn queue(&self, slot: &SlotId) -> Vec<Claim> {
        let waits = |claim: &&Claim| claim.slot == *slot && number(claim).is_some();
        let mut queue: Vec<Claim> = self.claims.values().filter(waits).cloned().collect();
        queue.sort_by_key(number);
        queue
    }

    /// The part of an answer about a claim that only one that waits has.
    pub(super) fn ticket(&self, claim: &Claim) -> CapacityClaim {
        let ClaimState::Waiting(ticket) = claim.state else { return CapacityClaim::default() };
        let queue = self.queue(&claim.slot);
        let position = queue.iter().filter(|one| number(one) <= Some(ticket.number)).count();
        CapacityClaim {
            waitlist_ticket: ticket.number,
            waitlist_position: i32::try_from(position).unwrap(),
            promotion_close_time: Some(encode_time(ticket.closes_at)),
            ..CapacityClaim::default()
        }
    }
}
