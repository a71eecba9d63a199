//! Screening: the bookings, from request to attendance.
//!
//! It owns who has booked what and nothing else: places belong to Hospital, which it asks for each of them, and what becomes
//! of a booking travels to others as events. Booking is claim first, fence later: see `domain::booking`.

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

use contract::screening::v1::screening_service_server::ScreeningServiceServer;
use domain::screening::{Command, Decision, Screening, decide};
use fault::Fault;
use jiff::Timestamp;
use runtime::Process;
use runtime::client::Replicas;
use runtime::identity::TokenSource;
use runtime::server::Server;
use runtime::tasks::Kind;
use serde::Deserialize;
use store::{Database, Location, WriterOptions};

pub use crate::migration::Migrator;

use crate::app::refusals::Refusals;
use crate::app::{App, reconciler, resolver};
use crate::batch::{ScreeningBatchHandler, ScreeningWriter};
use crate::hospital_client::HospitalClient;
use crate::tables::booking_lookup::BookingLookup;
use crate::tables::screening_lookup::ScreeningLookup;

/// The service's name: of its identity, its producer of events, and its metrics.
pub const NAME: &str = "screening";

/// What can be configured; a section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The longest a call waits for Hospital, however long its own deadline is, before it answers HOSPITAL_UNAVAILABLE.
    #[serde(with = "runtime::config::duration")]
    pub hospital_timeout: Duration,
    /// The longest a single request to Hospital is waited for before the same one is sent again.
    #[serde(with = "runtime::config::duration")]
    pub hospital_attempt: Duration,
    /// How long a place may be taken without a booking before it is given back. However short, it is safe: a booking that
    /// comes later meets the fence and asks for another place.
    #[serde(with = "runtime::config::duration")]
    pub reconcile_grace: Duration,
    /// The longest pause between two tries to settle PENDING bookings.
    #[serde(with = "runtime::config::duration")]
    pub resolve_pause: Duration,
    /// How often refusals of full slots are reported; the contract promises every 5 s.
    #[serde(with = "runtime::config::duration")]
    pub report_interval: Duration,
    /// Writes that may wait; one more is refused with OVERLOADED.
    pub queue: usize,
    /// Writes one transaction takes at most.
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

/// What it is given.
#[derive(Debug)]
pub struct Deps {
    /// Where its database is.
    pub location: Location,
    /// The process it is part of.
    pub process: Process,
    /// Where Hospital is.
    pub hospital: Replicas,
    /// How it proves to Hospital who it is.
    pub token: TokenSource,
}

/// What the process has to do for it.
#[derive(Debug)]
pub struct Service {
    /// Its database, whose outbox is its log.
    pub database: Database,
    /// What it wants to hear.
    pub consumers: Vec<relay::Consumer>,
}

/// What decides about a booking: `domain::screening::decide`, or, where it is to be seen whether they would be missed, other rules.
pub type Rules = fn(Option<&Screening>, &Command, Timestamp) -> Result<Decision, Fault>;

/// Opens the database, starts the writer and the background work, and adds the gRPC service.
///
/// # Errors
/// Where the database cannot be opened.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, store::Error> {
    let database = Database::open::<Migrator>(&deps.location).await?;
    Ok(build_on(options, database, decide, deps, server))
}

/// [`build`] on a database that is open already, under [`Migrator`], and by these rules.
pub fn build_on(options: Options, database: Database, rules: Rules, deps: Deps, server: &mut Server) -> Service {
    let Deps { location: _, process, hospital, token } = deps;
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
        hospital: HospitalClient::new(hospital, token, options.hospital_attempt),
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
    server.add(runtime::limited!(ScreeningServiceServer::new(rpc::Rpc::new(app))));
    let consumers = reactions::consumers(&writer, &database);
    Service { database, consumers }
}
