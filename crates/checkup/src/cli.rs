//! What can be typed: commands, flags, their defaults and help. What they do is elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, Parser, Subcommand};
use runtime::identity::{Hospitals, Role};

use crate::service::Service;

/// Where the data is when nobody says otherwise.
pub const DATA_DIR: &str = "data";
/// Where a process listens when nobody says otherwise, and where one is looked for.
pub const ADDR: &str = "127.0.0.1:8080";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const STATUSES: &str = "\
Exit status:
  0   all is as it should be
  1   it failed, or it found something that is not as it should be; what, is said in one sentence
  64  the command line or the configuration is wrong; nothing was done";

/// Health-screening reservations: five gRPC services in one process, with the tools to try and to check them.
#[derive(Debug, Parser)]
#[command(name = "checkup", version, styles = STYLES, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = STATUSES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the services on one address, with their data in one directory
    Up(UpArgs),
    /// Prints a token for a caller
    Token(TokenArgs),
    /// Plays the thirteen rows of the scenario against a running process and prints what came back
    Demo(DemoArgs),
    /// Checks that the services of a running process agree on every booking
    Verify(VerifyArgs),
    /// Measures how many bookings a second this machine carries
    Bench(BenchArgs),
    /// Shows or checks the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

const UP_EXAMPLES: &str = "\
Examples:
  checkup up
  checkup up --data-dir /var/lib/checkup --addr 127.0.0.1:9000
  checkup up --without reservation,mypage,marketing
  checkup up --set hospital.batch=64 --set telemetry.filter=debug

The first line on standard output is `checkup is serving on ADDR`, printed once calls are answered; the rest are lines to \
paste into a shell. Logs go to standard error. SIGTERM and Ctrl-C let calls finish; a second one ends the process at once.

A configuration file, and the environment over it, may set every key that `checkup config dump` shows: the variable is \
CHECKUP_ and the key in capitals with two underscores for each dot, CHECKUP_HOSPITAL__BATCH. Flags come last.

Exit status: 0 after a drain; 1 where it cannot start or cannot go on; 64 for a wrong command line or configuration.";

/// `checkup up`.
#[derive(Debug, Clone, Args)]
#[command(after_help = UP_EXAMPLES)]
pub struct UpArgs {
    /// Where the data is, one SQLite file a service and the signing key; made when it is not there. One process at a time
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Where to serve gRPC; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = ADDR)]
    pub addr: SocketAddr,
    /// Where to serve /live, /ready and /metrics; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub admin_addr: SocketAddr,
    /// Services to leave out: hospital, screening, reservation, mypage, marketing
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub without: Vec<Service>,
    /// Configuration file (TOML) over the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Permits addresses that other machines can reach; calls and tokens are not encrypted here
    #[arg(long)]
    pub allow_remote: bool,
}

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

/// Which running process, and how to be let in.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The running process
    #[arg(long, value_name = "HOST:PORT", default_value = ADDR)]
    pub addr: String,
    /// Its data directory, to make tokens with
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, conflicts_with = "tokens")]
    pub data_dir: PathBuf,
    /// Tokens to use instead, where the data directory is out of reach; the role is read from the token
    #[arg(long = "token", value_name = "TOKEN")]
    pub tokens: Vec<String>,
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

const CONFIG_EXAMPLES: &str = "\
Examples:
  checkup config dump
  checkup config dump --set hospital.batch=64
  checkup config check --config /etc/checkup.toml

Exit status: 0; 64 where the configuration is wrong: every mistake is named at once.";

/// `checkup config`.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Checks a configuration without starting anything
    #[command(after_help = CONFIG_EXAMPLES)]
    Check(ConfigArgs),
    /// Prints the configuration that `up` would run with; without flags, the commented default document
    #[command(after_help = CONFIG_EXAMPLES)]
    Dump(ConfigArgs),
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML) over the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}
