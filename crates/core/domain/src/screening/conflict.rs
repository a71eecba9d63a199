//! What a customer has already that bars another booking: one on the same date, or as many as the hospital allows.

use fault::{Fault, Reason};
use jiff::Timestamp;
use jiff::civil::Date;

use super::{Screening, State, Terms};
use crate::civil::{time_zone, today};
use crate::ids::{HospitalId, ScreeningId, SlotId};

/// What bars a booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// Another booking, which is active on the same date or waits for the same slot.
    Date(ScreeningId),
    /// The hospital lets one customer have this many bookings, and they are there.
    Limit(i32),
}

impl Conflict {
    /// The code of a refusal for it.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Date(_) => Reason::CustomerDateConflict,
            Self::Limit(_) => Reason::CustomerLimitReached,
        }
    }

    /// The refusal of a booking of this slot.
    #[must_use]
    pub fn refusal(self, slot: &SlotId) -> Fault {
        match self {
            Self::Date(other) => {
                let message = format!("the customer has {other} on that date; cancel it first");
                Fault::new(self.reason(), message).with("screening", other).about("Screening", other)
            }
            Self::Limit(limit) => {
                let hospital = &slot.hospital;
                let message = format!("{hospital} lets a customer have {limit} bookings; cancel another one first");
                Fault::new(self.reason(), message).with("hospital", hospital).with("limit", limit)
            }
        }
    }
}

/// The bookings of one customer at one hospital that count against its limit, with their dates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomerBookings(Vec<(ScreeningId, Date)>);

impl CustomerBookings {
    /// Whether a booking in this state counts.
    #[must_use]
    pub const fn counts(state: State) -> bool {
        state.is_active() || matches!(state, State::Waitlisted)
    }

    /// Takes in a booking.
    pub fn add(&mut self, id: ScreeningId, date: Date) {
        self.remove(id);
        self.0.push((id, date));
    }

    /// Forgets a booking that does not count any more.
    pub fn remove(&mut self, id: ScreeningId) {
        self.0.retain(|(held, _)| *held != id);
    }

    /// Judges the limit of the hospital for this booking, which does not count against itself. A date that is over
    /// counts no more, whatever became of its booking.
    #[must_use]
    pub fn conflict(&self, id: ScreeningId, terms: &Terms, now: Timestamp) -> Option<Conflict> {
        let limit = terms.customer_limit?;
        let today = time_zone(&terms.time_zone).map(|zone| today(now, &zone));
        let counts = |(held, date): &&(ScreeningId, Date)| *held != id && today.is_none_or(|today| *date >= today);
        let others = self.0.iter().filter(counts).count();
        usize::try_from(limit).is_ok_and(|limit| others >= limit).then_some(Conflict::Limit(limit))
    }
}

impl Screening {
    /// Whether it counts against the limit of this hospital.
    #[must_use]
    pub fn counts_at(&self, hospital: &HospitalId) -> bool {
        self.slot.hospital == *hospital && CustomerBookings::counts(self.state)
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> ScreeningId {
        ScreeningId(Uuid::from_u128(number))
    }

    #[test]
    fn a_customer_may_have_as_many_bookings_as_the_limit() {
        let mut held = CustomerBookings::default();
        let now = "2027-01-03T16:00:00Z".parse().unwrap();
        let terms = |customer_limit| Terms { time_zone: "Asia/Seoul".into(), customer_limit, ..Terms::default() };
        // there it is the fourth already
        for (number, day) in [(1, 3), (2, 4), (3, 5)] {
            held.add(id(number), date(2027, 1, day));
        }
        let judged = |held: &CustomerBookings, own, limit| held.conflict(id(own), &terms(limit), now);
        assert_eq!(judged(&held, 9, None), None);
        assert_eq!(judged(&held, 9, Some(3)), None);
        assert_eq!(judged(&held, 9, Some(2)), Some(Conflict::Limit(2)));
        assert_eq!(judged(&held, 3, Some(2)), None, "it does not count against itself");
        held.add(id(2), date(2027, 1, 6));
        assert_eq!(judged(&held, 9, Some(2)), Some(Conflict::Limit(2)), "a booking that moved counts once");
        held.remove(id(2));
        assert_eq!(judged(&held, 9, Some(2)), None);
        assert_eq!(judged(&held, 9, Some(1)), Some(Conflict::Limit(1)));
    }
}
