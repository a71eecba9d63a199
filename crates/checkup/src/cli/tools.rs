//! The commands that call a running process, and what they need.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use runtime::identity::{Hospitals, Role};

use super::{DATA_DIR, TargetArgs};

const TOKEN_EXAMPLES: &str = "\
Examples:
  checkup token --role customer --subject kim
  checkup token --role admin --subject lee --hospitals seoul-clinic,busan-clinic --ttl 30m
  AUDITOR=$(checkup token --role auditor --subject kang)
  grpcurl -plaintext -H \"authorization: Bearer $AUDITOR\" 127.0.0.1:8080 \\
    checkup.screening.v1.ScreeningService/ListScreenings

Prints the bare token and nothing else. It is signed with the key of the data directory, so every process on that directory \
accepts it, also one that is running now. A directory without a key gets one.

Exit status: 0; 1 where the key cannot be used; 64 for a wrong command line.";

/// `checkup token`.
#[derive(Debug, Clone, Args)]
#[command(after_help = TOKEN_EXAMPLES)]
pub struct TokenArgs {
    /// The data directory of the process that is to accept it
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// What its owner is: customer, admin, auditor or service
    #[arg(long)]
    pub role: Role,
    /// Who its owner is: 1 to 63 letters, digits and . _ ~ -; for a customer the last segment of customers/{id}
    #[arg(long, value_name = "ID")]
    pub subject: String,
    /// The hospitals an admin administers: their ids, or * for all and any yet to come [default for an admin: *]
    #[arg(long, value_name = "ID,…")]
    pub hospitals: Option<Hospitals>,
    /// How long it is valid, for example 90s, 30m, 1h or 7d
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
}

const DEMO_EXAMPLES: &str = "\
Examples:
  checkup demo
  checkup demo --addr 127.0.0.1:9000 --data-dir /var/lib/checkup
  checkup demo --token \"$ADMIN\" --token \"$CUSTOMER\" --token \"$OTHER_CUSTOMER\" --token \"$MARKETING\"
  checkup demo --json | jq '.rows[] | select(.outcome != \"ok\")'

Makes a hospital of its own each time, so it can be played again and again on the same data. What travels by events is read \
again until it shows, and the time that took is printed. A row whose caller has no token is skipped.

--json prints one object: `addr`, `ok` and `rows`, each with `row`, `requirement`, `outcome` (ok, failed, skipped), `problem` \
and `calls` (`method`, `answer`, `milliseconds`, `waited`).

Exit status: 0; 1 where a row is not as the contract says or could not be played at all; 64 for a wrong command line.";

/// `checkup demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = DEMO_EXAMPLES)]
pub struct DemoArgs {
    /// Which process.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Prints JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  checkup verify
  checkup verify --addr 127.0.0.1:9000 --data-dir /var/lib/checkup --settle 30s
  checkup verify --json | jq '.disagreements[]'

Reads as an auditor, over gRPC: every slot and its claims from Hospital, every booking from Screening, every row from \
Reservation, the page of every customer from MyPage. Bookings may go on meanwhile: what does not agree is read again, and \
counts only if it still does not agree when --settle has passed. A service that is not there is skipped, and said so.

--json prints one object: `ok`, `read` (rows by ledger), `skipped`, `moving` (what changed at every look and was not judged) and \
`disagreements`, each with `rule`, `subject` and `detail`. Rules: capacity-holds, counts-are-claims, claims-are-bookings, \
deleted-is-empty, one-booking-a-date, reservations-follow, pages-follow.

Exit status: 0 where everything that was read agrees; 1 where it does not, or could not be read; 64 for a wrong command line.";

/// `checkup verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// Which process.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How long a disagreement may take to go away by itself: events may be on their way
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = humantime::parse_duration)]
    pub settle: Duration,
    /// Prints JSON instead of lines
    #[arg(long)]
    pub json: bool,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  checkup bench
  checkup bench --callers 64 --seconds 3 --json
  checkup bench --addr 127.0.0.1:8080 --data-dir data

Without --addr it runs the services in this process, on a temporary directory, and measures on one hot slot, by turns in the \
same run: one transaction a request; the writer that puts waiting requests into one transaction; whole bookings. Both kinds of \
writer use the same code, the same SQLite settings and the same gRPC path. Trust the ratio: the absolute figures move with the \
machine's other load. With --addr it measures whole bookings against that process, in a hospital it makes and deletes again.

--json prints one object: `machine`, `settings` and `results`, each with `what`, `callers`, `rate`, `p50_ms`, `p99_ms`, `calls` \
and `refused`; `ratios` sets coalesced against naive.

Exit status: 0; 1 where something could not be measured; 64 for a wrong command line.";

/// `checkup bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    /// A running process to measure instead of services of its own
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: Option<String>,
    /// The data directory of that process, to make tokens with
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, conflicts_with = "tokens")]
    pub data_dir: PathBuf,
    /// An admin's token to use instead, where the data directory is out of reach
    #[arg(long = "token", value_name = "TOKEN", requires = "addr")]
    pub tokens: Vec<String>,
    /// How many callers wait for an answer at a time, one measurement each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "64,256", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub callers: Vec<u32>,
    /// How long to measure each kind at each number of callers
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Prints JSON instead of a table
    #[arg(long)]
    pub json: bool,
}
