//! `checkup up`: the whole product in one process, from the first bind to the last flush.
//!
//! Everything that can go wrong at the start goes wrong before the first line is printed, with one sentence that says what to do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use runtime::Process;
use runtime::admin::Admin;
use runtime::clock::Clock;
use runtime::deadline::Deadline;
use runtime::lifecycle::{drain_pair, signals};
use runtime::server::Server;
use runtime::tasks::Kind;
use runtime::{admin, metrics, telemetry};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::assembly::{Assembly, Parts};
use crate::cli::UpArgs;
use crate::config::Sources;
use crate::data_dir::DataDir;
use crate::exit::{Exit, Failure, chain};
use crate::identity;
use crate::service::Service;
use crate::terminal;
use crate::welcome::Welcome;

/// How long background work may take to end once the last call has been answered.
const TASKS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take until it says that it is serving.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs until a signal asks for the end, or something fails that the process cannot do without.
///
/// # Errors
/// Where it cannot start, or cannot go on.
pub async fn run(args: UpArgs, started: Instant) -> Result<Exit, Failure> {
    let settings = Sources::of_process(args.config.as_deref(), &args.set).settings()?;
    refuse_remote(&args)?;
    let services = Service::all_but(&args.without);
    if services.is_empty() {
        return Err(Failure::usage("--without leaves no service to run"));
    }
    let _telemetry = telemetry::init(&settings.telemetry);
    let data = DataDir::open(&args.data_dir)?;
    let listener = listen(args.addr, "--addr")?;
    let admin_listener = listen(args.admin_addr, "--admin-addr")?;

    let (trigger, drain) = drain_pair();
    let process = Process::new(Clock::shifted(settings.clock_offset), drain.clone());
    let on_signal =
        signals(trigger).map_err(|error| Failure::failed(format!("cannot handle signals: {}", chain(&error))))?;
    process.tasks.spawn(Kind::Helper, "signals", on_signal);
    let admin = serve_admin(admin_listener, &process)?;

    let signer = identity::signer(data.path())?;
    let verifier = identity::verifier(&signer, &settings.identity)?;
    let addr = local_addr(&listener)?;
    let parts = Parts { settings: &settings, data: &data, signer: &signer, process: &process, addr: own_addr(addr) };
    let (assembly, server) = Assembly::build(&services, &parts, verifier).await?;

    process.tasks.spawn(Kind::Helper, "welcome", {
        let welcome = Welcome { addr, admin: admin.addr(), data: data.path().to_owned(), services, started, signer };
        greet(welcome, own_addr(addr), process.clock)
    });
    let outcome = serve(server, listener, &process).await;
    // whatever still reads or writes has no caller left to answer
    process.tasks.shutdown(TASKS_TIMEOUT).await;
    assembly.close().await;
    tracing::info!("stopped");
    outcome.map(|()| Exit::Ok)
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
fn refuse_remote(args: &UpArgs) -> Result<(), Failure> {
    for (flag, addr) in [("--addr", args.addr), ("--admin-addr", args.admin_addr)] {
        if !addr.ip().is_loopback() && !args.allow_remote {
            let help = "neither calls nor tokens are encrypted here; add --allow-remote if that is meant";
            return Err(Failure::usage(format!("{flag} {addr} can be reached from other machines, and {help}")));
        }
    }
    Ok(())
}

fn listen(addr: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
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
async fn greet(welcome: Welcome, addr: SocketAddr, clock: Clock) -> Result<(), String> {
    let uri = format!("http://{addr}").parse().map_err(|_| format!("{addr} makes no address"))?;
    let channel = runtime::client::connect(uri, runtime::client::ClientOptions::default());
    let deadline = Deadline::within(START_TIMEOUT);
    let mut health = HealthClient::new(channel);
    loop {
        let answer = health.check(HealthCheckRequest::default()).await;
        if answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving) {
            break;
        }
        if deadline.has_passed() {
            return Err("the process does not answer its own health check".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tracing::info!(addr = %welcome.addr, admin = %welcome.admin, "serving");
    terminal::print(&welcome.text(clock.now()));
    Ok(())
}
