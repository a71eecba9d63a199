//! The rows of each service, as the invariants compare them.

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::capacity::v1::capacity_claim::State as ClaimState;
use contract::reservation::v1::reservation::State as ReservationState;
use contract::screening::v1::screening::State as ScreeningState;
use jiff::Timestamp;
use jiff::civil::Date;

use crate::ids::{ClaimId, CustomerId, HospitalId, ScreeningId, SlotId};

/// One slot, as Hospital counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRow {
    /// The slot that these counts are about.
    pub slot: Arc<SlotId>,
    /// How many places it has.
    pub capacity: i32,
    /// How many places are taken.
    pub booked_count: i32,
    /// How many places are left.
    pub remaining_count: i32,
    /// How many bookings wait for a place.
    pub waitlisted_count: i32,
    /// Whether it is on sale.
    pub open: bool,
}

/// One claim as Hospital stores it, ACTIVE, WAITING or REVOKED; RELEASED claims need not be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRow {
    /// The claim's id, which names its screening.
    pub claim: ClaimId,
    /// The slot that the claim is on.
    pub slot: Arc<SlotId>,
    /// ACTIVE, WAITING or REVOKED; RELEASED if it is given.
    pub state: ClaimState,
    /// The instant from which a WAITING claim gets no place any more; `None` for the others.
    pub promotion_close: Option<Timestamp>,
}

/// One booking as Screening stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreeningRow {
    /// The booking's id.
    pub screening: ScreeningId,
    /// The customer who booked.
    pub customer: Arc<CustomerId>,
    /// The slot that is booked.
    pub slot: Arc<SlotId>,
    /// The state that Screening stores.
    pub state: ScreeningState,
    /// The generation of the claim that the booking holds or held.
    pub claim_generation: i32,
    /// 1 for the first state, one more per transition, two more per move to another slot.
    pub version: i64,
}

/// One row of the reservation ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationRow {
    /// The booking it follows.
    pub screening: ScreeningId,
    /// The customer who booked.
    pub customer: Arc<CustomerId>,
    /// The slot that is booked.
    pub slot: Arc<SlotId>,
    /// The state of the reservation.
    pub state: ReservationState,
    /// The greatest version of the booking that the ledger has applied.
    pub version: i64,
}

/// One item of a my-page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRow {
    /// The booking it shows.
    pub screening: ScreeningId,
    /// The customer whose page it is.
    pub customer: Arc<CustomerId>,
    /// The date of the booked slot.
    pub date: Date,
    /// The state that the page shows; `STATE_UNSPECIFIED` for a state that this build does not know.
    pub state: ScreeningState,
    /// The version of the booking it shows.
    pub version: i64,
}

/// The rows of each service. `None` means that the service was not read, so it is not compared.
#[derive(Debug, Clone, Default)]
pub struct ServiceRows {
    /// When the rows were read. `None`: no claim is taken for one that still may get a place.
    pub read_at: Option<Timestamp>,
    /// Hospital's slots with their counts.
    pub slots: Option<Vec<SlotRow>>,
    /// Hospital's claims that are ACTIVE, WAITING or REVOKED.
    pub claims: Option<Vec<ClaimRow>>,
    /// Hospitals whose deletion is complete, each with the first date that the deletion covered: see
    /// [`super::emptied`].
    pub deleted: BTreeMap<HospitalId, Date>,
    /// Screening's bookings, without fences.
    pub screenings: Option<Vec<ScreeningRow>>,
    /// The rows of the reservation ledger.
    pub reservations: Option<Vec<ReservationRow>>,
    /// The items of the my-pages of every customer whom Screening or Reservation names.
    pub items: Option<Vec<ItemRow>>,
}
