//! Encodes domain values as messages.

use contract::capacity::v1 as capacity;
use contract::hospital::v1 as message;
use contract::hospital::v1::watch_availability_response::{self, Event};
use domain::capacity::{ClaimState, Slot, SlotState};
use domain::civil::{encode_date, encode_duration, encode_time};
use domain::hospital::{CapacityRequest, HospitalState, Terms, count};
use domain::token::etag;
use domain::window::zone_name;
use jiff::Timestamp;

use crate::tables::read::{Available, ClaimView, HospitalView, SlotView};
use crate::tables::revocation::Cancelling;
use crate::watch::{WatchMessage, What};

/// Encodes a hospital. While a deletion is under way, every claim that has ended counts as revoked.
pub(crate) fn hospital(view: &HospitalView) -> message::Hospital {
    let HospitalView { hospital, held } = view;
    let state = match hospital.state() {
        HospitalState::Active => message::hospital::State::Active,
        HospitalState::Deleting => message::hospital::State::Deleting,
        HospitalState::Deleted => message::hospital::State::Deleted,
    };
    let progress = hospital.deletion.map(|deletion| message::RevocationProgress {
        total: count(deletion.claims),
        revoked: count((deletion.claims - held.total()).max(0)),
    });
    message::Hospital {
        name: hospital.id.to_string(),
        uid: hospital.uid.to_string(),
        display_name: hospital.display_name.clone(),
        time_zone: zone_name(&hospital.time_zone).to_owned(),
        state: state.into(),
        booking_policy: Some(message::BookingPolicy {
            min_notice: Some(encode_duration(hospital.policy.min_notice)),
            max_advance: Some(encode_duration(hospital.policy.max_advance)),
            cancellation_cutoff: Some(encode_duration(hospital.policy.cancellation_cutoff)),
            waitlist_limit: Some(hospital.policy.waitlist_limit),
            promotion_min_notice: Some(encode_duration(hospital.policy.promotion_min_notice)),
            reschedule_limit: Some(hospital.policy.reschedule_limit),
            customer_limit: hospital.policy.customer_limit,
        }),
        active_booking_count: count(held.active),
        revocation_progress: progress,
        create_time: Some(encode_time(hospital.create_time)),
        update_time: Some(encode_time(hospital.update_time)),
        delete_time: hospital.deletion.map(|deletion| encode_time(deletion.time)),
        etag: etag(hospital.version),
    }
}

/// Encodes the answer of a DeleteHospital with validate_only. `total` is how many claims the deletion would revoke;
/// `None` if it would begin nothing.
pub(crate) fn deletion_preview(view: &HospitalView, total: Option<i64>) -> message::Hospital {
    let mut previewed = hospital(view);
    if let Some(total) = total {
        previewed.revocation_progress = Some(message::RevocationProgress { total: count(total), revoked: 0 });
    }
    previewed
}

pub(crate) fn slot(slot: &Slot) -> message::Slot {
    let state = match slot.state {
        SlotState::Open => message::slot::State::Open,
        SlotState::Closed => message::slot::State::Closed,
        SlotState::Deleted => message::slot::State::Deleted,
    };
    message::Slot {
        name: slot.id.to_string(),
        date: Some(encode_date(slot.id.date)),
        capacity: slot.capacity,
        booked_count: slot.booked,
        remaining_count: slot.remaining(),
        state: state.into(),
        version: slot.version,
        create_time: Some(encode_time(slot.create_time)),
        update_time: Some(encode_time(slot.update_time)),
        etag: etag(slot.admin_version),
        revocation_progress: None,
        waitlisted_count: slot.waiting,
    }
}

/// Encodes a slot with the progress of its cancellation.
pub(crate) fn slot_view(view: &SlotView) -> message::Slot {
    let progress = view.cancelling.map(|Cancelling { revoked, left }| message::RevocationProgress {
        total: count(revoked + left),
        revoked: count(revoked),
    });
    message::Slot { revocation_progress: progress, ..slot(&view.slot) }
}

