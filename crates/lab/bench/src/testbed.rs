//! The services under measurement: real processes of the program, with its default settings.

mod embedded;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use mesh::{Layout, Mesh};
use runtime::identity::Signer;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::caller::{Caller, Lines, Token};
use crate::{Error, Plan, Topology, proc};

pub(crate) use embedded::{Embedded, GREETING};

/// How long services may take to serve.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The length of a sample of CPU time that tells whether processes are at rest.
const CPU_SAMPLE: Duration = Duration::from_millis(300);
/// The largest share of a core that counts as rest.
const RESTING: f64 = 0.06;
/// The number of samples after the start. The lowest is the use of idle services, which is higher in a debug build.
const FIRST_SAMPLES: u32 = 5;
/// The factor of the idle use that still counts as rest. A sample has only a few ticks of a hundredth of a second.
const REST_TOLERANCE: f64 = 1.5;
/// How long to wait for rest between two measurements.
const REST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for rest where the next step needs it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Which services run, and how.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// The only services that run; all if empty.
    pub(crate) only: &'static [&'static str],
    /// The number of replicas of each service in a mesh that is not named below; 0 is one, too.
    pub(crate) each: usize,
    /// The number of replicas of services in a mesh that have another number.
    pub(crate) replicas: &'static [(&'static str, usize)],
    /// Whether every table is in PostgreSQL, my-page's too.
    pub(crate) no_files: bool,
    /// Settings besides those of the plan, `KEY=VALUE`.
    pub(crate) settings: Vec<String>,
}

const SERVICES: [&str; 5] = ["hospital", "screening", "reservation", "mypage", "marketing"];

/// Running services. They and their data end with this handle.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) services: Services,
    pub(crate) signer: Signer,
    connections: usize,
    /// The largest share of a core that counts as rest on this testbed.
    resting: f64,
    // Dropped last, because everything else lives in it.
    directory: TempDir,
}

/// The topology of running services.
#[derive(Debug)]
pub(crate) enum Services {
    /// All in one process.
    Embedded(Embedded),
    /// Each in a process of its own.
    Mesh(Box<Mesh>),
}

