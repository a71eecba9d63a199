//! Who wants a place in the model of queues, and what admins do meanwhile.

use crate::Variant;
use crate::slot::{BOOKINGS, Op};

/// What one booking does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// It has a place from the beginning.
    pub(crate) holds: bool,
    /// Its calls, the second after the first; the flag says whether the call joins the queue.
    pub(crate) calls: [Option<bool>; 2],
    /// The calls accept PENDING.
    pub(crate) parks: bool,
    /// The customer cancels.
    pub(crate) leaves: bool,
    /// The customer books elsewhere on that date.
    pub(crate) books_elsewhere: bool,
    /// Its messages may be lost, late and repeated.
    pub(crate) loses: bool,
}

/// A booking that is not there.
const NOBODY: Kind =
    Kind { holds: false, calls: [None; 2], parks: false, leaves: false, books_elsewhere: false, loses: false };
/// A booking with a place, which its customer gives back.
const HOLDER: Kind = Kind { holds: true, leaves: true, ..NOBODY };
/// A booking that waits if it must.
const JOINER: Kind = Kind { calls: [Some(true), None], ..NOBODY };
/// One whose first call may have to be repeated.
const RETRIER: Kind = Kind { calls: [Some(true); 2], loses: true, ..NOBODY };
/// One that leaves.
const LEAVER: Kind = Kind { leaves: true, ..JOINER };
/// One whose messages are lost, late and repeated, and that leaves.
const LOSER: Kind = Kind { loses: true, ..LEAVER };
/// One that wants a place at once or none.
const NEWCOMER: Kind = Kind { calls: [Some(false), None], ..NOBODY };

/// One exploration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) capacity: u8,
    /// Whether promotion closes early for who joins before [`Op::Notice`].
    pub(crate) early: bool,
    /// What happens once, at any time, in any order that is possible.
    pub(crate) once: &'static [Op],
    /// Whether the second and the third booking are those of one customer.
    pub(crate) twins: bool,
    pub(crate) kinds: [Kind; BOOKINGS],
}

const PLAIN: Scenario =
    Scenario { name: "", capacity: 1, early: false, once: &[], twins: false, kinds: [NOBODY; BOOKINGS] };

const LOSSES: Scenario = Scenario {
    name: "calls repeated beside a newcomer",
    kinds: [HOLDER, Kind { leaves: true, ..RETRIER }, LOSER, NEWCOMER],
    ..PLAIN
};
const CHANGE_OF_MIND: Scenario = Scenario {
    name: "a call that joins and one that does not",
    once: &[Op::Clock(2)],
    kinds: [HOLDER, Kind { calls: [Some(false), Some(true)], ..RETRIER }, LOSER, NOBODY],
    ..PLAIN
};
const PARKED: Scenario = Scenario {
    name: "PENDING bookings",
    once: &[Op::Clock(2)],
    kinds: [HOLDER, Kind { parks: true, leaves: true, ..RETRIER }, Kind { parks: true, ..JOINER }, NOBODY],
    ..PLAIN
};
const CLOCKS: Scenario = Scenario {
    name: "the end of promotion by two clocks",
    once: &[Op::Clock(1), Op::Clock(2)],
    kinds: [HOLDER, LOSER, LEAVER, NEWCOMER],
    ..PLAIN
};
const IN_TIME: Scenario =
    Scenario { name: "the end of promotion", once: &[Op::Clock(2)], kinds: [HOLDER, LOSER, LOSER, NOBODY], ..PLAIN };
const NOTICE: Scenario = Scenario {
    name: "a policy that changes",
    early: true,
    once: &[Op::Notice, Op::Clock(1), Op::Clock(2)],
    kinds: [HOLDER, LOSER, JOINER, NOBODY],
    ..PLAIN
};
const ADMINS: Scenario = Scenario {
    name: "admins and four bookings",
    once: &[Op::Raise, Op::Reduce, Op::Close, Op::Reopen],
    kinds: [HOLDER, LEAVER, JOINER, NEWCOMER],
    ..PLAIN
};
const CANCELLED: Scenario = Scenario {
    name: "bookings that admins cancel",
    once: &[Op::Cancel, Op::Reopen],
    kinds: [HOLDER, Kind { leaves: true, parks: true, ..RETRIER }, LOSER, NOBODY],
    ..PLAIN
};
const ELSEWHERE: Scenario = Scenario {
    name: "bookings elsewhere on the date",
    kinds: [HOLDER, Kind { books_elsewhere: true, ..RETRIER }, Kind { books_elsewhere: true, ..LOSER }, NOBODY],
    ..PLAIN
};
const TWINS: Scenario = Scenario {
    name: "one customer twice",
    once: &[Op::Raise],
    twins: true,
    kinds: [HOLDER, Kind { parks: true, ..LOSER }, Kind { parks: true, ..RETRIER }, NOBODY],
    ..PLAIN
};
const TWO_PLACES: Scenario = Scenario {
    name: "two places and four bookings",
    capacity: 2,
    once: &[Op::Raise, Op::Clock(2)],
    kinds: [HOLDER, HOLDER, LOSER, LOSER],
    ..PLAIN
};

pub(crate) const SCENARIOS: &[&Scenario] = &[
    &LOSSES,
    &CHANGE_OF_MIND,
    &PARKED,
    &CLOCKS,
    &IN_TIME,
    &NOTICE,
    &ADMINS,
    &CANCELLED,
    &ELSEWHERE,
    &TWINS,
    &TWO_PLACES,
];

/// The exploration in which the precaution matters.
pub(crate) fn for_variant(variant: Variant) -> &'static Scenario {
    match variant {
        Variant::RaiseGoesOnSale | Variant::ReopenGoesOnSale | Variant::ReductionPromotes | Variant::ClosedPromotes => {
            &ADMINS
        }
        Variant::PromoteTooLate | Variant::ExpireUnasked => &IN_TIME,
        Variant::PendingUnwatched => &PARKED,
        Variant::CancelSparesQueue => &CANCELLED,
        Variant::ConflictIgnored => &ELSEWHERE,
        Variant::SecondTicket => &TWINS,
        _ => &LOSSES,
    }
}
