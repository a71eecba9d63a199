//! Bugs that are planted to see whether they are found.

use std::fmt;
use std::str::FromStr;

/// A precaution that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Claims without a booking are released without the fence that a late commit would meet.
    NoFence,
    /// A release that overtakes its reserve leaves nothing behind.
    NoTombstone,
    /// An event is acknowledged before its effect is committed.
    AckBeforeCommit,
    /// A relay remembers how far it has read instead of which events were acknowledged.
    WatermarkRelay,
    /// A relay marks events whether or not it still has the lease.
    LeaseWithoutEpoch,
    /// A reader in order goes on from its cursor although the broker lost what the cursor speaks of.
    BlindCursor,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NoFence,
        Self::NoTombstone,
        Self::AckBeforeCommit,
        Self::WatermarkRelay,
        Self::LeaseWithoutEpoch,
        Self::BlindCursor,
    ];

    /// How many seeds, from the first on, are enough to find it, by experience: what a seed does changes with the code it runs. None
    /// where that is not known: an early acknowledgement shows in one seed of about a hundred, and that a lease has an epoch is
    /// shown by the tests of `store` and `relay` alone, 300 seeds did not.
    #[must_use]
    pub const fn found_within(self) -> Option<u64> {
        match self {
            Self::NoFence | Self::NoTombstone | Self::WatermarkRelay | Self::BlindCursor => Some(150),
            Self::AckBeforeCommit | Self::LeaseWithoutEpoch => None,
        }
    }

    /// What command lines call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFence => "no-fence",
            Self::NoTombstone => "no-tombstone",
            Self::AckBeforeCommit => "ack-before-commit",
            Self::WatermarkRelay => "watermark-relay",
            Self::LeaseWithoutEpoch => "lease-without-epoch",
            Self::BlindCursor => "blind-cursor",
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
