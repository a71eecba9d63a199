//! Marketing: where places run short, and a way to ask a hospital for more.
//!
//! A team of its own that joined later: it is built from the event stream alone, and no other service knows of it. It
//! changes no capacity; it proposes, and the hospital decides. The fold itself is `domain::demand`.

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

/// The service's name, for ever: its database, its metrics and its identity are called so.
pub const NAME: &str = "marketing";

/// What can be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How often rows that count no longer are removed; below 10 ms counts as 10 ms.
    #[serde(with = "duration")]
    pub prune_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { prune_interval: Duration::from_secs(60) }
    }
}

/// An interval of nothing would keep a core busy with doing nothing.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// What it needs of its surroundings.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Where its database is.
    pub location: Location,
    /// The process it runs in.
    pub process: Process,
    /// Where Hospital is.
    pub hospital: Replicas,
    /// What it presents there.
    pub token: TokenSource,
}

/// A built service.
#[derive(Debug)]
pub struct Service {
    /// Its database; it announces nothing, so the outbox stays empty.
    pub database: Database,
    /// The events it wants.
    pub consumers: Vec<Consumer>,
}

/// Opens the database, starts the writer and the removal of what counts no longer, and adds the gRPC service to the server.
///
/// # Errors
/// Where the database cannot be opened.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, store::Error> {
    let database = Database::open::<Migrator>(&deps.location).await?;
    Ok(build_on(options, database, deps, server))
}

/// [`build`] on a database that is open already, under [`Migrator`].
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
