//! A process that serves: from the first bind to the last flush, whatever it runs and wherever its data is.
//!
//! Everything that can go wrong at the start goes wrong before the first line is printed, with one sentence that says what to do.

mod refusing;
mod replaced;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bus::jetstream::{JetStream, JetStreamOptions};
use runtime::Process;
use runtime::admin::Admin;
use runtime::clock::Clock;
use runtime::deadline::Deadline;
use runtime::lifecycle::{drain_pair, signals};
use runtime::server::Server;
use runtime::tasks::Kind;
use runtime::{admin, metrics};
use store::Location;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::assembly::{self, Assembly, Parts, Transport};
use crate::cli::ListenArgs;
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::exit::{Exit, Failure, chain};
use crate::identity::{self, OwnTokens};
use crate::service::Service;
use crate::terminal;
use crate::welcome::Welcome;
use refusing::{Refusing, Watch};
use replaced::Known;

/// How long background work may take to end once the last call has been answered.
const TASKS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take until it says that it is serving.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What is to be hosted.
#[derive(Debug)]
pub struct Plan {
    /// What is configured.
    pub settings: Settings,
    /// The services.
    pub services: BTreeSet<Service>,
    /// Where to serve.
    pub listen: ListenArgs,
    /// Where the data of each service is.
    pub locations: BTreeMap<Service, Location>,
    /// The directory that this process alone may use, where it has one.
    pub data: Option<DataDir>,
    /// How services prove who they are.
    pub tokens: OwnTokens,
    /// The broker, where events go through one.
    pub broker: Option<JetStreamOptions>,
    /// When the process began to start.
    pub started: Instant,
}

/// Runs until a signal asks for the end, or something fails that the process cannot do without.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub async fn run(plan: Plan) -> Result<Exit, Failure> {
    let Plan { settings, services, listen, locations, data, tokens, broker, started } = plan;
    let listener = bind(listen.addr, "--addr")?;
    let admin_listener = bind(listen.admin_addr, "--admin-addr")?;

    let (trigger, drain) = drain_pair();
    let process = Process::new(Clock::shifted(settings.clock_offset), drain.clone());
    let on_signal =
        signals(trigger).map_err(|error| Failure::failed(format!("cannot handle signals: {}", chain(&error))))?;
    process.tasks.spawn(Kind::Helper, "signals", on_signal);
    let starting = process.readiness.latch("the start");
    let admin = serve_admin(admin_listener, &process)?;

    let verifier = identity::verifier(&tokens, &settings.identity)?;
    let addr = local_addr(&listener)?;
    for location in locations.values() {
        if !wait_for(location, &process).await {
            return Ok(Exit::Ok);
        }
    }
    let transport = match broker {
        None => Transport::Tail,
        Some(options) => Transport::Broker(connect(options).await?),
    };
    let databases = assembly::open_all(&locations).await?;
    let known = Known::of(&databases);
    let watch = Watch { databases: &databases, transport: &transport, data: data.as_ref().map(DataDir::path) };
    let door = Refusing { listener: &listener, admin: admin.addr(), settings: &settings, verifier: &verifier };
    if !door.until_whole(&watch, &process).await? {
        for database in databases.into_values() {
            database.close().await;
        }
        process.tasks.shutdown(TASKS_TIMEOUT).await;
        return Ok(Exit::Ok);
    }
    known.watch(&databases, &transport, &process);
    let parts = Parts { settings: &settings, transport: &transport, tokens: &tokens, process: &process };
    let (mut assembly, server) = Assembly::build(databases, &parts, verifier).await?;
    if let Some(data) = &data {
        process.tasks.spawn(Kind::Loop, "rebuild", assembly.keeper(&parts, data.path()).run());
    }
    starting.release();

    process.tasks.spawn(Kind::Helper, "welcome", {
        let data = data.as_ref().map(|data| data.path().to_owned());
        let signer = match (&tokens, &transport) {
            (OwnTokens::Made(signer), Transport::Tail) => Some(signer.clone()),
            _ => None,
        };
        let welcome = Welcome { addr, admin: Some(admin.addr()), data, services, started, signer };
        // what waits for others may wait long
        let limit = matches!(transport, Transport::Tail).then(|| Deadline::within(START_TIMEOUT));
        greet(welcome, own_addr(addr), process.clock, limit)
    });
    let outcome = serve(server, listener, &process).await;
    // whatever still reads or writes has no caller left to answer
    let databases = assembly.retire();
    process.tasks.shutdown(TASKS_TIMEOUT).await;
    if let Transport::Broker(broker) = transport {
        broker.close().await;
    }
    databases.close().await;
    // the directory stays locked for as long as its services run
    drop(data);
    tracing::info!("stopped");
    outcome.map(|()| Exit::Ok)
}

