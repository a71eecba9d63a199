//! `checkup up`: runs the whole product in one process, with its data in one directory.

use std::time::Instant;

use runtime::telemetry;

use crate::cli::UpArgs;
use crate::config::Sources;
use crate::data_dir::DataDir;
use crate::exit::{Exit, Failure};
use crate::host::{self, Plan};
use crate::identity::{self, OwnTokens};
use crate::service::Service;

/// Runs until a signal asks it to stop, or until something fails that the process needs.
///
/// # Errors
/// Fails if the process cannot start or cannot go on.
pub async fn run(args: UpArgs, started: Instant) -> Result<Exit, Failure> {
    let settings = Sources::of_process(&args.config).settings()?;
    let elsewhere = settings.databases.keys().next();
    if let Some(service) = elsewhere {
        let help = "`up` has its data in --data-dir; run `checkup serve` with that database";
        return Err(Failure::usage(format!("{service}.database is set, and {help}")));
    }
    if settings.events.is_some() {
        return Err(Failure::usage("events.nats is set, and `up` needs no broker; run `checkup serve` with it"));
    }
    let services = Service::all_but(&args.without);
    if services.is_empty() {
        return Err(Failure::usage("--without leaves no service to run"));
    }
    host::refuse_remote(args.listen)?;
    let _telemetry = telemetry::init(&settings.telemetry);
    let data = DataDir::open(&args.data_dir)?;
    let tokens = OwnTokens::Made(identity::signer(data.path())?);
    let locations = services.iter().map(|service| (*service, data.database(*service))).collect();
    let plan =
        Plan { settings, services, listen: args.listen, locations, data: Some(data), tokens, broker: None, started };
    Box::pin(host::run(plan)).await
}
