//! What must hold between the services: their rows, compared with each other, name the same bookings.
//!
//! [`check`] is a pure function of the rows that each service returned. `checkup verify` reads the services, reads
//! disagreeing rows again because an event may still be on its way, and prints the result. A service that was not read
//! (`None`) is not compared with any other.

mod rows;

pub use rows::{ClaimRow, ItemRow, ReservationRow, ScreeningRow, ServiceRows, SlotRow};

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use contract::capacity::v1::capacity_claim::State as ClaimState;
use contract::hospital::v1 as message;
use contract::reservation::v1::reservation::State as ReservationState;
use contract::screening::v1::screening::State as ScreeningState;
use jiff::civil::Date;

use crate::civil::{decode_time, time_zone, today};
use crate::ids::{ClaimId, CustomerId, HospitalId, Malformed, ScreeningId, SlotId};

/// The subject of a disagreement, which is read again before the disagreement counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The counts of one slot.
    Slot(Arc<SlotId>),
    /// One booking, in all services that have it.
    Booking {
        /// The booking's id.
        screening: ScreeningId,
        /// The slot, if a service names it.
        slot: Option<Arc<SlotId>>,
        /// The customer, if a service names one.
        customer: Option<Arc<CustomerId>>,
    },
    /// A claim that no booking holds, and its slot.
    Claim(ClaimId, Arc<SlotId>),
    /// The bookings of a customer on one date.
    CustomerDate(Arc<CustomerId>, Date),
    /// The storage of the service with this name.
    Storage(&'static str),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "{slot}"),
            Self::Booking { screening, .. } => write!(f, "{screening}"),
            Self::Claim(claim, slot) => write!(f, "{slot}/claims/{claim}"),
            Self::CustomerDate(customer, date) => write!(f, "{customer} on {date}"),
            Self::Storage(service) => write!(f, "the storage of {service}"),
        }
    }
}

/// The invariant that a disagreement breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// No slot has more places taken than it has places, and the places left are the difference. One read of a slot is
    /// enough to see this broken, whatever happens at the same time.
    CapacityHolds,
    /// A slot's counts are the sizes of its sets of active and of waiting claims.
    CountsAreClaims,
    /// Active claims and bookings that hold a place are the same set, and so are waiting claims and bookings that wait.
    ClaimsAreBookings,
    /// Nobody waits beside a free place: no claim waits while its slot is on sale with a place left and the claim still
    /// may get one.
    QueuesMove,
    /// A deleted hospital has no booking that is active or waits on a date that was not over when its deletion began.
    DeletedIsEmpty,
    /// A customer has at most one active booking per date.
    OneBookingADate,
    /// For every booking the reservation ledger has the state that Screening has.
    ReservationsFollow,
    /// For every booking the my-pages have the state that Screening has.
    PagesFollow,
    /// A service's storage still holds what the service answered, and it accepts writes.
    ServedIsStored,
}

impl Rule {
    /// Its name in reports, for scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CapacityHolds => "capacity-holds",
            Self::CountsAreClaims => "counts-are-claims",
            Self::ClaimsAreBookings => "claims-are-bookings",
            Self::QueuesMove => "queues-move",
            Self::DeletedIsEmpty => "deleted-is-empty",
            Self::OneBookingADate => "one-booking-a-date",
            Self::ReservationsFollow => "reservations-follow",
            Self::PagesFollow => "pages-follow",
            Self::ServedIsStored => "served-is-stored",
        }
    }
}

/// A point on which two services disagree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disagreement {
    /// The resource that they disagree about.
    pub subject: Subject,
    /// The rule that is broken.
    pub rule: Rule,
    /// The values of both sides.
    pub detail: String,
}

/// The entry of a hospital in [`ServiceRows::deleted`]: its id and the first date that its deletion covered. `None` if
/// it is not DELETED.
///
/// # Errors
/// [`Malformed`] if the hospital's name cannot be parsed.
pub fn emptied(hospital: &message::Hospital) -> Result<Option<(HospitalId, Date)>, Malformed> {
    if hospital.state() != message::hospital::State::Deleted {
        return Ok(None);
    }
    let time = hospital.delete_time.as_ref().and_then(decode_time);
    let first = time.zip(time_zone(&hospital.time_zone)).map(|(time, zone)| today(time, &zone));
    // Without a date, past bookings cannot be told from others, so every date counts.
    Ok(Some((HospitalId::parse(&hospital.name)?, first.unwrap_or(Date::MIN))))
}

