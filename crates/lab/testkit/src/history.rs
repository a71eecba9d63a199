//! Compares what clients were answered with what the system says afterwards.
//!
//! The outcome of an answered call is known. The outcome of an unanswered call is unknown until it is sent again with
//! the same request_id. The history requires that the system keeps every answer, and that each unknown call has at most
//! one effect.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use contract::screening::v1::Screening;
use contract::screening::v1::screening::State;
use tonic::{Code, Status};

use crate::refusal::Refusal;

/// What the client knows about the effect of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The call was answered.
    Done(T),
    /// The call was refused with this reason and had no effect.
    Refused(String),
    /// No answer arrived: the call may have had its effect or not.
    Unknown,
}

impl<T> Outcome<T> {
    /// The outcome of a call's result. A status that the service did not make, or that asks for a retry, leaves it
    /// unknown.
    ///
    /// # Errors
    /// A status that no client should see: INTERNAL or DATA_LOSS from the service, or a refusal without `ErrorInfo`.
    pub fn of(result: Result<T, Status>) -> Result<Self, String> {
        let status = match result {
            Ok(answer) => return Ok(Self::Done(answer)),
            Err(status) => status,
        };
        let refusal = Refusal::of(&status);
        match (status.code(), refusal) {
            (Code::Unavailable | Code::DeadlineExceeded, _) => Ok(Self::Unknown),
            (Code::Internal | Code::DataLoss, Some(refusal)) => Err(format!("{refusal:?}")),
            (_, Some(refusal)) => Ok(Self::Refused(refusal.reason)),
            // The connection broke during the call, or was never made.
            (Code::Unknown | Code::Cancelled | Code::Internal, None) => Ok(Self::Unknown),
            (_, None) => Err(format!("a status without ErrorInfo: {status:?}")),
        }
    }
}

/// A booking that a client asked for.
#[derive(Debug, Clone)]
pub struct Booking {
    /// The id of the customer.
    pub customer: String,
    /// The resource name of the slot that it was asked for.
    pub slot: String,
    /// The request_id of the request.
    pub request_id: String,
    /// The outcome, with the name of the screening if it was answered.
    pub outcome: Outcome<String>,
    /// The moves that the client asked for, one after the other. A client asks for nothing more while one is unknown.
    pub moves: Vec<Moving>,
    /// The cancellation, if the client asked for one.
    pub cancelling: Option<Cancelling>,
}

impl Booking {
    /// Whether the outcome of one of its calls is unknown.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let cancelling = self.cancelling.as_ref().map(|cancelling| &cancelling.outcome);
        let mut later = self.moves.iter().map(|moving| &moving.outcome).chain(cancelling);
        self.outcome == Outcome::Unknown || later.any(|outcome| *outcome == Outcome::Unknown)
    }

    /// The slots that it may be on: that of the last answered move, and those of later moves without an answer.
    #[must_use]
    pub fn slots(&self) -> Vec<&str> {
        let mut slots = vec![self.slot.as_str()];
        for Moving { slot, outcome, .. } in &self.moves {
            match outcome {
                Outcome::Done(()) => slots = vec![slot.as_str()],
                Outcome::Unknown => slots.push(slot),
                Outcome::Refused(_) => {}
            }
        }
        slots
    }
}

/// A move to another slot that a client asked for.
#[derive(Debug, Clone)]
pub struct Moving {
    /// The resource name of the slot to move to.
    pub slot: String,
    /// The request_id of the request.
    pub request_id: String,
    /// The outcome of the move.
    pub outcome: Outcome<()>,
}

/// A cancellation that a client asked for.
#[derive(Debug, Clone)]
pub struct Cancelling {
    /// The request_id of the request.
    pub request_id: String,
    /// The outcome of the cancellation.
    pub outcome: Outcome<()>,
}

/// The kind of a disagreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// An answered effect is missing, or differs from the answer.
    Lost,
    /// A screening exists that no request explains.
    Doubled,
}

/// A disagreement between an answer and the system's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind of the disagreement.
    pub wrong: Wrong,
    /// The description, for people.
    pub what: String,
}

impl Finding {
    fn lost(what: String) -> Self {
        Self { wrong: Wrong::Lost, what }
    }

    fn doubled(what: String) -> Self {
        Self { wrong: Wrong::Doubled, what }
    }
}

/// A screening as the system shows it after the run.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// The resource name of the screening.
    pub name: String,
    /// `customers/{id}`; empty for a fence.
    pub customer: String,
    /// The resource name of the slot.
    pub slot: String,
    /// The state of the screening.
    pub state: State,
}

impl From<Screening> for Sighting {
    fn from(screening: Screening) -> Self {
        let state = screening.state();
        Self { name: screening.name, customer: screening.customer, slot: screening.slot, state }
    }
}

/// Every booking of a run. Tasks share it.
#[derive(Default)]
pub struct BookingHistory {
    bookings: Mutex<Vec<Booking>>,
    /// The request_ids of the bookings that wait for a place where none is left.
    joining: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for BookingHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, unknown) = self.counts();
        write!(f, "BookingHistory(answered: {done}, unknown: {unknown})")
    }
}

