//! A screening's life: which transitions there are, what each of them needs, and the fact each announces.
//!
//! [`decide()`] judges a command against the stored row, [`apply()`] makes the row that follows from what was decided, and
//! [`payload`] writes the fact for others. How a place is asked of Hospital before a row exists is
//! [`crate::booking`]'s; whether Hospital gives one is Hospital's.

mod apply;
mod decide;
#[cfg(test)]
mod tests;

use fault::{Fault, Reason};
use jiff::Timestamp;

pub use apply::{apply, payload, state_fact};
pub use decide::decide;

pub use crate::terms::Terms;

use crate::access::Scope;
use crate::ids::{ClaimId, CustomerId, ScreeningId, SlotId};

/// The claim a new booking asks for; rescheduling would count up.
pub const FIRST_GENERATION: i32 = 1;

/// Where a booking stands. The numbers are the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Accepted while Hospital was out of reach; holds no place yet.
    Pending = 1,
    /// Holds a place.
    Confirmed = 3,
    /// Given up by the customer, or by an admin for them.
    Cancelled = 4,
    /// Taken away because the hospital or the slot's bookings went.
    ForceCancelled = 5,
    /// Never got a place.
    Rejected = 6,
    /// The customer came.
    Completed = 9,
    /// The customer did not come.
    NoShow = 10,
}

impl State {
    /// Every state, in the order of the contract.
    pub const ALL: &'static [Self] = &[
        Self::Pending,
        Self::Confirmed,
        Self::Cancelled,
        Self::ForceCancelled,
        Self::Rejected,
        Self::Completed,
        Self::NoShow,
    ];

    /// The name people read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
            Self::ForceCancelled => "FORCE_CANCELLED",
            Self::Rejected => "REJECTED",
            Self::Completed => "COMPLETED",
            Self::NoShow => "NO_SHOW",
        }
    }

    /// The contract's number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The state with this number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.number() == number)
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.name() == name)
    }

    /// Whether it counts against the one active booking a customer may have on a date.
    #[must_use]
    pub const fn is_active(self) -> bool {
        match self {
            Self::Pending | Self::Confirmed => true,
            Self::Cancelled | Self::ForceCancelled | Self::Rejected | Self::Completed | Self::NoShow => false,
        }
    }
}

/// Why Hospital took a place away. The names are the codes that clients read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// The hospital was deleted.
    HospitalDeleted,
    /// The bookings of the slot were cancelled.
    SlotCancelled,
}

impl Revocation {
    /// The code.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HospitalDeleted => "HOSPITAL_DELETED",
            Self::SlotCancelled => "SLOT_CANCELLED",
        }
    }

    /// The revocation with this code.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::HospitalDeleted, Self::SlotCancelled].into_iter().find(|cause| cause.name() == name)
    }
}

/// On whose behalf a booking is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// The customer, who is bound by the cut-off.
    Customer,
    /// An admin of the hospital, who is not.
    Admin,
}

impl Party {
    /// The code that says who cancelled.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Customer => "CUSTOMER_REQUEST",
            Self::Admin => "ADMIN_REQUEST",
        }
    }
}

/// What somebody wants to book, under the id it will have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// The id, chosen before Hospital is asked.
    pub id: ScreeningId,
    /// For whom.
    pub customer: CustomerId,
    /// How the hospital addresses them; may be empty.
    pub customer_display_name: String,
    /// What.
    pub slot: SlotId,
}

impl Booking {
    /// The place this booking asks for.
    #[must_use]
    pub fn claim(&self) -> ClaimId {
        ClaimId { screening: self.id, generation: FIRST_GENERATION }
    }
}

/// One row: a booking, or the fence that keeps an abandoned one from being booked late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screening {
    /// Its id.
    pub id: ScreeningId,
    /// Whose booking it is. A fence is nobody's: it is never listed or shown.
    pub customer: Option<CustomerId>,
    /// How the hospital addresses the customer; may be empty.
    pub customer_display_name: String,
    /// What is booked.
    pub slot: SlotId,
    /// What Hospital said along with the place.
    pub terms: Terms,
    /// Where it stands.
    pub state: State,
    /// Why, as a code; may be empty.
    pub state_reason: String,
    /// What a person gave as the reason; may be empty.
    pub state_message: String,
    /// Why a PENDING booking will be REJECTED. Once this is written it is never confirmed, so its claim can be released.
    pub given_up: Option<Reason>,
    /// Which claim it holds or held.
    pub generation: i32,
    /// 1 for the first state, one more with every transition.
    pub version: i64,
    /// When it was first written.
    pub create_time: Timestamp,
    /// When it last changed.
    pub update_time: Timestamp,
}