/// Compares the rows of all services and returns every disagreement, in a fixed order.
#[must_use]
pub fn check(service_rows: &ServiceRows) -> Vec<Disagreement> {
    let mut found = Vec::new();
    check_slots(service_rows, &mut found);
    check_queues(service_rows, &mut found);
    check_claims(service_rows, &mut found);
    check_deleted(service_rows, &mut found);
    check_customer_dates(service_rows, &mut found);
    check_reservations(service_rows, &mut found);
    check_items(service_rows, &mut found);
    found.sort();
    found
}

fn is_active(state: ScreeningState) -> bool {
    matches!(state, ScreeningState::Pending | ScreeningState::Confirmed)
}

fn booking(row: &ScreeningRow) -> Subject {
    let (slot, customer) = (Some(row.slot.clone()), Some(row.customer.clone()));
    Subject::Booking { screening: row.screening, slot, customer }
}

fn check_slots(service_rows: &ServiceRows, found: &mut Vec<Disagreement>) {
    let Some(slots) = &service_rows.slots else { return };
    let (mut active, mut waiting) = (HashMap::<&SlotId, i32>::new(), HashMap::<&SlotId, i32>::new());
    for row in service_rows.claims.iter().flatten() {
        match row.state {
            ClaimState::Active => *active.entry(&row.slot).or_default() += 1,
            ClaimState::Waiting => *waiting.entry(&row.slot).or_default() += 1,
            ClaimState::Released | ClaimState::Revoked | ClaimState::Unspecified => {}
        }
    }
    for row in slots {
        let SlotRow { slot, capacity, booked_count, remaining_count, waitlisted_count, open: _ } = row;
        let mut broken = |rule, detail| found.push(Disagreement { subject: Subject::Slot(slot.clone()), rule, detail });
        if booked_count > capacity {
            broken(Rule::CapacityHolds, format!("{booked_count} booked of {capacity} places"));
        }
        if *remaining_count != capacity - booked_count {
            let detail = format!("{remaining_count} remaining of {capacity} places with {booked_count} booked");
            broken(Rule::CapacityHolds, detail);
        }
        let claimed = active.get(&**slot).copied().unwrap_or_default();
        if service_rows.claims.is_some() && claimed != *booked_count {
            broken(Rule::CountsAreClaims, format!("booked_count is {booked_count}, but {claimed} claims are ACTIVE"));
        }
        let queued = waiting.get(&**slot).copied().unwrap_or_default();
        if service_rows.claims.is_some() && queued != *waitlisted_count {
            let detail = format!("waitlisted_count is {waitlisted_count}, but {queued} claims are WAITING");
            broken(Rule::CountsAreClaims, detail);
        }
    }
}

fn check_queues(service_rows: &ServiceRows, found: &mut Vec<Disagreement>) {
    let (Some(slots), Some(claims), Some(now)) = (&service_rows.slots, &service_rows.claims, service_rows.read_at)
    else {
        return;
    };
    let free = |row: &&SlotRow| row.open && row.remaining_count > 0;
    let free: HashMap<&SlotId, i32> = slots.iter().filter(free).map(|row| (&*row.slot, row.remaining_count)).collect();
    let may_get_one =
        |row: &&ClaimRow| row.state == ClaimState::Waiting && row.promotion_close.is_some_and(|close| now < close);
    for row in claims.iter().filter(may_get_one) {
        if let Some(places) = free.get(&*row.slot) {
            let detail = format!("claim is WAITING, but {places} places are free");
            let subject = Subject::Claim(row.claim, row.slot.clone());
            found.push(Disagreement { subject, rule: Rule::QueuesMove, detail });
        }
    }
}

