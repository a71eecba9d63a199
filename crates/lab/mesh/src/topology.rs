//! A whole mesh on loopback: PostgreSQL, nats-server and replicas of services, each a process of its own.
//!
//! `make mesh` shows it and the chaos tests break it. A service is only a name here: this crate starts `BINARY serve
//! NAME` and does not know what that does.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::without_settings;
use crate::replica::{Replica, Spot};
use crate::{Error, Nats, Postgres, port};

/// How long `migrate` may take.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(60);

/// Which services run, how many replicas each has, and where their files are.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The program that has the subcommands `serve` and `migrate`.
    pub binary: PathBuf,
    /// The directory of data, keys, logs and the configuration. It is kept.
    pub directory: PathBuf,
    /// The number of replicas per service name.
    pub replicas: Vec<(String, usize)>,
    /// The names of the services that keep one file per replica instead of a shared database.
    pub in_files: Vec<String>,
    /// Settings of every replica, `KEY=VALUE`.
    pub settings: Vec<String>,
    /// The names of the services whose processes yield to the others when processors are few.
    pub yielding: Vec<String>,
    /// PostgreSQL's directory, if it is not below `directory`.
    pub postgres: Option<PathBuf>,
}

impl Layout {
    /// The mesh of docs/architecture.md: two replicas of each service that takes the load, one of the others.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Self {
        let replicas = [("hospital", 2), ("screening", 2), ("reservation", 1), ("mypage", 2), ("marketing", 1)];
        Self {
            binary: binary.into(),
            directory: directory.into(),
            replicas: replicas.map(|(name, count)| (name.to_owned(), count)).into(),
            in_files: vec!["mypage".to_owned()],
            settings: Vec::new(),
            yielding: Vec::new(),
            postgres: None,
        }
    }

    /// Sets the number of replicas of one service.
    #[must_use]
    pub fn replicas(mut self, service: &str, count: usize) -> Self {
        for (name, replicas) in &mut self.replicas {
            if name == service {
                *replicas = count;
            }
        }
        self
    }

    fn services(&self) -> impl Iterator<Item = &str> {
        self.replicas.iter().map(|(name, _)| name.as_str())
    }

    fn has_database(&self, service: &str) -> bool {
        self.in_files.iter().all(|name| name != service)
    }
}

/// A running mesh. Its processes end with this handle; what they stored stays in the directory.
#[derive(Debug)]
pub struct Mesh {
    layout: Layout,
    // Dropped in this order: the replicas end before the servers they depend on.
    replicas: Vec<Replica>,
    nats: Nats,
    postgres: Postgres,
}

impl Mesh {
    /// Starts the servers, migrates the databases and starts every replica. Does not wait until the replicas serve.
    /// Calls `say` with each step.
    ///
    /// # Errors
    /// [`Error::Missing`] if a server is not installed, otherwise why a process did not start.
    pub async fn start(layout: Layout, mut say: impl FnMut(&str)) -> Result<Self, Error> {
        let directory = &layout.directory;
        std::fs::create_dir_all(directory).map_err(Error::system(format!("make {}", directory.display())))?;
        say("starting PostgreSQL and nats-server");
        let (postgres_dir, nats_dir) =
            (layout.postgres.clone().unwrap_or_else(|| directory.join("postgres")), directory.join("nats"));
        let (postgres, nats) = tokio::join!(Postgres::start_in(&postgres_dir), Nats::start_in(&nats_dir));
        let (postgres, nats) = (postgres?, nats?);
        for service in layout.services().filter(|service| layout.has_database(service)) {
            let there = format!("SELECT 1 FROM pg_database WHERE datname = '{service}'");
            if postgres.sql("postgres", &there).await?.is_empty() {
                postgres.create_database(service).await?;
            }
        }
        let mut mesh = Self { replicas: Vec::new(), nats, postgres, layout };
        mesh.place()?;
        mesh.write_configuration()?;
        say("bringing the databases up to date");
        mesh.migrate().await?;
        say("starting the services");
        for replica in &mut mesh.replicas {
            replica.start()?;
        }
        Ok(mesh)
    }

    /// Gives every replica its ports, its directory and its service's user of the broker.
    fn place(&mut self) -> Result<(), Error> {
        for (service, count) in self.layout.replicas.clone() {
            for index in 0..count {
                let spot = Spot {
                    service: service.clone(),
                    index,
                    port: port::free()?,
                    admin_port: port::free()?,
                    directory: self.layout.directory.join(format!("{service}-{index}")),
                    yields: self.layout.yielding.contains(&service),
                };
                let (binary, settings) = (self.layout.binary.clone(), self.layout.settings.clone());
                let broker = self.nats.url_of(&service);
                self.replicas.push(Replica::new(spot, binary, self.configuration(), broker, settings));
            }
        }
        Ok(())
    }

