//! What the callers were answered, and what must therefore be true at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contract::screening::v1::screening::State;
use domain::invariants::ScreeningRow;

/// A request to book, as its caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The booking has this name and had this state.
    Booked { name: String, state: State },
    /// The request may have made a booking.
    Unknown,
}

/// A cancellation, as its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// The cancellation was answered.
    Acknowledged,
    /// The cancellation was sent and may have had its effect.
    Maybe,
}

/// Everything that the callers know.
#[derive(Debug, Default)]
pub(crate) struct CallHistory(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The requests of each customer that were not refused.
    asked: BTreeMap<String, Vec<Asked>>,
    cancelled: BTreeMap<String, Cancelled>,
    /// Where the bookings are that were answered.
    places: BTreeMap<String, Place>,
    /// The hospitals that the admin has begun to delete, and the slots whose bookings it has begun to cancel.
    ended: BTreeSet<String>,
    /// Violations that were seen during the run.
    broken: Vec<String>,
    calls: u64,
    unknown: u64,
}

/// Where a booking is, as its caller knows it.
#[derive(Debug, Default)]
struct Place {
    /// The slot of the last answer.
    answered: String,
    /// The slots of moves that may still have their effect.
    possible: Vec<String>,
}

impl Place {
    fn may_be(&self, slot: &str) -> bool {
        self.answered == slot || self.possible.iter().any(|possible| possible == slot)
    }
}

impl CallHistory {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn called(&self, unknown: bool) {
        let mut known = self.lock();
        known.calls += 1;
        known.unknown += u64::from(unknown);
    }

    /// The number of calls, and how many of them had no definite answer.
    pub(crate) fn calls(&self) -> (u64, u64) {
        let known = self.lock();
        (known.calls, known.unknown)
    }

    pub(crate) fn asked(&self, customer: &str, asked: Asked) {
        self.lock().asked.entry(customer.to_owned()).or_default().push(asked);
    }

    pub(crate) fn cancelled(&self, screening: &str, cancelled: Cancelled) {
        let mut known = self.lock();
        let entry = known.cancelled.entry(screening.to_owned()).or_insert(cancelled);
        if cancelled == Cancelled::Acknowledged {
            *entry = cancelled;
        }
    }

    /// Records the slot on which a booking was made.
    pub(crate) fn placed(&self, screening: &str, slot: &str) {
        let place = Place { answered: slot.to_owned(), possible: Vec::new() };
        self.lock().places.insert(screening.to_owned(), place);
    }

    /// Records a move that is about to be sent and may have its effect from now on. Returns whether the booking is on
    /// another slot for certain.
    pub(crate) fn moves(&self, screening: &str, slot: &str) -> bool {
        let mut known = self.lock();
        let place = known.places.entry(screening.to_owned()).or_default();
        let is_elsewhere = !place.may_be(slot) && place.possible.is_empty();
        place.possible.push(slot.to_owned());
        is_elsewhere
    }

    /// Records the answer to a move: where the booking was by then, or `None` if the move was refused.
    pub(crate) fn moved(&self, screening: &str, slot: &str, answered: Option<&str>) {
        let mut known = self.lock();
        let place = known.places.entry(screening.to_owned()).or_default();
        // The answer to a repetition shows the booking after the moves since then. None but open ones came between.
        let fits = answered.is_none_or(|answered| place.possible.iter().any(|possible| possible == answered));
        if let Some(index) = place.possible.iter().rposition(|possible| possible == slot) {
            place.possible.remove(index);
        }
        if let Some(answered) = answered {
            answered.clone_into(&mut place.answered);
        }
        if !fits {
            known.broken.push(format!("{screening} was moved to {slot}, and is answered to be on {answered:?}"));
        }
    }

    /// Records that the bookings of a hospital or of a slot are about to be cancelled.
    pub(crate) fn ending(&self, name: &str) {
        self.lock().ended.insert(name.to_owned());
    }

    /// How many bookings were answered to wait for a place.
    pub(crate) fn waiting(&self) -> usize {
        let waits = |asked: &&Asked| matches!(asked, Asked::Booked { state: State::Waitlisted, .. });
        self.lock().asked.values().flatten().filter(waits).count()
    }

    /// Records a violation that no later state can repair.
    pub(crate) fn broken(&self, what: String) {
        self.lock().broken.push(what);
    }

    /// The violations recorded so far.
    pub(crate) fn seen_broken(&self) -> Vec<String> {
        self.lock().broken.clone()
    }

    /// Compares the final bookings with the answers. Returns every violation.
    pub(crate) fn check(&self, rows: &[ScreeningRow]) -> Vec<String> {
        let known = self.lock();
        let by_name: BTreeMap<String, &ScreeningRow> =
            rows.iter().map(|row| (row.screening.to_string(), row)).collect();
        let mut wrong = known.broken.clone();
        for (customer, asked) in &known.asked {
            let mut answered = BTreeSet::new();
            for one in asked {
                if let Asked::Booked { name, state } = one {
                    answered.insert(name.as_str());
                    wrong.extend(known.judge(name, *state, by_name.get(name).copied()));
                }
            }
            let unknown = asked.iter().filter(|one| **one == Asked::Unknown).count();
            let own = |row: &&ScreeningRow| row.customer.to_string() == *customer;
            let unanswered: Vec<_> = rows.iter().filter(own).map(|row| row.screening.to_string()).collect();
            let unanswered: Vec<_> = unanswered.iter().filter(|name| !answered.contains(name.as_str())).collect();
            if unanswered.len() > unknown {
                wrong.push(format!("{customer} has {unanswered:?}, with {unknown} requests unanswered"));
            }
        }
        wrong.extend(
            rows.iter()
                .filter(|row| row.state == State::Pending)
                .map(|row| format!("{} is PENDING still", row.screening)),
        );
        wrong
    }
}

impl Known {
    /// The violation of a booking whose customer got an answer; `None` if it is as answered.
    fn judge(&self, name: &str, answered: State, row: Option<&ScreeningRow>) -> Option<String> {
        let Some(row) = row else { return Some(format!("{name} was acknowledged ({answered:?}) and is lost")) };
        let is_ended =
            [row.slot.hospital.to_string(), row.slot.to_string()].iter().any(|name| self.ended.contains(name));
        let fits = match (self.cancelled.get(name), row.state) {
            (Some(Cancelled::Acknowledged), State::Cancelled | State::ForceCancelled | State::Rejected) => true,
            (Some(Cancelled::Acknowledged), _) => false,
            (Some(Cancelled::Maybe), State::Cancelled) => true,
            (_, State::ForceCancelled) => is_ended,
            (_, State::Confirmed) => true,
            (_, State::Waitlisted | State::Expired) => matches!(answered, State::Pending | State::Waitlisted),
            (_, State::Rejected) => matches!(answered, State::Pending | State::Rejected),
            (_, _) => false,
        };
        let cancelled = self.cancelled.get(name);
        if let Some(place) = self.places.get(name).filter(|place| !place.may_be(&row.slot.to_string())) {
            return Some(format!("{name} is on {}, and its caller knows of {place:?}", row.slot));
        }
        (!fits).then(|| format!("{name} was told {answered:?}, cancelled: {cancelled:?}, and is {:?}", row.state))
    }
}
