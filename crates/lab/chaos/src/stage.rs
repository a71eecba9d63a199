//! The system under test: a mesh, or an embedded process. The load, the audit and the row do not know which.

use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use checkup::gateway::{Gateway, Upstream};
use mesh::{Mesh, Replica};
use testkit::{Call, Checkup, DataDir, Disk, Launch, Topology};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::Error;

const POLL_INTERVAL: Duration = Duration::from_millis(20);
const SHOWN_LINES: usize = 200;

/// A system that serves, can be broken, and must be whole again at the end.
pub(crate) trait Stage: Sized {
    /// How many times `verify` must run to read every replica.
    const VIEWS: usize;

    /// The addresses of a service.
    fn addrs(&self, service: &str) -> Vec<SocketAddr>;

    /// The directory that has the signing key.
    fn directory(&self) -> PathBuf;

    /// Waits until all of it serves.
    ///
    /// # Errors
    /// If it does not serve within the limit.
    async fn ready(&mut self, limit: Duration) -> Result<(), Error>;

    /// Runs `checkup verify --json` on the replicas with the number `view`.
    ///
    /// # Errors
    /// If it cannot be run.
    async fn verify(&self, binary: &Path, view: usize, settle: Duration) -> Result<Output, Error>;

    /// Ends the system in an orderly way.
    ///
    /// # Errors
    /// If it does not end that way.
    async fn stop(self) -> Result<(), Error>;
}

/// The command `checkup verify` for an address.
fn verify(binary: &Path, addr: SocketAddr, directory: &Path, settle: Duration) -> Command {
    let mut command = Command::new(binary);
    command.arg("verify").arg("--addr").arg(addr.to_string()).arg("--data-dir").arg(directory);
    command.arg("--settle").arg(format!("{}s", settle.as_secs())).arg("--json").kill_on_drop(true);
    command
}

impl Stage for Mesh {
    const VIEWS: usize = 2;

    fn addrs(&self, service: &str) -> Vec<SocketAddr> {
        self.of(service).map(Replica::addr).collect()
    }

    fn directory(&self) -> PathBuf {
        Self::directory(self).to_owned()
    }

    async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        Ok(Self::ready(self, limit).await?)
    }

    /// Reads the replicas with this number, or the last ones of services that have fewer.
    async fn verify(&self, binary: &Path, view: usize, settle: Duration) -> Result<Output, Error> {
        let mut upstreams = HashMap::new();
        for replica in self.replicas().iter().filter(|replica| replica.index() <= view) {
            let upstream = Upstream::new(replica.addr()).map_err(|error| Error::failed(error.to_string()))?;
            upstreams.insert(replica.service().to_owned(), vec![Arc::new(upstream)]);
        }
        let gateway = Gateway::new(upstreams).map_err(|error| Error::failed(error.to_string()))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Error::system("listen on a free port"))?;
        let addr = listener.local_addr().map_err(Error::system("listen on a free port"))?;
        let mut command = verify(binary, addr, Self::directory(self), settle);
        tokio::select! {
            output = command.output() => output.map_err(Error::system("run checkup verify")),
            served = gateway.serve(listener, pending()) => {
                Err(Error::failed(format!("the gateway ended: {served:?}")))
            }
        }
    }

    async fn stop(self) -> Result<(), Error> {
        Ok(Self::stop(self).await?)
    }
}

/// `checkup up` on a disk that can be made to fail.
#[derive(Debug)]
pub(crate) struct Embedded {
    launch: Launch,
    /// The same launch with the settings of a scenario.
    set: Launch,
    /// `None` while the process does not run.
    process: Option<Checkup>,
    addr: SocketAddr,
    pub(crate) disk: Disk,
    log: PathBuf,
}

impl Embedded {
    /// Starts a process below this directory. With `power` its disk can lose power.
    ///
    /// # Errors
    /// [`Error::Skipped`] if this machine cannot have a faulty disk, otherwise why the process does not start.
    pub(crate) async fn start(binary: &Path, directory: &Path, power: bool) -> Result<Self, Error> {
        let stage = directory.join("stage");
        std::fs::create_dir(&stage).map_err(Error::system("make a directory"))?;
        let disk = Disk::under(&stage).and_then(|disk| if power { disk.with_power() } else { Ok(disk) });
        let disk = disk.map_err(Error::Skipped)?;
        let port = mesh::port::free()?;
        let launch = Launch::new(binary).topology(Topology::Embedded).port(port).disk(&disk);
        let launch = launch.on(&DataDir::at(stage.join("data")));
        let (addr, log) = (([127, 0, 0, 1], port).into(), directory.join("log"));
        let set = launch.clone();
        let mut embedded = Self { launch, set, process: None, addr, disk, log };
        embedded.restart().await?;
        if embedded.disk.processes() == 0 {
            return Err(Error::Skipped("a disk that fails needs a binary that uses the system's libc".to_owned()));
        }
        Ok(embedded)
    }

