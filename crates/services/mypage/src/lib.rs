//! My-page: a customer's own bookings in one read, and a stream of their changes.
//!
//! It is a view folded from Screening's events. It decides nothing about a booking, and booking works while it is down.
//! `domain::mypage` has the fold.

mod app;
mod decode;
mod encode;
mod generation;
mod hub;
mod migration;
mod projection;
mod reactions;
pub mod recovery;
mod rpc;
mod tables;
mod watch;

use std::time::Duration;

use contract::mypage::v1::my_page_service_server::MyPageServiceServer;
use relay::Consumer;
use runtime::Process;
use runtime::config::duration;
use runtime::limited;
use runtime::server::Server;
use serde::{Deserialize, Serialize};
use store::{Database, Location};

pub use crate::generation::{View, Views};
pub use crate::migration::Migrator;

use crate::rpc::Rpc;

/// The service's name, in its database and its metrics. It never changes.
pub const NAME: &str = "mypage";

/// The service's section of the configuration. Intervals below 10 ms count as 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How long a stream may be silent before it sends a heartbeat.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// How long a change is kept for streams that resume.
    #[serde(with = "duration")]
    pub change_age: Duration,
    /// The most changes that are kept, of all customers together.
    pub change_count: u64,
    /// How often old changes are removed.
    #[serde(with = "duration")]
    pub prune_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            change_age: Duration::from_secs(24 * 60 * 60),
            change_count: 100_000,
            prune_interval: Duration::from_secs(60),
        }
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
}

/// What the service gives the process besides its gRPC service.
#[derive(Debug)]
pub struct Service {
    /// The service's database. Its outbox stays empty, because the service publishes no events.
    pub database: Database,
    /// The consumers of other services' events.
    pub consumers: Vec<Consumer>,
    /// The view that answers calls. A rebuild replaces it.
    pub views: Views,
}

/// Opens the database, starts the writer and the pruning of old changes, and adds the gRPC service to the server.
///
/// # Errors
/// Fails if the database cannot be opened or migrated.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, store::Error> {
    let Deps { location, process } = deps;
    let database = Database::open::<Migrator>(&location).await?;
    Ok(build_on(options, database, process, server))
}

/// [`build`] with a database that is open and migrated with [`Migrator`].
pub fn build_on(options: Options, database: Database, process: Process, server: &mut Server) -> Service {
    let views = Views::begin(options, process, database);
    let consumer = views.consumer();
    server.add(limited!(MyPageServiceServer::new(Rpc::new(views.clone(), options.heartbeat.max(MIN_INTERVAL)))));
    Service { database: consumer.database.clone(), consumers: vec![consumer], views }
}
