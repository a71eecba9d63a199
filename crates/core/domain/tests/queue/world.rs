//! The state of all bookings of the model of queues in both services, and what must hold in it.

use crate::Variant;
use crate::rows::Row;
use crate::scenarios::{Kind, Scenario};
use crate::slot::{BOOKINGS, Claim, Sale, Slot};
use crate::slots::Slots;

/// A call of the customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Unsent,
    Sent,
    /// The claim is ACTIVE, as far as the call knows.
    Granted,
    /// The claim waits, as far as the call knows.
    Queued,
    Done,
}

/// What the resolver, the sweep of waits that are over or the watch of claims asks Hospital, and what it does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    None,
    /// About a PENDING booking.
    Pending,
    /// About a WAITLISTED one, whose claim is watched.
    Waiting,
    /// About a WAITLISTED one, whose wait is over.
    Over,
    Confirm,
    Queue,
    GiveUp,
    Expire,
}

/// The event CapacityReserved of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    None,
    /// It is on its way, of a claim that never waited.
    AtOnce,
    /// It is on its way, of a claim that waited.
    Promoted,
}

/// One booking, without its claim, and the messages about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Booking {
    pub(crate) row: Row,
    pub(crate) calls: [Call; 2],
    pub(crate) question: Question,
    /// Whether a reserve is on its way for whose answer nobody waits, by whether it joins the queue.
    pub(crate) late: [bool; 2],
    /// Whether the event CapacityWaitlisted is on its way.
    pub(crate) joined: bool,
    pub(crate) reserved: Reserved,
    /// Whether the event CapacityRevoked is on its way.
    pub(crate) revoked: bool,
    /// Whether the event by which Hospital releases the claim is on its way.
    pub(crate) ended: bool,
    /// Whether Screening watches the claim.
    pub(crate) watched: bool,
    /// Whether the customer has another active booking on that date.
    pub(crate) elsewhere: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    pub(crate) slot: usize,
    pub(crate) bookings: [Booking; BOOKINGS],
    /// What happened already of what happens once, one bit each.
    pub(crate) once: u8,
    /// The rule that the last step broke, if any.
    pub(crate) broken: Option<&'static str>,
}

impl Booking {
    fn start(kind: Kind) -> Self {
        Self {
            row: if kind.holds { Row::Confirmed } else { Row::None },
            calls: kind.calls.map(|call| if call.is_some() { Call::Unsent } else { Call::Done }),
            question: Question::None,
            late: [false; 2],
            joined: false,
            reserved: Reserved::None,
            revoked: false,
            ended: false,
            watched: false,
            elsewhere: false,
        }
    }

    fn key(self) -> u128 {
        let flags = [self.joined, self.revoked, self.ended, self.watched, self.elsewhere, self.late[0], self.late[1]];
        let flags = flags.into_iter().fold(0, |bits, flag| bits * 2 + u128::from(flag));
        let [first, second] = self.calls.map(|call| call as u128);
        let parts = [self.row as u128, first, second, self.question as u128, self.reserved as u128];
        parts.into_iter().fold(flags, |key, part| key * 8 + part)
    }

    /// Drops messages that change nothing, now or later: a row that exists never goes, what has ended stays so, and
    /// only PENDING and WAITLISTED rows change by what Hospital says of a place.
    pub(crate) fn settle(&mut self, claim: Claim, variant: Variant) {
        let (has_row, waits) = (self.row != Row::None, self.row.is_open() || self.row == Row::Waitlisted);
        self.joined &= !has_row && !self.watched;
        self.watched &= !has_row || waits;
        self.revoked &= !has_row || waits || matches!(self.row, Row::Confirmed | Row::GivenUp);
        self.ended &= claim != Claim::Ended || variant == Variant::ReleaseTwice;
        let is_heard = waits || variant == Variant::Resurrect;
        if has_row && (!is_heard || self.reserved == Reserved::AtOnce) {
            self.reserved = Reserved::None;
        }
        self.late = self.late.map(|late| late && claim == Claim::None);
        for call in &mut self.calls {
            let is_over = match call {
                Call::Unsent => has_row,
                Call::Granted => has_row && !waits,
                Call::Queued => has_row && !self.row.is_open(),
                Call::Sent | Call::Done => false,
            };
            *call = if is_over { Call::Done } else { *call };
        }
        let is_over = match self.question {
            Question::None | Question::Pending | Question::Waiting | Question::Over => false,
            Question::Confirm => !waits,
            Question::Queue | Question::GiveUp => !self.row.is_open(),
            Question::Expire => self.row != Row::Waitlisted,
        };
        self.question = if is_over { Question::None } else { self.question };
    }