    /// Starts the process again after it was ended.
    ///
    /// # Errors
    /// The output of a process that did not serve.
    pub(crate) async fn restart(&mut self) -> Result<(), Error> {
        let started = self.set.try_start().await;
        let failure = |failure| Error::failed(format!("checkup up does not start: {failure:#?}"));
        self.process = Some(started.map_err(failure)?);
        Ok(())
    }

    /// Sets the settings of the next starts. Replaces those of an earlier call.
    pub(crate) fn set(&mut self, settings: &[(&str, &str)]) {
        let observed = |launch: Launch, (key, value): &(&str, &str)| launch.set(key, value);
        self.set = settings.iter().fold(self.launch.clone(), observed);
    }

    /// Ends the process with SIGTERM. Returns the end of its log.
    ///
    /// # Errors
    /// If its exit code is not 0.
    pub(crate) async fn terminate(&mut self) -> Result<String, Error> {
        let Some(process) = self.process.take() else { return Ok(String::new()) };
        let said = process.stderr().clone();
        process.terminate();
        let (code, _) = process.ended().await;
        let said = said.tail(SHOWN_LINES);
        self.keep_log(&said);
        if code == Some(0) { Ok(said) } else { Err(Error::failed(format!("checkup up ended with {code:?}"))) }
    }

    /// Sends SIGKILL and waits until the process has ended.
    pub(crate) async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            let said = process.stderr().clone();
            process.kill().await;
            self.keep_log(&said.tail(SHOWN_LINES));
        }
    }

    /// The running process.
    ///
    /// # Errors
    /// If no process runs, or if it ended by itself.
    pub(crate) fn process(&mut self) -> Result<&mut Checkup, Error> {
        let process = self.process.as_mut().ok_or_else(|| Error::failed("the process is not running"))?;
        if process.is_alive() {
            return Ok(process);
        }
        Err(Error::failed(format!("the process ended by itself: {}", process.stderr().tail(SHOWN_LINES))))
    }

    /// Whether the process reports that it is ready.
    ///
    /// # Errors
    /// If its admin page does not answer.
    pub(crate) async fn is_ready(&mut self) -> Result<bool, Error> {
        let admin = self.process()?.admin_addr();
        Ok(testkit::get(admin, "/ready").await.map_err(Error::failed)?.status == 200)
    }

    /// Waits until faults have hit at least `hits` calls.
    ///
    /// # Errors
    /// If they have not within `limit`, or if the process has ended.
    pub(crate) async fn felt(&mut self, hits: u64, limit: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        while self.disk.hits() < hits {
            if begun.elapsed() > limit {
                return Err(Error::failed(format!("the disk was not felt in {limit:?}")));
            }
            self.process()?;
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    fn keep_log(&self, text: &str) {
        use std::io::Write;
        let file = std::fs::File::options().create(true).append(true).open(&self.log);
        // A log that cannot be kept does not affect the run.
        let _ = file.and_then(|mut file| writeln!(file, "{text}"));
    }
}

/// The calls that fail on a disk with I/O errors.
pub(crate) const IO: [Call; 3] = [Call::Write, Call::Sync, Call::Truncate];

impl Stage for Embedded {
    const VIEWS: usize = 1;

    fn addrs(&self, _service: &str) -> Vec<SocketAddr> {
        vec![self.addr]
    }

    fn directory(&self) -> PathBuf {
        self.launch.data().path().to_owned()
    }

    async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        while !self.is_ready().await? {
            if begun.elapsed() > limit {
                return Err(Error::failed(format!("the process is not ready within {limit:?}")));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    async fn verify(&self, binary: &Path, _view: usize, settle: Duration) -> Result<Output, Error> {
        let output = verify(binary, self.addr, self.launch.data().path(), settle).output().await;
        output.map_err(Error::system("run checkup verify"))
    }

    async fn stop(mut self) -> Result<(), Error> {
        self.terminate().await.map(drop)
    }
}
