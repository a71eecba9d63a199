//! Converts the services' answers to rows that can be compared.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;

use contract::capacity::v1 as capacity;
use contract::hospital::v1 as hospital;
use contract::hospital::v1::slot::State as SlotState;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use contract::screening::v1::screening::State as ScreeningState;
use domain::civil::decode_time;
use domain::ids::{ClaimId, CustomerId, Malformed, ScreeningId, SlotId};
use domain::invariants::{ClaimRow, ItemRow, ReservationRow, ScreeningRow, SlotRow};
use jiff::civil::Date;

use crate::exit::Failure;

/// Stores each name once, because many rows name the same slot and the same customer.
#[derive(Debug, Default)]
pub(super) struct Names {
    slots: HashMap<String, Arc<SlotId>>,
    customers: HashMap<String, Arc<CustomerId>>,
}

fn unreadable(what: &str, name: impl Display, why: impl Display) -> Failure {
    Failure::failed(format!("{what} {name:?} cannot be read: {why}", name = name.to_string()))
}

fn kept<T: Eq + Hash>(
    known: &mut HashMap<String, Arc<T>>,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, Malformed>,
) -> Result<Arc<T>, Failure> {
    if let Some(found) = known.get(name) {
        return Ok(found.clone());
    }
    let parsed = Arc::new(parse(name).map_err(|malformed| unreadable("a name", name, malformed.0))?);
    known.insert(name.to_owned(), parsed.clone());
    Ok(parsed)
}

fn screening_id(name: &str) -> Result<ScreeningId, Failure> {
    ScreeningId::parse(name).map_err(|malformed| unreadable("a name", name, malformed.0))
}

impl Names {
    pub(super) fn slot(&mut self, name: &str) -> Result<Arc<SlotId>, Failure> {
        kept(&mut self.slots, name, SlotId::parse)
    }

    pub(super) fn customer(&mut self, name: &str) -> Result<Arc<CustomerId>, Failure> {
        kept(&mut self.customers, name, CustomerId::parse)
    }

    pub(super) fn slot_row(&mut self, row: &hospital::Slot) -> Result<SlotRow, Failure> {
        Ok(SlotRow {
            slot: self.slot(&row.name)?,
            capacity: row.capacity,
            booked_count: row.booked_count,
            remaining_count: row.remaining_count,
            waitlisted_count: row.waitlisted_count,
            open: row.state() == SlotState::Open,
        })
    }

    pub(super) fn claim_row(&mut self, row: &capacity::CapacityClaim) -> Result<ClaimRow, Failure> {
        let claim = ClaimId::parse(&row.claim_id);
        let claim = claim.map_err(|malformed| unreadable("a claim", &row.claim_id, malformed.0))?;
        let promotion_close = row.promotion_close_time.as_ref().and_then(decode_time);
        Ok(ClaimRow { claim, slot: self.slot(&row.slot)?, state: row.state(), promotion_close })
    }

    pub(super) fn screening_row(&mut self, row: &screening::Screening) -> Result<ScreeningRow, Failure> {
        Ok(ScreeningRow {
            screening: screening_id(&row.name)?,
            customer: self.customer(&row.customer)?,
            slot: self.slot(&row.slot)?,
            state: row.state(),
            claim_generation: row.claim_generation,
            version: row.version,
        })
    }

    pub(super) fn reservation_row(&mut self, row: &reservation::Reservation) -> Result<ReservationRow, Failure> {
        Ok(ReservationRow {
            screening: screening_id(&row.screening)?,
            customer: self.customer(&row.customer)?,
            slot: self.slot(&row.slot)?,
            state: row.state(),
            version: row.screening_version,
        })
    }

    pub(super) fn item_row(&mut self, customer: &str, row: &mypage::MyPageItem) -> Result<ItemRow, Failure> {
        let date = row.date.and_then(|date| {
            let (year, month, day) =
                (date.year.try_into().ok()?, date.month.try_into().ok()?, date.day.try_into().ok()?);
            Date::new(year, month, day).ok()
        });
        Ok(ItemRow {
            screening: screening_id(&row.screening)?,
            customer: self.customer(customer)?,
            date: date.ok_or_else(|| unreadable("the date of", &row.screening, "it is no date"))?,
            // a state that this build does not know agrees with no other state
            state: ScreeningState::from_str_name(&row.state).unwrap_or(ScreeningState::Unspecified),
            version: row.screening_version,
        })
    }
}