    /// Whether nothing more will happen to the booking by itself. A reserve that is late may be lost as well.
    fn is_quiet(&self, slot: &Slot) -> bool {
        let calls = self.calls.iter().all(|call| matches!(call, Call::Unsent | Call::Done));
        let events = self.joined || self.reserved != Reserved::None || self.revoked || self.ended || self.watched;
        let expires = self.row == Row::Waitlisted && slot.clock > 0;
        let resolved = self.row.is_open() || self.row == Row::GivenUp;
        calls && !events && !expires && !resolved && self.question == Question::None
    }
}

impl World {
    pub(crate) fn start(scenario: &Scenario, slots: &Slots) -> Self {
        let claims = scenario.kinds.map(|kind| if kind.holds { Claim::Active } else { Claim::None });
        let Scenario { capacity, early, .. } = *scenario;
        let slot = slots.index(Slot { capacity, sale: Sale::Open, clock: 0, early, claims });
        Self { slot, bookings: scenario.kinds.map(Booking::start), once: 0, broken: None }
    }

    /// The state of the world as a number, for the set of known states.
    pub(crate) fn key(&self) -> u128 {
        let bookings = self.bookings.into_iter().fold(0, |key, booking| (key << 22) | booking.key());
        (bookings << 22) | ((self.slot as u128) << 9) | (u128::from(self.once) << 1) | u128::from(self.broken.is_some())
    }

    /// The invariant that does not hold, if any.
    pub(crate) fn violation(&self, scenario: &Scenario, slots: &Slots) -> Option<&'static str> {
        let slot = slots.get(self.slot);
        if let Some(broken) = self.broken.or_else(|| slot.broken()) {
            return Some(broken);
        }
        for (booking, claim) in self.bookings.iter().zip(slot.claims) {
            let losing_it = claim == Claim::Ended && booking.revoked;
            match booking.row {
                Row::Confirmed if claim != Claim::Active && !losing_it => return Some("CONFIRMED without a place"),
                Row::Waitlisted if matches!(claim, Claim::None | Claim::Ended) && !losing_it => {
                    return Some("WAITLISTED without a ticket");
                }
                row if row.is_active() && booking.elsewhere => return Some("two active bookings on a date"),
                _ => {}
            }
        }
        let [_, one, other, _] = self.bookings.map(|booking| booking.row);
        if scenario.twins && one.is_active() && other.is_active() {
            return Some("two active bookings on a date");
        }
        if scenario.twins && [one, other] == [Row::Waitlisted; 2] {
            return Some("a customer waits twice");
        }
        let is_quiet = slot.sale != Sale::Cancelling && self.bookings.iter().all(|booking| booking.is_quiet(&slot));
        let agrees = |(booking, claim): (&Booking, Claim)| match claim {
            Claim::Active => booking.row == Row::Confirmed,
            Claim::Waiting(..) => booking.row == Row::Waitlisted,
            Claim::None | Claim::Ended => !matches!(booking.row, Row::Confirmed | Row::Waitlisted),
        };
        let agree = self.bookings.iter().zip(slot.claims).all(agrees);
        (is_quiet && !agree).then_some("all is quiet, and claims and bookings are not the same")
    }
}
