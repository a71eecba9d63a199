//! The commands that call running processes, and the tokens that callers need.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bench::{Item, Order, Topology};
use clap::Args;
use runtime::identity::{Hospitals, Role};

use super::{ConfigArgs, DATA_DIR, TargetArgs};
use crate::service::Service;

const TOKEN_EXAMPLES: &str = "\
Examples:
  checkup token --role customer --subject kim
  checkup token --role admin --subject lee --hospitals seoul-clinic,busan-clinic --ttl 30m
  AUDITOR=$(checkup token --role auditor --subject kang)
  grpcurl -plaintext -H \"authorization: Bearer $AUDITOR\" 127.0.0.1:8080 \\
    checkup.screening.v1.ScreeningService/ListScreenings

Prints the bare token and nothing else. It is signed with the key of the data directory, so every process on that directory \
accepts it, also one that is running now. A directory without a key gets one. A token has 4,096 bytes at most, which is room for \
40 hospitals whose ids have 63 letters, or 140 whose have 16; an admin of more is made one of all, with --hospitals '*'.

Exit status: 0; 1 where the key cannot be used or the token cannot be printed; 64 for a wrong command line.";

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

const JWKS_EXAMPLES: &str = "\
Examples:
  checkup jwks --data-dir data > jwks.json
  checkup serve hospital --set identity.jwks_file=jwks.json --config mesh.toml
  kubectl create configmap checkup-jwks --from-file=jwks.json

Prints a JWKS document: for processes that accept tokens and must not be able to make them, and for a gateway or a mesh that \
checks tokens itself. A directory without a key gets one.

Exit status: 0; 1 where the key cannot be used; 64 for a wrong command line.";

/// `checkup jwks`.
#[derive(Debug, Clone, Args)]
#[command(after_help = JWKS_EXAMPLES)]
pub struct JwksArgs {
    /// The directory with the signing key
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
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
    /// `--addr` of the process, and `--data-dir` or `--token` to be let in.
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
  checkup verify --data-dir data-mesh --config data-mesh/mesh.toml
  checkup verify --json | jq '.disagreements[]'

Reads as an auditor, over gRPC: every slot and its claims from Hospital, every booking from Screening, every row from \
Reservation, the page of every customer from MyPage. Bookings may go on meanwhile: what does not agree is read again, and \
counts only if it still does not agree when --settle has passed. A service that is not there is skipped, and said so. Where tokens \
are made with the key of --data-dir, what the services said is also looked up in the files of that directory. With the \
--config of a mesh, verify also reads the outboxes and the stream, and finds events that the broker lost.

--json prints one object: `ok`, `read` (rows by kind), `skipped`, `moving` (what changed at every look and was not judged), \
`stream` (`events`, and `empty` sequences between them) and `disagreements`, each with `rule`, `subject` and `detail`. Rules: capacity-holds, counts-are-claims, claims-are-bookings, \
deleted-is-empty, one-booking-a-date, reservations-follow, pages-follow, served-is-stored; past-is-whole, where a database of --data-dir is \
older than the others; and stream-is-whole, where the stream lacks events.

Exit status: 0 where everything that was read agrees; 1 where it does not, or could not be read; 64 for a wrong command line.";

/// `checkup verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// `--addr` of the process, and `--data-dir` or `--token` to be let in.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How long a disagreement may take to go away by itself: events may be on their way
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = humantime::parse_duration)]
    pub settle: Duration,
    /// Prints JSON instead of lines
    #[arg(long)]
    pub json: bool,
    /// `--config` and `--set`: a file over the defaults, and keys over the file and the environment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  checkup bench P1
  checkup bench P3 P9 --topology embedded --seconds 2
  checkup bench P2 --without reservation,mypage,marketing --set hospital.batch=64
  checkup bench all --write docs/measurements/benchmarks.md
  checkup bench P3 --order random --seed 7 --seconds 2
  checkup bench P4 --json - | jq '.sections[].figures[] | select(.met == false)'

