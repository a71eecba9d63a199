//! The gRPC server of a process: its limits, the door that every call passes, health, reflection, and an orderly end.
//!
//! Services are written elsewhere and added here. Every limit is set explicitly, because the library's defaults are
//! partly unlimited.

mod accept;
mod body;
mod door;
mod held;
mod in_process;
mod local;
mod meters;
mod methods;
mod options;
mod places;
pub mod protocol;
mod record;
mod reflection;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Service;

use self::accept::{Connection, Incoming};
use self::door::{Door, End, Rules};
use crate::clock::Clock;
use crate::entropy;
use crate::identity::Verifier;
use crate::lifecycle::{Drain, Readiness};

pub use self::accept::Listener;
pub use self::in_process::InProcess;
pub use self::local::Local;
pub use self::options::ServerOptions;
pub use self::reflection::with_reflection;

/// The largest message that a service decodes, in bytes. The largest legitimate one, 366 slots at once, has a tenth of
/// that, and every call in flight may hold one. Apply it with [`crate::limited!`].
pub const MAX_MESSAGE: usize = 256 * 1024;

/// Applies [`MAX_MESSAGE`] to a generated server. A macro is needed because generated servers have no common trait for
/// it.
#[macro_export]
macro_rules! limited {
    ($service:expr) => {
        $service.max_decoding_message_size($crate::server::MAX_MESSAGE)
    };
}

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors cannot be served, which is a defect of the build.
    #[error("cannot serve reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The descriptors cannot be decoded, which is a defect of the build.
    #[error("cannot read the descriptors of the contract")]
    Descriptors(#[from] prost::DecodeError),
    /// The transport failed while it served.
    #[error("the transport failed")]
    Transport(#[from] tonic::transport::Error),
    /// The listener ended although nobody asked for it.
    #[error("the server ended before it was asked to")]
    Ended,
}

/// A server that is being assembled.
///
/// ```
/// use contract::capacity::v1::capacity_service_server::{CapacityService, CapacityServiceServer};
/// use runtime::clock::Clock;
/// use runtime::identity::Verifier;
/// use runtime::server::{Error, Server, ServerOptions};
/// use runtime::{Process, limited};
/// use tokio::net::TcpListener;
///
/// async fn serve(
///     service: impl CapacityService,
///     keys: Verifier,
///     process: &Process,
///     listener: TcpListener,
/// ) -> Result<(), Error> {
///     let mut server = Server::new(ServerOptions::default(), keys, Clock::system());
///     server = server.ready_when(process.readiness.clone());
///     server.add(limited!(CapacityServiceServer::new(service)));
///     server.run(listener, process.drain.clone()).await
/// }
/// ```
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    verifier: Verifier,
    clock: Clock,
    readiness: Readiness,
    routes: Routes,
    names: Vec<&'static str>,
    local: Local,
}

impl Server {
    /// A server without services. `clock` is the clock that judges tokens. It is the machine's even if the rules use a
    /// shifted clock, because other processes mint tokens.
    #[must_use]
    pub fn new(options: ServerOptions, verifier: Verifier, clock: Clock) -> Self {
        let (routes, names, local) = (Routes::default(), Vec::new(), Local::default());
        Self { options, verifier, clock, readiness: Readiness::new(), routes, names, local }
    }

    /// The handle by which services of this process call each other.
    #[must_use]
    pub fn local(&self) -> Local {
        self.local.clone()
    }

    /// Answers UNAVAILABLE NOT_READY until every latch of `readiness` is released.
    #[must_use]
    pub fn ready_when(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Adds a service, see [`crate::limited!`]. The contract's descriptors describe it, and it has the health of the
    /// server.
    pub fn add<S>(&mut self, service: S) -> &mut Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.routes = std::mem::take(&mut self.routes).add_service(service);
        self.names.push(S::NAME);
        self
    }