/// Encodes the answer of BatchCloseSlots. A booking counts until its place is revoked.
pub(crate) fn closed_slots(views: &[SlotView]) -> message::BatchCloseSlotsResponse {
    let booked = views.iter().map(|view| i64::from(view.slot.booked)).sum();
    let slots = views.iter().map(slot_view).collect();
    message::BatchCloseSlotsResponse { slots, active_booking_count: count(booked) }
}

/// Encodes a row of SearchAvailability.
pub(crate) fn available_slot(available: &Available) -> message::AvailableSlot {
    message::AvailableSlot {
        slot: Some(slot(&available.slot)),
        hospital_display_name: available.hospital_display_name.clone(),
        time_zone: zone_name(&available.time_zone).to_owned(),
    }
}

/// Encodes a message of WatchAvailability.
pub(crate) fn watch_message(WatchMessage { what, token }: WatchMessage) -> message::WatchAvailabilityResponse {
    let event = match what {
        What::Part(views, complete) => {
            let slots = views.iter().map(slot_view).collect();
            Event::Snapshot(watch_availability_response::Snapshot { slots, complete })
        }
        What::Changed(view) => Event::Changed(slot_view(&view)),
        What::Alive(now) => Event::Heartbeat(watch_availability_response::Heartbeat { time: Some(encode_time(now)) }),
    };
    message::WatchAvailabilityResponse { event: Some(event), resume_token: token }
}

/// Encodes a claim, with the booking terms if a place or a ticket was granted.
pub(crate) fn claim(view: &ClaimView, terms: Option<Terms>) -> capacity::CapacityClaim {
    let ClaimView { claim, position } = view;
    let (ticket, revoke_reason) = match claim.state {
        ClaimState::Active | ClaimState::Released => (None, 0),
        ClaimState::Waiting(ticket) => (Some(ticket), 0),
        ClaimState::Revoked(reason) => (None, reason as i32),
    };
    capacity::CapacityClaim {
        claim_id: claim.id.to_string(),
        slot: claim.slot.to_string(),
        state: claim.state.message().into(),
        revoke_reason,
        slot_version: claim.slot_version,
        update_time: Some(encode_time(claim.update_time)),
        terms: terms.map(|terms| capacity::BookingTerms {
            hospital_display_name: terms.hospital_display_name,
            time_zone: terms.time_zone,
            cancellation_close_time: terms.cancellation_close_time.map(encode_time),
            reschedule_limit: terms.reschedule_limit,
            customer_limit: terms.customer_limit,
        }),
        waitlist_ticket: ticket.map_or(0, |ticket| ticket.number),
        waitlist_position: *position,
        promotion_close_time: ticket.map(|ticket| encode_time(ticket.closes_at)),
    }
}

/// Encodes a capacity request. `now` decides whether it has expired.
pub(crate) fn capacity_request(request: &CapacityRequest, now: Timestamp) -> message::CapacityRequest {
    message::CapacityRequest {
        name: request.id.to_string(),
        slot: request.slot.to_string(),
        additional_capacity: request.additional,
        justification: request.justification.clone(),
        state: request.state_at(now).message().into(),
        decision_note: request.note.clone(),
        create_time: Some(encode_time(request.create_time)),
        expire_time: Some(encode_time(request.expire_time)),
        etag: etag(request.version),
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::{HospitalId, SlotId};
    use domain::page::MAX_BYTES;
    use prost::Message;

    use super::*;
    use crate::decode::MAX_SLOTS;

    #[test]
    fn the_largest_batch_of_slots_is_an_answer_that_every_client_takes() {
        let hospital = HospitalId::from_segment(&"h".repeat(63)).unwrap();
        let largest = Slot {
            id: SlotId::new(hospital, jiff::civil::date(9999, 12, 31)),
            capacity: i32::MAX,
            booked: 0,
            waiting: i32::MAX,
            state: SlotState::Deleted,
            version: i64::MAX,
            admin_version: i64::MAX,
            create_time: Timestamp::MAX,
            update_time: Timestamp::MAX,
        };
        let slots = vec![slot(&largest); MAX_SLOTS];
        let answer = message::BatchCreateSlotsResponse { slots };
        assert!(answer.encoded_len() <= MAX_BYTES / 8, "{} bytes", answer.encoded_len());
    }
}
