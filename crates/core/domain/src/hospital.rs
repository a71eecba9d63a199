//! Hospitals: registering, changing and deleting them, and the requests for more capacity that their admins decide.
//!
//! Functions take the stored state and return the new state with the facts that report it, as in [`crate::capacity`].
//! [`delete`] only begins a deletion. The service then revokes the claims chunk by chunk, and [`finish_deletion`] ends
//! it.

mod request;

pub use request::{
    CapacityIncrease, CapacityRequest, REQUEST_LIFETIME, RequestState, approve, ask_for_capacity,
    capacity_request_not_found, reject,
};

pub use crate::hospital_state::{Deletion, Hospital, HospitalState, hospital_deleted, hospital_not_found};
pub use crate::terms::Terms;

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{HospitalDeleted, HospitalDeletionStarted, HospitalUpdated};
use fault::{Fault, Reason};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::capacity::field_invalid;
use crate::civil::encode_duration;
use crate::event::Fact;
use crate::ids::HospitalId;
use crate::token::check_etag;
use crate::window::{BookingPolicy, zone_name};

/// The fields of a hospital that is to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The name that people read.
    pub display_name: String,
    /// The time zone of its dates.
    pub time_zone: TimeZone,
    /// How long before a date it can be booked and cancelled.
    pub policy: BookingPolicy,
}

/// Registers a hospital. `existing` is the hospital that has the id already, deleted or not.
///
/// # Errors
/// HOSPITAL_ALREADY_EXISTS if there is an `existing` one.
pub fn register(
    id: &HospitalId,
    uid: Uuid,
    draft: &Draft,
    existing: Option<&Hospital>,
    now: Timestamp,
) -> Result<(Hospital, Fact), Fault> {
    if existing.is_some() {
        let fault = Fault::new(Reason::HospitalAlreadyExists, format!("the id of {id} is taken"));
        return Err(fault.with("hospital", id).about("Hospital", id));
    }
    let Draft { display_name, time_zone, policy } = draft.clone();
    let hospital = Hospital {
        id: id.clone(),
        uid,
        display_name,
        time_zone,
        policy,
        deletion: None,
        version: 1,
        create_time: now,
        update_time: now,
    };
    let fact = hospital.fact(Payload::HospitalRegistered(hospital.registered()));
    Ok((hospital, fact))
}

/// The changes that an admin asks for; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HospitalChange {
    /// The new name that people read.
    pub display_name: Option<String>,
    /// The zone that the caller named. It must be the hospital's own.
    pub time_zone: Option<String>,
    /// The new [`BookingPolicy::min_notice`].
    pub min_notice: Option<SignedDuration>,
    /// The new [`BookingPolicy::max_advance`].
    pub max_advance: Option<SignedDuration>,
    /// The new [`BookingPolicy::cancellation_cutoff`].
    pub cancellation_cutoff: Option<SignedDuration>,
    /// The new [`BookingPolicy::waitlist_limit`].
    pub waitlist_limit: Option<i32>,
    /// The new [`BookingPolicy::promotion_min_notice`].
    pub promotion_min_notice: Option<SignedDuration>,
    /// The new [`BookingPolicy::reschedule_limit`].
    pub reschedule_limit: Option<i32>,
    /// The new [`BookingPolicy::customer_limit`].
    pub customer_limit: Option<Option<i32>>,
}

/// Changes a hospital; `None` if nothing would change.
///
/// # Errors
/// HOSPITAL_DELETED, ETAG_MISMATCH, or FIELD_INVALID for another time zone or for offsets that contradict what is
/// stored.
pub fn update(
    hospital: &Hospital,
    change: &HospitalChange,
    etag: &str,
    now: Timestamp,
) -> Result<Option<(Hospital, Fact)>, Fault> {
    hospital.require_active()?;
    check_etag(etag, hospital.version).map_err(|fault| fault.about("Hospital", &hospital.id))?;
    let zone = zone_name(&hospital.time_zone);
    if change.time_zone.as_deref().is_some_and(|wanted| wanted != zone) {
        return Err(field_invalid("hospital.time_zone", format!("never changes; it is {zone}")));
    }
    let mut changed = hospital.changed(now);
    let mut paths = Vec::new();
    if let Some(name) = change.display_name.as_ref().filter(|name| **name != hospital.display_name) {
        changed.display_name.clone_from(name);
        paths.push("display_name".to_owned());
    }
    change_policy(&mut changed.policy, change, &mut paths);
    if paths.is_empty() {
        return Ok(None);
    }
    if changed.policy != hospital.policy
        && let Some(description) = changed.policy.contradiction()
    {
        let field = if change.min_notice.is_some() { "min_notice" } else { "max_advance" };
        return Err(field_invalid(&format!("hospital.booking_policy.{field}"), description));
    }
    let fact = changed.fact(Payload::HospitalUpdated(HospitalUpdated {
        hospital: hospital.id.to_string(),
        display_name: changed.display_name.clone(),
        changed_paths: paths,
        time_zone: zone.to_owned(),
        min_notice: Some(encode_duration(changed.policy.min_notice)),
        max_advance: Some(encode_duration(changed.policy.max_advance)),
        cancellation_cutoff: Some(encode_duration(changed.policy.cancellation_cutoff)),
        waitlist_limit: changed.policy.waitlist_limit,
        promotion_min_notice: Some(encode_duration(changed.policy.promotion_min_notice)),
        reschedule_limit: Some(changed.policy.reschedule_limit),
        customer_limit: changed.policy.customer_limit,
    }));
    Ok(Some((changed, fact)))
}

