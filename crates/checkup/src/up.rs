//! `checkup up`: the whole product in one process, from the first bind to the last flush.
//!
//! Everything that can go wrong goes wrong before the first line is printed, with one sentence that says what to do.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use contract::hospital::v1 as _;
use runtime::Process;
use runtime::clock::Clock;
use runtime::identity::{Signer, Verifier};
use runtime::lifecycle::{drain_pair, signals};
use runtime::server::Server;
use runtime::tasks::Kind;
use runtime::{admin, metrics, telemetry};

use crate::assembly::{Assembly, Parts};
use crate::cli::UpArgs;
use crate::config::{Settings, Sources};
use crate::data_dir::DataDir;
use crate::exit::{Exit, Failure, chain};
use crate::service::Service;
use crate::welcome::{self, Welcome};
