//! `checkup mesh`: runs a whole mesh on this machine, from the database server to the last replica, behind one address.

use std::collections::HashMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::mesh::{Layout, Mesh, State};
use runtime::clock::Clock;
use runtime::lifecycle::{Drain, drain_pair, signals};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::{MeshArgs, Replicas};
use crate::data_dir::DataDir;
use crate::exit::{Exit, Failure, chain};
use crate::gateway::{Gateway, Upstream};
use crate::identity;
use crate::service::Service;
use crate::terminal;
use crate::welcome::Welcome;

/// How often the state of every replica is read.
const REPLICA_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The pause before a replica that ended by itself is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// How long all replicas together may take to become ready.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs until a signal asks it to stop.
///
/// # Errors
/// Fails if a program is missing or does not start.
pub async fn run(args: MeshArgs, started: Instant) -> Result<Exit, Failure> {
    if !args.addr.ip().is_loopback() {
        let help = "neither calls nor tokens are encrypted here; choose a loopback address";
        return Err(Failure::usage(format!("--addr {} can be reached from other machines, and {help}", args.addr)));
    }
    let data = DataDir::open(&args.data_dir)?;
    let directory = std::path::absolute(data.path()).map_err(|error| Failure::failed(chain(&error)))?;
    let signer = identity::signer(&directory)?;
    let listener = TcpListener::bind(args.addr).await.map_err(|error| {
        Failure::failed(format!(
            "cannot listen on {} ({}); choose another address with --addr",
            args.addr,
            chain(&error)
        ))
    })?;
    let addr = listener.local_addr().map_err(|error| Failure::failed(chain(&error)))?;
    let (trigger, drain) = drain_pair();
    let on_signal =
        signals(trigger).map_err(|error| Failure::failed(format!("cannot handle signals: {}", chain(&error))))?;

    let mesh = Mesh::start(layout(&args, &directory)?, terminal::complain);
    let served = async {
        let mesh = mesh.await.map_err(|error| Failure::failed(chain(&error)))?;
        let data = args.data_dir.clone();
        let welcome = Welcome {
            addr,
            admin: None,
            data: Some(data),
            services: Service::all_but(&[]),
            started,
            signer: Some(signer),
        };
        watch(mesh, listener, welcome, drain).await
    };
    tokio::select! {
        biased;
        served = served => served.map(|()| Exit::Ok),
        () = on_signal => Ok(Exit::Ok),
    }
}

fn layout(args: &MeshArgs, directory: &Path) -> Result<Layout, Failure> {
    let binary = std::env::current_exe().map_err(|error| Failure::failed(format!("cannot find myself: {error}")))?;
    let mut layout = Layout::new(binary, directory);
    for Replicas { service, count } in &args.replicas {
        layout = layout.replicas(service.name(), *count);
    }
    layout.settings = args.set.clone();
    Ok(layout)
}

/// The replicas as upstreams of the gateway, in the order of the mesh.
fn upstreams(mesh: &Mesh) -> Result<Vec<(String, Arc<Upstream>)>, Failure> {
    let upstream = |replica: &::mesh::Replica| {
        let upstream = Upstream::new(replica.addr()).map_err(|error| Failure::failed(chain(&error)))?;
        Ok((replica.service().to_owned(), Arc::new(upstream)))
    };
    mesh.replicas().iter().map(upstream).collect()
}

/// Keeps the mesh running and the gateway informed until the drain is requested, then stops everything.
async fn watch(mut mesh: Mesh, listener: TcpListener, welcome: Welcome, drain: Drain) -> Result<(), Failure> {
    let upstreams = upstreams(&mesh)?;
    let mut routes: HashMap<String, Vec<Arc<Upstream>>> = HashMap::new();
    for (service, upstream) in &upstreams {
        routes.entry(service.clone()).or_default().push(Arc::clone(upstream));
    }
    let gateway = Gateway::new(routes).map_err(|error| Failure::failed(chain(&error)))?;
    gateway.report_health().await;
    let known = gateway.clone();
    let stop = drain.clone();
    let serving = gateway.serve(listener, async move { stop.requested().await });
    let stopping = async {
        let kept = keep(&mut mesh, &upstreams, &known, welcome, &drain).await;
        terminal::complain("stopping");
        // streams end only with their replica, so the gateway cannot be stopped first
        kept.and(mesh.stop().await.map_err(|error| Failure::failed(chain(&error))))
    };
    let mut stopping = pin!(stopping);
    let served = tokio::select! {
        stopped = &mut stopping => return stopped,
        served = serving => served,
    };
    let stopped = stopping.await;
    served.map_err(|error| Failure::failed(format!("the gateway failed: {}", chain(&error))))?;
    stopped
}

