//! The decisions of the real functions for every combination that the model of moves can meet.
//!
//! The functions are pure and the combinations are few, so a table of their answers serves as well, and is faster.

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{ScreeningCancelled, ScreeningRescheduled};
use domain::booking::{Accepts, Reply, Step, step};
use domain::capacity::{self, Claim as RealClaim, ClaimState, RevokeReason, Slot as RealSlot};
use domain::civil::time_zone;
use domain::hospital::{Draft, Hospital};
use domain::ids::{ClaimId, CustomerId, HospitalId, ScreeningId, SlotId};
use domain::screening::{
    self, Booking, Command, Conflict, Decision, Party, Reschedule, Revocation, Screening, State, judge_reschedule,
};
use domain::window::{BookingPolicy, MAX_RESCHEDULES};
use fault::Reason;
use jiff::Timestamp;
use uuid::Uuid;

/// Generations that the model knows. A move that needs a later one ends.
pub(crate) const GENERATIONS: usize = 4;

/// The slot that the booking is made on, and two to move to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    A,
    B,
    C,
}

impl Slot {
    pub(crate) const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// How many places the slot has. Nobody competes for those of A.
    pub(crate) const fn capacity(self) -> i32 {
        match self {
            Self::A => GENERATIONS as i32,
            Self::B | Self::C => 1,
        }
    }

    fn id(self) -> SlotId {
        SlotId::new(HospitalId::from_segment("seoul").unwrap(), jiff::civil::date(2027, 1, 4 + self as i8))
    }

    fn of(id: &SlotId) -> Self {
        Self::ALL.into_iter().find(|slot| slot.id() == *id).expect("a slot of the model")
    }
}

/// The row of the booking, as its index in the table; see [`Rules::act`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row(pub(crate) usize);

impl Row {
    /// The booking is CONFIRMED on slot A with the claim of generation 1.
    pub(crate) const START: Self = Self(0);
}

/// Rows of the table: three states of the booking, by slot, generation and fenced generation.
pub(crate) const ROWS: usize = 81;

/// A claim, as its index in the table. The slot of a claim never changes, so only that of an active one is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Claim(pub(crate) usize);

impl Claim {
    /// No claim.
    pub(crate) const NONE: Self = Self(0);
    /// A claim that was given back.
    pub(crate) const RELEASED: Self = Self(4);
    /// A claim whose place Hospital took away.
    pub(crate) const REVOKED: Self = Self(5);

    /// A claim that holds a place on this slot.
    pub(crate) const fn active(slot: Slot) -> Self {
        Self(1 + slot as usize)
    }

    /// The slot on which it holds a place.
    pub(crate) fn place(self) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| Self::active(*slot) == self)
    }
}

/// Claims of the table: none, active on each slot, released and revoked.
pub(crate) const CLAIMS: usize = 6;

/// What Screening does to the row. A number is the generation of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Cancel,
    Revoke(usize),
    Fence(usize),
    /// A move to the slot with the claim, and whether the customer has another booking on that date.
    Move(Slot, usize, bool),
}

const ACTS: usize = 1 + 8 * GENERATIONS;

impl Act {
    fn index(self) -> usize {
        let (kind, generation) = match self {
            Self::Cancel => (0, 0),
            Self::Revoke(generation) => (0, generation),
            Self::Fence(generation) => (1, generation),
            Self::Move(slot, generation, conflict) => (2 + slot as usize + 3 * usize::from(conflict), generation),
        };
        kind * GENERATIONS + generation
    }

    fn all() -> Vec<Self> {
        let mut acts = vec![Self::Cancel];
        for generation in 1..=GENERATIONS {
            acts.extend([Self::Revoke(generation), Self::Fence(generation)]);
            let moves = |conflict: bool| Slot::ALL.map(|slot| Self::Move(slot, generation, conflict));
            acts.extend([moves(false), moves(true)].concat());
        }
        acts.sort_by_key(|act| act.index());
        acts
    }