impl BookingHistory {
    /// Records a booking.
    pub fn note(&self, booking: Booking) {
        self.held().push(booking);
    }

    /// Records that the booking with this request_id waits for a place where none is left.
    pub fn joins(&self, request_id: &str) {
        self.joining().insert(request_id.to_owned());
    }

    /// Whether the booking with this request_id waits for a place where none is left.
    #[must_use]
    pub fn is_joining(&self, request_id: &str) -> bool {
        self.joining().contains(request_id)
    }

    /// Removes and returns the bookings with an unknown outcome, so that the caller sends them again.
    #[must_use]
    pub fn take_unknown(&self) -> Vec<Booking> {
        let mut held = self.held();
        let (open, settled) = held.drain(..).partition(Booking::is_open);
        *held = settled;
        open
    }

    /// The numbers of answered bookings and of bookings with an unknown outcome.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let held = self.held();
        let done = held.iter().filter(|booking| matches!(booking.outcome, Outcome::Done(_))).count();
        let unknown = held.iter().filter(|booking| booking.outcome == Outcome::Unknown).count();
        (done, unknown)
    }

    /// Every disagreement between the answers and `seen`, which are all screenings of the system.
    ///
    /// An answered booking exists once, where its last answered move put it, or where one without an answer may have.
    /// It is CONFIRMED, or WAITLISTED if it joins, or CANCELLED if its cancellation was answered, or one or the other
    /// if the outcome of the cancellation is unknown. Each other PENDING, CONFIRMED or WAITLISTED screening is the
    /// effect of one unknown booking.
    #[must_use]
    pub fn disagreements(&self, seen: &[Sighting]) -> Vec<String> {
        self.findings(seen).into_iter().map(|finding| finding.what).collect()
    }

    /// The same as [`Self::disagreements`], each with its kind.
    #[must_use]
    pub fn findings(&self, seen: &[Sighting]) -> Vec<Finding> {
        let held = self.held();
        let mut wrong = Vec::new();
        let mut by_name: BTreeMap<&str, &Sighting> = BTreeMap::new();
        for one in seen {
            if by_name.insert(&one.name, one).is_some() {
                wrong.push(Finding::doubled(format!("{} is listed twice", one.name)));
            }
        }
        let mut accounted = BTreeSet::new();
        let mut possible = BTreeSet::new();
        for booking in held.iter() {
            match &booking.outcome {
                Outcome::Done(name) => {
                    if !accounted.insert(name.as_str()) {
                        wrong.push(Finding::lost(format!("{name} was answered to two requests")));
                    }
                    let seen = by_name.get(name.as_str()).copied();
                    let joins = self.is_joining(&booking.request_id);
                    wrong.extend(check_answered(booking, joins, name, seen).map(Finding::lost));
                }
                Outcome::Unknown => {
                    possible.insert((format!("customers/{}", booking.customer), booking.slot.clone()));
                }
                Outcome::Refused(_) => {}
            }
        }
        let active =
            seen.iter().filter(|one| matches!(one.state, State::Pending | State::Confirmed | State::Waitlisted));
        for one in active.filter(|one| !accounted.contains(one.name.as_str())) {
            // Each unknown booking explains at most one active screening.
            if !possible.remove(&(one.customer.clone(), one.slot.clone())) {
                let what = format!("{} of {} on {} was never answered nor asked for", one.name, one.customer, one.slot);
                wrong.push(Finding::doubled(what));
            }
        }
        wrong
    }

    /// At most `count` answered bookings, spread over the whole run.
    #[must_use]
    pub fn sample(&self, count: usize) -> Vec<Booking> {
        let held = self.held();
        let answered: Vec<&Booking> = held.iter().filter(|one| matches!(one.outcome, Outcome::Done(_))).collect();
        let step = answered.len().div_ceil(count.max(1)).max(1);
        answered.into_iter().step_by(step).cloned().collect()
    }

    fn held(&self) -> MutexGuard<'_, Vec<Booking>> {
        self.bookings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn joining(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_answered(booking: &Booking, joins: bool, name: &str, seen: Option<&Sighting>) -> Option<String> {
    let Some(seen) = seen else {
        return Some(format!("{name} was answered (request {}) and is gone", booking.request_id));
    };
    let slots = booking.slots();
    if seen.customer != format!("customers/{}", booking.customer) || !slots.contains(&seen.slot.as_str()) {
        return Some(format!("{name} was answered for {} on {}, is {seen:?}", booking.customer, slots.join(" or ")));
    }
    let expected: &[State] = match &booking.cancelling {
        None | Some(Cancelling { outcome: Outcome::Refused(_), .. }) => &[State::Confirmed],
        Some(Cancelling { outcome: Outcome::Done(()), .. }) => &[State::Cancelled],
        Some(Cancelling { outcome: Outcome::Unknown, .. }) => &[State::Confirmed, State::Cancelled],
    };
    let waits = joins && seen.state == State::Waitlisted && expected.contains(&State::Confirmed);
    let fits = waits || expected.contains(&seen.state);
    (!fits).then(|| format!("{name} must be {expected:?}, is {:?}: {booking:?}", seen.state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booking(name: Option<&str>, cancelled: Option<Outcome<()>>) -> Booking {
        Booking {
            customer: "kim".into(),
            slot: "s".into(),
            request_id: "r".into(),
            outcome: name.map_or(Outcome::Unknown, |name| Outcome::Done(name.into())),
            moves: Vec::new(),
            cancelling: cancelled.map(|outcome| Cancelling { request_id: "c".into(), outcome }),
        }
    }

    fn sighting(name: &str, state: State) -> Sighting {
        Sighting { name: name.into(), customer: "customers/kim".into(), slot: "s".into(), state }
    }

    fn wrong(bookings: Vec<Booking>, seen: &[Sighting]) -> usize {
        let history = BookingHistory::default();
        bookings.into_iter().for_each(|booking| history.note(booking));
        history.disagreements(seen).len()
    }

    #[test]
    fn an_answer_binds_and_an_unknown_explains_one_effect() {
        let confirmed = |name| sighting(name, State::Confirmed);
        assert_eq!(wrong(vec![booking(Some("a"), None)], &[confirmed("a")]), 0);
        assert_eq!(wrong(vec![booking(Some("a"), None)], &[]), 1, "lost");
        assert_eq!(wrong(vec![booking(Some("a"), None)], &[confirmed("a"), confirmed("b")]), 1, "doubled");
        assert_eq!(wrong(vec![booking(None, None)], &[confirmed("b")]), 0);
        assert_eq!(wrong(vec![booking(None, None)], &[confirmed("b"), confirmed("c")]), 1, "an unknown done twice");
    }

    #[test]
    fn a_refused_cancelling_binds() {
        let refused = || vec![booking(Some("a"), Some(Outcome::Refused("SCREENING_STATE_INVALID".into())))];
        assert_eq!(wrong(refused(), &[sighting("a", State::Confirmed)]), 0);
        assert_eq!(wrong(refused(), &[sighting("a", State::Cancelled)]), 1);
    }

    #[test]
    fn a_cancelling_binds_too() {
        let done = || vec![booking(Some("a"), Some(Outcome::Done(())))];
        assert_eq!(wrong(done(), &[sighting("a", State::Cancelled)]), 0);
        assert_eq!(wrong(done(), &[sighting("a", State::Confirmed)]), 1);
        let open = || vec![booking(Some("a"), Some(Outcome::Unknown))];
        assert_eq!(wrong(open(), &[sighting("a", State::Confirmed)]), 0);
        assert_eq!(wrong(open(), &[sighting("a", State::Cancelled)]), 0);
    }

    #[test]
    fn only_who_joins_may_wait() {
        let waits = [sighting("a", State::Waitlisted)];
        for (joins, cancelled, lost) in [(false, None, 1), (true, None, 0), (true, Some(Outcome::Done(())), 1)] {
            let history = BookingHistory::default();
            history.note(booking(Some("a"), cancelled));
            if joins {
                history.joins("r");
            }
            assert_eq!(history.disagreements(&waits).len(), lost, "joins: {joins}");
            assert_eq!(history.disagreements(&[sighting("a", State::Confirmed)]).len(), lost * usize::from(joins));
        }
        assert_eq!(wrong(vec![booking(Some("b"), None)], &[sighting("b", State::Confirmed), waits[0].clone()]), 1);
    }

    #[test]
    fn a_move_binds_too() {
        let on = |slot: &str| [Sighting { slot: slot.into(), ..sighting("a", State::Confirmed) }];
        let moves = |outcomes: &[(&str, Outcome<()>)]| {
            let moving = |(slot, outcome): &(&str, Outcome<()>)| Moving {
                slot: (*slot).into(),
                request_id: (*slot).into(),
                outcome: outcome.clone(),
            };
            vec![Booking { moves: outcomes.iter().map(moving).collect(), ..booking(Some("a"), None) }]
        };
        let done = || moves(&[("t", Outcome::Done(())), ("u", Outcome::Refused("SLOT_FULL".into()))]);
        assert_eq!(wrong(done(), &on("t")), 0);
        assert_eq!(wrong(done(), &on("s")), 1, "an answered move is undone");
        assert_eq!(wrong(done(), &on("u")), 1, "a refused move is done");
        let open = || moves(&[("t", Outcome::Done(())), ("u", Outcome::Unknown)]);
        assert_eq!(wrong(open(), &on("t")), 0);
        assert_eq!(wrong(open(), &on("u")), 0);
        assert_eq!(wrong(open(), &on("s")), 1);
        let history = BookingHistory::default();
        open().into_iter().chain(done()).for_each(|booking| history.note(booking));
        assert_eq!(history.take_unknown().len(), 1, "an unknown move is asked for again");
    }

    #[test]
    fn what_the_transport_says_leaves_the_outcome_open() {
        assert_eq!(Outcome::of(Err::<(), _>(Status::unknown("broken pipe"))), Ok(Outcome::Unknown));
        assert_eq!(Outcome::of(Ok::<_, Status>(1)), Ok(Outcome::Done(1)));
        assert!(Outcome::of(Err::<(), _>(Status::not_found("bare"))).is_err());
    }
}
