//! What can be typed: commands, flags, their defaults and help. What they do is elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, Parser, Subcommand};
use runtime::identity::{Hospitals, Role};

use crate::dead_letters::LetterId;
use crate::service::Service;

/// Where the data is when nobody says otherwise.
pub const DATA_DIR: &str = "data";
/// Where the data of a mesh is when nobody says otherwise.
pub const MESH_DIR: &str = "data-mesh";
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
    /// Runs services of a mesh: their data in PostgreSQL, their events through NATS, as many replicas as you start
    Serve(ServeArgs),
    /// Brings the databases of a mesh up to date, before its services start
    Migrate(MigrateArgs),
    /// Runs a whole mesh on this machine: PostgreSQL, NATS and replicas of every service, behind one address
    Mesh(MeshArgs),
    /// Prints a token for a caller
    Token(TokenArgs),
    /// Plays the thirteen rows of the scenario against a running process and prints what came back
    Demo(DemoArgs),
    /// Checks that the services of a running process agree on every booking
    Verify(VerifyArgs),
    /// Measures how many bookings a second this machine carries
    Bench(BenchArgs),
    /// Shows events that could not be applied, has them applied again, or removes them
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Builds a service's view anew from the events while the old one serves
    Rebuild(RebuildArgs),
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

const SERVE_EXAMPLES: &str = "\
Examples:
  checkup serve hospital --config mesh.toml
  checkup serve screening --config mesh.toml --addr 127.0.0.1:9002 --admin-addr 127.0.0.1:9102
  CHECKUP_MYPAGE__DATABASE=sqlite:/var/lib/mypage.db checkup serve mypage --config mesh.toml

The configuration needs events.nats; the database of every service named here, or else it is a file in --data-dir; \
screening.hospital_address and marketing.hospital_address; and identity.jwks_file or identity.key_dir. `checkup config dump` \
explains them. Run `checkup migrate` first.

The first line on standard output is `checkup is serving on ADDR`, printed once calls are answered. A database server or a \
broker that is away is waited for. A my-page on a new file of its own serves once it has read the events there are. SIGTERM \
and Ctrl-C let calls finish; a second one ends the process at once.

Exit status: 0 after a drain; 1 where it cannot start or cannot go on; 64 for a wrong command line or configuration.";

/// `checkup serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// What to run: hospital, screening, reservation, mypage, marketing
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<Service>,
    /// Where services without a configured database keep a file each. One process at a time
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Where to serve gRPC; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = ADDR)]
    pub addr: SocketAddr,
    /// Where to serve /live, /ready and /metrics; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub admin_addr: SocketAddr,
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

const MIGRATE_EXAMPLES: &str = "\
Examples:
  checkup migrate --config mesh.toml
  checkup migrate hospital --set hospital.database=postgres://postgres@127.0.0.1/hospital

Run again it does nothing, and several at once take turns. Migrations only add, so the services of the version before go on \
meanwhile. The databases have to be there, with the collation C: createdb --template template0 --locale C NAME.

Exit status: 0; 1 where a database cannot be reached or brought up to date; 64 for a wrong command line or configuration.";

/// `checkup migrate`.
#[derive(Debug, Clone, Args)]
#[command(after_help = MIGRATE_EXAMPLES)]
pub struct MigrateArgs {
    /// Whose databases [default: all that are configured]
    #[arg(value_name = "SERVICE")]
    pub services: Vec<Service>,
    /// Configuration file (TOML) over the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

const MESH_EXAMPLES: &str = "\
Examples:
  checkup mesh
  checkup mesh --replicas hospital=3,screening=3 --set hospital.batch=64
  checkup mesh & checkup demo --data-dir data-mesh && checkup verify --data-dir data-mesh

Needs the programs of PostgreSQL 15 or newer and of nats-server 2.12 or newer; `make tools` installs them. The first line on \
standard output is `checkup is serving on ADDR`, printed once every replica serves; then come a line a process, and a line \
whenever one changes. A replica that ends by itself is started again. Ctrl-C stops all of them; the data stays.

Exit status: 0 after a stop; 1 where something is missing or does not start; 64 for a wrong command line.";

/// `checkup mesh`.
#[derive(Debug, Clone, Args)]
#[command(after_help = MESH_EXAMPLES)]
pub struct MeshArgs {
    /// Where data, logs, the signing key and the configuration are; made when it is not there. One mesh at a time
    #[arg(long, value_name = "DIR", default_value = MESH_DIR)]
    pub data_dir: PathBuf,
    /// Where to serve gRPC, for all services; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = ADDR)]
    pub addr: SocketAddr,
    /// How often a service runs [default: hospital=2,screening=2,reservation=1,mypage=2,marketing=1]
    #[arg(long, value_name = "NAME=N,…", value_delimiter = ',')]
    pub replicas: Vec<Replicas>,
    /// Sets one configuration key for every process; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// How often a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// Which.
    pub service: Service,
    /// How often, 1 to 9.
    pub count: usize,
}

impl std::str::FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, count) = text.split_once('=').ok_or("write NAME=N, for example hospital=3")?;
        let count = count.parse().ok().filter(|count| (1..=9).contains(count));
        Ok(Self { service: service.parse()?, count: count.ok_or("a service runs 1 to 9 times")? })
    }
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

