//! Hospital: hospitals, the dates they offer, and the places of each date. It owns capacity and nothing else.
//!
//! [`build`] opens its database, starts what goes on in the background, adds HospitalService and CapacityService to a
//! server and declares the consumer that gives places back. Every change goes through one coalescing writer, so the places
//! of a slot are taken and given back one after the other whatever happens around. Bookings, customers and names of people
//! are not known here.

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

use std::sync::Arc;

use contract::hospital::v1::capacity_service_server::CapacityServiceServer;
use contract::hospital::v1::hospital_service_server::HospitalServiceServer;
use runtime::Process;
use runtime::server::Server;
use runtime::tasks::Kind;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use store::{Database, Error, Location, Writer, WriterOptions};

pub use crate::migration::Migrator;

use crate::app::App;
use crate::batch::HospitalBatchHandler;
use crate::rpc::Rpc;

/// The name of this service: of its events, its identity and its metrics.
pub const NAME: &str = "hospital";

/// What can be configured about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Changes that may wait for the writer; one more is refused with OVERLOADED.
    pub queue: usize,
    /// Changes that one transaction takes at most; 1 is one transaction a change.
    pub batch: usize,
}

impl Default for Options {
    fn default() -> Self {
        let WriterOptions { queue, batch } = WriterOptions::default();
        Self { queue, batch }
    }
}

/// What it is built on.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Where its database is.
    pub location: Location,
    /// The process it is part of.
    pub process: Process,
}

/// What it offers besides its gRPC services.
#[derive(Debug)]
pub struct Service {
    /// Its database, whose outbox is this producer's log.
    pub database: Database,
    /// The events it wants.
    pub consumers: Vec<relay::Consumer>,
}

/// Opens the database, starts the writer and the background work, and adds both gRPC services to the server.
///
/// # Errors
/// Where the database cannot be opened.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, Error> {
    let Deps { location, process } = deps;
    let database = Database::open::<Migrator>(&location).await?;
    Ok(build_on(options, database, &process, server))
}

/// [`build`] on a database that is open already, under [`Migrator`].
pub fn build_on(options: Options, database: Database, process: &Process, server: &mut Server) -> Service {
    let Options { queue, batch } = options;
    let handler = HospitalBatchHandler::new(process.clock);
    let (writer, serving) = Writer::new(NAME, handler, database.clone(), WriterOptions { queue, batch });
    process.tasks.spawn(Kind::Essential, "hospital-writer", serving);
    process.ready_while_writable(NAME, database.writable());
    let revocations = Arc::new(Notify::new());
    background::spawn(process, &writer, &database, &revocations);
    let consumers = reactions::consumers(writer.clone(), database.clone());
    let rpc = Rpc::new(App::new(writer, database.clone(), process.clock, revocations));
    server.add(runtime::limited!(HospitalServiceServer::new(rpc.clone())));
    server.add(runtime::limited!(CapacityServiceServer::new(rpc)));
    Service { database, consumers }
}