async fn keep(
    mesh: &mut Mesh,
    upstreams: &[(String, Arc<Upstream>)],
    gateway: &Gateway,
    welcome: Welcome,
    drain: &Drain,
) -> Result<(), Failure> {
    let mut board = Board::new(mesh);
    let mut ticks = interval(REPLICA_POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut welcome = Some(welcome);
    let limit = Instant::now() + START_TIMEOUT;
    loop {
        tokio::select! {
            biased;
            () = drain.requested() => return Ok(()),
            _ = ticks.tick() => {}
        }
        board.refresh(mesh, upstreams).await?;
        gateway.report_health().await;
        if board.all_serve()
            && let Some(welcome) = welcome.take()
        {
            let logs = mesh.directory().join("*/log");
            terminal::print_if_possible(&welcome.text(Clock::system().now()));
            terminal::print_if_possible(&format!("\nProcesses; their logs are in {}:\n\n", logs.display()));
            terminal::print_if_possible(&board.text(mesh));
        }
        if welcome.is_some() && Instant::now() > limit {
            let late = mesh.ready(Duration::ZERO).await.err().map(|error| chain(&error)).unwrap_or_default();
            return Err(Failure::failed(format!("the mesh does not serve: {late}")));
        }
    }
}

/// The state of every replica when it was read last.
struct Board {
    states: Vec<State>,
    ended: Vec<Option<Instant>>,
    /// Whether changes are printed.
    announces: bool,
}

impl Board {
    fn new(mesh: &Mesh) -> Self {
        let count = mesh.replicas().len();
        Self { states: vec![State::Starting; count], ended: vec![None; count], announces: false }
    }

    fn all_serve(&self) -> bool {
        self.states.iter().all(|state| *state == State::Serving)
    }

    /// Reads the state of every replica, and starts replicas again that ended by themselves.
    async fn refresh(&mut self, mesh: &mut Mesh, upstreams: &[(String, Arc<Upstream>)]) -> Result<(), Failure> {
        for (index, replica) in mesh.replicas_mut().iter_mut().enumerate() {
            let state = replica.state().await;
            upstreams[index].1.set_ready(state == State::Serving);
            match &state {
                State::Ended(_) if !self.announces => {
                    let (name, output) = (replica.name(), replica.output().tail(20));
                    return Err(Failure::failed(format!("{name} {state}:\n{output}")));
                }
                State::Ended(_) => match self.ended[index] {
                    None => self.ended[index] = Some(Instant::now()),
                    Some(at) if at.elapsed() >= RESTART_DELAY => {
                        self.ended[index] = None;
                        replica.start().map_err(|error| Failure::failed(chain(&error)))?;
                    }
                    Some(_) => {}
                },
                _ => self.ended[index] = None,
            }
            let changed = std::mem::replace(&mut self.states[index], state);
            if self.announces && changed != self.states[index] {
                terminal::print_if_possible(&line(replica, &self.states[index]));
            }
        }
        Ok(())
    }

    fn text(&mut self, mesh: &mut Mesh) -> String {
        self.announces = true;
        let mut text = format!(
            "{}{}",
            server("postgres", mesh.postgres().pid(), mesh.postgres().port()),
            server("nats-server", mesh.nats().pid(), mesh.nats().port())
        );
        for (replica, state) in mesh.replicas().iter().zip(&self.states) {
            text += &line(replica, state);
        }
        text
    }
}

fn server(name: &str, pid: Option<u32>, port: u16) -> String {
    format!("{name:<14} pid {:<8} 127.0.0.1:{port}\n", pid.unwrap_or_default())
}

fn line(replica: &::mesh::Replica, state: &State) -> String {
    let (name, pid, addr, admin) =
        (replica.name(), replica.pid().unwrap_or_default(), replica.addr(), replica.admin_addr());
    let state = terminal::verdict(*state == State::Serving, &state.to_string());
    format!("{name:<14} pid {pid:<8} {addr:<16} admin {admin:<16} {state}\n")
}