const DEAD_LETTERS_EXAMPLES: &str = "\
Examples:
  checkup dead-letters list --data-dir data
  checkup dead-letters show hospital/12 --config data-mesh/mesh.toml
  checkup dead-letters replay hospital/12 hospital/13
  checkup dead-letters replay --all --wait 1m
  checkup dead-letters drop screening/7

Works on the services' databases, while they run or not. An event that was tried in vain ten times is kept here with its bytes \
and the error, and those behind it go on. Replay asks the service's own consumer to try again, which it does within a second; \
an event that others have overtaken meanwhile changes nothing, as its version says. Drop removes for good.

Exit status: 0; 1 where a letter is not there or was not applied; 64 for a wrong command line or configuration.";

/// `checkup dead-letters`.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadLettersCommand {
    /// Lists the dead letters of all services that can be found
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    List {
        /// Which databases.
        #[command(flatten)]
        stores: StoresArgs,
        /// Prints JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Prints one with its event
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    Show {
        /// Which databases.
        #[command(flatten)]
        stores: StoresArgs,
        /// Which letter
        #[arg(value_name = "SERVICE/NUMBER")]
        letter: LetterId,
    },
    /// Has letters applied again
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    Replay {
        /// Which databases.
        #[command(flatten)]
        stores: StoresArgs,
        /// Which letters
        #[arg(value_name = "SERVICE/NUMBER", required_unless_present = "all")]
        letters: Vec<LetterId>,
        /// All of them
        #[arg(long, conflicts_with = "letters")]
        all: bool,
        /// How long to wait for the outcome
        #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = humantime::parse_duration)]
        wait: Duration,
    },
    /// Removes letters for good
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    Drop {
        /// Which databases.
        #[command(flatten)]
        stores: StoresArgs,
        /// Which letters
        #[arg(value_name = "SERVICE/NUMBER", required = true)]
        letters: Vec<LetterId>,
    },
}

/// Where services' databases are looked for.
#[derive(Debug, Clone, Args)]
pub struct StoresArgs {
    /// A data directory, for services that the configuration gives no database
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Configuration file (TOML) over the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

const REBUILD_EXAMPLES: &str = "\
Examples:
  checkup rebuild mypage
  checkup rebuild mypage --data-dir /var/lib/checkup --wait 1h
  for i in 0 1; do checkup rebuild mypage --data-dir data-mesh/mypage-$i; done

Asks the process that runs on the data directory. It reads every event from the first one into a second file, while the first \
one answers; once that has caught up, it takes its place, no call fails, and the old file is removed. Streams end with \
CURSOR_EXPIRED and begin again, for their resume_tokens mean nothing to the new view. Every replica has a directory of its own \
and is asked by itself. Ctrl-C ends the waiting and not the rebuild; the command typed again waits for it on. A process that \
ends in the middle begins with the old view, and has to be asked again.

Exit status: 0 once the new view answers; 1 where nothing runs there, it failed, or --wait was too short; 64 for a wrong command \
line or configuration.";

/// `checkup rebuild`.
#[derive(Debug, Clone, Args)]
#[command(after_help = REBUILD_EXAMPLES)]
pub struct RebuildArgs {
    /// Whose view: mypage
    #[arg(value_name = "SERVICE")]
    pub service: Service,
    /// The data directory of the process that has the view
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// How long to wait for the new view
    #[arg(long, value_name = "SPAN", default_value = "10m", value_parser = humantime::parse_duration)]
    pub wait: Duration,
    /// Configuration file (TOML) over the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
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
