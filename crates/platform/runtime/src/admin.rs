//! The admin port: `/live`, `/ready` and `/metrics` over HTTP/1.
//!
//! It has a thread and a runtime of its own, so that it answers even when the process is overloaded. It checks no
//! tokens and is meant only for the machine or the cluster, so bind it accordingly.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::lifecycle::{Drain, Readiness};

/// How often samples are moved out of the recorder's buffers, with or without scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The admin port of a process; dropping this closes it.
#[derive(Debug)]
pub struct Admin {
    addr: SocketAddr,
    // The thread ends when this is dropped.
    _stop: watch::Sender<()>,
}

impl Admin {
    /// The address that it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    drain: Drain,
    metrics: PrometheusHandle,
}

/// Starts the admin port. It takes a listener of the standard library, because the port has a runtime of its own.
///
/// # Errors
/// The operating system's error if the listener cannot be used or the thread cannot be started.
pub fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: PrometheusHandle,
    drain: Drain,
) -> io::Result<Admin> {
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = watch::channel(());
    let shared = Shared { readiness, drain, metrics };
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(run(listener, shared, stopped)) {
            tracing::error!(%error, "the admin port has failed");
        }
    })?;
    Ok(Admin { addr, _stop: stop })
}

async fn run(listener: TcpListener, shared: Shared, mut stopped: watch::Receiver<()>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let upkeep = {
        let metrics = shared.metrics.clone();
        async move {
            loop {
                tokio::time::sleep(UPKEEP_INTERVAL).await;
                metrics.run_upkeep();
            }
        }
    };
    let router = Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(render))
        .with_state(shared);
    tokio::select! {
        served = async { axum::serve(listener, router).await } => served,
        () = upkeep => Ok(()),
        _ = stopped.changed() => Ok(()),
    }
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    if shared.drain.is_requested() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    if let Some(why) = shared.readiness.refusal() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    }
    let awaited = shared.readiness.awaited();
    if awaited.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", awaited.join(", ")))
    }
}

async fn render(State(shared): State<Shared>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render())
}
