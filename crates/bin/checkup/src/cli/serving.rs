//! The commands that serve.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::{ADDR, ConfigArgs, DATA_DIR, ListenArgs, MESH_DIR};
use crate::service::Service;

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
    /// Where the data is, one SQLite file a service and the signing key; made when it is not there. One process at a
    /// time
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// `--addr`, `--admin-addr` and `--allow-remote`: loopback only, unless the last one is there.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Services to leave out: hospital, screening, reservation, mypage, marketing
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub without: Vec<Service>,
    /// `--config` and `--set`: a file over the defaults, and keys over the file and the environment.
    #[command(flatten)]
    pub config: ConfigArgs,
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
    /// `--addr`, `--admin-addr` and `--allow-remote`: loopback only, unless the last one is there.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// `--config` and `--set`: a file over the defaults, and keys over the file and the environment.
    #[command(flatten)]
    pub config: ConfigArgs,
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

/// How many replicas of a service run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// The service to run.
    pub service: Service,
    /// The number of replicas, 1 to 9.
    pub count: usize,
}

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, count) = text.split_once('=').ok_or("write NAME=N, for example hospital=3")?;
        let count = count.parse().ok().filter(|count| (1..=9).contains(count));
        Ok(Self { service: service.parse()?, count: count.ok_or("a service runs 1 to 9 times")? })
    }
}