    fn command(self) -> Command {
        // of a fence and a revocation the rules read the slot only where there is no row
        let (slot, message) = (Slot::A.id(), String::new());
        match self {
            Self::Cancel => Command::Cancel { by: Party::Customer, message, etag: String::new() },
            Self::Revoke(generation) => {
                Command::Revoke { claim: claim_id(generation), slot, cause: Revocation::SlotCancelled, message }
            }
            Self::Fence(generation) => Command::Fence { claim: claim_id(generation), slot },
            Self::Move(to, generation, conflict) => {
                let (terms, other) = (hospital().terms(to.id().date), ScreeningId(Uuid::from_u128(9)));
                let conflict = conflict.then_some(Conflict::Date(other));
                Command::Reschedule { asked: asked(to), generation: generation as i32, terms, conflict }
            }
        }
    }
}

/// What an act led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The row is as the act wants it.
    Done,
    /// The caller is refused, or the act came too late.
    Refused,
    /// The claim was fenced; a move needs the next one.
    Fenced,
}

/// The row after an act.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acted {
    pub(crate) row: Row,
    pub(crate) outcome: Outcome,
    /// The generation of the claim that Hospital releases when it reads the events.
    pub(crate) left: Option<usize>,
}

/// What Hospital's answer to a reserve means for a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// The claim has a place on the slot.
    Granted,
    /// The claim has ended.
    Ended,
    /// The claim is on another slot: another move asked for it.
    Elsewhere,
    /// Hospital gives no place.
    Refused,
}

/// The claim after a reserve, the answer, and whether CapacityReserved was announced.
pub(crate) type Reserved = (Claim, Answer, bool);

/// The answers of the real functions.
pub(crate) struct Rules {
    rows: Vec<Screening>,
    acts: Vec<[Acted; ACTS]>,
    claims: Vec<[Option<usize>; 3]>,
    held: Vec<(Slot, usize)>,
    /// By claim, by the slot that is asked for, and by whether no place is left there.
    reserves: [[[Reserved; 2]; 3]; CLAIMS],
    releases: [Claim; CLAIMS],
    revokes: [Claim; CLAIMS],
}

impl Rules {
    pub(crate) fn new() -> Self {
        let (rows, acts) = screening_table();
        let claims = rows.iter().map(|row| Slot::ALL.map(|slot| claim_of_a_move(row, slot))).collect();
        let held = rows.iter().map(|row| (Slot::of(&row.slot), row.generation as usize)).collect();
        let reserves = std::array::from_fn(|claim| {
            Slot::ALL.map(|slot| [false, true].map(|full| reserve(Claim(claim), slot, full)))
        });
        let releases = std::array::from_fn(|claim| release(Claim(claim)));
        let revokes = std::array::from_fn(|claim| revoke(Claim(claim)));
        let rules = Self { rows, acts, claims, held, reserves, releases, revokes };
        rules.check_that_what_changes_nothing_stays_so();
        rules
    }

    /// The model drops a message that changes nothing. That is right only if it changes nothing later either.
    fn check_that_what_changes_nothing_stays_so(&self) {
        let is_idle = |row: Row, act: Act| self.act(row, act).row == row;
        for (index, acts) in self.acts.iter().enumerate() {
            for next in acts.iter().map(|acted| acted.row) {
                for act in (1..=GENERATIONS).flat_map(|generation| [Act::Revoke(generation), Act::Fence(generation)]) {
                    assert!(!is_idle(Row(index), act) || is_idle(next, act), "{act:?} after {:?}", self.rows[index]);
                }
            }
        }
        // a claim that has ended stays as it is, and it makes no difference how it ended
        for ended in [Claim::RELEASED, Claim::REVOKED] {
            assert_eq!([self.release(ended), self.revoke(ended)], [ended; 2]);
            assert_eq!(self.reserves[ended.0], [[(ended, Answer::Ended, false); 2]; 3]);
        }
    }

    pub(crate) fn act(&self, row: Row, act: Act) -> Acted {
        self.acts[row.0][act.index()]
    }

    /// The generation of the claim with which a move goes to the slot; `None` if the booking cannot move.
    pub(crate) fn claim_of_a_move(&self, row: Row, to: Slot) -> Option<usize> {
        self.claims[row.0][to as usize]
    }

    /// The slot of the booking and the generation of its claim.
    pub(crate) fn held(&self, row: Row) -> (Slot, usize) {
        self.held[row.0]
    }

    pub(crate) fn is_confirmed(&self, row: Row) -> bool {
        self.rows[row.0].state == State::Confirmed
    }

