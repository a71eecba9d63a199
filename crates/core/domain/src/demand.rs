//! Demand as a fold: how full slots are, how many bookings the last 7 days brought and how many they turned away.
//!
//! A slot takes the event with the greatest slot_version. Bookings and refusals are sets, counted when they are read. A
//! hospital that is gone stays gone. So events commute and may be repeated. Nothing here proposes capacity.

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    CapacityReleased, CapacityReserved, CapacityRevoked, CapacityWaitlisted, EventEnvelope, HospitalDeleted,
    HospitalDeletionStarted, HospitalRegistered, ScreeningConfirmed, ScreeningRefused, SlotCapacityChanged, SlotClosed,
    SlotOpened,
};
use fault::Fault;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::access::{Caller, Scope, role_required};
use crate::civil;
use crate::event::subject_filter;
use crate::ids::{HospitalId, Malformed, ScreeningId, SlotId};
use crate::screening::FIRST_GENERATION;

/// How long a booking or a refusal counts as recent.
const WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The start of the window in which bookings and refusals count as recent.
#[must_use]
pub fn of_late(now: Timestamp) -> Timestamp {
    now.checked_sub(WINDOW).unwrap_or(Timestamp::MIN)
}

/// What an event says about demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The places of a slot after a change.
    Places(Places),
    /// A booking was confirmed, or moved to the slot.
    Booked {
        /// What counts once: the booking, and after a move one id more for each slot that it came to.
        id: Uuid,
        /// The slot that was booked.
        slot: SlotId,
        /// When the booking was confirmed.
        time: Timestamp,
    },
    /// Customers were turned away from a full slot.
    Refused {
        /// The id of the reporting event; each counts once.
        event_id: Uuid,
        /// The slot that was full.
        slot: SlotId,
        /// How many customers were turned away.
        count: i64,
        /// When Screening reported it.
        time: Timestamp,
    },
    /// A hospital's time zone.
    Located {
        /// The hospital whose zone this is.
        hospital: HospitalId,
        /// Its IANA time zone.
        time_zone: String,
    },
    /// A hospital is being or has been deleted.
    Gone {
        /// The hospital whose deletion has begun.
        hospital: HospitalId,
    },
}

/// The id under which a booking with a claim of this generation counts: the booking's own for its first slot, another
/// one for each slot that it was moved to. What a slot brought stays counted when the booking moves away, as when it
/// ends.
fn counted_id(screening: ScreeningId, generation: i32) -> Uuid {
    if generation <= FIRST_GENERATION { screening.0 } else { Uuid::new_v5(&screening.0, &generation.to_be_bytes()) }
}

/// The places of a slot, as of one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The slot that has these places.
    pub slot: SlotId,
    /// The slot's version; every change counts, bookings included.
    pub slot_version: i64,
    /// How many places the slot has.
    pub capacity: i32,
    /// How many places are taken.
    pub booked: i32,
    /// How many bookings wait for a place.
    pub waiting: i32,
    /// When the change happened.
    pub time: Timestamp,
}

/// The event subjects of Hospital that the fold reads.
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
        ("claim", "capacity_waitlisted"),
    ];
    facts.iter().map(|(kind, fact)| subject_filter(kind, fact)).collect()
}

/// The event subjects of Screening that the fold reads.
#[must_use]
pub fn screening_subjects() -> Vec<String> {
    vec![subject_filter("screening", "screening_confirmed"), subject_filter("slot", "screening_refused")]
}

/// The numbers of an event about a slot, still undecoded.
struct Counted<'a> {
    slot: &'a str,
    slot_version: i64,
    capacity: i32,
    booked: i32,
    waiting: i32,
}

impl<'a> Counted<'a> {
    fn new(slot: &'a str, slot_version: i64, capacity: i32, booked: i32, waiting: i32) -> Self {
        Self { slot, slot_version, capacity, booked, waiting }
    }
}

fn counted(payload: &Payload) -> Option<Counted<'_>> {
    let counted = match payload {
        Payload::SlotOpened(SlotOpened { slot, date: _, capacity, slot_version, booked_count, waitlisted_count }) => {
            Counted::new(slot, *slot_version, *capacity, *booked_count, *waitlisted_count)
        }
        Payload::SlotCapacityChanged(SlotCapacityChanged {
            slot,
            old_capacity: _,
            new_capacity,
            booked_count,
            capacity_request: _,
            slot_version,
            date: _,
            on_sale: _,
            waitlisted_count,
        }) => Counted::new(slot, *slot_version, *new_capacity, *booked_count, *waitlisted_count),
        Payload::SlotClosed(SlotClosed {
            slot,
            bookings_cancelled: _,
            reason: _,
            slot_version,
            capacity,
            booked_count,
            date: _,
            waitlisted_count,
        }) => Counted::new(slot, *slot_version, *capacity, *booked_count, *waitlisted_count),
        Payload::CapacityReserved(CapacityReserved {
            slot,
            claim_id: _,
            remaining_count: _,
            slot_version,
            capacity,
            booked_count,
            date: _,
            from_waitlist: _,
            waitlisted_count,
        })
        | Payload::CapacityWaitlisted(CapacityWaitlisted {
            slot,
            claim_id: _,
            waitlist_ticket: _,
            waitlisted_count,
            slot_version,
            date: _,
            remaining_count: _,
            capacity,
            booked_count,
            promotion_close_time: _,
        })
        | Payload::CapacityReleased(CapacityReleased {
            slot,
            claim_id: _,
            remaining_count: _,
            slot_version,
            capacity,
            booked_count,
            date: _,
            waitlisted_count,
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
            date: _,
            waitlisted_count,
        }) => Counted::new(slot, *slot_version, *capacity, *booked_count, *waitlisted_count),
        _ => return None,
    };
    Some(counted)
}