    /// Serves until the drain has ended: NOT_SERVING, the drain delay, then no new connections and calls, a bounded
    /// wait for the calls under way, and GOAWAY. Connections that are still open then are cut. GOAWAY comes last
    /// because calls under way may need other calls over connections of this very process.
    ///
    /// # Errors
    /// [`Error`] if serving cannot begin, or ends by itself.
    pub async fn run(self, listener: impl Listener, drain: Drain) -> Result<(), Error> {
        let health = Health::new(&self.names).await;
        let end = End::default();
        let rules = Rules::new(&self.options, self.verifier, self.clock, self.readiness.clone(), end.clone())?;
        let routes = with_reflection(self.routes.add_service(health.service()))?;
        let incoming = Incoming::new(listener, &self.options, end.leaving.clone(), end.cut.clone()).into_stream();
        let door = Door::new(Arc::new(rules), routes.prepare());
        let _opened = self.local.open(door.clone());
        let mut serving = Box::pin(serve(&self.options, door, incoming, end.goaway.clone()));
        let until_goaway = async {
            tokio::select! {
                biased;
                () = drain.requested() => {}
                () = health.follow(&self.readiness) => {}
            }
            health.set(ServingStatus::NotServing).await;
            tokio::time::sleep(self.options.drain_delay).await;
            end.leaving.cancel();
            end.under_way.close();
            let limit = Instant::now() + self.options.drain_timeout;
            // Calls that are not finished then are cut off below.
            let _ = timeout_at(limit, end.under_way.wait()).await;
            end.goaway.cancel();
            limit
        };
        let limit = tokio::select! {
            biased;
            ended = &mut serving => return ended.and(Err(Error::Ended)),
            limit = until_goaway => limit,
        };
        // The library waits for every connection without a limit.
        if let Ok(ended) = timeout_at(limit, &mut serving).await {
            return ended;
        }
        tracing::warn!(after = ?self.options.drain_timeout, "cutting the connections that are still open");
        end.cut.cancel();
        let _ = timeout(Duration::from_secs(1), &mut serving).await;
        Ok(())
    }
}

/// The health of every service, which is the health of the server.
struct Health {
    reporter: HealthReporter,
    names: Vec<&'static str>,
}

impl Health {
    async fn new(services: &[&'static str]) -> Self {
        let names = services.iter().copied().chain([""]).collect();
        let health = Self { reporter: HealthReporter::new(), names };
        // A new reporter reports that the server is serving.
        health.set(ServingStatus::NotServing).await;
        health
    }

    async fn set(&self, status: ServingStatus) {
        for name in &self.names {
            self.reporter.set_service_status(name, status).await;
        }
    }

    /// Reports the state of `readiness`; never ends.
    async fn follow(&self, readiness: &Readiness) {
        loop {
            readiness.ready().await;
            self.set(ServingStatus::Serving).await;
            readiness.unready().await;
            self.set(ServingStatus::NotServing).await;
        }
    }

    fn service(&self) -> HealthServer<HealthService> {
        limited!(HealthServer::new(HealthService::from_health_reporter(self.reporter.clone())))
    }
}

async fn serve(
    options: &ServerOptions,
    door: Door,
    incoming: impl Stream<Item = Result<Connection<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>, Infallible>>,
    goaway: CancellationToken,
) -> Result<(), Error> {
    transport(options).serve_with_incoming_shutdown(door, incoming, goaway.cancelled_owned()).await?;
    Ok(())
}

/// The transport with its limits per connection.
fn transport(options: &ServerOptions) -> tonic::transport::Server {
    /// Streams that this server resets, counted over the whole life of a connection. The limit is generous, because
    /// otherwise the calls that time out during one bad minute would end the connection for all others. It is finite
    /// because each costs memory for a while.
    const LOCAL_RESETS: usize = 16 * 1024;
    tonic::transport::Server::builder()
        // The library passes its own `None` on, which replaces the protocol library's safe default by no limit at all.
        .max_concurrent_streams(options.max_streams_per_connection)
        .http2_max_header_list_size(options.max_header_bytes)
        .http2_keepalive_interval(Some(options.keepalive_interval))
        .http2_keepalive_timeout(Some(options.keepalive_timeout))
        // Streams that a client has reset before they were handled; more of them is an attack (rapid reset) and ends
        // the connection. A client that may have this many calls open may also cancel all of them at once, as a proxy
        // does for impatient callers, and ending its connection would end the calls of all others.
        .http2_max_pending_accept_reset_streams(usize::try_from(options.max_streams_per_connection).ok())
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS))
        // Only the age is set: with a grace as well, the library sends no GOAWAY but drops the connection with its
        // calls.
        .max_connection_age(entropy::jittered(options.connection_age))
}
