//! Encodes domain values as messages.

use contract::reservation::v1::{Reservation as Message, ReservationHistoryEntry};
use domain::civil::{encode_date, encode_time};
use domain::reservation::{Entry, Reservation};

pub(crate) fn reservation(reservation: Reservation) -> Message {
    let Reservation { screening, customer, slot, state, screening_version, version: _, create_time, update_time } =
        reservation;
    Message {
        name: screening.reservation_name(),
        screening: screening.to_string(),
        customer: customer.to_string(),
        slot: slot.to_string(),
        date: Some(encode_date(slot.date)),
        state: state.number(),
        screening_version,
        create_time: Some(encode_time(create_time)),
        update_time: Some(encode_time(update_time)),
    }
}

pub(crate) fn entry(entry: Entry) -> ReservationHistoryEntry {
    let Entry { screening: _, version, state, reason, message, actor, event_id, occur_time, request_id: _ } = entry;
    ReservationHistoryEntry {
        screening_version: version,
        state: state.number(),
        state_reason: reason,
        actor,
        event_id: event_id.to_string(),
        occur_time: Some(encode_time(occur_time)),
        state_message: message,
    }
}
