//! What is broken: a mesh, or one process with everything in it. The load, the audit and the row do not know which.

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

/// Something that serves, can be broken, and must be whole again in the end.
pub(crate) trait Stage: Sized {
    /// How often `verify` has to look to have seen every replica.
    const VIEWS: usize;

    /// Where a service answers.
    fn addrs(&self, service: &str) -> Vec<SocketAddr>;

    /// Where the signing key is.
    fn directory(&self) -> PathBuf;

    /// Waits until all of it serves.
    ///
    /// # Errors
    /// Where it does not within the limit.
    async fn ready(&mut self, limit: Duration) -> Result<(), Error>;

    /// What `checkup verify --json` says, through the replicas of this number.
    ///
    /// # Errors
    /// Where it cannot be run.
    async fn verify(&self, binary: &Path, view: usize, settle: Duration) -> Result<Output, Error>;

    /// Ends it in an orderly way.
    ///
    /// # Errors
    /// Where it does not end so.
    async fn stop(self) -> Result<(), Error>;
}

/// `checkup verify` against an address.
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

    /// Through the replicas of this number, or the last ones of services that have fewer.
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
    /// The same with other settings, where a scenario wants that.
    set: Launch,
    /// `None` while it is killed.
    process: Option<Checkup>,
    addr: SocketAddr,
    pub(crate) disk: Disk,
    log: PathBuf,
}

impl Embedded {
    /// Starts one below this directory, which a power failure concerns too where `power` says so.
    ///
    /// # Errors
    /// [`Error::Skipped`] where this machine has no such disk; otherwise why the process does not start.
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

    /// Starts it again after it was killed.
    ///
    /// # Errors
    /// What it said instead of serving.
    pub(crate) async fn restart(&mut self) -> Result<(), Error> {
        let started = self.set.try_start().await;
        let failure = |failure| Error::failed(format!("checkup up does not start: {failure:#?}"));
        self.process = Some(started.map_err(failure)?);
        Ok(())
    }

    /// What it is told besides at its next starts, instead of what it was told before.
    pub(crate) fn set(&mut self, settings: &[(&str, &str)]) {
        let observed = |launch: Launch, (key, value): &(&str, &str)| launch.set(key, value);
        self.set = settings.iter().fold(self.launch.clone(), observed);
    }

    /// Ends it in an orderly way, until it is started again; what it said last.
    ///
    /// # Errors
    /// Where it does not end so.
    pub(crate) async fn terminate(&mut self) -> Result<String, Error> {
        let Some(process) = self.process.take() else { return Ok(String::new()) };
        let said = process.stderr().clone();
        process.terminate();
        let (code, _) = process.ended().await;
        let said = said.tail(SHOWN_LINES);
        self.keep_log(&said);
        if code == Some(0) { Ok(said) } else { Err(Error::failed(format!("checkup up ended with {code:?}"))) }
    }

    /// `kill -9`; nothing of it runs any more when this returns.
    pub(crate) async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            let said = process.stderr().clone();
            process.kill().await;
            self.keep_log(&said.tail(SHOWN_LINES));
        }
    }

    /// The process that runs.
    ///
    /// # Errors
    /// Where none does, or it ended by itself.
    pub(crate) fn process(&mut self) -> Result<&mut Checkup, Error> {
        let process = self.process.as_mut().ok_or_else(|| Error::failed("the process is not running"))?;
        if process.is_alive() {
            return Ok(process);
        }
        Err(Error::failed(format!("the process ended by itself: {}", process.stderr().tail(SHOWN_LINES))))
    }

    /// Whether it says that it is ready.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(crate) async fn is_ready(&mut self) -> Result<bool, Error> {
        let admin = self.process()?.admin_addr();
        Ok(testkit::get(admin, "/ready").await.map_err(Error::failed)?.status == 200)
    }

    /// Waits until it has called its disk so often for something that was struck.
    ///
    /// # Errors
    /// Where it has not within the limit.
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
        // a log that cannot be kept is missed only by who looks for it
        let _ = file.and_then(|mut file| writeln!(file, "{text}"));
    }
}

/// Calls that a disk with I/O errors fails.
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