/// CONFIRMED holds an ACTIVE claim. So do COMPLETED and NO_SHOW, unless the hospital took the place back after the
/// screening. WAITLISTED holds a WAITING claim. No other state holds a claim.
fn check_claims(service_rows: &ServiceRows, found: &mut Vec<Disagreement>) {
    let (Some(claims), Some(screenings)) = (&service_rows.claims, &service_rows.screenings) else { return };
    let by_claim: HashMap<ClaimId, &ClaimRow> = claims.iter().map(|row| (row.claim, row)).collect();
    let mut broken = |subject, detail| found.push(Disagreement { subject, rule: Rule::ClaimsAreBookings, detail });
    let mut held = HashSet::new();
    for row in screenings {
        let id = ClaimId { screening: row.screening, generation: row.claim_generation };
        let claim = by_claim.get(&id);
        let state = row.state.as_str_name();
        let needed: &[ClaimState] = match row.state {
            ScreeningState::Confirmed => &[ClaimState::Active],
            ScreeningState::Completed | ScreeningState::NoShow => &[ClaimState::Active, ClaimState::Revoked],
            ScreeningState::Waitlisted => &[ClaimState::Waiting],
            ScreeningState::Unspecified
            | ScreeningState::Pending
            | ScreeningState::Cancelled
            | ScreeningState::ForceCancelled
            | ScreeningState::Rejected
            | ScreeningState::Expired => &[],
        };
        if !needed.is_empty() {
            held.insert(id);
        }
        match claim {
            None if needed.is_empty() => {}
            None => broken(booking(row), format!("screening is {state}, but claim {id} is not held")),
            Some(claim) if claim.slot != row.slot => {
                broken(booking(row), format!("screening is for {}, but claim {id} is on {}", row.slot, claim.slot));
            }
            Some(claim) if needed.is_empty() => {
                if holds(claim.state) {
                    held.insert(id);
                    broken(
                        booking(row),
                        format!("screening is {state}, but claim {id} is {}", claim.state.as_str_name()),
                    );
                }
            }
            Some(claim) if !needed.contains(&claim.state) => {
                broken(booking(row), format!("screening is {state}, but claim {id} is {}", claim.state.as_str_name()));
            }
            Some(_) => {}
        }
    }
    for row in claims.iter().filter(|row| holds(row.state) && !held.contains(&row.claim)) {
        let detail = format!("claim is {}, but no screening holds it", row.state.as_str_name());
        broken(Subject::Claim(row.claim, row.slot.clone()), detail);
    }
}

/// Whether a claim in this state needs a booking.
fn holds(state: ClaimState) -> bool {
    matches!(state, ClaimState::Active | ClaimState::Waiting)
}

fn check_deleted(service_rows: &ServiceRows, found: &mut Vec<Disagreement>) {
    let gone = |slot: &SlotId| service_rows.deleted.get(&slot.hospital).is_some_and(|first| slot.date >= *first);
    let mut broken = |subject, detail| found.push(Disagreement { subject, rule: Rule::DeletedIsEmpty, detail });
    let held = |row: &&SlotRow| row.booked_count != 0 || row.waitlisted_count != 0;
    for row in service_rows.slots.iter().flatten().filter(|row| gone(&row.slot)).filter(held) {
        let detail =
            format!("hospital is DELETED, but {} are booked and {} wait", row.booked_count, row.waitlisted_count);
        broken(Subject::Slot(row.slot.clone()), detail);
    }
    let has_claim = |row: &&ScreeningRow| is_active(row.state) || row.state == ScreeningState::Waitlisted;
    for row in service_rows.screenings.iter().flatten().filter(|row| gone(&row.slot)).filter(has_claim) {
        broken(booking(row), format!("{} is DELETED, but screening is {}", row.slot.hospital, row.state.as_str_name()));
    }
}

fn check_customer_dates(service_rows: &ServiceRows, found: &mut Vec<Disagreement>) {
    let mut first: HashMap<(&CustomerId, Date), &ScreeningRow> = HashMap::new();
    for row in service_rows.screenings.iter().flatten().filter(|row| is_active(row.state)) {
        if let Some(other) = first.insert((&row.customer, row.slot.date), row)
            && other.screening != row.screening
        {
            let subject = Subject::CustomerDate(row.customer.clone(), row.slot.date);
            let detail = format!("{} and {} are both active", other.screening, row.screening);
            found.push(Disagreement { subject, rule: Rule::OneBookingADate, detail });
        }
    }
}

