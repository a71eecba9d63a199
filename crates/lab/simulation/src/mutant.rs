//! Bugs that are planted to see whether they are found.

use std::fmt;
use std::str::FromStr;

/// A precaution that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Claims without a booking are released without the fence that a late commit would meet: a trigger in Screening's database
    /// removes the row of every fence as it is written, in the same transaction.
    NoFence,
    /// A release that overtakes its reserve leaves nothing behind: a trigger in Hospital's database removes claims that are RELEASED
    /// from the first.
    NoTombstone,
    /// An event that comes again has its effect again: the handler of Hospital's consumer of releases gives back one more place of
    /// the slot, by its count and without a look at the claim or at the inbox.
    ReplayTwice,
    /// A booking whose place was granted is CONFIRMED whatever became of it meanwhile: Screening decides by rules that confirm rows
    /// which were given up, rejected or cancelled as well.
    ConfirmWithoutGuard,
    /// Events leave before the change that they report is committed: every database hands the outbox rows of a transaction to the
    /// broker and commits then, or does not.
    PublishBeforeCommit,
    /// An event is acknowledged before its effect is committed: the broker counts as settled what it has handed over.
    AckBeforeCommit,
    /// A relay remembers how far it has read instead of which events were acknowledged.
    WatermarkRelay,
    /// A relay marks events whether or not it still has the lease: a trigger in every database keeps the epoch of the lease at 1.
    LeaseWithoutEpoch,
    /// A reader in order goes on from its cursor although the broker lost what the cursor speaks of.
    BlindCursor,
    /// A connection on which a BEGIN, COMMIT or ROLLBACK failed is used again.
    TrustedConnection,
    /// A relay takes a stream of the same name, with its newest event in it, for whole: the broker tells nobody that events before its
    /// end were lost.
    TrustedStream,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
    ];

    /// How many seeds, from the first on, have to be enough to find it: five times and more what it took on average when they were
    /// counted, because what a seed does changes with the code it runs. None for a reader with a blind cursor: it was not found by
    /// 50 seeds, and how many are enough is not known.
    #[must_use]
    pub const fn found_within(self) -> Option<u64> {
        match self {
            Self::ReplayTwice => Some(30),
            Self::NoFence
            | Self::NoTombstone
            | Self::ConfirmWithoutGuard
            | Self::PublishBeforeCommit
            | Self::AckBeforeCommit
            | Self::WatermarkRelay
            | Self::LeaseWithoutEpoch
            | Self::TrustedConnection
            | Self::TrustedStream => Some(200),
            Self::BlindCursor => None,
        }
    }

    /// What command lines call it.
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
