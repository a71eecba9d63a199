//! The writer's commands and its answers. Commands are decoded: only the rules of `domain` check them again.

use std::collections::BTreeSet;

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

/// Takes or gives back one place on a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimRequest {
    pub(crate) slot: SlotId,
    /// The claim that gets or had the place.
    pub(crate) claim: ClaimId,
    /// Who asked for it, and in which request and trace.
    pub(crate) cause: Cause,
}

#[derive(Debug)]
pub(crate) enum Command {
    /// Takes a place, or with `true` a ticket of the queue where no place is left; idempotent by claim id.
    Reserve(ClaimRequest, bool),
    /// Gives a place back; idempotent by claim id.
    Release(ClaimRequest),
    /// Makes a change under a request id.
    Ask(Box<Ask>),
    /// Gives back the places that events name, each once.
    Consume(Vec<Event>),
    /// Stores an event that cannot be applied.
    StoreDeadLetter(Box<DeadLetter>, InboxKey),
    /// Revokes the next chunk of a deletion or cancellation. Does nothing once it has ended.
    Revoke(Target),
    /// Deletes request records from before this time.
    Purge(Timestamp),
}

/// An event that frees a place.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Where the event stands in its log; the inbox uses it to detect a repetition.
    pub(crate) inbox_key: InboxKey,
    pub(crate) id: Uuid,
    /// The place that it frees. `None` for a booking that never had one.
    pub(crate) claim_request: Option<ClaimRequest>,
}

/// A change, and the request that asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Identifies the request, so that a repetition changes nothing.
    pub(crate) request: Request,
    /// Who asked for it, and in which request and trace.
    pub(crate) cause: Cause,
    pub(crate) change: Change,
}

/// A slot to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewSlot {
    pub(crate) date: Date,
    /// How many people it takes.
    pub(crate) capacity: i32,
}

/// A change that a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Registers a hospital and opens its first dates.
    CreateHospital { id: HospitalId, uid: Uuid, draft: Draft, slots: Vec<NewSlot> },
    /// Changes fields that admins set.
    UpdateHospital { id: HospitalId, change: HospitalChange, etag: String },
    /// Begins to delete a hospital.
    DeleteHospital { id: HospitalId, force: bool, reason: String, etag: String },
    /// Opens slots, all or none.
    CreateSlots { hospital: HospitalId, slots: Vec<NewSlot> },
    /// Sets a slot's capacity, or changes it by a difference.
    SetCapacity { slot: SlotId, change: CapacityChange, etag: String },
    /// Closes a slot for new bookings, and cancels its bookings if `cancel_bookings` is set.
    CloseSlot { slot: SlotId, cancel_bookings: bool, reason: String, etag: String },
    /// Closes the slots of these dates that are not over, like `CloseSlot`.
    CloseSlots { hospital: HospitalId, dates: BTreeSet<Date>, cancel_bookings: bool, reason: String },
    /// Opens a closed slot again.
    ReopenSlot { slot: SlotId, etag: String },
    /// Asks for more places.
    AskForCapacity { id: CapacityRequestId, increase: CapacityIncrease },
    /// Approves or rejects a capacity request.
    Decide { id: CapacityRequestId, approve: bool, note: String, etag: String },
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The hospital as it is now.
    Hospital(HospitalView),
    /// The slots as they are now, in the order of the command.
    Slots(Vec<Slot>),
    /// The capacity request as it is now.
    CapacityRequest(CapacityRequest),
    /// The claim as it is now, the booking terms that Hospital promises with a place or a ticket, and the position of a
    /// claim that has just joined a queue.
    Claim(Claim, Option<Terms>, Option<i32>),
    /// One chunk is revoked. If `more` is set, the next one can follow at once.
    Revoked { more: bool },
    /// The command has no result.
    Done,
}

/// The answer of the writer: a result or a refusal.
pub(crate) type Answer = Result<Outcome, Fault>;

fn mismatched() -> Fault {
    Fault::internal("the writer answered another question")
}

impl Outcome {
    /// The result of a command about a hospital; an internal fault if the command was about something else.
    pub(crate) fn hospital(self) -> Result<HospitalView, Fault> {
        if let Self::Hospital(view) = self { Ok(view) } else { Err(mismatched()) }
    }

    /// The result of a command about several slots.
    pub(crate) fn slots(self) -> Result<Vec<Slot>, Fault> {
        if let Self::Slots(slots) = self { Ok(slots) } else { Err(mismatched()) }
    }

    /// The result of a command about one slot.
    pub(crate) fn slot(self) -> Result<Slot, Fault> {
        self.slots()?.pop().ok_or_else(mismatched)
    }

    /// The result of a command about a capacity request.
    pub(crate) fn capacity_request(self) -> Result<CapacityRequest, Fault> {
        if let Self::CapacityRequest(request) = self { Ok(request) } else { Err(mismatched()) }
    }

    /// The result of a command about a claim.
    pub(crate) fn claim(self) -> Result<(Claim, Option<Terms>, Option<i32>), Fault> {
        if let Self::Claim(claim, terms, position) = self { Ok((claim, terms, position)) } else { Err(mismatched()) }
    }
}
