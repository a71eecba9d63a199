//! Encodes domain values as messages.

use contract::screening::v1 as message;
use domain::civil::{encode_date, encode_time};
use domain::screening::{Screening, State};
use domain::token::{ConsistencyToken, etag};

/// Encodes a screening. A fence has no customer and is never part of an answer.
pub(crate) fn screening(screening: &Screening) -> message::Screening {
    let Screening {
        id,
        customer,
        customer_display_name,
        slot,
        terms,
        state,
        state_reason,
        state_message,
        given_up: _,
        joins_waitlist: _,
        queued,
        generation,
        fenced_generation: _,
        reschedule_count,
        version,
        create_time,
        update_time,
    } = screening;
    let waiting = queued.filter(|_| *state == State::Waitlisted);
    message::Screening {
        name: id.to_string(),
        customer: customer.as_ref().map(ToString::to_string).unwrap_or_default(),
        customer_display_name: customer_display_name.clone(),
        slot: slot.to_string(),
        date: Some(encode_date(slot.date)),
        hospital_display_name: terms.hospital_display_name.clone(),
        time_zone: terms.time_zone.clone(),
        state: state.number(),
        state_reason: state_reason.clone(),
        claim_generation: *generation,
        version: *version,
        create_time: Some(encode_time(*create_time)),
        update_time: Some(encode_time(*update_time)),
        etag: etag(*version),
        consistency_token: ConsistencyToken { screening: *id, version: *version }.encode(),
        state_message: state_message.clone(),
        waitlist_position: waiting.map_or(0, |queued| queued.position),
        promotion_close_time: waiting.map(|queued| encode_time(queued.closes_at)),
        reschedule_count: *reschedule_count,
    }
}