impl Screening {
    /// The place it holds or held.
    #[must_use]
    pub fn claim(&self) -> ClaimId {
        ClaimId { screening: self.id, generation: self.generation }
    }

    /// Whether it only keeps an abandoned booking from being booked late.
    #[must_use]
    pub fn is_fence(&self) -> bool {
        self.customer.is_none()
    }

    /// Whether a caller with this scope may see it. A fence is shown to nobody.
    #[must_use]
    pub fn is_visible(&self, scope: &Scope) -> bool {
        self.customer.as_ref().is_some_and(|customer| scope.admits(customer, &self.slot.hospital))
    }
}

/// What is asked of a screening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The claim is ACTIVE: book it.
    Confirm {
        /// What to book.
        booking: Booking,
        /// What Hospital said along with the place.
        terms: Terms,
        /// Another active booking the customer has on that date.
        conflict: Option<ScreeningId>,
    },
    /// Hospital is out of reach and the caller accepts to wait.
    Park {
        /// What to book.
        booking: Booking,
        /// What is known of the hospital from before.
        terms: Terms,
        /// Another active booking the customer has on that date.
        conflict: Option<ScreeningId>,
    },
    /// Hospital refused the claim of a PENDING booking. Another request for the same claim may still be on its way and find
    /// a place, so nothing is released or announced before this is written.
    GiveUp {
        /// What Hospital said.
        reason: Reason,
    },
    /// Hospital has acknowledged that the claim of a given up booking can never become active.
    Reject,
    /// The claim is ACTIVE and nobody has booked it within the grace.
    Fence {
        /// The claim.
        claim: ClaimId,
        /// Where it is.
        slot: SlotId,
    },
    /// Give the place up.
    Cancel {
        /// On whose behalf.
        by: Party,
        /// In their words; may be empty.
        message: String,
        /// What the caller has seen; empty where it does not say.
        etag: String,
    },
    /// The customer came.
    Complete {
        /// What the caller has seen; empty where it does not say.
        etag: String,
    },
    /// The customer did not come.
    MarkNoShow {
        /// What the caller has seen; empty where it does not say.
        etag: String,
    },
    /// Hospital has taken the place away.
    Revoke {
        /// The claim.
        claim: ClaimId,
        /// Where it was.
        slot: SlotId,
        /// Why.
        cause: Revocation,
        /// The admin's words; may be empty.
        message: String,
    },
}

/// What happens to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To PENDING.
    Parked(Booking, Terms),
    /// To CONFIRMED.
    Confirmed(Booking, Terms),
    /// Still PENDING, to be REJECTED. Nobody else hears of it.
    GivenUp(Reason),
    /// To REJECTED; as a fence where there was no row. Hospital releases the claim when it hears of it.
    Rejected(ClaimId, SlotId, Reason),
    /// To CANCELLED. Hospital releases the claim when it hears of it.
    Cancelled(Party, String),
    /// To FORCE_CANCELLED; as a fence where there was no row.
    ForceCancelled(ClaimId, SlotId, Revocation, String),
    /// To COMPLETED, or with `false` to NO_SHOW.
    AttendanceRecorded(bool),
}

/// What follows from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This happens; the answer is the row that follows from it.
    Change(Event),
    /// This happens, and the caller is refused: the claim it brought is given back.
    Refuse(Event, Fault),
    /// It was done before; the answer is the row as it is.
    Keep,
    /// The id was given up for ever; the same intention needs a new one.
    Fenced,
    /// It came too late to change anything. The text says why.
    Ignore(&'static str),
}

/// The refusal of a second active booking on one date.
#[must_use]
pub fn date_conflict(other: ScreeningId) -> Fault {
    let message = format!("the customer has {other} on that date; cancel it first");
    Fault::new(Reason::CustomerDateConflict, message).with("screening", other).about("Screening", other)
}

/// The refusal of a name that is not there, for callers who may know.
#[must_use]
pub fn not_found(id: ScreeningId) -> Fault {
    Fault::new(Reason::ScreeningNotFound, format!("there is no {id}")).with("screening", id).about("Screening", id)
}
