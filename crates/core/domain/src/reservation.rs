//! The reservation ledger as a fold: the outcome of every booking, in whatever order its events arrive.
//!
//! A reservation begins with the first version of its screening that has or had a place. PENDING, REJECTED and
//! WAITLISTED, and how a wait in vain ended, register nothing and leave no history entry. They are only remembered as
//! seen, for reads that must not be older than one of them. So a screening that was PENDING before it was CONFIRMED has
//! a history from version 2.
//!
//! Everything a reservation shows depends on which events have been applied and not on their order: the state is that
//! of the greatest version, the times are those of the events. Only the reservation's own announcements depend on the
//! order in which the events came.

use contract::reservation::v1::reservation::State as StateMessage;
use jiff::Timestamp;
use uuid::Uuid;

use crate::ids::{CustomerId, ScreeningId, SlotId};
use crate::screening::State as ScreeningState;
use crate::screening_fact::{BookingFact, ScreeningFact};

/// The state of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The screening is confirmed.
    Registered,
    /// A person cancelled it.
    Cancelled,
    /// The hospital took the place away.
    ForceCancelled,
    /// The customer came to the screening.
    Completed,
    /// The customer did not come.
    NoShow,
}

impl State {
    /// Every state, in the order of the contract's numbers.
    pub const ALL: [Self; 5] = [Self::Registered, Self::Cancelled, Self::ForceCancelled, Self::Completed, Self::NoShow];

    /// The names of all states, for filters.
    pub const NAMES: &[&str] = &["REGISTERED", "CANCELLED", "FORCE_CANCELLED", "COMPLETED", "NO_SHOW"];

    /// The state of a reservation whose screening is in this state; `None` for a screening without a place.
    #[must_use]
    pub fn of(screening: ScreeningState) -> Option<Self> {
        match screening {
            ScreeningState::Confirmed => Some(Self::Registered),
            ScreeningState::Cancelled => Some(Self::Cancelled),
            ScreeningState::ForceCancelled => Some(Self::ForceCancelled),
            ScreeningState::Completed => Some(Self::Completed),
            ScreeningState::NoShow => Some(Self::NoShow),
            ScreeningState::Pending
            | ScreeningState::Rejected
            | ScreeningState::Waitlisted
            | ScreeningState::Expired => None,
        }
    }

    /// The state as the contract's enum.
    #[must_use]
    pub fn message(self) -> StateMessage {
        match self {
            Self::Registered => StateMessage::Registered,
            Self::Cancelled => StateMessage::Cancelled,
            Self::ForceCancelled => StateMessage::ForceCancelled,
            Self::Completed => StateMessage::Completed,
            Self::NoShow => StateMessage::NoShow,
        }
    }

    /// The state's name in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.message().as_str_name()
    }

    /// The state's number in the contract.
    #[must_use]
    pub fn number(self) -> i32 {
        self.message().into()
    }

    /// The state with this number, or `None` if there is none.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }

    /// The state with this name, or `None` if there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One row of the reservation ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The screening it follows.
    pub screening: ScreeningId,
    /// The customer who booked.
    pub customer: CustomerId,
    /// The slot that is booked.
    pub slot: SlotId,
    /// The state of the screening's greatest version.
    pub state: State,
    /// The greatest version of the screening that was applied.
    pub screening_version: i64,
    /// How many announcements it has made: the aggregate version of its own events.
    pub version: i64,
    /// The time of the earliest change that was applied.
    pub create_time: Timestamp,
    /// The time of the change to `screening_version`.
    pub update_time: Timestamp,
}

/// One change of a reservation, for its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The screening that changed.
    pub screening: ScreeningId,
    /// The version of the screening after the change.
    pub version: i64,
    /// The state after the change.
    pub state: State,
    /// The code of the reason; may be empty.
    pub reason: String,
    /// The message that a person gave as the reason; may be empty.
    pub message: String,
    /// The actor who caused the change.
    pub actor: String,
    /// The id of the event that reported the change.
    pub event_id: Uuid,
    /// When the change happened.
    pub occur_time: Timestamp,
    /// The request_id of the call that caused the change, if it had one. It is not shown to callers; Screening reads it
    /// if it lost its own request records.
    pub request_id: Option<Uuid>,
}

/// An event that the ledger publishes about a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The reservation's own version, contiguous from 1.
    pub version: i64,
    /// The version of the screening that caused the announcement.
    pub screening_version: i64,
    /// The kind of announcement.
    pub what: Announced,
}

/// The kinds of announcements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// There is a new reservation; its state is REGISTERED.
    Registered,
    /// The state of the reservation changed.
    Changed {
        /// The state before the change.
        old: State,
        /// The state after the change.
        new: State,
    },
}

/// Everything that the ledger stores about one screening, except the history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// The reservation, once there is one.
    pub reservation: Option<Reservation>,
    /// The greatest version seen that registers nothing; 0 for none.
    pub unregistered_version: i64,
}

/// The further effects of one event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// A history entry. The history keeps the first entry of each version.
    pub entry: Option<Entry>,
    /// The announcements to publish, in order.
    pub announcements: Vec<Announcement>,
}

impl Ledger {
    /// The greatest version of the screening that a read of this ledger includes.
    #[must_use]
    pub fn seen_version(&self) -> i64 {
        let registered = self.reservation.as_ref().map_or(0, |reservation| reservation.screening_version);
        registered.max(self.unregistered_version)
    }

