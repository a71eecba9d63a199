//! The decisions of the real functions for every combination that the model can meet.
//!
//! The functions are pure and the combinations are few, so a table of their answers is equivalent to calling them, and
//! faster.

use domain::booking::{Ended, Reply};
use domain::capacity::{self, Claim as RealClaim, ClaimState, RevokeReason, Slot, SlotState};
use domain::civil::time_zone;
use domain::hospital::{Draft, Held, Hospital};
use domain::ids::{ClaimId, CustomerId, HospitalId, ScreeningId, SlotId};
use domain::screening::{self, Booking, Command, Conflict, Decision, Party, Revocation, Screening, State, Terms};
use domain::window::BookingPolicy;
use fault::Reason;
use jiff::Timestamp;
use uuid::Uuid;

/// A row of Screening, as its index in the table; see [`Rules::act`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row(pub(crate) usize);

impl Row {
    /// No row.
    pub(crate) const NONE: Self = Self(0);
}

/// Rows of the table: none, five states of a booking, a PENDING one that was given up, and two fences.
pub(crate) const ROWS: u64 = 9;

/// A claim, as its index in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim(pub(crate) usize);

impl Claim {
    /// No claim.
    pub(crate) const NONE: Self = Self(0);
    /// A claim that holds its place.
    pub(crate) const ACTIVE: Self = Self(1);
    const RELEASED: Self = Self(2);
    const REVOKED: Self = Self(3);
}

/// Claims of the table: none, active, released and revoked.
pub(crate) const CLAIMS: u64 = 4;

/// Different replies to a reserve: active, released, revoked, hospital deleted, slot full.
pub(crate) const REPLIES: usize = 5;

/// What Screening does to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Confirm,
    ConfirmInConflict,
    Park,
    GiveUp,
    Reject,
    Fence,
    Cancel,
    Revoke,
}

const ACTS: [Act; 8] =
    [Act::Confirm, Act::ConfirmInConflict, Act::Park, Act::GiveUp, Act::Reject, Act::Fence, Act::Cancel, Act::Revoke];

/// The outcomes for one row, by act: the row after it, and whether Hospital is asked to give the place back.
type Acts = [(Row, bool); ACTS.len()];

/// The outcome of a reserve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved {
    /// The claim after the reserve.
    pub(crate) claim: Claim,
    /// The reply, by its index.
    pub(crate) reply: usize,
    /// Whether CapacityReserved was announced.
    pub(crate) announced: bool,
}

/// The answers of the real functions.
pub(crate) struct Rules {
    rows: Vec<Option<Screening>>,
    acts: Vec<Acts>,
    replies: Vec<Reply>,
    /// By claim, by whether another claim is active, and by whether the hospital is being deleted.
    reserves: [[[Reserved; 2]; 2]; CLAIMS as usize],
    releases: [Claim; CLAIMS as usize],
    revokes: [Claim; CLAIMS as usize],
}

impl Rules {
    pub(crate) fn new() -> Self {
        let (rows, acts) = screening_table();
        let mut replies = Vec::new();
        let reserves = std::array::from_fn(|claim| {
            std::array::from_fn(|other| {
                std::array::from_fn(|deleting| reserve(Claim(claim), other == 1, deleting == 1, &mut replies))
            })
        });
        assert!(replies.len() <= REPLIES, "{replies:?}");
        let releases = std::array::from_fn(|claim| release(Claim(claim)));
        let revokes = std::array::from_fn(|claim| revoke(Claim(claim)));
        Self { rows, acts, replies, reserves, releases, revokes }
    }

    /// The row after a command, and whether Hospital is asked to give the place back.
    pub(crate) fn act(&self, row: Row, act: Act) -> (Row, bool) {
        self.acts[row.0][act as usize]
    }

    pub(crate) fn reserve(&self, claim: Claim, others_active: bool, deleting: bool) -> Reserved {
        self.reserves[claim.0][usize::from(others_active)][usize::from(deleting)]
    }

    pub(crate) fn release(&self, claim: Claim) -> Claim {
        self.releases[claim.0]
    }

    pub(crate) fn revoke(&self, claim: Claim) -> Claim {
        self.revokes[claim.0]
    }

