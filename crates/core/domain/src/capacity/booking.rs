//! Whether a place can be taken now. The same rule serves calls that take a place and calls that only ask.

use contract::hospital::v1 as message;
use fault::{Fault, Reason};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::slot::{Slot, SlotState, slot_closed, slot_not_found};
use crate::civil::time_zone;
use crate::hospital_state::{Hospital, HospitalState, hospital_deleted, hospital_not_found};
use crate::ids::SlotId;
use crate::window::{BookingPolicy, MAX_RESCHEDULES, zone_name};

/// The part of a hospital that decides about a booking.
#[derive(Debug, Clone)]
pub struct Venue {
    /// Whether the hospital is ACTIVE.
    pub active: bool,
    /// The time zone of its dates.
    pub time_zone: TimeZone,
    /// How long before a date it can be booked.
    pub policy: BookingPolicy,
}

impl From<&Hospital> for Venue {
    fn from(hospital: &Hospital) -> Self {
        let active = hospital.state() == HospitalState::Active;
        Self { active, time_zone: hospital.time_zone.clone(), policy: hospital.policy }
    }
}

impl Venue {
    /// Reads the answer of GetHospital; `None` if it breaks the contract.
    #[must_use]
    pub fn from_message(hospital: &message::Hospital) -> Option<Self> {
        let offset = |duration: Option<prost_types::Duration>, default| match duration {
            None => Some(default),
            Some(duration) => jiff::SignedDuration::try_from(std::time::Duration::try_from(duration).ok()?).ok(),
        };
        let policy = hospital.booking_policy.unwrap_or_default();
        let default = BookingPolicy::default();
        Some(Self {
            active: hospital.state() == message::hospital::State::Active,
            time_zone: time_zone(&hospital.time_zone)?,
            policy: BookingPolicy {
                min_notice: offset(policy.min_notice, default.min_notice)?,
                max_advance: offset(policy.max_advance, default.max_advance)?,
                cancellation_cutoff: offset(policy.cancellation_cutoff, default.cancellation_cutoff)?,
                // a Hospital of the version before has no queues
                waitlist_limit: policy.waitlist_limit.unwrap_or(0),
                promotion_min_notice: offset(policy.promotion_min_notice, default.promotion_min_notice)?,
                // nor does it limit moves
                reschedule_limit: policy.reschedule_limit.unwrap_or(MAX_RESCHEDULES),
                customer_limit: policy.customer_limit,
            },
        })
    }
}

/// The part of a slot that decides about a booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Whether the slot is on sale.
    pub open: bool,
    /// How many places are left.
    pub remaining: i32,
    /// How many bookings wait for one.
    pub waiting: i32,
}

impl From<&Slot> for Offer {
    fn from(slot: &Slot) -> Self {
        Self { open: slot.state == SlotState::Open, remaining: slot.remaining(), waiting: slot.waiting }
    }
}

impl From<&message::Slot> for Offer {
    fn from(slot: &message::Slot) -> Self {
        let open = slot.state() == message::slot::State::Open;
        Self { open, remaining: slot.remaining_count, waiting: slot.waitlisted_count }
    }
}

/// Checks that a place on a slot can be taken now. Only this function knows the order of refusals. `None` stands for a
/// hospital or a slot that does not exist.
///
/// # Errors
/// HOSPITAL_NOT_FOUND, HOSPITAL_DELETED, SLOT_NOT_FOUND, DATE_IN_PAST, OUTSIDE_BOOKING_WINDOW, SLOT_CLOSED or
/// SLOT_FULL.
pub fn judge_booking(slot: &SlotId, venue: Option<&Venue>, offer: Option<Offer>, now: Timestamp) -> Result<(), Fault> {
    let venue = venue.ok_or_else(|| hospital_not_found(&slot.hospital))?;
    if !venue.active {
        return Err(hospital_deleted(&slot.hospital));
    }
    let offer = offer.ok_or_else(|| slot_not_found(slot))?;
    venue.policy.judge(slot.date, &venue.time_zone, now)?;
    if !offer.open {
        return Err(slot_closed(slot));
    }
    if offer.remaining <= 0 {
        return Err(slot_full(slot, offer.remaining, judge_joining(slot, venue, offer, now).is_ok()));
    }
    Ok(())
}

/// The refusal of a booking for which no place is left. `waitlist_open` says whether it could wait for one.
#[must_use]
pub fn slot_full(slot: &SlotId, remaining: i32, waitlist_open: bool) -> Fault {
    Fault::new(Reason::SlotFull, format!("{slot} has no place left"))
        .with("slot", slot)
        .with("remaining", remaining)
        .with("waitlistOpen", waitlist_open)
        .about("Slot", slot)
}

/// Checks that a booking can join the queue of a slot for which [`judge_booking`] answers SLOT_FULL. Returns the
/// instant from which it gets no place any more.
///
/// # Errors
/// WAITLIST_CLOSED or WAITLIST_FULL.
pub fn judge_joining(slot: &SlotId, venue: &Venue, offer: Offer, now: Timestamp) -> Result<Timestamp, Fault> {
    let closes_at = venue.policy.promotion_close(slot.date, &venue.time_zone);
    if now >= closes_at {
        let message = format!("who waits for {slot} could get a place until {closes_at}");
        return Err(Fault::new(Reason::WaitlistClosed, message)
            .with("slot", slot)
            .with("closesAt", closes_at)
            .with("timeZone", zone_name(&venue.time_zone)));
    }
    let limit = venue.policy.waitlist_limit;
    if offer.waiting >= limit {
        let message = format!("{} bookings wait for {slot}, at most {limit} may", offer.waiting);
        return Err(Fault::new(Reason::WaitlistFull, message).with("slot", slot).with("waitlistLimit", limit));
    }
    Ok(closes_at)
}
