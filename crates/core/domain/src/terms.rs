//! What a booking is told of its hospital.

use jiff::Timestamp;

/// What Hospital says along with a place, and Screening keeps with the booking as it was then. The default is what is known
/// while Hospital has not answered: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// The hospital's display name; empty while it is not known.
    pub hospital_display_name: String,
    /// Its IANA time zone; empty while it is not known.
    pub time_zone: String,
    /// The instant from which the customer can no longer cancel; none while it is not known.
    pub cancellation_close_time: Option<Timestamp>,
}
