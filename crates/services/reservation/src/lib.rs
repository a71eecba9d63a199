//! The reservation ledger: what became of every booking, with its whole history.
//!
//! It folds Screening's events and publishes its own. It has no rules of booking, and booking works while it is down.
//! `domain::reservation` has the fold.

mod app;
mod decode;
mod encode;
mod migration;
mod projection;
mod reactions;
pub mod recovery;
mod rpc;
mod tables;

use std::sync::Arc;

use contract::reservation::v1::reservation_service_server::ReservationServiceServer;
use relay::{Consumer, Projector};
use runtime::Process;
use runtime::limited;
use runtime::server::Server;
use runtime::tasks::Kind;
use serde::{Deserialize, Serialize};
use store::{Database, Location};

pub use crate::migration::Migrator;

use crate::app::ReservationReader;
use crate::projection::ReservationProjection;
use crate::rpc::Rpc;
use crate::tables::versions::TableVersions;

/// The service's name, in its database, its metrics and its events. It never changes.
pub const NAME: &str = "reservation";

/// The service's section of the configuration, which is empty so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {}

/// What the service needs from the process.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The database to open.
    pub location: Location,
    /// The process that the service runs in.
    pub process: Process,
}

/// What the service gives the process besides its gRPC service.
#[derive(Debug)]
pub struct Service {
    /// The service's database. Its outbox is the log that others read.
    pub database: Database,
    /// The consumers of other services' events.
    pub consumers: Vec<Consumer>,
    /// The newest versions of what its events report.
    pub versions: Arc<dyn relay::Versions>,
}

/// Opens the database, starts the writer and adds the gRPC service to the server.
///
/// # Errors
/// Fails if the database cannot be opened or migrated.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, store::Error> {
    let Deps { location, process } = deps;
    let database = Database::open::<Migrator>(&location).await?;
    Ok(build_on(options, database, &process, server))
}

/// [`build`] with a database that is open and migrated with [`Migrator`].
pub fn build_on(options: Options, database: Database, process: &Process, server: &mut Server) -> Service {
    let Options {} = options;
    let (projector, writing) =
        Projector::new(NAME, ReservationProjection::new(process.clock), database.clone(), process.clock);
    process.tasks.spawn(Kind::Essential, "reservation-writer", writing);
    process.ready_while_writable(NAME, database.writable());

    server.add(limited!(ReservationServiceServer::new(Rpc::new(ReservationReader::new(database.clone())))));
    Service { database, consumers: reactions::consumers(&projector), versions: Arc::new(TableVersions) }
}