    /// The same row, as if no claim had ever been fenced.
    pub(crate) fn without_fence(&self, row: Row) -> Row {
        let wanted = Screening { fenced_generation: 0, ..self.rows[row.0].clone() };
        Row(self.rows.iter().position(|row| kind(row) == kind(&wanted)).expect("a row without a fence"))
    }

    pub(crate) fn reserve(&self, claim: Claim, slot: Slot, free: i32) -> Reserved {
        self.reserves[claim.0][slot as usize][usize::from(free <= 0)]
    }

    pub(crate) fn release(&self, claim: Claim) -> Claim {
        self.releases[claim.0]
    }

    pub(crate) fn revoke(&self, claim: Claim) -> Claim {
        self.revokes[claim.0]
    }
}

fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

fn claim_id(generation: usize) -> ClaimId {
    ClaimId { screening: ScreeningId(Uuid::from_u128(1)), generation: generation as i32 }
}

fn asked(slot: Slot) -> Reschedule {
    Reschedule { by: Party::Customer, slot: slot.id(), message: String::new(), etag: String::new() }
}

/// Every row that the commands can reach from the confirmed booking, and the outcome of each command on each row.
fn screening_table() -> (Vec<Screening>, Vec<[Acted; ACTS]>) {
    let (id, customer, slot) = (claim_id(1).screening, CustomerId::from_segment("kim").unwrap(), Slot::A.id());
    let booking = Booking { id, customer, customer_display_name: String::new(), slot, joins_waitlist: false };
    let confirmed = screening::Event::Confirmed(booking, hospital().terms(Slot::A.id().date));
    let mut rows = vec![screening::apply(None, &confirmed, now())];
    let (mut table, acts) = (Vec::new(), Act::all());
    while table.len() < rows.len() {
        let row = rows[table.len()].clone();
        table.push(std::array::from_fn(|act| {
            let (next, outcome, left) = judge(&row, acts[act]);
            let index = rows.iter().position(|row| kind(row) == kind(&next)).unwrap_or_else(|| {
                rows.push(next);
                rows.len() - 1
            });
            Acted { row: Row(index), outcome, left }
        }));
    }
    assert_eq!(rows.len(), ROWS);
    (rows, table)
}

/// The properties that distinguish rows.
fn kind(row: &Screening) -> (State, &SlotId, i32, i32) {
    (row.state, &row.slot, row.generation, row.fenced_generation)
}

/// The row after an act. Some invariants are those of the rules alone, so they are checked for every act on every row:
/// a refusal changes at most the fence, an ended booking stays ended, and an event names the place that was left.
fn judge(row: &Screening, act: Act) -> (Screening, Outcome, Option<usize>) {
    let (outcome, event) = match screening::decide(Some(row), &act.command(), now()) {
        Ok(Decision::Change(event)) => (Outcome::Done, Some(event)),
        Ok(Decision::Refuse(event, _)) => (Outcome::Refused, Some(event)),
        Ok(Decision::Keep) => (Outcome::Done, None),
        Ok(Decision::Fenced) => (Outcome::Fenced, None),
        Ok(Decision::Ignore(_)) | Err(_) => (Outcome::Refused, None),
    };
    let Some(event) = event else { return (row.clone(), outcome, None) };
    let next = screening::apply(Some(row), &event, now());
    let left: Vec<_> = screening::facts(&next, &event).iter().filter_map(|(_, fact)| left(fact)).collect();
    assert!(left.is_empty() || left == [(row.slot.clone(), row.claim())], "{act:?} of {row:?} gives back {left:?}");
    let unfenced = Screening { fenced_generation: row.fenced_generation, ..next.clone() };
    assert!(outcome == Outcome::Done || unfenced == *row && left.is_empty(), "{act:?} is refused and changes {row:?}");
    assert!(row.state.is_active() || next.state == row.state, "{act:?} revives {row:?}");
    (next, outcome, left.first().map(|(_, claim)| claim.generation as usize))
}

