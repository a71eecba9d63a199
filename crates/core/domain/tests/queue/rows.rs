//! The decisions of the real functions about the row of one booking in the model of queues.

use contract::event::v1::event_envelope::Payload;
use domain::ids::{ClaimId, CustomerId, HospitalId, ScreeningId, SlotId};
use domain::screening::{
    self, Booking, Command, Conflict, Decision, Event, FIRST_GENERATION, Party, Queued, Revocation, Screening, State,
    Terms,
};
use fault::Reason;
use jiff::Timestamp;
use uuid::Uuid;

/// The row of a booking. A booking that has ended and a fence both never change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    None,
    /// PENDING, and it waits if no place is left.
    PendingJoins,
    /// PENDING, and it does not wait.
    PendingOnly,
    /// PENDING, and it will be REJECTED.
    GivenUp,
    Confirmed,
    Waitlisted,
    Ended,
}

impl Row {
    const ALL: [Self; 7] = [
        Self::None,
        Self::PendingJoins,
        Self::PendingOnly,
        Self::GivenUp,
        Self::Confirmed,
        Self::Waitlisted,
        Self::Ended,
    ];

    /// Whether it is PENDING and was not given up.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::PendingJoins | Self::PendingOnly)
    }

    /// Whether it counts against the one booking that a customer may have on a date.
    pub(crate) fn is_active(self) -> bool {
        self.is_open() || matches!(self, Self::GivenUp | Self::Confirmed)
    }
}

/// What Screening does to a row. The flag says that the customer has another booking that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Confirm(bool),
    Queue(bool),
    /// The first flag says that the booking may wait.
    Park(bool, bool),
    GiveUp,
    Reject,
    Fence,
    Cancel,
    Revoke,
    Expire,
}

impl Act {
    const ALL: [Self; 14] = [
        Self::Confirm(false),
        Self::Confirm(true),
        Self::Queue(false),
        Self::Queue(true),
        Self::Park(false, false),
        Self::Park(false, true),
        Self::Park(true, false),
        Self::Park(true, true),
        Self::GiveUp,
        Self::Reject,
        Self::Fence,
        Self::Cancel,
        Self::Revoke,
        Self::Expire,
    ];

    fn index(self) -> usize {
        match self {
            Self::Confirm(conflict) => usize::from(conflict),
            Self::Queue(conflict) => 2 + usize::from(conflict),
            Self::Park(joins, conflict) => 4 + 2 * usize::from(joins) + usize::from(conflict),
            Self::GiveUp => 8,
            Self::Reject => 9,
            Self::Fence => 10,
            Self::Cancel => 11,
            Self::Revoke => 12,
            Self::Expire => 13,
        }
    }

    fn command(self) -> Command {
        let (claim, slot) = (claim(), slot());
        let terms = Terms { time_zone: "Asia/Seoul".into(), ..Terms::default() };
        let other = |conflict: bool| conflict.then_some(Conflict::Date(ScreeningId(Uuid::from_u128(9))));
        match self {
            Self::Confirm(conflict) => Command::Confirm { booking: booking(false), terms, conflict: other(conflict) },
            Self::Queue(conflict) => {
                let queued = Queued { position: 1, closes_at: now() };
                Command::Queue { booking: booking(true), terms, queued, conflict: other(conflict) }
            }
            Self::Park(joins, conflict) => Command::Park { booking: booking(joins), terms, conflict: other(conflict) },
            Self::GiveUp => Command::GiveUp { reason: Reason::SlotFull },
            Self::Reject => Command::Reject,
            Self::Fence => Command::Fence { claim, slot },
            Self::Cancel => Command::Cancel { by: Party::Customer, message: String::new(), etag: String::new() },
            Self::Revoke => Command::Revoke { claim, slot, cause: Revocation::SlotCancelled, message: String::new() },
            Self::Expire => Command::Expire,
        }
    }
}

/// The rows after every act on every row, and whether Hospital is told to release the claim.
pub(crate) struct Rows([[(Row, bool); Act::ALL.len()]; Row::ALL.len()]);