    pub(crate) fn reply(&self, index: usize) -> Reply {
        self.replies[index]
    }

    pub(crate) fn is_revoked(&self, claim: Claim) -> bool {
        claim == Claim::REVOKED
    }

    /// What the acknowledgement of a release says. The claim cannot change after it.
    pub(crate) fn ended(&self, claim: Claim) -> Ended {
        if self.is_revoked(claim) { Ended::Revoked } else { Ended::Released }
    }

    pub(crate) fn is_shown(&self, row: Row) -> bool {
        self.rows[row.0].as_ref().is_some_and(|row| !row.is_fence())
    }

    pub(crate) fn is_confirmed(&self, row: Row) -> bool {
        self.is(row, State::Confirmed)
    }

    pub(crate) fn is_pending(&self, row: Row) -> bool {
        self.is(row, State::Pending)
    }

    /// Whether the row waits until the release of its claim is acknowledged.
    pub(crate) fn is_given_up(&self, row: Row) -> bool {
        self.is_pending(row) && self.rows[row.0].as_ref().is_some_and(|row| row.given_up.is_some())
    }

    pub(crate) fn is_cancelled(&self, row: Row) -> bool {
        self.is(row, State::Cancelled)
    }

    pub(crate) fn confirmed(&self) -> Row {
        (0..self.rows.len()).map(Row).find(|row| self.is_confirmed(*row)).expect("some row is CONFIRMED")
    }

    fn is(&self, row: Row, state: State) -> bool {
        self.rows[row.0].as_ref().is_some_and(|row| row.state == state)
    }
}

fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

fn slot_id() -> SlotId {
    SlotId::new(HospitalId::from_segment("seoul").unwrap(), jiff::civil::date(2027, 1, 4))
}

fn booking() -> Booking {
    Booking {
        id: ScreeningId(Uuid::from_u128(1)),
        customer: CustomerId::from_segment("kim").unwrap(),
        customer_display_name: String::new(),
        slot: slot_id(),
        joins_waitlist: false,
    }
}

fn command(act: Act) -> Command {
    let (booking, claim, slot) = (booking(), booking().claim(), slot_id());
    // with the zone that Hospital returns a CONFIRMED booking can be cancelled
    let terms = Terms { time_zone: "Asia/Seoul".into(), ..Terms::default() };
    match act {
        Act::Confirm => Command::Confirm { booking, terms, conflict: None },
        Act::ConfirmInConflict => {
            Command::Confirm { booking, terms, conflict: Some(Conflict::Date(ScreeningId(Uuid::from_u128(9)))) }
        }
        Act::Park => Command::Park { booking, terms, conflict: None },
        Act::GiveUp => Command::GiveUp { reason: Reason::SlotFull },
        Act::Reject => Command::Reject,
        Act::Fence => Command::Fence { claim, slot },
        Act::Cancel => Command::Cancel { by: Party::Customer, message: String::new(), etag: String::new() },
        Act::Revoke => Command::Revoke { claim, slot, cause: Revocation::HospitalDeleted, message: String::new() },
    }
}

/// Every row that the commands can reach from nothing, and the outcome of each command on each row.
fn screening_table() -> (Vec<Option<Screening>>, Vec<Acts>) {
    let mut rows: Vec<Option<Screening>> = vec![None];
    let mut table = Vec::new();
    while table.len() < rows.len() {
        let row = rows[table.len()].clone();
        table.push(ACTS.map(|act| {
            let (next, gives_up) = judge(row.as_ref(), act);
            let known = rows.iter().position(|row| kind(row.as_ref()) == kind(next.as_ref()));
            let index = known.unwrap_or_else(|| {
                rows.push(next);
                rows.len() - 1
            });
            (Row(index), gives_up)
        }));
    }
    assert_eq!(rows.len() as u64, ROWS);
    (rows, table)
}

/// The properties that distinguish rows.
fn kind(row: Option<&Screening>) -> Option<(State, bool, bool)> {
    row.map(|row| (row.state, row.is_fence(), row.state == State::Pending && row.given_up.is_some()))
}