impl Fact {
    /// Reads an envelope; `None` if it says nothing about demand.
    ///
    /// # Errors
    /// [`Malformed`] if it is about demand but cannot be read.
    pub fn decode(envelope: &EventEnvelope) -> Result<Option<Self>, Malformed> {
        let Some(payload) = &envelope.payload else { return Ok(None) };
        let missing = |what: &str| Malformed(format!("the event has no {what}"));
        let time = || envelope.occur_time.as_ref().and_then(civil::decode_time).ok_or_else(|| missing("occur_time"));
        if let Some(Counted { slot, slot_version, capacity, booked, waiting }) = counted(payload) {
            // a release that came before its reserve may name a slot that does not exist
            let slot = SlotId::parse(slot)?;
            if slot_version == 0 && matches!(payload, Payload::CapacityReleased(_)) {
                return Ok(None);
            }
            if slot_version < 1 {
                return Err(missing("slot_version"));
            }
            return Ok(Some(Self::Places(Places { slot, slot_version, capacity, booked, waiting, time: time()? })));
        }
        let fact = match payload {
            Payload::ScreeningConfirmed(ScreeningConfirmed { screening, reason: _, message: _ }) => {
                let booked = screening.as_ref().ok_or_else(|| missing("screening"))?;
                if booked.customer.is_empty() {
                    return Ok(None);
                }
                let id = counted_id(ScreeningId::parse(&booked.screening)?, booked.claim_generation);
                Self::Booked { id, slot: SlotId::parse(&booked.slot)?, time: time()? }
            }
            Payload::ScreeningRefused(ScreeningRefused { slot, reason: _, count, date: _ }) => Self::Refused {
                event_id: Uuid::try_parse(&envelope.event_id).map_err(|_| missing("event_id"))?,
                slot: SlotId::parse(slot)?,
                count: (*count).max(0),
                time: time()?,
            },
            Payload::HospitalRegistered(HospitalRegistered { hospital, time_zone, .. }) => {
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

    /// The hospital that the fact is about.
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

/// The facts known about a hospital.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hospital {
    /// Its IANA time zone; empty while unknown.
    pub time_zone: String,
    /// Whether its deletion has begun. The demand for its slots is then no longer shown.
    pub gone: bool,
}

/// The facts known about a slot, without the sets of bookings and refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// The slot that this signal is about.
    pub slot: SlotId,
    /// The greatest slot_version applied. 0 while only bookings or refusals are known; the slot is then not listed.
    pub slot_version: i64,
    /// How many places the slot has.
    pub capacity: i32,
    /// How many places are taken.
    pub booked: i32,
    /// How many bookings wait for a place.
    pub waiting: i32,
    /// When an event last changed it.
    pub update_time: Timestamp,
}

impl Signal {
    /// A signal of a slot about which nothing is known yet.
    #[must_use]
    pub fn unknown(slot: SlotId) -> Self {
        Self { slot, slot_version: 0, capacity: 0, booked: 0, waiting: 0, update_time: Timestamp::MIN }
    }

    /// Applies an event about the slot's places.
    pub fn apply(&mut self, places: &Places) {
        if places.slot_version > self.slot_version {
            self.slot_version = places.slot_version;
            self.capacity = places.capacity;
            self.booked = places.booked;
            self.waiting = places.waiting;
        }
        self.touch(places.time);
    }

    /// Records that an event changed one of the slot's sets.
    pub fn touch(&mut self, time: Timestamp) {
        self.update_time = self.update_time.max(time);
    }

    /// Booked places divided by capacity. A slot without capacity has the ratio 1.
    #[must_use]
    pub fn fill_ratio(&self) -> f64 {
        if self.capacity <= 0 { 1.0 } else { f64::from(self.booked) / f64::from(self.capacity) }
    }
}

impl Hospital {
    /// Applies an event about the hospital itself.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Located { time_zone, .. } => self.time_zone.clone_from(time_zone),
            Fact::Gone { .. } => self.gone = true,
            Fact::Places(_) | Fact::Booked { .. } | Fact::Refused { .. } => {}
        }
    }

    /// The instant at which a slot's date is over. If the time zone is unknown, the instant at which it is over
    /// everywhere.
    #[must_use]
    pub fn end_of(&self, slot: &SlotId) -> Timestamp {
        let zone = civil::time_zone(&self.time_zone).unwrap_or_else(civil::last_zone);
        slot.date.tomorrow().map_or(Timestamp::MAX, |tomorrow| civil::begin_of(tomorrow, &zone))
    }
}

/// The slots whose demand a caller may read: all of them for Marketing's own identity and for auditors; those of their
/// hospitals for admins.
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

/// Checks that the caller may propose capacity: Marketing's own identity, or an admin.
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

/// Checks a proposal to one hospital; call [`require_proposer`] first.
///
/// # Errors
/// NOT_OWNER for an admin of other hospitals.
pub fn require_proposal_to(caller: &Caller, hospital: &HospitalId) -> Result<(), Fault> {
    match caller {
        Caller::Admin { .. } => caller.require_admin_of(hospital),
        _ => require_proposer(caller),
    }
}

/// The namespace of the request ids that proposals to Hospital use.
const FORWARDED: Uuid = Uuid::from_u128(0x6f1d_6f2e_52d1_5e0b_9a4b_7d3c_0c1e_8a55);

/// The request_id that Marketing sends to Hospital with a proposal. It is the same for a retry of the same caller and
/// for no other call, so that Hospital's request record makes one of Marketing's own unnecessary.
#[must_use]
pub fn forwarded_request_id(caller: &Caller, chosen: Uuid) -> Uuid {
    Uuid::new_v5(&FORWARDED, format!("{chosen}/{caller}").as_bytes())
}

#[cfg(test)]
mod tests;
