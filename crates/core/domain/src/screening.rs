//! The life of a screening: the transitions, their conditions, and the facts that they announce.
//!
//! [`decide()`] judges a command against the stored row, [`apply()`] makes the next row from the decision, and
//! [`facts`] writes what other services hear of it. [`crate::booking`] asks Hospital for a place before a row exists;
//! Hospital decides whether to give one.

mod apply;
mod checks;
mod conflict;
mod decide;
mod reschedule;
mod state;
#[cfg(test)]
mod tests;

use fault::{Fault, Reason};
use jiff::Timestamp;

pub use apply::{apply, facts, state_fact};
pub use conflict::{Conflict, CustomerBookings};
pub use decide::decide;
pub use reschedule::{Reschedule, judge_reschedule};
pub use state::State;

pub use crate::terms::Terms;

use crate::access::Scope;
use crate::ids::{ClaimId, CustomerId, ScreeningId, SlotId};

/// The generation of a new booking's claim. Every attempt to move the booking counts up.
pub const FIRST_GENERATION: i32 = 1;

/// Why Hospital took a place away. The names are the codes that clients read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// The hospital was deleted.
    HospitalDeleted,
    /// The bookings of the slot were cancelled.
    SlotCancelled,
    /// A code of a later version: the place is gone all the same.
    Other(String),
}

impl Revocation {
    /// The code that clients read.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::HospitalDeleted => "HOSPITAL_DELETED",
            Self::SlotCancelled => "SLOT_CANCELLED",
            Self::Other(code) => code,
        }
    }

    /// The revocation with this code. `None` if the text is no code: 1 to 63 of `A-Z`, `0-9` and `_`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        match name {
            "HOSPITAL_DELETED" => Some(Self::HospitalDeleted),
            "SLOT_CANCELLED" => Some(Self::SlotCancelled),
            other if (1..=63).contains(&other.len()) && other.bytes().all(code) => Some(Self::Other(other.to_owned())),
            _ => None,
        }
    }
}

/// On whose behalf a booking is cancelled or moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// The customer, who is bound by the cut-off.
    Customer,
    /// An admin of the hospital, who is not bound by the cut-off.
    Admin,
}

impl Party {
    /// The code that says on whose behalf.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Customer => "CUSTOMER_REQUEST",
            Self::Admin => "ADMIN_REQUEST",
        }
    }
}

/// A booking that a customer asks for, under the id it will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// The id, chosen before Hospital is asked.
    pub id: ScreeningId,
    /// The customer who books.
    pub customer: CustomerId,
    /// The customer's name for the hospital; may be empty.
    pub customer_display_name: String,
    /// The slot to book.
    pub slot: SlotId,
    /// Whether it waits for a place if none is left.
    pub joins_waitlist: bool,
}

/// What Hospital said of a booking that joined a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queued {
    /// How many bookings waited in front of it, and itself.
    pub position: i32,
    /// The instant from which it gets no place any more.
    pub closes_at: Timestamp,
}

/// Why a booking stopped waiting without a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// The time in which it could get a place is over.
    PromotionClosed,
    /// When it got a place, the customer had another active booking on that date.
    CustomerDateConflict,
}

impl Expiry {
    /// The code that clients read.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::PromotionClosed => "PROMOTION_CLOSED",
            Self::CustomerDateConflict => Reason::CustomerDateConflict.name(),
        }
    }
}

impl Booking {
    /// The claim that this booking asks for.
    #[must_use]
    pub fn claim(&self) -> ClaimId {
        ClaimId { screening: self.id, generation: FIRST_GENERATION }
    }
}

