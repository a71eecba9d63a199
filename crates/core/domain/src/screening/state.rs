//! The states of a booking.

/// The state of a booking. The numbers are the contract's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Accepted while Hospital was out of reach; holds no place yet.
    Pending = 1,
    /// Holds a place at the hospital.
    Confirmed = 3,
    /// Cancelled by the customer, or by an admin for them.
    Cancelled = 4,
    /// Cancelled because the hospital was deleted or the slot's bookings were cancelled.
    ForceCancelled = 5,
    /// Ended without ever having a place.
    Rejected = 6,
    /// The customer came to the screening.
    Completed = 9,
    /// The customer did not come.
    NoShow = 10,
    /// Waits for a place.
    Waitlisted = 11,
    /// Waited and never got a place.
    Expired = 12,
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
        Self::Waitlisted,
        Self::Expired,
    ];

    /// The state's name in the contract.
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
            Self::Waitlisted => "WAITLISTED",
            Self::Expired => "EXPIRED",
        }
    }

    /// The state's number in the contract.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The state with this number, or `None` if there is none.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.number() == number)
    }

    /// The state with this name, or `None` if there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.name() == name)
    }

    /// Whether it counts against the one active booking a customer may have on a date.
    #[must_use]
    pub const fn is_active(self) -> bool {
        match self {
            Self::Pending | Self::Confirmed => true,
            Self::Cancelled
            | Self::ForceCancelled
            | Self::Rejected
            | Self::Completed
            | Self::NoShow
            | Self::Waitlisted
            | Self::Expired => false,
        }
    }

    /// Whether clients of version 1.0 know it. Lists leave out the others unless they are asked for.
    #[must_use]
    pub const fn is_shown(self) -> bool {
        !matches!(self, Self::Waitlisted | Self::Expired)
    }
}
