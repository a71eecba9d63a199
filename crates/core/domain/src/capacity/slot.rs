//! Slots, and the changes that admins make to them.

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{SlotCapacityChanged, SlotClosed, SlotOpened};
use contract::hospital::v1 as message;
use fault::{Fault, Reason};
use jiff::Timestamp;

use super::Fact;
use crate::civil::encode_date;
use crate::hospital_state::{Hospital, hospital_deleted};
use crate::ids::SlotId;
use crate::token::check_etag;
use crate::window::refuse_past;

/// The largest capacity a slot may have.
pub const MAX_CAPACITY: i32 = 100_000;

/// The state of a slot. The numbers are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum SlotState {
    /// The date is on sale.
    Open = message::slot::State::Open as i32,
    /// Taken off sale by an admin.
    Closed = message::slot::State::Closed as i32,
    /// Its hospital is being or has been deleted.
    Deleted = message::slot::State::Deleted as i32,
}

impl SlotState {
    /// The state with this number, or `None` if there is none.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Open, Self::Closed, Self::Deleted].into_iter().find(|state| *state as i32 == number)
    }
}

/// The places a hospital offers on one date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The hospital and the date.
    pub id: SlotId,
    /// How many places there are.
    pub capacity: i32,
    /// How many ACTIVE claims there are; at most `capacity`.
    pub booked: i32,
    /// How many WAITING claims there are.
    pub waiting: i32,
    /// Whether the slot is on sale.
    pub state: SlotState,
    /// Counts every change, bookings included.
    pub version: i64,
    /// Counts the changes by admins. It is the version of the slot's events and its etag.
    pub admin_version: i64,
    /// When the slot was first opened.
    pub create_time: Timestamp,
    /// When an admin last changed the slot.
    pub update_time: Timestamp,
}

impl Slot {
    /// How many claims a closing revokes, if it is to cancel bookings.
    #[must_use]
    pub fn to_cancel(&self, cancel_bookings: bool) -> i32 {
        if cancel_bookings { self.booked + self.waiting } else { 0 }
    }

    /// How many places are left.
    #[must_use]
    pub fn remaining(&self) -> i32 {
        self.capacity - self.booked
    }

    /// The slot after a change by an admin.
    pub(super) fn administered(&self, now: Timestamp) -> Self {
        Self { version: self.version + 1, admin_version: self.admin_version + 1, update_time: now, ..self.clone() }
    }

    /// The slot after its counts of ACTIVE and of WAITING claims changed by these differences.
    pub(super) fn counting(&self, booked: i32, waiting: i32) -> Self {
        Self {
            version: self.version + 1,
            booked: self.booked + booked,
            waiting: self.waiting + waiting,
            ..self.clone()
        }
    }

    pub(super) fn fact(&self, payload: Payload) -> Fact {
        Fact { aggregate: self.id.to_string(), version: self.admin_version, payload }
    }

    pub(super) fn opened(&self) -> Fact {
        self.fact(Payload::SlotOpened(SlotOpened {
            slot: self.id.to_string(),
            date: Some(encode_date(self.id.date)),
            capacity: self.capacity,
            slot_version: self.version,
            booked_count: self.booked,
            waitlisted_count: self.waiting,
        }))
    }

    fn require_hospital(&self) -> Result<(), Fault> {
        match self.state {
            SlotState::Open | SlotState::Closed => Ok(()),
            SlotState::Deleted => Err(hospital_deleted(&self.id.hospital)),
        }
    }

    /// The checks of every change by an admin.
    pub(super) fn require_change(&self, hospital: &Hospital, etag: &str, now: Timestamp) -> Result<(), Fault> {
        self.require_hospital()?;
        refuse_past(self.id.date, &hospital.time_zone, now)?;
        check_etag(etag, self.admin_version).map_err(|fault| fault.about("Slot", &self.id))
    }
}

/// The refusal of a call that names a slot that does not exist.
#[must_use]
pub fn slot_not_found(slot: &SlotId) -> Fault {
    Fault::new(Reason::SlotNotFound, format!("{slot} does not exist")).with("slot", slot).about("Slot", slot)
}

pub(super) fn slot_closed(slot: &SlotId) -> Fault {
    Fault::new(Reason::SlotClosed, format!("{slot} is not on sale")).with("slot", slot).about("Slot", slot)
}

