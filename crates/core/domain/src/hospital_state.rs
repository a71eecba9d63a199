//! A hospital as it is stored, what follows from its state, and the refusals that name one.
//!
//! Slots and claims are judged by it, and [`crate::hospital`] changes it. That module exports what is public here.

use contract::event::v1::HospitalRegistered;
use contract::event::v1::event_envelope::Payload;
use contract::hospital::v1 as message;
use fault::{Fault, Reason};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::civil::{encode_duration, today};
use crate::event::Fact;
use crate::ids::HospitalId;
use crate::terms::Terms;
use crate::window::{BookingPolicy, zone_name};

/// Whether a hospital is open for business. The numbers are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum HospitalState {
    /// Its open slots can be booked.
    Active = message::hospital::State::Active as i32,
    /// Its claims are being revoked.
    Deleting = message::hospital::State::Deleting as i32,
    /// Every claim on a date that was not over is revoked or released.
    Deleted = message::hospital::State::Deleted as i32,
}

impl HospitalState {
    /// The state with this number, or `None` if there is none.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Active, Self::Deleting, Self::Deleted].into_iter().find(|state| *state as i32 == number)
    }
}

/// A deletion that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// When it began; dates before that day are not revoked.
    pub time: Timestamp,
    /// How many ACTIVE and WAITING claims there were at that time. The deletion revokes each unless it is released
    /// first.
    pub claims: i64,
    /// Whether none of them is left.
    pub complete: bool,
}

/// A hospital that offers screenings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hospital {
    /// The resource name, which is never used again after a deletion.
    pub id: HospitalId,
    /// A UUID that no other hospital ever has.
    pub uid: Uuid,
    /// The name that people read.
    pub display_name: String,
    /// The time zone of its dates; never changes.
    pub time_zone: TimeZone,
    /// How long before a date it can be booked and cancelled.
    pub policy: BookingPolicy,
    /// The deletion, once it has begun.
    pub deletion: Option<Deletion>,
    /// How often an admin changed the hospital or its deletion ended, from 1. It is the version of its events and its
    /// etag.
    pub version: i64,
    /// When it was registered.
    pub create_time: Timestamp,
    /// When an admin changed it last.
    pub update_time: Timestamp,
}

impl Hospital {
    /// Its state, which follows from the deletion.
    #[must_use]
    pub fn state(&self) -> HospitalState {
        match self.deletion {
            None => HospitalState::Active,
            Some(Deletion { complete: false, .. }) => HospitalState::Deleting,
            Some(Deletion { complete: true, .. }) => HospitalState::Deleted,
        }
    }

    /// The first date whose claims count as active bookings: today in the hospital's time zone, or the day on which its
    /// deletion began. A claim on an earlier date was used or missed; it stays ACTIVE for ever and nothing cancels it.
    #[must_use]
    pub fn counts_from(&self, now: Timestamp) -> Date {
        today(self.deletion.map_or(now, |deletion| deletion.time), &self.time_zone)
    }

    /// The booking terms that Hospital returns with a place on a date.
    #[must_use]
    pub fn terms(&self, date: Date) -> Terms {
        Terms {
            hospital_display_name: self.display_name.clone(),
            time_zone: zone_name(&self.time_zone).to_owned(),
            cancellation_close_time: Some(self.policy.cancellation_close(date, &self.time_zone)),
            reschedule_limit: Some(self.policy.reschedule_limit),
            customer_limit: self.policy.customer_limit,
        }
    }

    /// Refuses changes of a hospital that is being or has been deleted.
    ///
    /// # Errors
    /// HOSPITAL_DELETED.
    pub fn require_active(&self) -> Result<(), Fault> {
        match self.state() {
            HospitalState::Active => Ok(()),
            HospitalState::Deleting | HospitalState::Deleted => Err(hospital_deleted(&self.id)),
        }
    }

    /// A copy one version later, updated at `now` and otherwise the same.
    pub(crate) fn changed(&self, now: Timestamp) -> Self {
        Self { version: self.version + 1, update_time: now, ..self.clone() }
    }

    /// What a registration tells of this hospital.
    #[must_use]
    pub fn registered(&self) -> HospitalRegistered {
        HospitalRegistered {
            hospital: self.id.to_string(),
            display_name: self.display_name.clone(),
            time_zone: zone_name(&self.time_zone).to_owned(),
            min_notice: Some(encode_duration(self.policy.min_notice)),
            max_advance: Some(encode_duration(self.policy.max_advance)),
            cancellation_cutoff: Some(encode_duration(self.policy.cancellation_cutoff)),
            waitlist_limit: self.policy.waitlist_limit,
            promotion_min_notice: Some(encode_duration(self.policy.promotion_min_notice)),
            reschedule_limit: Some(self.policy.reschedule_limit),
            customer_limit: self.policy.customer_limit,
        }
    }

    /// A fact about the hospital at this version.
    pub(crate) fn fact(&self, payload: Payload) -> Fact {
        Fact { aggregate: self.id.to_string(), version: self.version, payload }
    }
}

/// The refusal of a call that names a hospital that does not exist.
#[must_use]
pub fn hospital_not_found(hospital: &HospitalId) -> Fault {
    Fault::new(Reason::HospitalNotFound, format!("{hospital} does not exist"))
        .with("hospital", hospital)
        .about("Hospital", hospital)
}

/// The refusal of anything that needs an ACTIVE hospital.
#[must_use]
pub fn hospital_deleted(hospital: &HospitalId) -> Fault {
    Fault::new(Reason::HospitalDeleted, format!("{hospital} is being or has been deleted"))
        .with("hospital", hospital)
        .about("Hospital", hospital)
}
