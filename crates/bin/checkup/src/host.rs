//! A process that serves, from the first bind to the last flush, with any services and any databases.
//!
//! Errors at the start are found before the first line is printed, and reported in one sentence that says what to do.

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
use runtime::{admin, metrics, spans};
use store::{Database, Location};
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

/// How long background work may take to end after the last call was answered.
const TASKS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an embedded process may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What a process hosts.
#[derive(Debug)]
pub struct Plan {
    /// The configuration of the process.
    pub settings: Settings,
    /// The services to run.
    pub services: BTreeSet<Service>,
    /// The addresses to listen on.
    pub listen: ListenArgs,
    /// The database of each service.
    pub locations: BTreeMap<Service, Location>,
    /// The locked data directory, if the process has one.
    pub data: Option<DataDir>,
    /// The tokens that services identify themselves with.
    pub tokens: OwnTokens,
    /// The broker, if events travel through one.
    pub broker: Option<JetStreamOptions>,
    /// When the process began.
    pub started: Instant,
}

/// Runs until a signal asks it to stop, or until something fails that the process needs.
///
/// # Errors
/// Fails if the process cannot start or cannot go on.
pub async fn run(plan: Plan) -> Result<Exit, Failure> {
    let Plan { settings, services, listen, locations, data, tokens, broker, started } = plan;
    let listener = bind(listen.addr, "--addr")?;
    let admin_listener = bind(listen.admin_addr, "--admin-addr")?;

    let (trigger, drain) = drain_pair();
    let process = Process::new(Clock::shifted(settings.clock_offset), drain.clone());
    let on_signal =
        signals(trigger).map_err(|error| Failure::failed(format!("cannot handle signals: {}", chain(&error))))?;
    process.tasks.spawn(Kind::Helper, "signals", on_signal);
    spans::start(&settings.spans, &process);
    let starting = process.readiness.latch("the start");
    let admin = serve_admin(admin_listener, &process)?;

    let verifier = identity::verifier(&tokens, &settings.identity)?;
    let addr = local_addr(&listener)?;
    let Some((transport, databases)) = reach(&locations, broker, &process).await? else { return Ok(Exit::Ok) };
    let known = Known::of(&databases);
    let watch = Watch { databases: &databases, transport: &transport, data: data.as_ref().map(DataDir::path) };
    let door = Refusing { listener: &listener, admin: admin.addr(), settings: &settings, verifier: &verifier };
    if !door.until_whole(&watch, &process).await? {
        assembly::close_all(databases).await;
        spans::finish();
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

    let signer = match (&tokens, &transport) {
        (OwnTokens::Made(signer), Transport::Tail) => Some(signer.clone()),
        _ => None,
    };
    let path = data.as_ref().map(|data| data.path().to_owned());
    let welcome = Welcome { addr, admin: Some(admin.addr()), data: path, services, started, signer };
    // a process of a mesh may wait for other processes without limit
    let limit = matches!(transport, Transport::Tail).then(|| Deadline::within(START_TIMEOUT));
    process.tasks.spawn(Kind::Helper, "welcome", greet(welcome, own_addr(addr), process.clock, limit));
    let outcome = serve(server, listener, &process).await;
    shut_down(assembly, transport, &process).await;
    // the directory stays locked as long as its services run
    drop(data);
    tracing::info!("stopped");
    outcome.map(|()| Exit::Ok)
}

/// Waits for the databases, connects to the broker, and opens the databases. `None` if the process has to stop instead.
async fn reach(
    locations: &BTreeMap<Service, Location>,
    broker: Option<JetStreamOptions>,
    process: &Process,
) -> Result<Option<(Transport, BTreeMap<Service, Database>)>, Failure> {
    for location in locations.values() {
        if !wait_for(location, process).await {
            return Ok(None);
        }
    }
    let transport = match broker {
        None => Transport::Tail,
        Some(options) => Transport::Broker(connect(options).await?),
    };
    Ok(Some((transport, assembly::open_all(locations).await?)))
}

/// Ends the background work, and then closes what it used.
async fn shut_down(assembly: Assembly, transport: Transport, process: &Process) {
    // work that is still running has no caller left
    let databases = assembly.retire();
    spans::finish();
    process.tasks.shutdown(TASKS_TIMEOUT).await;
    if let Transport::Broker(broker) = transport {
        broker.close().await;
    }
    databases.close().await;
}

/// Waits until a database server answers. Returns false if the process has to stop instead.
async fn wait_for(location: &Location, process: &Process) -> bool {
    const PAUSE: Duration = Duration::from_millis(500);
    let latch = process.readiness.latch(format!("the database {location}"));
    while let Err(error) = Database::reach(location).await {
        if !error.is_unreachable() {
            // opening the database reports the error
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

/// Serves until the drain is over, or a task fails that the process needs.
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

/// Refuses addresses that other machines can reach, unless `--allow-remote` is set.
///
/// # Errors
/// Fails if an address is not a loopback address and `--allow-remote` is missing.
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

/// The address at which this process can call itself.
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

/// Waits until the process's own health service says SERVING, then prints the welcome.
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
    terminal::print_if_possible(&welcome.text(clock.now()));
    Ok(())
}
