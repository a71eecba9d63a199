//! Demand as a fold: how full slots are, how much was booked and how much turned away of late.
//!
//! Slots take whichever event has the greatest slot_version; bookings and refusals are sets, counted when they are read;
//! a hospital that is gone stays gone. So events commute and may come again. It proposes nothing by itself.

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    CapacityReleased, CapacityReserved, CapacityRevoked, EventEnvelope, HospitalDeleted, HospitalDeletionStarted,
    HospitalRegistered, ScreeningConfirmed, ScreeningRefused, SlotCapacityChanged, SlotClosed, SlotOpened,
};
use fault::Fault;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::access::{Caller, Scope, role_required};
use crate::civil;
use crate::event::subject_filter;
use crate::ids::{HospitalId, Malformed, ScreeningId, SlotId};

/// How long a booking or a refusal counts as of late.
const WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Since when what happens counts as of late.
#[must_use]
pub fn of_late(now: Timestamp) -> Timestamp {
    now.checked_sub(WINDOW).unwrap_or(Timestamp::MIN)
}

/// What an event says about demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A slot's places after a change.
    Places(Places),
    /// A booking got its place.
    Booked {
        /// Which one; it counts once.
        screening: ScreeningId,
        /// On which slot.
        slot: SlotId,
        /// When.
        time: Timestamp,
    },
    /// Askers were turned away from a full slot.
    Refused {
        /// The report; it counts once.
        event_id: Uuid,
        /// From which slot.
        slot: SlotId,
        /// How many.
        count: i64,
        /// When.
        time: Timestamp,
    },
    /// A hospital's time zone.
    Located {
        /// Which hospital.
        hospital: HospitalId,
        /// Its IANA time zone.
        time_zone: String,
    },
    /// A hospital is being or has been deleted.
    Gone {
        /// Which hospital.
        hospital: HospitalId,
    },
}

/// The places of a slot, as of one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Which slot.
    pub slot: SlotId,
    /// As of which of its changes, bookings included.
    pub slot_version: i64,
    /// How many there are.
    pub capacity: i32,
    /// How many are taken.
    pub booked: i32,
    /// When.
    pub time: Timestamp,
}

/// The subjects Hospital tells these facts under.
#[must_use]
pub fn hospital_subjects() -> Vec<String> {
    let facts = [
        ("hospital", "hospital_registered"),
        ("hospital", "hospital_deletion_started"),
        ("hospital", "hospital_deleted"),
        ("slot", "slot_opened"),
        ("slot", "slot_capacity_changed"),
        ("slot", "slot_closed"),
        ("claim", "capacity_reserved"),
        ("claim", "capacity_released"),
        ("claim", "capacity_revoked"),
    ];
    facts.iter().map(|(kind, fact)| subject_filter(kind, fact)).collect()
}

/// The subjects Screening tells these facts under.
#[must_use]
pub fn screening_subjects() -> Vec<String> {
    vec![subject_filter("screening", "screening_confirmed"), subject_filter("slot", "screening_refused")]
}

/// The numbers of an event about a slot, as they lie in the payload.
struct Counted<'a> {
    slot: &'a str,
    slot_version: i64,
    capacity: i32,
    booked: i32,
}

