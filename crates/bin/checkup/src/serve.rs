//! `checkup serve`: runs some services of a mesh, with their data in databases and their events through a broker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use runtime::telemetry;
use store::Location;

use crate::cli::ServeArgs;
use crate::config::{Settings, Sources};
use crate::data_dir::DataDir;
use crate::exit::{Exit, Failure};
use crate::host::{self, Plan};
use crate::identity::OwnTokens;
use crate::service::Service;

/// Runs until a signal asks it to stop, or until something fails that the process needs.
///
/// # Errors
/// Fails if the process cannot start or cannot go on.
pub async fn run(args: ServeArgs, started: Instant) -> Result<Exit, Failure> {
    let settings = Sources::of_process(&args.config).settings()?;
    let services: BTreeSet<Service> = args.services.iter().copied().collect();
    let Some(mut broker) = settings.events.clone() else {
        let help = "set events.nats, for example --set events.nats=nats://127.0.0.1:4222; `checkup up` needs none";
        return Err(Failure::usage(format!("services that run apart need a broker; {help}")));
    };
    for (service, configured) in &settings.hospitals {
        if services.contains(service) && configured.is_empty() && !services.contains(&Service::Hospital) {
            return Err(Failure::usage(format!(
                "{service} calls Hospital, which is not in this process; set {service}.hospital_address"
            )));
        }
    }
    broker.owns_stream = services.iter().any(|service| service.row().relay.is_some());
    host::refuse_remote(args.listen)?;
    let _telemetry = telemetry::init(&settings.telemetry);
    let tokens = OwnTokens::configured(&settings.identity)?;
    let in_files = services.iter().any(|service| !settings.databases.contains_key(service));
    let data = in_files.then(|| DataDir::open(&args.data_dir)).transpose()?;
    let locations = locations(&services, &settings, data.as_ref());
    let plan = Plan { settings, services, listen: args.listen, locations, data, tokens, broker: Some(broker), started };
    Box::pin(host::run(plan)).await
}

/// The database of each service: the configured one, or a file of the directory.
fn locations(services: &BTreeSet<Service>, settings: &Settings, data: Option<&DataDir>) -> BTreeMap<Service, Location> {
    let location = |service: &Service| {
        let configured = settings.databases.get(service).cloned();
        configured.or_else(|| data.map(|data| data.database(*service)))
    };
    services.iter().filter_map(|service| Some((*service, location(service)?))).collect()
}