impl Rows {
    /// Every row that the acts can reach from nothing. Rows of one kind must be alike.
    pub(crate) fn new() -> Self {
        let mut table = [[None; Act::ALL.len()]; Row::ALL.len()];
        let (mut rows, mut next) = (vec![None], 0);
        while next < rows.len() {
            let row: Option<Screening> = rows[next].clone();
            next += 1;
            for act in Act::ALL {
                let (after, releases) = judge(row.as_ref(), act);
                let entry = &mut table[kind(row.as_ref()) as usize][act.index()];
                let outcome = (kind(after.as_ref()), releases);
                assert_eq!(*entry.get_or_insert(outcome), outcome, "{act:?} of {row:?}");
                if !rows.iter().any(|known| same(known.as_ref(), after.as_ref())) {
                    rows.push(after);
                }
            }
        }
        Self(table.map(|acts| acts.map(|outcome| outcome.expect("every kind of row can be reached"))))
    }

    /// The row after an act, and whether Hospital is told to release the claim.
    pub(crate) fn act(&self, row: Row, act: Act) -> (Row, bool) {
        self.0[row as usize][act.index()]
    }
}

fn now() -> Timestamp {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

fn slot() -> SlotId {
    SlotId::new(HospitalId::from_segment("seoul").unwrap(), jiff::civil::date(2027, 1, 4))
}

fn claim() -> ClaimId {
    ClaimId { screening: ScreeningId(Uuid::from_u128(1)), generation: FIRST_GENERATION }
}

fn booking(joins_waitlist: bool) -> Booking {
    let (id, customer) = (claim().screening, CustomerId::from_segment("kim").unwrap());
    let customer_display_name = String::new();
    Booking { id, customer, customer_display_name, slot: slot(), joins_waitlist }
}

fn kind(row: Option<&Screening>) -> Row {
    let Some(row) = row else { return Row::None };
    match row.state {
        State::Pending if row.given_up.is_some() => Row::GivenUp,
        State::Pending if row.joins_waitlist => Row::PendingJoins,
        State::Pending => Row::PendingOnly,
        State::Confirmed => Row::Confirmed,
        State::Waitlisted => Row::Waitlisted,
        State::Cancelled | State::ForceCancelled | State::Rejected | State::Expired => Row::Ended,
        State::Completed | State::NoShow => panic!("the date is not over"),
    }
}

/// Whether two rows differ at most in their versions, reasons and in what was asked for.
fn same(one: Option<&Screening>, other: Option<&Screening>) -> bool {
    let parts = |row: &Screening| (row.state, row.is_fence(), row.queued, row.given_up.is_some());
    kind(one) == kind(other) && one.map(parts) == other.map(parts)
}

/// Some rules are those of a row alone, so they are checked for every act on every row: what has ended stays so, who
/// waited in vain is not reported as a booking, and whatever ends with a claim that Hospital has not taken away tells
/// Hospital of it.
fn judge(row: Option<&Screening>, act: Act) -> (Option<Screening>, bool) {
    if act == Act::Cancel && row.is_none_or(Screening::is_fence) {
        // The finder does not return a fence, so nobody can name it.
        return (row.cloned(), false);
    }
    let event = match screening::decide(row, &act.command(), now()) {
        Ok(Decision::Change(event) | Decision::Refuse(event, _)) => event,
        Ok(Decision::Keep | Decision::Fenced | Decision::Ignore(_)) | Err(_) => return (row.cloned(), false),
    };
    let next = screening::apply(row, &event, now());
    assert_ne!(kind(row), Row::Ended, "{act:?} changes {row:?}");
    let facts = screening::facts(&next, &event);
    let releases = facts.iter().any(|(_, fact)| match fact {
        Payload::ScreeningRejected(_) | Payload::ScreeningCancelled(_) => true,
        Payload::ScreeningWaitlistEnded(ended) => ended.claim_id == claim().to_string(),
        _ => false,
    });
    let in_vain = facts.iter().any(|(_, fact)| matches!(fact, Payload::ScreeningWaitlistEnded(_)));
    assert_eq!(in_vain, kind(row) == Row::Waitlisted && kind(Some(&next)) == Row::Ended, "{act:?} of {row:?}");
    let taken_away = matches!(event, Event::ForceCancelled(..));
    assert!(releases || taken_away || kind(Some(&next)) != Row::Ended, "{act:?} of {row:?} leaves a claim");
    (Some(next), releases)
}