fn counted(payload: &Payload) -> Option<Counted<'_>> {
    let counted = match payload {
        Payload::SlotOpened(SlotOpened { slot, date: _, capacity, slot_version, booked_count }) => {
            Counted { slot, slot_version: *slot_version, capacity: *capacity, booked: *booked_count }
        }
        Payload::SlotCapacityChanged(SlotCapacityChanged {
            slot,
            old_capacity: _,
            new_capacity,
            booked_count,
            capacity_request: _,
            slot_version,
        }) => Counted { slot, slot_version: *slot_version, capacity: *new_capacity, booked: *booked_count },
        Payload::SlotClosed(SlotClosed {
            slot,
            bookings_cancelled: _,
            reason: _,
            slot_version,
            capacity,
            booked_count,
        }) => Counted { slot, slot_version: *slot_version, capacity: *capacity, booked: *booked_count },
        Payload::CapacityReserved(CapacityReserved {
            slot,
            claim_id: _,
            remaining_count: _,
            slot_version,
            capacity,
            booked_count,
        })
        | Payload::CapacityReleased(CapacityReleased {
            slot,
            claim_id: _,
            remaining_count: _,
            slot_version,
            capacity,
            booked_count,
        })
        | Payload::CapacityRevoked(CapacityRevoked {
            slot,
            claim_id: _,
            reason: _,
            message: _,
            slot_version,
            remaining_count: _,
            capacity,
            booked_count,
        }) => Counted { slot, slot_version: *slot_version, capacity: *capacity, booked: *booked_count },
        _ => return None,
    };
    Some(counted)
}

impl Fact {
    /// Reads an envelope; `None` where it says nothing about demand.
    ///
    /// # Errors
    /// [`Malformed`] where it should, but cannot be read.
    pub fn decode(envelope: &EventEnvelope) -> Result<Option<Self>, Malformed> {
        let Some(payload) = &envelope.payload else { return Ok(None) };
        let missing = |what: &str| Malformed(format!("the event has no {what}"));
        let time = || envelope.occur_time.as_ref().and_then(civil::decode_time).ok_or_else(|| missing("occur_time"));
        if let Some(Counted { slot, slot_version, capacity, booked }) = counted(payload) {
            if slot_version < 1 {
                return Err(missing("slot_version"));
            }
            let slot = SlotId::parse(slot)?;
            return Ok(Some(Self::Places(Places { slot, slot_version, capacity, booked, time: time()? })));
        }
        let fact = match payload {
            Payload::ScreeningConfirmed(ScreeningConfirmed { screening }) => {
                let booked = screening.as_ref().ok_or_else(|| missing("screening"))?;
                if booked.customer.is_empty() {
                    return Ok(None);
                }
                let screening = ScreeningId::parse(&booked.screening)?;
                Self::Booked { screening, slot: SlotId::parse(&booked.slot)?, time: time()? }
            }
            Payload::ScreeningRefused(ScreeningRefused { slot, reason: _, count }) => Self::Refused {
                event_id: Uuid::try_parse(&envelope.event_id).map_err(|_| missing("event_id"))?,
                slot: SlotId::parse(slot)?,
                count: (*count).max(0),
                time: time()?,
            },
            Payload::HospitalRegistered(HospitalRegistered { hospital, display_name: _, time_zone }) => {
                Self::Located { hospital: HospitalId::parse(hospital)?, time_zone: time_zone.clone() }
            }
            Payload::HospitalDeletionStarted(HospitalDeletionStarted { hospital, reason: _, claims_to_revoke: _ })
            | Payload::HospitalDeleted(HospitalDeleted { hospital, claims_revoked: _ }) => {
                Self::Gone { hospital: HospitalId::parse(hospital)? }
            }
            _ => return Ok(None),
        };
        Ok(Some(fact))
    }

    /// The hospital it is about.
    #[must_use]
    pub fn hospital(&self) -> &HospitalId {
        match self {
            Self::Places(Places { slot, .. }) | Self::Booked { slot, .. } | Self::Refused { slot, .. } => {
                &slot.hospital
            }
            Self::Located { hospital, .. } | Self::Gone { hospital } => hospital,
        }
    }
}

/// What is known of a hospital.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hospital {
    /// Its IANA time zone; empty while unknown.
    pub time_zone: String,
    /// Whether its deletion has begun: its slots show no demand any more.
    pub gone: bool,
}

/// What is known of a slot, but for the sets of bookings and refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Which slot.
    pub slot: SlotId,
    /// As of which of its changes; 0 while only bookings or refusals are known, and then it is not listed.
    pub slot_version: i64,
    /// How many places there are.
    pub capacity: i32,
    /// How many are taken.
    pub booked: i32,
    /// When an event last changed it.
    pub update_time: Timestamp,
}

