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
    /// The hospitals that the admin has begun to delete.
    deleted: BTreeSet<String>,
    /// Violations that were seen during the run.
    broken: Vec<String>,
    calls: u64,
    unknown: u64,
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

    pub(crate) fn deleting(&self, hospital: &str) {
        self.lock().deleted.insert(hospital.to_owned());
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
        let hospital_is_gone = self.deleted.contains(&row.slot.hospital.to_string());
        let fits = match (self.cancelled.get(name), row.state) {
            (Some(Cancelled::Acknowledged), State::Cancelled | State::ForceCancelled | State::Rejected) => true,
            (Some(Cancelled::Acknowledged), _) => false,
            (Some(Cancelled::Maybe), State::Cancelled) => true,
            (_, State::ForceCancelled) => hospital_is_gone,
            (_, State::Confirmed) => true,
            (_, State::Rejected) => matches!(answered, State::Pending | State::Rejected),
            (_, _) => false,
        };
        let cancelled = self.cancelled.get(name);
        (!fits).then(|| format!("{name} was told {answered:?}, cancelled: {cancelled:?}, and is {:?}", row.state))
    }
}
