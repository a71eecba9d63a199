//! My-page: a customer's own bookings in one read, and as they change.
//!
//! A view with a store of its own, folded from Screening's events; it decides nothing about a booking, and booking goes on
//! while it is down. The fold itself is `domain::mypage`.

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

/// The service's name, for ever: its database and its metrics are called so.
pub const NAME: &str = "mypage";

/// What can be configured. Intervals below 10 ms count as 10 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How long a stream may be silent before it sends a heartbeat.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// How long a change is kept for streams that resume.
    #[serde(with = "duration")]
    pub change_age: Duration,
    /// How many changes are kept at most, those of all customers together.
    pub change_count: u64,
    /// How often older ones are removed.
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

/// An interval of nothing would keep a core busy with doing nothing.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

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
    /// Its database; it announces nothing, so the outbox stays empty.
    pub database: Database,
    /// The events it wants.
    pub consumers: Vec<Consumer>,
    /// The view that answers calls, for those who build it anew.
    pub views: Views,
}

/// Opens the database, starts the writer and the removal of old changes, and adds the gRPC service to the server.
///
/// # Errors
/// Where the database cannot be opened.
pub async fn build(options: Options, deps: Deps, server: &mut Server) -> Result<Service, store::Error> {
    let Deps { location, process } = deps;
    let database = Database::open::<Migrator>(&location).await?;
    Ok(build_on(options, database, process, server))
}

/// [`build`] on a database that is open already, under [`Migrator`].
pub fn build_on(options: Options, database: Database, process: Process, server: &mut Server) -> Service {
    let views = Views::begin(options, process, database);
    let consumer = views.consumer();
    server.add(limited!(MyPageServiceServer::new(Rpc::new(views.clone(), options.heartbeat.max(MIN_INTERVAL)))));
    Service { database: consumer.database.clone(), consumers: vec![consumer], views }
}
