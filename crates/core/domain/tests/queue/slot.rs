//! The slot of the model of queues with its claims, and what must hold in it and between two states of it.

/// Bookings that the model knows at most.
pub(crate) const BOOKINGS: usize = 4;

/// The claim of a booking. How it ended makes no difference to anybody but the one whose place was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    None,
    Active,
    /// How many tickets of the slot are smaller, and whether promotion closes early for it.
    Waiting(u8, bool),
    Ended,
}

impl Claim {
    pub(crate) fn waits(self) -> bool {
        matches!(self, Self::Waiting(..))
    }
}

/// Whether the slot is on sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sale {
    Open,
    Closed,
    /// It is closed, and its claims are being revoked.
    Cancelling,
}

/// The slot with its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) capacity: u8,
    pub(crate) sale: Sale,
    /// 0: everybody may be promoted. 1: not those for whom promotion closes early, and by Screening's clock nobody. 2:
    /// nobody.
    pub(crate) clock: u8,
    /// Whether promotion closes early for who joins now.
    pub(crate) early: bool,
    pub(crate) claims: [Claim; BOOKINGS],
}

/// A transaction of Hospital. A number is that of a booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Reserve(usize, bool),
    Release(usize),
    Revoke(usize),
    Raise,
    Reduce,
    Close,
    Cancel,
    Reopen,
    /// From now on promotion does not close early for who joins.
    Notice,
    /// It is later.
    Clock(u8),
    /// In one transaction: the release of a claim, then the reserve of another booking. Only without a precaution.
    Both(usize, usize),
    /// Only without a precaution: free places are given to who waits.
    Promote,
}

impl Op {
    /// What happened, for the path to a violation.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Raise => "the capacity is raised",
            Self::Reduce => "the capacity is reduced",
            Self::Close => "the slot is closed",
            Self::Cancel => "the bookings are cancelled",
            Self::Reopen => "the slot is opened again",
            Self::Notice => "the policy changes",
            Self::Clock(1) => "promotion is over by screening's clock",
            Self::Clock(_) => "promotion is over",
            _ => "hospital hears",
        }
    }
}

impl Slot {
    pub(crate) fn active(&self) -> usize {
        self.claims.iter().filter(|claim| **claim == Claim::Active).count()
    }

    /// Whether the claim waits and may get a place.
    fn may_get_one(&self, claim: Claim) -> bool {
        matches!(claim, Claim::Waiting(_, early) if self.clock < if early { 1 } else { 2 })
    }

    /// The rule that the slot breaks, if any.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        let (active, capacity) = (self.active(), usize::from(self.capacity));
        if active > capacity {
            return Some("more active claims than places");
        }
        let waits = self.claims.iter().any(|claim| self.may_get_one(*claim));
        (self.sale == Sale::Open && waits && active < capacity).then_some("somebody waits beside a free place")
    }
}

/// The rule that a transaction breaks, if any.
pub(crate) fn broken_between(before: &Slot, op: Op, after: &Slot) -> Option<&'static str> {
    let cancels = op == Op::Cancel || before.sale == Sale::Cancelling;
    if cancels && after.sale == Sale::Closed && after.claims.iter().any(|claim| claim.waits()) {
        return Some("the bookings of a slot are cancelled, and somebody waits");
    }
    let pairs = || before.claims.into_iter().zip(after.claims);
    let promoted = |pair: &(Claim, Claim)| pair.0.waits() && pair.1 == Claim::Active;
    let first_left = pairs().filter(|(old, new)| before.may_get_one(*old) && new.waits()).map(|(old, _)| old);
    let rank = |claim: Claim| if let Claim::Waiting(rank, _) = claim { rank } else { u8::MAX };
    let first_left = first_left.map(rank).min().unwrap_or(u8::MAX);
    for (old, new) in pairs() {
        match (old, new) {
            (Claim::None, Claim::Active) if before.claims.iter().any(|claim| before.may_get_one(*claim)) => {
                return Some("a newcomer got a place while somebody waited");
            }
            (Claim::Ended, new) if new != Claim::Ended => return Some("a claim that has ended came back"),
            (Claim::Active, Claim::None | Claim::Waiting(..)) | (Claim::Waiting(..), Claim::None) => {
                return Some("a claim forgot what it was");
            }
            pair if promoted(&pair) && after.sale != Sale::Open => return Some("a closed slot promotes"),
            pair if promoted(&pair) && !before.may_get_one(old) => return Some("a claim was promoted too late"),
            pair if promoted(&pair) && rank(old) > first_left => return Some("a later ticket was promoted first"),
            _ => {}
        }
    }
    None
}
