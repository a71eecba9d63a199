//! Marketing: shows where places run short, and asks a hospital for more.
//!
//! It is built from events alone, and no other service knows of it. It changes no capacity: it proposes, and an admin
//! of the hospital decides. `domain::demand` has the fold.

mod app;
mod decode;
mod encode;
mod migration;
mod projection;
mod propose;
mod reactions;
pub mod recovery;
mod rpc;
mod tables;

use std::time::Duration;

use contract::marketing::v1::marketing_service_server::MarketingServiceServer;
use relay::{Consumer, Projector};
use runtime::Process;
use runtime::client::Replicas;
use runtime::config::duration;
use runtime::identity::TokenSource;
use runtime::limited;
use runtime::server::Server;
use runtime::tasks::Kind;
use serde::{Deserialize, Serialize};
use store::{Database, Location};

pub use crate::migration::Migrator;

use crate::app::Signals;
use crate::projection::DemandProjection;
use crate::propose::Proposals;
use crate::rpc::Rpc;

/// The service's name, in its database, its metrics and its identity. It never changes.
pub const NAME: &str = "marketing";

/// The service's section of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How often rows that are not counted any more are removed. Less than 10 ms counts as 10 ms.
    #[serde(with = "duration")]
    pub prune_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { prune_interval: Duration::from_secs(60) }
    }
}

/// The shortest interval. Zero would keep a core busy for nothing.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// What the service needs from the process.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The database to open.
    pub location: Location,
    /// The process that the service runs in.
    pub process: Process,
    /// The replicas of Hospital.
    pub hospital: Replicas,
    /// The source of the tokens that this service identifies itself with at Hospital.
    pub token: TokenSource,
}

/// What the service gives the process besides its gRPC service.
#[derive(Debug)]
pub struct Service {
    /// The service's database. Its outbox stays empty, because the service publishes no events.
    pub database: Database,
    /// The consumers of other services' events.
    pub consumers: Vec<Consumer>,
}

/// Opens the database, starts the writer and the pruning, and adds the gRPC service to the server.
///
/// # Errors
/// Fails if the database cannot be opened or migrated.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, store::Error> {
    let database = Database::open::<Migrator>(&deps.location).await?;
    Ok(build_on(options, database, deps, server))
}

/// [`build`] with a database that is open and migrated with [`Migrator`].
pub fn build_on(options: Options, database: Database, deps: Deps, server: &mut Server) -> Service {
    let Options { prune_interval } = options;
    let Deps { location: _, process, hospital, token } = deps;
    let (projector, writing) =
        Projector::new(NAME, DemandProjection::new(process.clock), database.clone(), process.clock);
    process.tasks.spawn(Kind::Essential, "marketing-writer", writing);
    process.ready_while_writable(NAME, database.writable());
    let consumers = reactions::consumers(&projector);
    let interval = prune_interval.max(MIN_INTERVAL);
    let pruning = projector.prune_every(interval, "old demand was not removed");
    process.tasks.spawn(Kind::Loop, "marketing-prune", pruning);

    let rpc = Rpc::new(Signals::new(database.clone(), process.clock), Proposals::new(hospital, token));
    server.add(limited!(MarketingServiceServer::new(rpc)));
    Service { database, consumers }
}
