//! What the writer is asked to do, and what it answers. Everything here is decoded: nothing is checked again but by the
//! rules.

use domain::capacity::{CapacityChange, Claim, Slot};
use domain::event::Cause;
use domain::hospital::{CapacityIncrease, CapacityRequest, Draft, HospitalChange, Terms};
use domain::ids::{CapacityRequestId, ClaimId, HospitalId, SlotId};
use domain::request::Request;
use fault::Fault;
use jiff::Timestamp;
use jiff::civil::Date;
use store::dead_letter::DeadLetter;
use store::inbox::InboxKey;
use uuid::Uuid;

use crate::tables::read::HospitalView;
use crate::tables::revocation::Target;

/// A place on a slot, and who takes or gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimRequest {
    /// On which slot.
    pub(crate) slot: SlotId,
    /// Under which claim.
    pub(crate) claim: ClaimId,
    /// Why and by whom.
    pub(crate) cause: Cause,
}

/// One request to change something.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes a place; idempotent by claim id.
    Reserve(ClaimRequest),
    /// Gives a place back; idempotent by claim id.
    Release(ClaimRequest),
    /// What people and services ask for under a request id.
    Ask(Box<Ask>),
    /// Gives back the places that events name, each once.
    Consume(Vec<Event>),
    /// Keeps an event that cannot be applied.
    StoreDeadLetter(Box<DeadLetter>, InboxKey),
    /// Revokes the next chunk of a deletion or cancellation; does nothing once it is done.
    Revoke(Target),
    /// Forgets request records from before this time.
    Purge(Timestamp),
}

/// An event that frees a place.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// What the inbox recognises it by.
    pub(crate) inbox_key: InboxKey,
    /// Its id.
    pub(crate) id: Uuid,
    /// What it frees; none for one that never had a place.
    pub(crate) claim_request: Option<ClaimRequest>,
}

/// A change under a request id.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// What makes it safe to repeat.
    pub(crate) request: Request,
    /// Why and by whom.
    pub(crate) cause: Cause,
    /// What to change.
    pub(crate) change: Change,
}

/// The places of a new slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewSlot {
    /// Its date.
    pub(crate) date: Date,
    /// How many.
    pub(crate) capacity: i32,
}

/// What to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Registers a hospital and opens its first dates.
    CreateHospital { id: HospitalId, uid: Uuid, draft: Draft, slots: Vec<NewSlot> },
    /// Changes what admins set of a hospital.
    UpdateHospital { id: HospitalId, change: HospitalChange, etag: String },
    /// Begins a deletion.
    DeleteHospital { id: HospitalId, force: bool, reason: String, etag: String },
    /// Opens dates, all or none.
    CreateSlots { hospital: HospitalId, slots: Vec<NewSlot> },
    /// Sets or shifts a capacity.
    SetCapacity { slot: SlotId, change: CapacityChange, etag: String },
    /// Takes a date off sale.
    CloseSlot { slot: SlotId, cancel_bookings: bool, reason: String, etag: String },
    /// Puts a date on sale again.
    ReopenSlot { slot: SlotId, etag: String },
    /// Asks for more places.
    AskForCapacity { id: CapacityRequestId, increase: CapacityIncrease },
    /// Approves or rejects a capacity request.
    Decide { id: CapacityRequestId, approve: bool, note: String, etag: String },
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The hospital as it is now.
    Hospital(HospitalView),
    /// The slots as they are now, in the order of the command.
    Slots(Vec<Slot>),
    /// The capacity request as it is now.
    CapacityRequest(CapacityRequest),
    /// The claim as it is now, and what was promised with it.
    Claim(Claim, Option<Terms>),
    /// A chunk is revoked; where `more` is set, the next one can follow at once.
    Revoked { more: bool },
    /// Nothing to tell.
    Done,
}

/// What the asker is told.
pub(crate) type Answer = Result<Outcome, Fault>;

fn mismatched() -> Fault {
    Fault::internal("the writer answered another question")
}

impl Outcome {
    /// The answer of a command about a hospital.
    pub(crate) fn hospital(self) -> Result<HospitalView, Fault> {
        if let Self::Hospital(view) = self { Ok(view) } else { Err(mismatched()) }
    }

    /// The answer of a command about several slots.
    pub(crate) fn slots(self) -> Result<Vec<Slot>, Fault> {
        if let Self::Slots(slots) = self { Ok(slots) } else { Err(mismatched()) }
    }

    /// The answer of a command about one slot.
    pub(crate) fn slot(self) -> Result<Slot, Fault> {
        self.slots()?.pop().ok_or_else(mismatched)
    }

    /// The answer of a command about a capacity request.
    pub(crate) fn capacity_request(self) -> Result<CapacityRequest, Fault> {
        if let Self::CapacityRequest(request) = self { Ok(request) } else { Err(mismatched()) }
    }

    /// The answer of a command about a claim.
    pub(crate) fn claim(self) -> Result<(Claim, Option<Terms>), Fault> {
        if let Self::Claim(claim, terms) = self { Ok((claim, terms)) } else { Err(mismatched()) }
    }
}