    /// The path of the configuration that every process of the mesh reads.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.layout.directory.join("mesh.toml")
    }

    fn write_configuration(&self) -> Result<(), Error> {
        let mut text = String::from("# Written by the mesh at every start.\n");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[identity]\nkey_dir = {:?}", self.layout.directory);
        // Long enough for a client that polls readiness to stop sending calls.
        let _ = writeln!(text, "[server]\ndrain_delay = \"300ms\"");
        // For the tools. Each replica has a user of its own, see `place`.
        let _ = writeln!(text, "[events]\nnats = {:?}", self.nats.url_of("tools"));
        let hospitals: Vec<String> = self.of("hospital").map(Replica::url).collect();
        for service in self.layout.services() {
            let _ = writeln!(text, "[{service}]");
            if self.layout.has_database(service) {
                let _ = writeln!(text, "database = {:?}", self.postgres.url(service));
            }
            if matches!(service, "screening" | "marketing") {
                let _ = writeln!(text, "hospital_address = {:?}", hospitals.join(","));
            }
        }
        let path = self.configuration();
        std::fs::write(&path, text).map_err(Error::system(format!("write {}", path.display())))
    }

    /// Brings the databases up to date with another binary, which the next mesh on this directory starts with. The
    /// replicas go on with the one that they have.
    ///
    /// # Errors
    /// If the migration fails.
    pub async fn migrate_to(&mut self, binary: &Path) -> Result<(), Error> {
        binary.clone_into(&mut self.layout.binary);
        self.migrate().await
    }

    async fn migrate(&self) -> Result<(), Error> {
        let mut command = Command::new(&self.layout.binary);
        command.arg("migrate").arg("--config").arg(self.configuration());
        without_settings(&mut command);
        let mut child = crate::child::Child::spawn("checkup migrate", command, Signal::TERM, None)?;
        let status = child.ended(MIGRATE_TIMEOUT).await?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Failed { what: "checkup migrate failed".to_owned(), output: child.output().tail(20) })
    }

    /// The directory of data, keys, logs and the configuration.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.layout.directory
    }

    /// The database server, to stop, start or configure.
    pub fn postgres(&mut self) -> &mut Postgres {
        &mut self.postgres
    }

    /// The database server, to query.
    #[must_use]
    pub fn postgres_ref(&self) -> &Postgres {
        &self.postgres
    }

    /// The process id of the database server; `None` while it is stopped.
    #[must_use]
    pub fn postgres_pid(&self) -> Option<u32> {
        self.postgres.pid()
    }

    /// The process id of the broker; `None` while it is stopped.
    #[must_use]
    pub fn nats_pid(&self) -> Option<u32> {
        self.nats.pid()
    }

    /// The broker, to stop, start or wipe.
    pub fn nats(&mut self) -> &mut Nats {
        &mut self.nats
    }

    /// Every replica, in the order of the layout.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Every replica, in the order of the layout, to stop and start.
    pub fn replicas_mut(&mut self) -> &mut [Replica] {
        &mut self.replicas
    }

    /// The replicas of one service, in order of their index.
    pub fn of(&self, service: &str) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(move |replica| replica.service() == service)
    }

    /// One replica of a service; `None` if the layout has no such replica.
    pub fn replica(&mut self, service: &str, index: usize) -> Option<&mut Replica> {
        self.replicas.iter_mut().find(|replica| replica.service() == service && replica.index() == index)
    }

    /// Waits until every replica serves.
    ///
    /// # Errors
    /// [`Error::Late`] or [`Error::Failed`] with the last output of the first replica that does not serve in time.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        let end = tokio::time::Instant::now() + limit;
        for replica in &mut self.replicas {
            replica.ready(end.saturating_duration_since(tokio::time::Instant::now())).await?;
        }
        Ok(())
    }

    /// Stops the services, then the servers they depend on, each in an orderly way.
    ///
    /// # Errors
    /// The first process that did not end. The others are stopped all the same.
    pub async fn stop(mut self) -> Result<(), Error> {
        let stopping = self.replicas.iter_mut().map(Replica::stop);
        let mut outcome = Ok(());
        for stopped in futures::future::join_all(stopping).await {
            outcome = outcome.and(stopped);
        }
        let (nats, postgres) = tokio::join!(self.nats.stop(), self.postgres.stop_fast());
        outcome.and(nats).and(postgres)
    }
}