impl Testbed {
    /// Starts the services and waits until all serve.
    pub(crate) async fn start(plan: &Plan, topology: Topology, setup: &Setup) -> Result<Self, Error> {
        // PostgreSQL runs as another user and must be able to enter the directory.
        let everybody = std::fs::Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().prefix("checkup-bench-").permissions(everybody).tempdir();
        let directory = directory.map_err(Error::system("make a temporary directory"))?;
        let unusable = |error| Error::failed(format!("cannot make a signing key: {error}"));
        let signer = Signer::load_or_create(directory.path()).map_err(unusable)?;
        let (left_out, settings) = (setup.left_out(plan), [plan.settings.clone(), setup.settings.clone()].concat());
        let services = match topology {
            Topology::Embedded => {
                let mut embedded = Embedded::new(plan.binary.clone(), directory.path(), left_out, settings)?;
                embedded.start().await?;
                Services::Embedded(embedded)
            }
            Topology::Mesh => {
                let layout = setup.layout(plan, directory.path(), &left_out, settings);
                let mut mesh = Mesh::start(layout, |_| {}).await?;
                mesh.ready(START_TIMEOUT).await?;
                Services::Mesh(Box::new(mesh))
            }
        };
        let mut testbed = Self { services, signer, connections: plan.connections, resting: RESTING, directory };
        let mut idle = f64::INFINITY;
        for _ in 0..FIRST_SAMPLES {
            idle = idle.min(testbed.used().await);
        }
        testbed.resting = RESTING.max(idle * REST_TOLERANCE);
        Ok(testbed)
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The mesh; an error if the services are embedded.
    pub(crate) fn mesh(&mut self) -> Result<&mut Mesh, Error> {
        match &mut self.services {
            Services::Mesh(mesh) => Ok(mesh),
            Services::Embedded(_) => Err(Error::failed("this is measured on a mesh only")),
        }
    }

    /// The address of the first replica of a service.
    pub(crate) fn addr(&self, service: &str) -> Result<SocketAddr, Error> {
        match &self.services {
            Services::Embedded(embedded) => Ok(embedded.addr()),
            Services::Mesh(mesh) => {
                let addr = mesh.of(service).next().map(mesh::Replica::addr);
                addr.ok_or_else(|| Error::Usage(format!("this cannot be measured without {service}")))
            }
        }
    }

    /// A caller of the first replica of a service.
    pub(crate) fn caller(&self, service: &str, token: Token) -> Result<Caller, Error> {
        Ok(Caller::new(Lines::to(self.addr(service)?, self.connections)?, token))
    }

    /// A caller of every replica of a service, which divide its callers.
    pub(crate) fn caller_of_all(&self, service: &str, token: Token) -> Result<Caller, Error> {
        let addresses = match &self.services {
            Services::Embedded(embedded) => vec![embedded.addr()],
            Services::Mesh(mesh) => mesh.of(service).map(mesh::Replica::addr).collect(),
        };
        if addresses.is_empty() {
            return Err(Error::Usage(format!("this cannot be measured without {service}")));
        }
        Ok(Caller::new(Lines::to_each(&addresses, self.connections)?, token))
    }

    /// The process ids by name. PostgreSQL's include its sessions.
    pub(crate) fn processes(&self) -> Vec<(String, Vec<u32>)> {
        match &self.services {
            Services::Embedded(embedded) => vec![("all services".to_owned(), embedded.pid().into_iter().collect())],
            Services::Mesh(mesh) => {
                let replica = |replica: &mesh::Replica| (replica.name(), replica.pid().into_iter().collect());
                let mut processes: Vec<(String, Vec<u32>)> = mesh.replicas().iter().map(replica).collect();
                let postgres = mesh.postgres_pid().map(proc::family).unwrap_or_default();
                processes.push(("PostgreSQL".to_owned(), postgres));
                processes.push(("nats-server".to_owned(), mesh.nats_pid().into_iter().collect()));
                processes
            }
        }
    }

    fn cpu(&self) -> Duration {
        self.processes().iter().flat_map(|(_, pids)| pids).map(|pid| proc::cpu(*pid)).sum()
    }

    /// Waits until the processes are at rest, because events and logs were processed, for a minute at most. Returns how
    /// long that took.
    pub(crate) async fn rest(&self) -> Duration {
        self.resting(REST_TIMEOUT).await.unwrap_or(REST_TIMEOUT)
    }

    /// Waits until the processes are at rest. An error after an hour.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        self.resting(SETTLE_TIMEOUT).await.map(drop).ok_or_else(|| Error::failed("the services do not come to rest"))
    }

    /// Waits until the processes are at rest. Returns how long that took, or `None` after `limit`.
    async fn resting(&self, limit: Duration) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if self.used().await <= self.resting {
                return Some(begun.elapsed().saturating_sub(CPU_SAMPLE));
            }
        }
        None
    }

    /// The share of a core that the processes use during one sample.
    async fn used(&self) -> f64 {
        let before = self.cpu();
        sleep(CPU_SAMPLE).await;
        self.cpu().saturating_sub(before).as_secs_f64() / CPU_SAMPLE.as_secs_f64()
    }

    /// The last output of the embedded services if they have ended by themselves.
    pub(crate) fn last_words(&mut self) -> Option<String> {
        match &mut self.services {
            Services::Embedded(embedded) => embedded.last_words(),
            Services::Mesh(_) => None,
        }
    }

    /// Ends the services in an orderly way.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        match self.services {
            Services::Embedded(mut embedded) => embedded.stop().await,
            Services::Mesh(mesh) => Ok(mesh.stop().await?),
        }
    }
}

impl Setup {
    fn left_out(&self, plan: &Plan) -> Vec<String> {
        let out = |service: &&str| {
            plan.without.iter().any(|name| name == service) || !(self.only.is_empty() || self.only.contains(service))
        };
        SERVICES.iter().filter(|service| out(service)).map(|service| (*service).to_owned()).collect()
    }

    fn layout(&self, plan: &Plan, directory: &Path, left_out: &[String], settings: Vec<String>) -> Layout {
        let mut layout = Layout::new(&plan.binary, directory);
        for (service, count) in &mut layout.replicas {
            let wanted = self.replicas.iter().find(|(name, _)| name == service);
            *count = wanted.map_or_else(|| self.each.max(1), |(_, wanted)| *wanted);
        }
        layout.replicas.retain(|(service, _)| !left_out.contains(service));
        layout.settings = settings;
        if self.no_files {
            layout.in_files.clear();
        }
        layout
    }
}
