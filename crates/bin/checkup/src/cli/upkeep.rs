//! The commands that maintain databases, views and the configuration.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{ConfigArgs, DATA_DIR};
use crate::service::Service;

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
    /// `--config` and `--set`: a file over the defaults, and keys over the file and the environment.
    #[command(flatten)]
    pub config: ConfigArgs,
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

Exit status: 0; 1 where a dead letter is not there or was not applied; 64 for a wrong command line or configuration.";

/// `checkup dead-letters`.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadLettersCommand {
    /// Lists the dead letters of all services that can be found
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    List {
        /// `--data-dir`, `--config` and `--set`, by which the databases of the services are found.
        #[command(flatten)]
        stores: StoresArgs,
        /// Prints JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Prints a dead letter with its event
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    Show {
        /// `--data-dir`, `--config` and `--set`, by which the databases of the services are found.
        #[command(flatten)]
        stores: StoresArgs,
        /// The dead letter, as `list` names it
        #[arg(value_name = "SERVICE/NUMBER")]
        dead_letter: DeadLetterId,
    },
    /// Has dead letters applied again
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    Replay {
        /// `--data-dir`, `--config` and `--set`, by which the databases of the services are found.
        #[command(flatten)]
        stores: StoresArgs,
        /// The dead letters, as `list` names them
        #[arg(value_name = "SERVICE/NUMBER", required_unless_present = "all")]
        dead_letters: Vec<DeadLetterId>,
        /// Replays every dead letter of all services that can be found
        #[arg(long, conflicts_with = "dead_letters")]
        all: bool,
        /// How long to wait for the outcome
        #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = humantime::parse_duration)]
        wait: Duration,
    },
    /// Removes dead letters for good
    #[command(after_help = DEAD_LETTERS_EXAMPLES)]
    Drop {
        /// `--data-dir`, `--config` and `--set`, by which the databases of the services are found.
        #[command(flatten)]
        stores: StoresArgs,
        /// The dead letters, as `list` names them
        #[arg(value_name = "SERVICE/NUMBER", required = true)]
        dead_letters: Vec<DeadLetterId>,
    },
}

const CONSUMERS_EXAMPLES: &str = "\
Examples:
  checkup consumers list --config data-mesh/mesh.toml
  checkup consumers remove partner-bookings --config data-mesh/mesh.toml

A durable consumer is a team's place in the stream: what it has read and acknowledged. The broker keeps it until it is removed, \
also when the team is gone. Remove it after its last reader has ended: a reader that runs makes it again, and then it begins with \
the first event. The stream and what other teams have read stay as they are. Of the five services' own consumers none is removed.

Exit status: 0; 1 where the broker does not answer, or there is no such consumer; 64 for a wrong command line or configuration.";

/// What `checkup consumers` does with the durable consumers of a stream.
#[derive(Debug, Clone, Subcommand)]
pub enum ConsumersCommand {
    /// Lists the durable consumers of the stream
    #[command(after_help = CONSUMERS_EXAMPLES)]
    List {
        /// `--config` and `--set`: a file over the defaults, and keys over the file and the environment.
        #[command(flatten)]
        config: ConfigArgs,
        /// Prints JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Removes a durable consumer for good
    #[command(after_help = CONSUMERS_EXAMPLES)]
    Remove {
        /// Its name, as `list` shows it
        #[arg(value_name = "NAME")]
        name: String,
        /// `--config` and `--set`: a file over the defaults, and keys over the file and the environment.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// The name of a dead letter, for example `hospital/12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadLetterId {
    /// The service whose database has it.
    pub service: Service,
    /// Its number in that database.
    pub number: i64,
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.number)
    }
}

impl FromStr for DeadLetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, number) =
            text.split_once('/').ok_or("a dead letter is called SERVICE/NUMBER, as `list` shows it")?;
        let number = number.parse().map_err(|_| format!("{number:?} is no number"))?;
        Ok(Self { service: service.parse()?, number })
    }
}

/// Where services' databases are looked for.
#[derive(Debug, Clone, Args)]
pub struct StoresArgs {
    /// A data directory, for services that the configuration gives no database
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// `--config` and `--set`: a file over the defaults, and keys over the file and the environment.
    #[command(flatten)]
    pub config: ConfigArgs,
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
    /// `--config` and `--set`: a file over the defaults, and keys over the file and the environment.
    #[command(flatten)]
    pub config: ConfigArgs,
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
