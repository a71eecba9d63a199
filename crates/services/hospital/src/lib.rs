//! Hospital: hospitals, the dates they offer, and the places of each date. It owns capacity and nothing else.
//!
//! [`build`] opens the database, starts the writer and the background work, adds HospitalService and CapacityService to
//! a server, and declares the consumer that gives places back. Every change goes through one coalescing writer, so the
//! places of a slot are taken and given back one after another. It stores no bookings, customers or names of people.

mod app;
mod background;
mod batch;
mod command;
mod decode;
mod encode;
mod in_flight;
mod migration;
mod reactions;
pub mod recovery;
mod rpc;
mod tables;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use contract::capacity::v1::capacity_service_server::{CapacityService, CapacityServiceServer};
use contract::hospital::v1::hospital_service_server::HospitalServiceServer;
use runtime::Process;
use runtime::config::duration;
use runtime::server::Server;
use runtime::tasks::Kind;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use store::{Database, Error, Location, Writer, WriterOptions};

pub use crate::migration::Migrator;

use crate::app::App;
use crate::batch::HospitalBatchHandler;
use crate::rpc::Rpc;
use crate::tables::versions::TableVersions;
use crate::watch::{Board, Watches};

/// The service's name, in its events, its identity and its metrics.
pub const NAME: &str = "hospital";

/// The durable name of the consumer that gives places back.
pub(crate) const CONSUMER: &str = "hospital-releases";

/// The shortest heartbeat. Zero would keep a core busy for nothing.
const MIN_HEARTBEAT: Duration = Duration::from_millis(10);

/// The service's section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Changes that may wait for the writer. When the queue is full, a call is refused with OVERLOADED.
    pub queue: usize,
    /// The most changes that one transaction takes. With 1, every change has a transaction of its own.
    pub batch: usize,
    /// How long a stream may be silent before it sends a heartbeat. Below 10 ms it counts as 10 ms.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let WriterOptions { queue, batch } = WriterOptions::default();
        Self { queue, batch, heartbeat: Duration::from_secs(15) }
    }
}

/// What the service needs from the process.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The database to open.
    pub location: Location,
    /// The process that the service runs in.
    pub process: Process,
}

/// What the service gives the process besides its gRPC services.
pub struct Service {
    /// The service's database. Its outbox is the log that others read.
    pub database: Database,
    /// Its methods about places, for a service of the same process.
    pub places: Arc<dyn CapacityService>,
    /// The consumers of other services' events.
    pub consumers: Vec<relay::Consumer>,
    /// The newest versions of what its events report.
    pub versions: Arc<dyn relay::Versions>,
    /// What its streams are told from: its own events.
    pub follower: relay::Follower,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("database", &self.database).finish_non_exhaustive()
    }
}

/// Opens the database, starts the writer and the background work, and adds both gRPC services to the server.
///
/// # Errors
/// Fails if the database cannot be opened or migrated.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, Error> {
    let Deps { location, process } = deps;
    let database = Database::open::<Migrator>(&location).await?;
    Ok(build_on(options, database, &process, server))
}

/// [`build`] with a database that is open and migrated with [`Migrator`].
pub fn build_on(options: Options, database: Database, process: &Process, server: &mut Server) -> Service {
    let Options { queue, batch, heartbeat } = options;
    let handler = HospitalBatchHandler::new(process.clock);
    let (writer, serving) = Writer::new(NAME, handler, database.clone(), WriterOptions { queue, batch });
    process.tasks.spawn(Kind::Essential, "hospital-writer", serving);
    process.ready_while_writable(NAME, database.writable());
    let revocations = Arc::new(Notify::new());
    background::spawn(process, &writer, &database, &revocations);
    let consumers = reactions::consumers(writer.clone(), database.clone());
    let board = Board::default();
    process.tasks.spawn(Kind::Loop, "hospital-watch", board.clone().tell(database.clone()));
    let follower = board.follower();
    let heartbeat = heartbeat.max(MIN_HEARTBEAT);
    let watches = Watches { board, database: database.clone(), clock: process.clock, heartbeat };
    let rpc = Rpc::new(App::new(writer, database.clone(), process.clock, revocations), watches);
    server.add(runtime::limited!(HospitalServiceServer::new(rpc.clone())));
    let places = Arc::new(rpc.clone());
    server.add(runtime::limited!(CapacityServiceServer::new(rpc)));
    Service { database, places, consumers, versions: Arc::new(TableVersions), follower }
}