/// The place that Hospital gives back when it reads this fact.
fn left(fact: &Payload) -> Option<(SlotId, ClaimId)> {
    let (slot, claim) = match fact {
        Payload::ScreeningCancelled(ScreeningCancelled { screening, claim_id, .. }) => {
            (&screening.as_ref().unwrap().slot, claim_id)
        }
        Payload::ScreeningRescheduled(ScreeningRescheduled { previous_slot, released_claim_id, .. }) => {
            (previous_slot, released_claim_id)
        }
        _ => return None,
    };
    Some((SlotId::parse(slot).unwrap(), ClaimId::parse(claim).unwrap()))
}

/// A move asks for a place under the next claim, except where the booking is on the slot already.
fn claim_of_a_move(row: &Screening, to: Slot) -> Option<usize> {
    judge_reschedule(row, &asked(to), None, now()).ok()?;
    let claim = if row.slot == to.id() { row.claim() } else { row.next_claim() };
    Some(claim.generation as usize)
}

fn hospital() -> Hospital {
    let (display_name, time_zone) = ("Seoul".into(), time_zone("Asia/Seoul").unwrap());
    // the model has fewer generations than this
    let policy = BookingPolicy { reschedule_limit: MAX_RESCHEDULES, ..BookingPolicy::default() };
    let draft = Draft { display_name, time_zone, policy };
    domain::hospital::register(&Slot::A.id().hospital, Uuid::from_u128(3), &draft, None, now()).unwrap().0
}

fn real_slot(slot: Slot, booked: i32) -> RealSlot {
    let (open, _) = capacity::open_slot(&hospital(), slot.id().date, slot.capacity(), None, now()).unwrap();
    RealSlot { booked, ..open }
}

/// A claim, and the slot that it is on.
fn real_claim(claim: Claim) -> (Option<RealClaim>, RealSlot) {
    let (slot, state) = match claim.place() {
        Some(slot) => (slot, ClaimState::Active),
        None if claim == Claim::REVOKED => (Slot::A, ClaimState::Revoked(RevokeReason::SlotCancelled)),
        None => (Slot::A, ClaimState::Released),
    };
    let real = RealClaim { id: claim_id(1), slot: slot.id(), state, slot_version: 1, version: 1, update_time: now() };
    (Some(real).filter(|_| claim != Claim::NONE), real_slot(slot, i32::from(claim.place().is_some())))
}

fn index(claim: &RealClaim) -> Claim {
    match claim.state {
        ClaimState::Active => Claim::active(Slot::of(&claim.slot)),
        ClaimState::Released => Claim::RELEASED,
        ClaimState::Revoked(_) => Claim::REVOKED,
        ClaimState::Waiting(_) => panic!("a move never waits for a place"),
    }
}

fn reserve(own: Claim, slot: Slot, full: bool) -> Reserved {
    let booked = if full { slot.capacity() } else { i32::from(own.place() == Some(slot)) };
    let (existing, real) = (real_claim(own).0, real_slot(slot, booked));
    match capacity::reserve(&slot.id(), claim_id(1), existing.as_ref(), Some(&hospital()), Some(&real), false, now()) {
        Ok(reserved) => {
            assert_eq!(step(Reply::Active, Accepts::default()), Step::Commit);
            (index(&reserved.claim), Answer::Granted, reserved.fact.is_some())
        }
        Err(refusal) => {
            let state = refusal.metadata().get("state").map(String::as_str).unwrap_or_default();
            let answer = match step(Reply::of_refusal(refusal.reason(), state), Accepts::default()) {
                Step::NextAttempt => Answer::Ended,
                Step::PassOn if refusal.reason() == Reason::FieldInvalid => Answer::Elsewhere,
                Step::PassOn => Answer::Refused,
                step => panic!("a move cannot go on with {step:?} after {refusal:?}"),
            };
            (own, answer, false)
        }
    }
}

/// The claim after a release on its own slot.
fn release(own: Claim) -> Claim {
    let (existing, slot) = real_claim(own);
    index(&capacity::release(&slot.id, claim_id(1), existing.as_ref(), Some(&slot), &[], now()).unwrap().0.claim)
}

fn revoke(own: Claim) -> Claim {
    let (existing, slot) = real_claim(own);
    let revoked = |claim: RealClaim| capacity::revoke(&claim, &slot, RevokeReason::SlotCancelled, "", now()).claim;
    existing.map_or(own, |claim| index(&revoked(claim)))
}