fn judge(row: Option<&Screening>, act: Act) -> (Option<Screening>, bool) {
    use contract::event::v1::event_envelope::Payload;
    if act == Act::Cancel && row.is_none_or(Screening::is_fence) {
        // The finder does not return a fence, so nobody can name it.
        return (row.cloned(), false);
    }
    match screening::decide(row, &command(act), now()) {
        Ok(Decision::Change(event) | Decision::Refuse(event, _)) => {
            let next = screening::apply(row, &event, now());
            let gives_back =
                |fact: &Payload| matches!(fact, Payload::ScreeningRejected(_) | Payload::ScreeningCancelled(_));
            let gives_up = screening::facts(&next, &event).iter().any(|(_, fact)| gives_back(fact));
            (Some(next), gives_up)
        }
        Ok(Decision::Keep | Decision::Fenced | Decision::Ignore(_)) | Err(_) => (row.cloned(), false),
    }
}

fn hospital(deleting: bool) -> Hospital {
    let draft = Draft {
        display_name: "Seoul".into(),
        time_zone: time_zone("Asia/Seoul").unwrap(),
        policy: BookingPolicy::default(),
    };
    let id = slot_id().hospital;
    let (hospital, _) = domain::hospital::register(&id, Uuid::from_u128(3), &draft, None, now()).unwrap();
    if !deleting {
        return hospital;
    }
    let held = Held { active: 1, waiting: 0 };
    let (hospital, _) = domain::hospital::delete(&hospital, held, true, "", "", now()).unwrap().unwrap();
    hospital
}

fn slot(active: bool, deleting: bool) -> Slot {
    let (slot, _) = capacity::open_slot(&hospital(false), slot_id().date, 1, None, now()).unwrap();
    let slot = Slot { booked: i32::from(active), ..slot };
    assert_eq!(slot.state, SlotState::Open);
    if deleting { capacity::withdraw_slot(&slot, now()) } else { slot }
}

fn claim(claim: Claim) -> Option<RealClaim> {
    let state = match claim {
        Claim::NONE => return None,
        Claim::ACTIVE => ClaimState::Active,
        Claim::RELEASED => ClaimState::Released,
        _ => ClaimState::Revoked(RevokeReason::HospitalDeleted),
    };
    let id = ClaimId { screening: booking().id, generation: screening::FIRST_GENERATION };
    Some(RealClaim { id, slot: slot_id(), state, slot_version: 1, version: 1, update_time: now() })
}

fn index(claim: &RealClaim) -> Claim {
    match claim.state {
        ClaimState::Active => Claim::ACTIVE,
        ClaimState::Released => Claim::RELEASED,
        ClaimState::Revoked(_) => Claim::REVOKED,
        ClaimState::Waiting(_) => panic!("nobody waits here"),
    }
}

fn reserve(own: Claim, others_active: bool, deleting: bool, replies: &mut Vec<Reply>) -> Reserved {
    let existing = claim(own);
    let (hospital, slot) = (hospital(deleting), slot(others_active || own == Claim::ACTIVE, deleting));
    let id = booking().claim();
    let (claim, reply, announced) =
        match capacity::reserve(&slot_id(), id, existing.as_ref(), Some(&hospital), Some(&slot), false, now()) {
            Ok(step) => (index(&step.claim), Reply::Active, step.fact.is_some()),
            Err(refusal) => {
                let state = refusal.metadata().get("state").map(String::as_str).unwrap_or_default();
                (own, Reply::of_refusal(refusal.reason(), state), false)
            }
        };
    let reply = replies.iter().position(|known| *known == reply).unwrap_or_else(|| {
        replies.push(reply);
        replies.len() - 1
    });
    Reserved { claim, reply, announced }
}

fn release(own: Claim) -> Claim {
    let existing = claim(own);
    let slot = slot(own == Claim::ACTIVE, false);
    let released = capacity::release(&slot_id(), booking().claim(), existing.as_ref(), Some(&slot), &[], now());
    index(&released.unwrap().0.claim)
}

fn revoke(own: Claim) -> Claim {
    claim(own).map_or(own, |existing| {
        let slot = slot(own == Claim::ACTIVE, true);
        index(&capacity::revoke(&existing, &slot, RevokeReason::HospitalDeleted, "", now()).claim)
    })
}