/// Waits for a database server that does not answer yet; false where the process is to stop instead.
async fn wait_for(location: &Location, process: &Process) -> bool {
    const PAUSE: Duration = Duration::from_millis(500);
    let latch = process.readiness.latch(format!("the database {location}"));
    while let Err(error) = store::Database::reach(location).await {
        if !error.is_unreachable() {
            // opening it says why
            break;
        }
        tracing::warn!(why = chain(&error), "waiting for a database");
        tokio::select! {
            () = process.drain.requested() => return false,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    latch.release();
    true
}

async fn connect(options: JetStreamOptions) -> Result<JetStream, Failure> {
    let connected = JetStream::connect(options).await;
    connected.map_err(|error| Failure::usage(format!("cannot use the broker of events.nats: {}", chain(&error))))
}

/// Serves until the drain is over, or a task fails that the process cannot do without.
async fn serve(server: Server, listener: TcpListener, process: &Process) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::from_std(listener);
    let listener = listener.map_err(|error| Failure::failed(format!("cannot serve: {}", chain(&error))))?;
    tokio::select! {
        served = server.run(listener, process.drain.clone()) => {
            served.map_err(|error| Failure::failed(format!("cannot go on: {}", chain(&error))))
        }
        why = process.tasks.failed() => Err(Failure::failed(format!("cannot go on: {why}; the log says more"))),
    }
}

/// Nothing listens beyond this machine unless told to.
///
/// # Errors
/// Where an address is not of this machine and nobody said that it may be.
pub fn refuse_remote(listen: ListenArgs) -> Result<(), Failure> {
    for (flag, addr) in [("--addr", listen.addr), ("--admin-addr", listen.admin_addr)] {
        if !addr.ip().is_loopback() && !listen.allow_remote {
            let help = "neither calls nor tokens are encrypted here; add --allow-remote if that is meant";
            return Err(Failure::usage(format!("{flag} {addr} can be reached from other machines, and {help}")));
        }
    }
    Ok(())
}

fn bind(addr: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let refused = |error: std::io::Error| {
        let why = chain(&error);
        let help = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another process listens there; stop it, or choose another port with",
            _ => "choose another address with",
        };
        Failure::failed(format!("cannot listen on {addr} ({why}); {help} {flag}"))
    };
    let listener = TcpListener::bind(addr).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(listener)
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::failed(format!("cannot serve: {}", chain(&error))))
}

/// Where this process reaches itself.
fn own_addr(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

fn serve_admin(listener: TcpListener, process: &Process) -> Result<Admin, Failure> {
    let failed = |why: String| Failure::failed(format!("cannot serve the admin port: {why}"));
    let recorder = metrics::install().map_err(|error| failed(chain(&error)))?;
    let served = admin::serve(listener, process.readiness.clone(), recorder, process.drain.clone());
    served.map_err(|error| failed(chain(&error)))
}

/// Asks the process itself whether it serves, and greets once it says so.
async fn greet(welcome: Welcome, addr: SocketAddr, clock: Clock, limit: Option<Deadline>) -> Result<(), String> {
    let uri = format!("http://{addr}").parse().map_err(|_| format!("{addr} makes no address"))?;
    let channel = runtime::client::connect(uri, runtime::client::ClientOptions::default());
    let mut health = HealthClient::new(channel);
    loop {
        let answer = health.check(HealthCheckRequest::default()).await;
        if answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving) {
            break;
        }
        if limit.is_some_and(|limit| limit.has_passed()) {
            return Err("the process does not answer its own health check".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tracing::info!(addr = %welcome.addr, "serving");
    terminal::tell(&welcome.text(clock.now()));
    Ok(())
}