/// One row: a booking, or the fence that keeps an abandoned one from being booked late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screening {
    /// The id, which Screening chose before it asked Hospital.
    pub id: ScreeningId,
    /// The customer who booked. `None` for a fence, which is never listed or shown.
    pub customer: Option<CustomerId>,
    /// The customer's name for the hospital; may be empty.
    pub customer_display_name: String,
    /// The slot that is booked.
    pub slot: SlotId,
    /// The terms that Hospital returned with the place.
    pub terms: Terms,
    /// The booking's state; REJECTED or FORCE_CANCELLED for a fence.
    pub state: State,
    /// The code of why it is in this state; may be empty.
    pub state_reason: String,
    /// The message that a person gave for it; may be empty.
    pub state_message: String,
    /// Why a PENDING booking will be REJECTED. Once this is written, the booking is never confirmed, so its claim can
    /// be released.
    pub given_up: Option<Reason>,
    /// Whether a PENDING booking waits for a place if none is left.
    pub joins_waitlist: bool,
    /// Set while it is WAITLISTED, and kept if that ends without a place.
    pub queued: Option<Queued>,
    /// The generation of the claim that it holds or held.
    pub generation: i32,
    /// The greatest generation of a fenced claim, which no move can use any more; 0 if there is none.
    pub fenced_generation: i32,
    /// How often it was moved to another slot.
    pub reschedule_count: i32,
    /// 1 for the first state, one more per transition, two more per move to another slot.
    pub version: i64,
    /// When the row was first written.
    pub create_time: Timestamp,
    /// When the row last changed.
    pub update_time: Timestamp,
}

impl Screening {
    /// The claim that it holds or held.
    #[must_use]
    pub fn claim(&self) -> ClaimId {
        ClaimId { screening: self.id, generation: self.generation }
    }

    /// The claim that the next attempt to move it asks for.
    #[must_use]
    pub fn next_claim(&self) -> ClaimId {
        ClaimId { screening: self.id, generation: self.generation.max(self.fenced_generation) + 1 }
    }

    /// Whether a CreateScreening for this customer and slot made the row. A booking that has moved was made on another
    /// slot, which the row does not name any more.
    #[must_use]
    pub fn was_made_for(&self, customer: &CustomerId, slot: &SlotId) -> bool {
        self.customer.as_ref() == Some(customer) && (self.slot == *slot || self.generation > FIRST_GENERATION)
    }

    /// Whether the row is a fence, which only keeps an abandoned booking from being booked late.
    #[must_use]
    pub fn is_fence(&self) -> bool {
        self.customer.is_none()
    }

    /// The booking that it was made by, as far as the row tells.
    #[must_use]
    pub fn booking(&self, customer: CustomerId) -> Booking {
        Booking {
            id: self.id,
            customer,
            customer_display_name: self.customer_display_name.clone(),
            slot: self.slot.clone(),
            joins_waitlist: self.joins_waitlist,
        }
    }

    /// Whether it waited and ended without a place. No service counts such a booking as a reservation.
    #[must_use]
    pub fn waited_in_vain(&self) -> bool {
        match self.state {
            State::Expired => true,
            State::Cancelled | State::ForceCancelled => self.queued.is_some(),
            State::Pending
            | State::Confirmed
            | State::Rejected
            | State::Completed
            | State::NoShow
            | State::Waitlisted => false,
        }
    }

    /// Whether a caller with this scope may see the row. A fence is visible to nobody.
    #[must_use]
    pub fn is_visible(&self, scope: &Scope) -> bool {
        self.customer.as_ref().is_some_and(|customer| scope.admits(customer, &self.slot.hospital))
    }
}

