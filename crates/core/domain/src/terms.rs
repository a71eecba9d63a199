//! What a booking keeps about its hospital.

use jiff::Timestamp;

/// The booking terms that Hospital returns with a place. Screening keeps them with the booking as they were then. The
/// default is empty: Hospital has not answered yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// The hospital's display name; empty while it is not known.
    pub hospital_display_name: String,
    /// Its IANA time zone; empty while it is not known.
    pub time_zone: String,
    /// The instant from which the customer can no longer cancel; `None` while it is not known.
    pub cancellation_close_time: Option<Timestamp>,
    /// How often the customer may move the booking; `None`: as often as they like.
    pub reschedule_limit: Option<i32>,
    /// The most bookings that the customer may have at the hospital; `None`: any number. It is judged when the booking
    /// is made, so no row keeps it.
    pub customer_limit: Option<i32>,
}