    /// Applies one event. Events commute, and a repeated event changes nothing.
    pub fn apply(&mut self, fact: &ScreeningFact) -> Effects {
        let registering = match fact {
            ScreeningFact::Booking(booking) if !booking.waited_in_vain() => {
                State::of(booking.state).map(|state| (booking, state))
            }
            ScreeningFact::Booking(_) | ScreeningFact::Fence { .. } => None,
        };
        let Some((booking, state)) = registering else {
            self.unregistered_version = self.unregistered_version.max(fact.version());
            return Effects::default();
        };
        let entry = Some(entry(booking, state));
        let announcements = match &mut self.reservation {
            Some(reservation) => reservation.change(booking, state).into_iter().collect(),
            vacant => {
                let (reservation, announcements) = Reservation::register(booking, state);
                *vacant = Some(reservation);
                announcements
            }
        };
        Effects { entry, announcements }
    }
}

impl Reservation {
    /// Begins a reservation. If the first event to arrive is not the confirmation, the later state is announced too.
    fn register(fact: &BookingFact, state: State) -> (Self, Vec<Announcement>) {
        let mut announcements =
            vec![Announcement { version: 1, screening_version: fact.version, what: Announced::Registered }];
        if state != State::Registered {
            let what = Announced::Changed { old: State::Registered, new: state };
            announcements.push(Announcement { version: 2, screening_version: fact.version, what });
        }
        let reservation = Self {
            screening: fact.screening,
            customer: fact.customer.clone(),
            slot: fact.slot.clone(),
            state,
            screening_version: fact.version,
            version: if state == State::Registered { 1 } else { 2 },
            create_time: fact.occur_time,
            update_time: fact.occur_time,
        };
        (reservation, announcements)
    }

    fn change(&mut self, fact: &BookingFact, state: State) -> Option<Announcement> {
        self.create_time = self.create_time.min(fact.occur_time);
        if fact.version <= self.screening_version {
            return None;
        }
        let old = std::mem::replace(&mut self.state, state);
        self.customer = fact.customer.clone();
        self.slot = fact.slot.clone();
        self.screening_version = fact.version;
        self.update_time = fact.occur_time;
        (old != state).then(|| {
            self.version += 1;
            let what = Announced::Changed { old, new: state };
            Announcement { version: self.version, screening_version: fact.version, what }
        })
    }
}

fn entry(fact: &BookingFact, state: State) -> Entry {
    Entry {
        screening: fact.screening,
        version: fact.version,
        state,
        reason: fact.reason.clone(),
        message: fact.message.clone(),
        actor: fact.actor.clone(),
        event_id: fact.event_id,
        occur_time: fact.occur_time,
        request_id: fact.request_id,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::screening_fact::histories::delivered;

    type Folded = (Ledger, BTreeMap<i64, Entry>, Vec<Announcement>);

    fn fold(facts: &[ScreeningFact]) -> Folded {
        let mut ledger = Ledger::default();
        let mut history = BTreeMap::new();
        let mut announced = Vec::new();
        for fact in facts {
            let effects = ledger.apply(fact);
            if let Some(entry) = effects.entry {
                history.entry(entry.version).or_insert(entry);
            }
            announced.extend(effects.announcements);
        }
        (ledger, history, announced)
    }

    /// The ledger without its count of announcements, which depends on the order of events.
    fn shown(ledger: &Ledger) -> Ledger {
        let mut shown = ledger.clone();
        if let Some(reservation) = &mut shown.reservation {
            reservation.version = 0;
        }
        shown
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_delivery_ends_as_the_ordered_one((history, delivery) in delivered()) {
            let (ordered, ordered_history, _) = fold(&history);
            let (ledger, entries, announced) = fold(&delivery);
            prop_assert_eq!(shown(&ledger), shown(&ordered));
            prop_assert_eq!(entries, ordered_history);
            prop_assert_eq!(ledger.seen_version(), history.len() as i64);

            let versions: Vec<_> = announced.iter().map(|announcement| announcement.version).collect();
            prop_assert_eq!(versions, (1..=announced.len() as i64).collect::<Vec<_>>());
            let last = announced.last().map(|announcement| match announcement.what {
                Announced::Registered => State::Registered,
                Announced::Changed { new, .. } => new,
            });
            prop_assert_eq!(last, ledger.reservation.as_ref().map(|reservation| reservation.state));
            prop_assert_eq!(announced.len() as i64, ledger.reservation.map_or(0, |reservation| reservation.version));
        }

        #[test]
        fn what_comes_again_changes_nothing((_, delivery) in delivered()) {
            let (ledger, ..) = fold(&delivery);
            let mut again = ledger.clone();
            for fact in &delivery {
                prop_assert!(again.apply(fact).announcements.is_empty());
            }
            prop_assert_eq!(again, ledger);
        }
    }

    proptest! {
        #[test]
        fn only_a_booking_that_had_a_place_is_registered((history, delivery) in delivered()) {
            let (ledger, entries, _) = fold(&delivery);
            let had_a_place = |fact: &ScreeningFact| match fact {
                ScreeningFact::Booking(booking) => {
                    let ended = matches!(booking.state, ScreeningState::Cancelled | ScreeningState::ForceCancelled);
                    State::of(booking.state).is_some() && !(ended && booking.queued.is_some())
                }
                ScreeningFact::Fence { .. } => false,
            };
            let placed = history.iter().filter(|fact| had_a_place(fact));
            let versions: Vec<i64> = placed.map(ScreeningFact::version).collect();
            prop_assert_eq!(ledger.reservation.map(|row| row.screening_version), versions.last().copied());
            prop_assert_eq!(entries.into_keys().collect::<Vec<_>>(), versions);
        }
    }

    #[test]
    fn names_and_numbers_are_the_contracts() {
        let names: Vec<_> = State::ALL.iter().map(|state| state.name()).collect();
        assert_eq!(names, State::NAMES);
        for state in State::ALL {
            assert_eq!(State::from_number(state.number()), Some(state));
            assert_eq!(State::from_name(state.name()), Some(state));
        }
        assert_eq!(State::from_number(0), None);
    }
}