/// A command on a screening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The claim is ACTIVE: book it.
    Confirm {
        /// The booking to write.
        booking: Booking,
        /// The terms that Hospital returned with the place.
        terms: Terms,
        /// What the customer has that bars this booking.
        conflict: Option<Conflict>,
    },
    /// Hospital is out of reach and the caller accepts a PENDING booking.
    Park {
        /// The booking to write.
        booking: Booking,
        /// The hospital's terms as far as they are known.
        terms: Terms,
        /// What the customer has that bars this booking.
        conflict: Option<Conflict>,
    },
    /// The claim waits in the queue of its slot.
    Queue {
        /// The booking to write.
        booking: Booking,
        /// The terms that Hospital returned.
        terms: Terms,
        /// Its place in the queue.
        queued: Queued,
        /// What the customer has that bars this booking.
        conflict: Option<Conflict>,
    },
    /// Hospital confirms that a WAITLISTED booking gets no place any more.
    Expire,
    /// Hospital refused the claim of a PENDING booking. Another request for the same claim may still be on its way and
    /// get a place, so the mark is written before anything is released or announced.
    GiveUp {
        /// The reason of Hospital's refusal.
        reason: Reason,
    },
    /// Hospital has acknowledged that the claim of a given up booking can never become active.
    Reject,
    /// The claim is ACTIVE and nobody has booked it within the grace period, or it cannot be booked any more.
    Fence {
        /// The claim to fence.
        claim: ClaimId,
        /// The slot of the claim.
        slot: SlotId,
    },
    /// A person gives up the place.
    Cancel {
        /// On whose behalf the booking is cancelled.
        by: Party,
        /// The reason in their own words; may be empty.
        message: String,
        /// The etag that the caller read; empty if it sent none.
        etag: String,
    },
    /// A person moves the booking to a slot on which a claim is ACTIVE.
    Reschedule {
        /// What was asked for.
        asked: Reschedule,
        /// The generation of that claim; the row's own if the booking is on that slot already.
        generation: i32,
        /// The terms that Hospital returned with the place.
        terms: Terms,
        /// What the customer has that bars the booking there.
        conflict: Option<Conflict>,
    },
    /// A person corrects the customer's name.
    Rename {
        /// The name for the hospital, which may be empty. `None`: the call names no field that it changes.
        name: Option<String>,
        /// The etag that the caller read; empty if it sent none.
        etag: String,
    },
    /// An admin records that the customer came.
    Complete {
        /// The etag that the caller read; empty if it sent none.
        etag: String,
    },
    /// The customer did not come.
    MarkNoShow {
        /// The etag that the caller read; empty if it sent none.
        etag: String,
    },
    /// Hospital has taken the place away.
    Revoke {
        /// The claim that was revoked.
        claim: ClaimId,
        /// The slot of the claim.
        slot: SlotId,
        /// Why Hospital revoked it.
        cause: Revocation,
        /// The admin's message; may be empty.
        message: String,
    },
}

/// A transition of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The row becomes PENDING.
    Parked(Booking, Terms),
    /// The row becomes CONFIRMED.
    Confirmed(Booking, Terms),
    /// The row becomes WAITLISTED.
    Queued(Booking, Terms, Queued),
    /// The row becomes EXPIRED. Hospital releases the claim when it reads the event.
    Expired(Expiry),
    /// The row stays PENDING and is marked to be REJECTED. No event is published.
    GivenUp(Reason),
    /// The row gets another slot and claim and stays CONFIRMED. Hospital releases the previous claim when it reads the
    /// event.
    Rescheduled {
        /// The new slot.
        slot: SlotId,
        /// The generation of the claim on it.
        generation: i32,
        /// The terms that Hospital returned with the place.
        terms: Terms,
        /// On whose behalf the booking moves.
        by: Party,
        /// The reason in their own words; may be empty.
        message: String,
        /// The slot that the booking leaves.
        previous: SlotId,
        /// The claim that it leaves there.
        released: ClaimId,
    },
    /// No move can use claims up to this generation any more. The row keeps its state and version. No event is
    /// published.
    ClaimFenced(i32),
    /// The row gets another name of the customer and keeps its state and version. No event is published.
    Renamed(String),
    /// The row becomes REJECTED, or a fence is written if there was no row. Hospital releases the claim when it reads
    /// the event.
    Rejected(ClaimId, SlotId, Reason),
    /// The row becomes CANCELLED. Hospital releases the claim when it reads the event.
    Cancelled(Party, String),
    /// The row becomes FORCE_CANCELLED, or a fence is written if there was no row.
    ForceCancelled(ClaimId, SlotId, Revocation, String),
    /// The row becomes COMPLETED with `true`, NO_SHOW with `false`.
    AttendanceRecorded(bool),
}

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Apply the event; answer with the row that follows.
    Change(Event),
    /// Apply the event and refuse the caller: the claim that the command brought is given back.
    Refuse(Event, Fault),
    /// Nothing to do, because it was done before; answer with the row as it is.
    Keep,
    /// The id or the claim was fenced for ever; the same request needs a new one.
    Fenced,
    /// The command came too late to change anything. The text says why.
    Ignore(&'static str),
}

/// The refusal of a name that does not exist, for callers who may learn that.
#[must_use]
pub fn not_found(id: ScreeningId) -> Fault {
    Fault::new(Reason::ScreeningNotFound, format!("there is no {id}")).with("screening", id).about("Screening", id)
}