impl Signal {
    /// Nothing is known yet.
    #[must_use]
    pub fn unknown(slot: SlotId) -> Self {
        Self { slot, slot_version: 0, capacity: 0, booked: 0, update_time: Timestamp::MIN }
    }

    /// Takes an event about its places in.
    pub fn apply(&mut self, places: &Places) {
        if places.slot_version > self.slot_version {
            self.slot_version = places.slot_version;
            self.capacity = places.capacity;
            self.booked = places.booked;
        }
        self.touch(places.time);
    }

    /// Notes that an event changed one of its sets.
    pub fn touch(&mut self, time: Timestamp) {
        self.update_time = self.update_time.max(time);
    }

    /// Booked places divided by capacity. A slot without capacity is as full as can be.
    #[must_use]
    pub fn fill_ratio(&self) -> f64 {
        if self.capacity <= 0 { 1.0 } else { f64::from(self.booked) / f64::from(self.capacity) }
    }
}

impl Hospital {
    /// Takes an event about the hospital itself in.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Located { time_zone, .. } => self.time_zone.clone_from(time_zone),
            Fact::Gone { .. } => self.gone = true,
            Fact::Places(_) | Fact::Booked { .. } | Fact::Refused { .. } => {}
        }
    }

    /// When a slot's date is over. Where the time zone is unknown, when it is over everywhere.
    #[must_use]
    pub fn end_of(&self, slot: &SlotId) -> Timestamp {
        let zone = civil::time_zone(&self.time_zone).unwrap_or_else(civil::last_zone);
        slot.date.tomorrow().map_or(Timestamp::MAX, |tomorrow| civil::begin_of(tomorrow, &zone))
    }
}

/// The slots a caller may read the demand for: all for marketing's own identity and for auditors, their hospitals' for
/// admins.
///
/// # Errors
/// CREDENTIALS_MISSING, or ROLE_REQUIRED.
pub fn readable(caller: &Caller) -> Result<Scope, Fault> {
    caller.require_token()?;
    match caller {
        Caller::Service(name) if name == "marketing" => Ok(Scope::Everything),
        Caller::Admin { .. } | Caller::Auditor(_) => caller.scope(),
        _ => Err(role_required("service:marketing, admin or auditor")),
    }
}

/// The first check of proposals: marketing's own identity and admins.
///
/// # Errors
/// CREDENTIALS_MISSING, or ROLE_REQUIRED.
pub fn require_proposer(caller: &Caller) -> Result<(), Fault> {
    caller.require_token()?;
    match caller {
        Caller::Service(name) if name == "marketing" => Ok(()),
        Caller::Admin { .. } => Ok(()),
        _ => Err(role_required("service:marketing or admin")),
    }
}

/// The check of a proposal to one hospital; call [`require_proposer`] first.
///
/// # Errors
/// NOT_OWNER for an admin of other hospitals.
pub fn require_proposal_to(caller: &Caller, hospital: &HospitalId) -> Result<(), Fault> {
    match caller {
        Caller::Admin { .. } => caller.require_admin_of(hospital),
        _ => require_proposer(caller),
    }
}

/// The namespace of the request ids under which proposals travel on.
const FORWARDED: Uuid = Uuid::from_u128(0x6f1d_6f2e_52d1_5e0b_9a4b_7d3c_0c1e_8a55);

/// The request_id under which a proposal travels on to Hospital: the same for a retry of the same caller and no other, so
/// that Hospital's record of it stands in for one of our own.
#[must_use]
pub fn forwarded_request_id(caller: &Caller, chosen: Uuid) -> Uuid {
    Uuid::new_v5(&FORWARDED, format!("{chosen}/{caller}").as_bytes())
}

#[cfg(test)]
mod tests;