/// Opens a date of a hospital for booking. `existing` is the slot that the date already has.
///
/// # Errors
/// HOSPITAL_DELETED, DATE_IN_PAST or SLOT_ALREADY_EXISTS.
pub fn open_slot(
    hospital: &Hospital,
    date: jiff::civil::Date,
    capacity: i32,
    existing: Option<&Slot>,
    now: Timestamp,
) -> Result<(Slot, Fact), Fault> {
    hospital.require_active()?;
    refuse_past(date, &hospital.time_zone, now)?;
    let id = SlotId::new(hospital.id.clone(), date);
    if existing.is_some() {
        let fault = Fault::new(Reason::SlotAlreadyExists, format!("{id} exists already"));
        return Err(fault.with("slot", &id).about("Slot", &id));
    }
    let slot = Slot {
        id,
        capacity,
        booked: 0,
        waiting: 0,
        state: SlotState::Open,
        version: 1,
        admin_version: 1,
        create_time: now,
        update_time: now,
    };
    let fact = slot.opened();
    Ok((slot, fact))
}

/// The fact that reports a slot's current state, for services that do not know it. `before` is its former capacity, if
/// it existed.
#[must_use]
pub fn state_fact(slot: &Slot, before: Option<i32>) -> Fact {
    let Slot { id, capacity, booked, waiting, version, .. } = slot;
    match (slot.state, before) {
        (SlotState::Open, None) => slot.opened(),
        (SlotState::Open, Some(old_capacity)) => slot.fact(Payload::SlotCapacityChanged(SlotCapacityChanged {
            slot: id.to_string(),
            old_capacity,
            new_capacity: *capacity,
            booked_count: *booked,
            capacity_request: String::new(),
            slot_version: *version,
            date: Some(encode_date(id.date)),
            on_sale: Some(true),
            waitlisted_count: *waiting,
        })),
        (SlotState::Closed | SlotState::Deleted, _) => slot.fact(Payload::SlotClosed(SlotClosed {
            slot: id.to_string(),
            bookings_cancelled: false,
            reason: String::new(),
            slot_version: *version,
            capacity: *capacity,
            booked_count: *booked,
            date: Some(encode_date(id.date)),
            waitlisted_count: *waiting,
        })),
    }
}

/// Takes a date off sale; `None` if nothing would change. With `cancel_bookings` the caller revokes the slot's claims.
///
/// # Errors
/// HOSPITAL_DELETED, DATE_IN_PAST or ETAG_MISMATCH.
pub fn close_slot(
    hospital: &Hospital,
    slot: &Slot,
    cancel_bookings: bool,
    reason: &str,
    etag: &str,
    now: Timestamp,
) -> Result<Option<(Slot, Fact)>, Fault> {
    slot.require_change(hospital, etag, now)?;
    let cancels = slot.to_cancel(cancel_bookings) > 0;
    if slot.state == SlotState::Closed && !cancels {
        return Ok(None);
    }
    let closed = Slot { state: SlotState::Closed, ..slot.administered(now) };
    let fact = closed.fact(Payload::SlotClosed(SlotClosed {
        slot: slot.id.to_string(),
        bookings_cancelled: cancel_bookings,
        reason: reason.to_owned(),
        slot_version: closed.version,
        capacity: closed.capacity,
        booked_count: closed.booked,
        date: Some(encode_date(slot.id.date)),
        waitlisted_count: closed.waiting,
    }));
    Ok(Some((closed, fact)))
}

/// The slot of a hospital whose deletion begins. Only the hospital's own event reports it, so the slot's
/// `admin_version` does not change.
#[must_use]
pub fn withdraw_slot(slot: &Slot, now: Timestamp) -> Slot {
    Slot { state: SlotState::Deleted, version: slot.version + 1, update_time: now, ..slot.clone() }
}

/// Refuses to add places to a date that is not on sale.
///
/// # Errors
/// HOSPITAL_DELETED or SLOT_CLOSED.
pub(crate) fn require_on_sale(slot: &Slot) -> Result<(), Fault> {
    slot.require_hospital()?;
    if slot.state == SlotState::Open { Ok(()) } else { Err(slot_closed(&slot.id)) }
}
