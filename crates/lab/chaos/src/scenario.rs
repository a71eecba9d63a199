//! The scenarios: what is broken, how long, and how often.

mod broker;
mod clock;
mod commit;
mod damage;
mod deletion;
mod disk;
mod flash;
mod network;
mod older;
mod process;
mod release;
mod storage;
mod twice;

pub use damage::damage;
pub use storage::unsynced;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Error;
use crate::load::Pressure;
use crate::row::Row;
use crate::run::Plan;

/// The share of moves among the calls of a caller who holds bookings and does not cancel one, in per cent.
const MOVED_PERCENT: u64 = 30;

/// One way to break a mesh or an embedded process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// `kill -9` of one replica of each service in turn.
    Kill,
    /// PostgreSQL is stopped without a checkpoint and started again.
    Postgres,
    /// A replica of Hospital is stopped by SIGSTOP in the middle of a transaction.
    Freeze,
    /// Nothing passes between Screening and Hospital: in one direction, in the other, in both.
    Partition,
    /// The broker is down for a while.
    NatsDown,
    /// Repeated `kill -9` of the broker.
    NatsKill,
    /// The broker loses all its data.
    NatsWipe,
    /// The broker loses events in the middle of its stream that no view has read.
    NatsGap,
    /// Every event is published again as another message.
    Twice,
    /// Commits take effect, but their answers are lost.
    Commit,
    /// A hospital with many bookings is deleted.
    Deletion,
    /// The clock of one process is five minutes ahead, then five minutes behind; one service after the other.
    Clock,
    /// The disk of PostgreSQL is full.
    Disk,
    /// The stream has events that nobody can read or apply.
    Poison,
    /// Every replica of every service is stopped and started again, one after the other.
    Rolling,
    /// An earlier version is replaced, one replica after the other.
    Upgrade,
    /// A replica of my-page is of an earlier version.
    EarlierView,
    /// Many customers request the same slot at once.
    Flash,
    /// The disk of an embedded process is full.
    EmbeddedFull,
    /// The disk of an embedded process has I/O errors.
    EmbeddedIo,
    /// Syncs of an embedded process fail.
    EmbeddedSync,
    /// Syncs of an embedded process are slow.
    EmbeddedSlow,
    /// An embedded process is stopped by SIGSTOP.
    EmbeddedPause,
    /// `kill -9` of an embedded process while its disk fails.
    EmbeddedKill,
    /// `kill -9` of an embedded process while a write-ahead log is copied into its database.
    EmbeddedCheckpoint,
    /// Repeated power failures of an embedded process: what was not synced is lost.
    EmbeddedPower,
    /// A hospital with many bookings is deleted in an embedded process.
    EmbeddedDeletion,
    /// Many customers request the same slot of an embedded process at once.
    EmbeddedFlash,
    /// The clock of an embedded process is five minutes ahead, then five minutes behind.
    EmbeddedClock,
    /// An embedded process is ended by SIGTERM and started again, repeatedly.
    EmbeddedRestart,
    /// Repeated power failures of PostgreSQL.
    PostgresPower,
    /// The disk of one MyPage replica is full.
    MyPageFull,
    /// Hospital's database is restored to an older state than the others'.
    OlderHospital,
    /// Screening's database is restored to an older state than the others'.
    OlderScreening,
    /// Reservation's database is restored to an older state than the others'.
    OlderReservation,
}

/// How long a scenario takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Seconds, with little load.
    Short,
    /// Minutes, with faults as long as the system promises to survive.
    Full,
}

