//! Bugs that are planted to prove that the simulation finds them.

use std::fmt;
use std::str::FromStr;

/// A precaution of the product that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Claims without a booking are released without a fence against a late commit. A trigger in Screening's database
    /// deletes the row of every fence in the transaction that writes it.
    NoFence,
    /// A release that overtakes its reserve leaves no tombstone. A trigger in Hospital's database deletes claims that
    /// are inserted as RELEASED.
    NoTombstone,
    /// A repeated event has its effect again. The handler of Hospital's consumer of releases gives back one more place
    /// of the slot's count, without checking the claim or the inbox.
    ReplayTwice,
    /// A booking whose place was granted becomes CONFIRMED whatever happened meanwhile. Screening decides by rules that
    /// also confirm rows that were given up, rejected or cancelled.
    ConfirmWithoutGuard,
    /// Events are published before the change that they report is committed. Every database hands the outbox rows of a
    /// transaction to the broker before the commit, which may fail.
    PublishBeforeCommit,
    /// An event is acknowledged before its effect is committed. The broker counts an event as acknowledged when it
    /// delivers it.
    AckBeforeCommit,
    /// A relay remembers how far it has read, not which events were acknowledged.
    WatermarkRelay,
    /// A relay marks events without holding the lease. A trigger in every database keeps the epoch of the lease at 1.
    LeaseWithoutEpoch,
    /// An ordered consumer continues from its cursor although the broker lost events before it.
    BlindCursor,
    /// A connection is used again after a BEGIN, COMMIT or ROLLBACK failed on it.
    TrustedConnection,
    /// A relay trusts a stream that has the same name and its newest event. The broker does not report events that were
    /// lost before the end.
    TrustedStream,
    /// A frame counts as applied once its first event is. The handler of every consumer gets only the first event of
    /// each frame and remembers it as the whole frame.
    FirstOfFrame,
    /// A service whose database came back as it was earlier serves at once.
    TrustedPast,
    /// A producer removes the newest event of an aggregate like any other. The versions that it looks up are too high
    /// by one.
    ForgetsNewest,
    /// The claim of a move that was not committed is never given back. A trigger in Screening's database stops watching
    /// the later claims of a booking, as if a booking that exists had settled all of them.
    LeakedMove,
    /// A move is committed with a claim that was fenced, and so given back. Screening decides about moves by rules that
    /// do not look at the fenced generation.
    CommitFencedMove,
    /// A place that is given back passes on later than in the transaction that gives it back. The handler of Hospital's
    /// consumer of releases sees nobody who waits; the next change of the slot does.
    LatePromotion,
    /// Who joins a queue comes before everybody who waits. A trigger in Hospital's database turns tickets round.
    NewcomerFirst,
    /// A promotion whose booking has no row yet is dropped. A trigger in Screening's database stops watching the claims
    /// of a booking that is written as WAITLISTED, as if that settled them.
    DroppedPromotion,
    /// A booking above the limit of its hospital is made. Screening decides by rules that see no limit.
    NoLimit,
}

impl Mutant {
    /// All mutants.
    pub const ALL: [Self; 20] = [
        Self::NoFence,
        Self::NoTombstone,
        Self::ReplayTwice,
        Self::ConfirmWithoutGuard,
        Self::PublishBeforeCommit,
        Self::AckBeforeCommit,
        Self::WatermarkRelay,
        Self::LeaseWithoutEpoch,
        Self::BlindCursor,
        Self::TrustedConnection,
        Self::TrustedStream,
        Self::FirstOfFrame,
        Self::TrustedPast,
        Self::ForgetsNewest,
        Self::LeakedMove,
        Self::CommitFencedMove,
        Self::LatePromotion,
        Self::NewcomerFirst,
        Self::DroppedPromotion,
        Self::NoLimit,
    ];

    /// The number of seeds, from 1 on, that must find the mutant: at least five times the average, because the
    /// behaviour of a seed changes with the code. `None` for the blind cursor: 50 seeds did not find it, and it is
    /// unknown how many would.
    #[must_use]
    pub const fn found_within(self) -> Option<u64> {
        match self {
            Self::ReplayTwice | Self::TrustedPast | Self::ForgetsNewest | Self::LatePromotion | Self::NewcomerFirst => {
                Some(30)
            }
            Self::NoFence
            | Self::NoTombstone
            | Self::ConfirmWithoutGuard
            | Self::PublishBeforeCommit
            | Self::AckBeforeCommit
            | Self::WatermarkRelay
            | Self::LeaseWithoutEpoch
            | Self::TrustedConnection
            | Self::TrustedStream
            | Self::FirstOfFrame
            | Self::LeakedMove
            | Self::CommitFencedMove
            | Self::DroppedPromotion
            | Self::NoLimit => Some(200),
            Self::BlindCursor => None,
        }
    }

    /// Whether only runs with queues can find it.
    #[must_use]
    pub const fn is_in_queues(self) -> bool {
        matches!(self, Self::LatePromotion | Self::NewcomerFirst | Self::DroppedPromotion)
    }

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFence => "no-fence",
            Self::NoTombstone => "no-tombstone",
            Self::ReplayTwice => "replay-twice",
            Self::ConfirmWithoutGuard => "confirm-without-guard",
            Self::PublishBeforeCommit => "publish-before-commit",
            Self::AckBeforeCommit => "ack-before-commit",
            Self::WatermarkRelay => "watermark-relay",
            Self::LeaseWithoutEpoch => "lease-without-epoch",
            Self::BlindCursor => "blind-cursor",
            Self::TrustedConnection => "trusted-connection",
            Self::TrustedStream => "trusted-stream",
            Self::FirstOfFrame => "first-of-frame",
            Self::TrustedPast => "trusted-past",
            Self::ForgetsNewest => "forgets-newest",
            Self::LeakedMove => "leaked-move",
            Self::CommitFencedMove => "commit-fenced-move",
            Self::LatePromotion => "late-promotion",
            Self::NewcomerFirst => "newcomer-first",
            Self::DroppedPromotion => "dropped-promotion",
            Self::NoLimit => "no-limit",
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mutant| mutant.name() == text);
        found.ok_or_else(|| format!("a mutant is one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}