/// The state that the reservation ledger has for a booking in this state; `None` if the ledger has no row for it.
fn mirrored(state: ScreeningState) -> Option<ReservationState> {
    match state {
        ScreeningState::Confirmed => Some(ReservationState::Registered),
        ScreeningState::Cancelled => Some(ReservationState::Cancelled),
        ScreeningState::ForceCancelled => Some(ReservationState::ForceCancelled),
        ScreeningState::Completed => Some(ReservationState::Completed),
        ScreeningState::NoShow => Some(ReservationState::NoShow),
        ScreeningState::Unspecified
        | ScreeningState::Pending
        | ScreeningState::Rejected
        | ScreeningState::Waitlisted
        | ScreeningState::Expired => None,
    }
}

/// Whether a booking may have ended without ever being CONFIRMED: from PENDING or WAITLISTED, at the latest in its
/// third version. The ledger never registered such a booking, and nothing else in the row tells the two cases apart.
fn maybe_never_confirmed(row: &ScreeningRow) -> bool {
    row.version <= 3 && matches!(row.state, ScreeningState::Cancelled | ScreeningState::ForceCancelled)
}

fn check_reservations(service_rows: &ServiceRows, found: &mut Vec<Disagreement>) {
    let (Some(reservations), Some(screenings)) = (&service_rows.reservations, &service_rows.screenings) else { return };
    let mut broken = |subject, detail| found.push(Disagreement { subject, rule: Rule::ReservationsFollow, detail });
    let mut rest: HashMap<ScreeningId, &ReservationRow> = reservations.iter().map(|row| (row.screening, row)).collect();
    for row in screenings {
        let says = format!("screening is {} (version {})", row.state.as_str_name(), row.version);
        match (rest.remove(&row.screening), mirrored(row.state)) {
            (None, None) => {}
            (None, Some(_)) if maybe_never_confirmed(row) => {}
            (None, Some(_)) => broken(booking(row), format!("{says}, but has no reservation")),
            (Some(reservation), expected) => {
                let same = Some(reservation.state) == expected
                    && reservation.version == row.version
                    && reservation.slot == row.slot
                    && reservation.customer == row.customer;
                if !same {
                    let ReservationRow { state, version, slot, customer, .. } = reservation;
                    let state = state.as_str_name();
                    let detail = format!(
                        "{says} of {} by {}, but reservation is {state} (version {version}) of {slot} by {customer}",
                        row.slot, row.customer
                    );
                    broken(booking(row), detail);
                }
            }
        }
    }
    for row in rest.into_values() {
        let (slot, customer) = (Some(row.slot.clone()), Some(row.customer.clone()));
        let subject = Subject::Booking { screening: row.screening, slot, customer };
        broken(subject, format!("reservation is {}, but there is no such screening", row.state.as_str_name()));
    }
}

fn check_items(service_rows: &ServiceRows, found: &mut Vec<Disagreement>) {
    let (Some(items), Some(screenings)) = (&service_rows.items, &service_rows.screenings) else { return };
    let mut broken = |subject, detail| found.push(Disagreement { subject, rule: Rule::PagesFollow, detail });
    let mut rest: HashMap<ScreeningId, &ItemRow> = items.iter().map(|row| (row.screening, row)).collect();
    for row in screenings {
        let says = format!("screening is {} (version {})", row.state.as_str_name(), row.version);
        let Some(item) = rest.remove(&row.screening) else {
            broken(booking(row), format!("{says}, but is not on the page of {}", row.customer));
            continue;
        };
        let same = item.state == row.state
            && item.version == row.version
            && item.date == row.slot.date
            && item.customer == row.customer;
        if !same {
            let ItemRow { state, version, date, customer, .. } = item;
            let state = state.as_str_name();
            let detail = format!(
                "{says} for {} of {}, but the page of {customer} shows {state} (version {version}) for {date}",
                row.slot.date, row.customer
            );
            broken(booking(row), detail);
        }
    }
    for row in rest.into_values() {
        let subject = Subject::Booking { screening: row.screening, slot: None, customer: Some(row.customer.clone()) };
        let state = row.state.as_str_name();
        broken(subject, format!("the page of {} shows {state}, but there is no such screening", row.customer));
    }
}

#[cfg(test)]
mod tests;