impl Scenario {
    /// Every scenario, in the order in which they are played.
    pub const ALL: [Self; 35] = [
        Self::Kill,
        Self::Postgres,
        Self::Freeze,
        Self::Partition,
        Self::NatsDown,
        Self::NatsKill,
        Self::NatsWipe,
        Self::NatsGap,
        Self::Twice,
        Self::Commit,
        Self::Deletion,
        Self::Clock,
        Self::Disk,
        Self::Poison,
        Self::Rolling,
        Self::Upgrade,
        Self::EarlierView,
        Self::Flash,
        Self::EmbeddedFull,
        Self::EmbeddedIo,
        Self::EmbeddedSync,
        Self::EmbeddedSlow,
        Self::EmbeddedPause,
        Self::EmbeddedKill,
        Self::EmbeddedCheckpoint,
        Self::EmbeddedPower,
        Self::EmbeddedDeletion,
        Self::EmbeddedFlash,
        Self::EmbeddedClock,
        Self::EmbeddedRestart,
        Self::PostgresPower,
        Self::MyPageFull,
        Self::OlderHospital,
        Self::OlderScreening,
        Self::OlderReservation,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Postgres => "postgres",
            Self::Freeze => "freeze",
            Self::Partition => "partition",
            Self::NatsDown => "nats-down",
            Self::NatsKill => "nats-kill",
            Self::NatsWipe => "nats-wipe",
            Self::NatsGap => "nats-gap",
            Self::Twice => "twice",
            Self::Commit => "commit",
            Self::Deletion => "deletion",
            Self::Clock => "clock",
            Self::Disk => "disk",
            Self::Poison => "poison",
            Self::Rolling => "rolling",
            Self::Upgrade => "upgrade",
            Self::EarlierView => "earlier-view",
            Self::Flash => "flash",
            Self::EmbeddedFull => "embedded-full",
            Self::EmbeddedIo => "embedded-io",
            Self::EmbeddedSync => "embedded-sync",
            Self::EmbeddedSlow => "embedded-slow",
            Self::EmbeddedPause => "embedded-pause",
            Self::EmbeddedKill => "embedded-kill",
            Self::EmbeddedCheckpoint => "embedded-checkpoint",
            Self::EmbeddedPower => "embedded-power",
            Self::EmbeddedDeletion => "embedded-deletion",
            Self::EmbeddedFlash => "embedded-flash",
            Self::EmbeddedClock => "embedded-clock",
            Self::EmbeddedRestart => "embedded-restart",
            Self::PostgresPower => "postgres-power",
            Self::MyPageFull => "mypage-full",
            Self::OlderHospital => "older-hospital",
            Self::OlderScreening => "older-screening",
            Self::OlderReservation => "older-reservation",
        }
    }

    /// A description in one line.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a replica of each service in turn",
            Self::Postgres => "PostgreSQL stopped immediate and restarted",
            Self::Freeze => "SIGSTOP of a Hospital replica in mid-transaction",
            Self::Partition => "partition Screening–Hospital: each way, and both",
            Self::NatsDown => "NATS down",
            Self::NatsKill => "kill -9 of NATS, again and again",
            Self::NatsWipe => "NATS killed and its volume wiped",
            Self::NatsGap => "NATS loses events that no view has read",
            Self::Twice => "every event published again under a new message id",
            Self::Commit => "commits applied, their answers cut off",
            Self::Deletion => "a hospital with many bookings deleted",
            Self::Clock => "the clock of one process 5 min ahead, then behind",
            Self::Disk => "the databases' disk full",
            Self::Poison => "events nobody can read or apply",
            Self::Rolling => "rolling restart of every service, 2 replicas each",
            Self::Upgrade => "an earlier version replaced, replica by replica (needs --before)",
            Self::EarlierView => "my-page of an earlier version beside this one (needs --before)",
            Self::Flash => "flash sale: one slot, everybody at once",
            Self::EmbeddedFull => "embedded: the disk full",
            Self::EmbeddedIo => "embedded: I/O errors",
            Self::EmbeddedSync => "embedded: syncs failing",
            Self::EmbeddedSlow => "embedded: a slow disk",
            Self::EmbeddedPause => "embedded: SIGSTOP",
            Self::EmbeddedKill => "embedded: kill -9 while the disk is full, broken, does not sync",
            Self::EmbeddedCheckpoint => "embedded: kill -9 while a log is copied into its file",
            Self::EmbeddedPower => "embedded: the power fails, again and again",
            Self::EmbeddedDeletion => "embedded: a hospital with many bookings deleted",
            Self::EmbeddedFlash => "embedded: flash sale: one slot, everybody at once",
            Self::EmbeddedClock => "embedded: the clock 5 min ahead, then behind",
            Self::EmbeddedRestart => "embedded: SIGTERM and started again, over and over",
            Self::PostgresPower => "the power of PostgreSQL fails",
            Self::MyPageFull => "the disk of a MyPage replica full",
            Self::OlderHospital => "Hospital's database comes back older than the others'",
            Self::OlderScreening => "Screening's database comes back older than the others'",
            Self::OlderReservation => "Reservation's database comes back older than the others'",
        }
    }

    /// The scenario's own plan.
    #[must_use]
    pub fn plan(self, form: Form, binary: PathBuf, seed: u64) -> Plan {
        let seconds = Duration::from_secs;
        let full = form == Form::Full;
        let (fault, rounds) = match (self, full) {
            (Self::NatsDown, true) => (seconds(60), 1),
            (Self::NatsDown, false) => (seconds(4), 1),
            (Self::NatsKill, true) => (seconds(1), 25),
            (Self::NatsKill, false) => (Duration::from_millis(300), 5),
            (Self::Commit, true) => (Duration::from_millis(400), 50),
            (Self::Commit, false) => (Duration::from_millis(200), 8),
            (Self::Postgres, true) => (seconds(0), 3),
            (Self::NatsWipe, true) => (seconds(5), 2),
            (Self::Kill, true) => (seconds(2), 1),
            (Self::EmbeddedPower, true) => (Duration::from_millis(600), 200),
            (Self::EmbeddedPower, false) => (Duration::from_millis(300), 8),
            (Self::EmbeddedRestart, true) => (seconds(2), 20),
            (Self::EmbeddedRestart, false) => (Duration::from_millis(500), 3),
            (Self::PostgresPower, true) => (seconds(3), 20),
            (Self::PostgresPower, false) => (Duration::from_millis(800), 4),
            (Self::EmbeddedKill, true) => (seconds(2), 30),
            (Self::EmbeddedKill, false) => (Duration::from_millis(300), 6),
            (Self::EmbeddedCheckpoint, true) => (Duration::from_millis(200), 20),
            (Self::EmbeddedCheckpoint, false) => (Duration::from_millis(100), 4),
            (Self::OlderHospital | Self::OlderScreening | Self::OlderReservation, true) => (seconds(60), 1),
            (_, true) => (seconds(10), 1),
            (Self::Partition, false) => (seconds(2), 1),
            (_, false) => (seconds(1), 1),
        };
        let bookings = match (self, full) {
            (Self::Deletion | Self::EmbeddedDeletion, true) => 100_000,
            (Self::Deletion | Self::EmbeddedDeletion, false) => 600,
            (_, true) => 50_000,
            (_, false) => 1_500,
        };
        Plan {
            binary,
            before: None,
            pressure: if full {
                Pressure { rate: 1_200.0, callers: 256, moved_percent: MOVED_PERCENT }
            } else {
                Pressure { rate: 200.0, callers: 24, moved_percent: MOVED_PERCENT }
            },
            warm_up: if full { seconds(5) } else { Duration::from_millis(1_500) },
            steady: if full { seconds(5) } else { Duration::from_millis(700) },
            least: if full { 1_000.0 } else { 0.0 },
            fault,
            after: if full { seconds(8) } else { Duration::from_millis(1_200) },
            rounds,
            bookings,
            settle: seconds(if full { 600 } else { 60 }),
            keep: true,
            seed,
        }
    }

    /// Plays the scenario.
    ///
    /// # Errors
    /// If it could not be played. Violations are in the row.
    pub async fn run(self, plan: &Plan) -> Result<Row, Error> {
        let name = self.name();
        match self {
            Self::Kill => process::kill(name, plan).await,
            Self::Postgres => process::postgres(name, plan).await,
            Self::Freeze => process::freeze(name, plan).await,
            Self::Partition => network::partition(name, plan).await,
            Self::NatsDown => broker::down(name, plan).await,
            Self::NatsKill => broker::kill(name, plan).await,
            Self::NatsWipe => broker::wipe(name, plan).await,
            Self::NatsGap => broker::gap(name, plan).await,
            Self::Twice => twice::twice(name, plan).await,
            Self::Commit => commit::commit(name, plan).await,
            Self::Deletion => deletion::deletion(name, plan).await,
            Self::Clock => clock::clock(name, plan).await,
            Self::Disk => disk::disk(name, plan).await,
            Self::Poison => twice::poison(name, plan).await,
            Self::Rolling => process::rolling(name, plan).await,
            Self::Upgrade => release::upgrade(name, plan).await,
            Self::EarlierView => release::earlier_view(name, plan).await,
            Self::Flash => flash::flash(name, plan).await,
            Self::EmbeddedFull => storage::full(name, plan).await,
            Self::EmbeddedIo => storage::io(name, plan).await,
            Self::EmbeddedSync => storage::sync(name, plan).await,
            Self::EmbeddedSlow => storage::slow(name, plan).await,
            Self::EmbeddedPause => storage::pause(name, plan).await,
            Self::EmbeddedKill => storage::kill(name, plan).await,
            Self::EmbeddedCheckpoint => storage::checkpoint(name, plan).await,
            Self::EmbeddedPower => storage::power(name, plan).await,
            Self::EmbeddedDeletion => deletion::embedded(name, plan).await,
            Self::EmbeddedFlash => flash::embedded(name, plan).await,
            Self::EmbeddedClock => clock::embedded(name, plan).await,
            Self::EmbeddedRestart => process::embedded(name, plan).await,
            Self::PostgresPower => storage::postgres_power(name, plan).await,
            Self::MyPageFull => storage::my_page(name, plan).await,
            Self::OlderHospital => older::older(name, plan, "hospital").await,
            Self::OlderScreening => older::older(name, plan, "screening").await,
            Self::OlderReservation => older::older(name, plan, "reservation").await,
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scenario| scenario.name() == text);
        let names = || Self::ALL.map(Self::name).join(", ");
        found.ok_or_else(|| format!("there is no scenario {text}; there are {}", names()))
    }
}