What can be measured; where a topology is not named, at every place it has:
  P1  mesh, embedded  a place on one hot slot, against one transaction a request
  P2  mesh            a whole booking on PostgreSQL, against a hello-world call
  P3  embedded        a whole booking on SQLite, against a hello-world call
  P4  embedded, mesh  a flash sale, against a hello-world call
  P5  embedded, mesh  how long a cancelled place takes to be free, and a booking to be on my page
  P6  embedded, mesh  a hospital with many bookings is deleted under load
  P7  mesh            a page of every list at many rows, against the first page at few
  P8  embedded, mesh  idle memory of a service, and its start
  P9  embedded, mesh  one caller, one booking, against the disk
  growth  embedded    a million bookings: rate, memory, pages, verify, rebuild, deletion
  curves              rate against callers and latency against rate, for the plots
  scale   mesh        a booking with more replicas and more hot slots, against a model

Starts processes of its own, in temporary directories, and ends them; Ctrl-C does too. Every ratio is taken by turns, at least \
five pairs, and shown with its median and its ends: trust ratios, absolute figures move with the machine's other load. Rates \
come from a closed loop, latencies of an open one count from the time at which a call was due. A mesh needs PostgreSQL and \
nats-server; `make tools` installs them.

P2 and P3 measure customers in sequential order, in which every index by customer is appended to, and in random order, by turns. \
The others have customers in random order. With --order every measurement has that order only, and P2 and P3 are quicker. The \
same two measure request_ids of version 4, which most client libraries make, against version 7, which all other callers here \
make. Both report the CPU time of a booking in H, the CPU time of a hello-world call in the same pair with its caller's part: it \
moves least with the machine's other load, so compare that first. To compare two builds, run each with the same order and seed, by turns.

What cannot be measured is named at the end, and does not keep the rest from being shown and written.

--json prints one object: `machine`, `settings`, `failed` and `sections`, each with `item`, `topology`, `figures` (`values`, `goal`, `met`), \
`sides` (`rate`, `p50_ms`, `p99_ms`, `p999_ms`), `rows` and `notes`.

Exit status: 0, also where a goal is not met; 1 where something could not be measured, or a figure is what no noise explains (P1 \
below 8 times, P4 not exactly its places, P7 above 3 times); 64 for a wrong command line.";

/// `checkup bench`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    /// Goals P1 to P9, growth, curves, scale, or all [default: all]
    #[arg(value_name = "WHAT")]
    pub items: Vec<BenchItem>,
    /// How the services run: embedded or mesh [default: each that the goal has]
    #[arg(long, value_name = "HOW")]
    pub topology: Option<Topology>,
    /// Pairs of a measurement and its baseline
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(5..=100))]
    pub pairs: u32,
    /// How long each side of a pair is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Connections that the callers share, to the baseline's server too
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// P7: rows of a list [default: 1000000; 10000 with --short]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    pub rows: Option<u64>,
    /// P6: bookings of the hospital [default: 100000; 500 with --short]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub bookings: Option<u32>,
    /// The only order of customers: sequential or random [default: both where they are compared, else random]
    #[arg(long, value_name = "ORDER")]
    pub order: Option<Order>,
    /// Decides the names of customers in random order; the report names it [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Services to leave out where a measurement can do without: reservation, mypage, marketing
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub without: Vec<Service>,
    /// Sets one configuration key of every service; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Small sizes and short turns: shows that everything can be measured, and what is broken beyond noise
    #[arg(long, conflicts_with = "seconds")]
    pub short: bool,
    /// Writes JSON to this file; to standard output, instead of the tables, with -
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the tables as Markdown to this file, the plots beside it
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Serves the call that does nothing; what the baselines run
    #[arg(long, value_name = "HOST:PORT", hide = true)]
    pub serve_hello: Option<SocketAddr>,
}

/// What the command line can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchItem {
    /// Every item.
    All,
    /// One item.
    One(Item),
}

impl FromStr for BenchItem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}