/// Changes a policy, and adds the path of each field that changes.
fn change_policy(policy: &mut BookingPolicy, change: &HospitalChange, paths: &mut Vec<String>) {
    fn set<T: PartialEq>(paths: &mut Vec<String>, path: &str, field: &mut T, wanted: Option<T>) {
        if let Some(wanted) = wanted.filter(|wanted| wanted != field) {
            *field = wanted;
            paths.push(format!("booking_policy.{path}"));
        }
    }
    set(paths, "min_notice", &mut policy.min_notice, change.min_notice);
    set(paths, "max_advance", &mut policy.max_advance, change.max_advance);
    set(paths, "cancellation_cutoff", &mut policy.cancellation_cutoff, change.cancellation_cutoff);
    set(paths, "promotion_min_notice", &mut policy.promotion_min_notice, change.promotion_min_notice);
    set(paths, "waitlist_limit", &mut policy.waitlist_limit, change.waitlist_limit);
    set(paths, "reschedule_limit", &mut policy.reschedule_limit, change.reschedule_limit);
    set(paths, "customer_limit", &mut policy.customer_limit, change.customer_limit);
}

/// How many claims a deletion ends, counted from [`Hospital::counts_from`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// The ACTIVE ones: the hospital's active bookings.
    pub active: i64,
    /// The WAITING ones.
    pub waiting: i64,
}

impl Held {
    /// All of them.
    #[must_use]
    pub fn total(self) -> i64 {
        self.active + self.waiting
    }
}

/// Begins a deletion; `None` if one has begun already. If the hospital holds no claims, the deletion is complete at
/// once. The caller withdraws the slots and starts the revocations.
///
/// # Errors
/// ETAG_MISMATCH or HOSPITAL_HAS_BOOKINGS.
pub fn delete(
    hospital: &Hospital,
    held: Held,
    force: bool,
    reason: &str,
    etag: &str,
    now: Timestamp,
) -> Result<Option<(Hospital, Vec<Fact>)>, Fault> {
    if hospital.deletion.is_some() {
        return Ok(None);
    }
    check_etag(etag, hospital.version).map_err(|fault| fault.about("Hospital", &hospital.id))?;
    let (active, claims) = (held.active, held.total());
    if active > 0 && !force {
        let message = format!("{} has {active} bookings of dates that are not over; force cancels them", hospital.id);
        return Err(Fault::new(Reason::HospitalHasBookings, message)
            .with("hospital", &hospital.id)
            .with("activeBookingCount", active)
            .about("Hospital", &hospital.id));
    }
    let deletion = Some(Deletion { time: now, claims, complete: false });
    let deleting = Hospital { deletion, ..hospital.changed(now) };
    let started = deleting.fact(Payload::HospitalDeletionStarted(HospitalDeletionStarted {
        hospital: hospital.id.to_string(),
        reason: reason.to_owned(),
        claims_to_revoke: count(claims),
    }));
    if claims > 0 {
        return Ok(Some((deleting, vec![started])));
    }
    let (deleted, ended) = finish_deletion(&deleting, 0, now);
    Ok(Some((deleted, vec![started, ended])))
}

/// Ends a deletion once no claim is left. `revoked` is the number of claims that were revoked, without those
/// that were released meanwhile.
#[must_use]
pub fn finish_deletion(hospital: &Hospital, revoked: i64, now: Timestamp) -> (Hospital, Fact) {
    let deletion = hospital.deletion.map(|deletion| Deletion { complete: true, ..deletion });
    let deleted = Hospital { deletion, ..hospital.changed(now) };
    let fact = deleted.fact(Payload::HospitalDeleted(HospitalDeleted {
        hospital: hospital.id.to_string(),
        claims_revoked: count(revoked),
    }));
    (deleted, fact)
}

/// A count in the contract's type; larger ones become `i32::MAX`.
#[must_use]
pub fn count(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
