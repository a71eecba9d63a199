//! Screening: the bookings, from request to attendance.
//!
//! It owns the bookings and nothing else. Places belong to Hospital, which grants each of them. Other services follow
//! the bookings by events. The order is claim first, with fences for claims that got no booking: see `domain::booking`.

mod app;
mod batch;
mod decode;
mod encode;
mod hospital_client;
mod migration;
mod reactions;
pub mod recovery;
mod rpc;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use contract::capacity::v1::capacity_service_server::CapacityService;
use contract::screening::v1::screening_service_server::ScreeningServiceServer;
use domain::screening::{Command, Decision, Screening, decide};
use fault::Fault;
use jiff::Timestamp;
use runtime::Process;
use runtime::client::Replicas;
use runtime::identity::TokenSource;
use runtime::server::{InProcess, Server};
use runtime::tasks::Kind;
use serde::Deserialize;
use store::{Database, Location, WriterOptions};

pub use crate::migration::Migrator;

use crate::app::refusals::Refusals;
use crate::app::{App, expiry, reconciler, resolver};
use crate::batch::{ScreeningBatchHandler, ScreeningWriter};
use crate::hospital_client::HospitalClient;
use crate::tables::booking_lookup::BookingLookup;
use crate::tables::screening_lookup::ScreeningLookup;
use crate::tables::versions::TableVersions;

/// The service's name, in its identity, its events and its metrics.
pub const NAME: &str = "screening";

/// The durable name of the consumer of Hospital's claim events.
pub(crate) const CONSUMER: &str = "screening-capacity";

/// The service's section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// How long a call waits for Hospital, at most, before it answers HOSPITAL_UNAVAILABLE. A shorter deadline wins.
    #[serde(with = "runtime::config::duration")]
    pub hospital_timeout: Duration,
    /// How long a single request to Hospital may take before the same request is sent again.
    #[serde(with = "runtime::config::duration")]
    pub hospital_attempt: Duration,
    /// The grace: how long a claim may exist without a booking before it is fenced. A short grace is safe, because a
    /// booking that comes later meets the fence and asks for another place.
    #[serde(with = "runtime::config::duration")]
    pub reconcile_grace: Duration,
    /// The longest pause between two attempts to settle PENDING bookings, and the pause between two looks for
    /// WAITLISTED ones that get no place any more.
    #[serde(with = "runtime::config::duration")]
    pub resolve_pause: Duration,
    /// How often refusals of full slots are reported. The contract promises every 5 s.
    #[serde(with = "runtime::config::duration")]
    pub report_interval: Duration,
    /// Writes that may wait for the writer. When the queue is full, a call is refused with OVERLOADED.
    pub queue: usize,
    /// The most writes that one transaction takes.
    pub batch: usize,
}

impl Default for Options {
    fn default() -> Self {
        let WriterOptions { queue, batch } = WriterOptions::default();
        Self {
            hospital_timeout: Duration::from_secs(5),
            hospital_attempt: Duration::from_secs(2),
            reconcile_grace: Duration::from_secs(2),
            resolve_pause: Duration::from_secs(5),
            report_interval: Duration::from_secs(2),
            queue,
            batch,
        }
    }
}

/// What the service needs from the process.
#[derive(Debug)]
pub struct Deps {
    /// The database to open.
    pub location: Location,
    /// The process that the service runs in.
    pub process: Process,
    /// The replicas of Hospital.
    pub hospital: Replicas,
    /// Its method ReserveCapacity, if it runs in the same process.
    pub places: Option<InProcess<dyn CapacityService>>,
    /// The source of the tokens that this service identifies itself with at Hospital.
    pub token: TokenSource,
}

/// What the service gives the process besides its gRPC service.
#[derive(Debug)]
pub struct Service {
    /// The service's database. Its outbox is the log that others read.
    pub database: Database,
    /// The consumers of other services' events.
    pub consumers: Vec<relay::Consumer>,
    /// The newest versions of what its events report.
    pub versions: Arc<dyn relay::Versions>,
}

/// Decides about a command for a booking. It is `domain::screening::decide`, except in tests that leave a precaution
/// out to see whether they notice.
pub type Rules = fn(Option<&Screening>, &Command, Timestamp) -> Result<Decision, Fault>;

/// Opens the database, starts the writer and the background work, and adds the gRPC service.
///
/// # Errors
/// Fails if the database cannot be opened or migrated.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, store::Error> {
    let database = Database::open::<Migrator>(&deps.location).await?;
    Ok(build_on(options, database, decide, deps, server))
}

/// [`build`] with a database that is open and migrated with [`Migrator`], and with these rules.
pub fn build_on(options: Options, database: Database, rules: Rules, deps: Deps, server: &mut Server) -> Service {
    let Deps { location: _, process, hospital, places, token } = deps;
    let sizes = WriterOptions { queue: options.queue, batch: options.batch };
    let handler = ScreeningBatchHandler::new(process.clock, rules);
    let (writer, writing) = store::Writer::new(NAME, handler, database.clone(), sizes);
    process.tasks.spawn(Kind::Essential, "screening-writer", writing);
    process.ready_while_writable(NAME, database.writable());

    let writer = ScreeningWriter::new(writer);
    let (refusals, reporting) = Refusals::new(writer.clone(), options.report_interval);
    process.tasks.spawn(Kind::Job, "screening-refusals", reporting);

    let (booking_lookup, looking) = store::Lookups::new(BookingLookup, database.clone());
    process.tasks.spawn(Kind::Essential, "screening-lookups", looking);
    let (screening_lookup, reading) = store::Lookups::new(ScreeningLookup, database.clone());
    process.tasks.spawn(Kind::Essential, "screening-reads", reading);

    let app = Arc::new(App {
        hospital: HospitalClient::new(hospital, places, token, options.hospital_attempt, &process.tasks),
        clock: process.clock,
        database: database.clone(),
        in_flight: app::in_flight::InFlight::default(),
        writer: writer.clone(),
        options,
        parked: tokio::sync::Notify::new(),
        refusals,
        screening_lookup,
        booking_lookup,
        tasks: process.tasks.clone(),
    });
    process.tasks.spawn(Kind::Loop, "screening-reconciler", reconciler::run(Arc::clone(&app)));
    process.tasks.spawn(Kind::Loop, "screening-resolver", resolver::run(Arc::clone(&app)));
    process.tasks.spawn(Kind::Loop, "screening-expiry", expiry::run(Arc::clone(&app)));
    server.add(runtime::limited!(ScreeningServiceServer::new(rpc::Rpc::new(app))));
    let consumers = reactions::consumers(&writer, &database);
    Service { database, consumers, versions: Arc::new(TableVersions) }
}
