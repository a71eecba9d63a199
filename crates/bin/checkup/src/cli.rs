//! The command line: commands, flags, their defaults and help. Other modules carry the commands out.

mod safety;
mod serving;
mod tools;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, Parser, Subcommand};

pub use safety::{BackupArgs, RecoverArgs, RestoreArgs};
pub use serving::{MeshArgs, Replicas, ServeArgs, UpArgs};
pub use tools::{BenchArgs, BenchItem, DemoArgs, JwksArgs, TokenArgs, VerifyArgs};
pub use upkeep::{
    ConfigCommand, ConsumersCommand, DeadLetterId, DeadLettersCommand, MigrateArgs, RebuildArgs, StoresArgs,
};

/// The default data directory.
pub const DATA_DIR: &str = "data";
/// The default directory of a mesh.
pub const MESH_DIR: &str = "data-mesh";
/// The default address to serve on and to call.
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
    /// The command, which has flags and help of its own.
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
    /// Prints the public keys that tokens of a data directory are checked with
    Jwks(JwksArgs),
    /// Plays the fifteen rows of the scenario against a running process and prints what came back
    Demo(DemoArgs),
    /// Checks that the services of a running process agree on every booking
    Verify(VerifyArgs),
    /// Measures the services against baselines of the same run: rates, latencies, costs
    Bench(BenchArgs),
    /// Shows events that could not be applied, has them applied again, or removes them
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Shows who reads the events of a mesh, or removes the consumer of a team that leaves
    #[command(subcommand)]
    Consumers(ConsumersCommand),
    /// Builds a service's view anew from the events while the old one serves
    Rebuild(RebuildArgs),
    /// Copies a data directory into an archive while its services run
    Backup(BackupArgs),
    /// Makes a data directory of an archive
    Restore(RestoreArgs),
    /// Mends a service whose database came back older than the others', from what the others know
    Recover(RecoverArgs),
    /// Shows or checks the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Where a process listens.
#[derive(Debug, Clone, Copy, Args)]
pub struct ListenArgs {
    /// Where to serve gRPC; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = ADDR)]
    pub addr: SocketAddr,
    /// Where to serve /live, /ready and /metrics; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub admin_addr: SocketAddr,
    /// Permits addresses that other machines can reach; calls and tokens are not encrypted here
    #[arg(long)]
    pub allow_remote: bool,
}

/// Where a configuration comes from: the defaults, a file, the environment and flags, each over those before it.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML), read over the defaults; the environment comes over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one configuration key, over the file and the environment; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Which running process, and how to be let in.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// Where the running process serves gRPC
    #[arg(long, value_name = "HOST:PORT", default_value = ADDR)]
    pub addr: String,
    /// Its data directory, to make tokens with
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, conflicts_with = "tokens")]
    pub data_dir: PathBuf,
    /// Tokens to use instead, where the data directory is out of reach; the role is read from the token
    #[arg(long = "token", value_name = "TOKEN")]
    pub tokens: Vec<String>,
}
