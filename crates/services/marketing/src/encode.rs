//! Encodes domain values as messages.

use contract::marketing::v1::DemandSignal;
use domain::civil::{encode_date, encode_time};

use crate::app::Counted;

pub(crate) fn signal(counted: Counted) -> DemandSignal {
    let Counted { signal, bookings, refused } = counted;
    DemandSignal {
        slot: signal.slot.to_string(),
        date: Some(encode_date(signal.slot.date)),
        bookings_7d: i32::try_from(bookings).unwrap_or(i32::MAX),
        refused_7d: i32::try_from(refused).unwrap_or(i32::MAX),
        fill_ratio: signal.fill_ratio(),
        update_time: Some(encode_time(signal.update_time)),
        waitlisted_count: signal.waiting,
    }
}
