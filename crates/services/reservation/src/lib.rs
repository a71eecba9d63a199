//! The reservation ledger: what became of every booking, with its whole history.
//!
//! It folds Screening's events and announces its own; it owns no rule of booking, and booking goes on while it is down.
//! The fold itself is `domain::reservation`.

mod app;
mod decode;
mod encode;
mod migration;
mod projection;
mod reactions;
pub mod recovery;
mod rpc;
mod tables;

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

/// The service's name, for ever: its database, its metrics and its part in events are called so.
pub const NAME: &str = "reservation";

/// What can be configured: nothing yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {}

/// What it needs of its surroundings.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Where its database is.
    pub location: Location,
    /// The process it runs in.
    pub process: Process,
}

/// A built service.
#[derive(Debug)]
pub struct Service {
    /// Its database, whose outbox is its log of events.
    pub database: Database,
    /// The events it wants.
    pub consumers: Vec<Consumer>,
}

/// Opens the database, starts the writer and adds the gRPC service to the server.
///
/// # Errors
/// Where the database cannot be opened.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, store::Error> {
    let Deps { location, process } = deps;
    let database = Database::open::<Migrator>(&location).await?;
    Ok(build_on(options, database, &process, server))
}

/// [`build`] on a database that is open already, under [`Migrator`].
pub fn build_on(options: Options, database: Database, process: &Process, server: &mut Server) -> Service {
    let Options {} = options;
    let (projector, writing) =
        Projector::new(NAME, ReservationProjection::new(process.clock), database.clone(), process.clock);
    process.tasks.spawn(Kind::Essential, "reservation-writer", writing);
    process.ready_while_writable(NAME, database.writable());

    server.add(limited!(ReservationServiceServer::new(Rpc::new(ReservationReader::new(database.clone())))));
    Service { database, consumers: reactions::consumers(&projector) }
}
