//! One replica of a service: a process that can be started, asked for its state, stopped, killed and paused.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::child::{Child, without_settings};
use crate::{Error, Output};

const READINESS_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the admin port may take to answer.
const ADMIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an orderly end may take: longer than the drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const SHOWN_LINES: usize = 30;
/// The niceness of a replica that yields: it gets about a tenth of the time of a busy process of normal niceness.
const NICENESS: &str = "10";

/// The ports and the directory of a replica.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    pub(crate) service: String,
    pub(crate) index: usize,
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    pub(crate) directory: PathBuf,
    /// Whether other processes go first when processors are few.
    pub(crate) yields: bool,
}

/// The state of a replica's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs and its admin port does not answer yet.
    Starting,
    /// It answers and is not ready; the text of its page `/ready`.
    Waiting(String),
    /// It is ready for calls.
    Serving,
    /// It ended by itself, with this exit status.
    Ended(String),
    /// It was stopped, or never started.
    Stopped,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Waiting(what) => write!(f, "waiting for {what}"),
            Self::Serving => f.write_str("serving"),
            Self::Ended(how) => write!(f, "ended ({how})"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// One replica of a service. Its process ends with this handle.
#[derive(Debug)]
pub struct Replica {
    spot: Spot,
    binary: PathBuf,
    configuration: PathBuf,
    /// The address of the broker, with the service's user.
    broker: String,
    /// Settings of all replicas, `KEY=VALUE`.
    common: Vec<String>,
    /// Settings of this replica, `KEY=VALUE`.
    settings: Vec<String>,
    /// Environment variables of this replica.
    environment: Vec<(String, String)>,
    child: Option<Child>,
    /// The exit status, if it ended by itself.
    ended: Option<ExitStatus>,
    output: Output,
}

impl Replica {
    pub(crate) fn new(
        spot: Spot,
        binary: PathBuf,
        configuration: PathBuf,
        broker: String,
        common: Vec<String>,
    ) -> Self {
        let (settings, environment, output) = (Vec::new(), Vec::new(), Output::default());
        Self { spot, binary, configuration, broker, common, settings, environment, child: None, ended: None, output }
    }

    /// The name of the service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.spot.service
    }

    /// The number of this replica among those of its service, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.spot.index
    }

    /// The service and the index: `hospital-0`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.spot.service, self.spot.index)
    }

    /// The address of its gRPC server. It stays the same after a restart.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.spot.port).into()
    }

    /// The address of its admin pages.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.spot.admin_port).into()
    }

    /// The gRPC address as `http://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The output since the last start.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The process id; `None` while no process runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Sets settings of this replica alone, `KEY=VALUE`, from its next start on. Replaces those of an earlier call.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
    }

    /// Has this replica run another binary from its next start on.
    pub fn replace_binary(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Sets environment variables of this replica alone, from its next start on. Replaces those of an earlier call.
    pub fn set_environment(&mut self, variables: Vec<(String, String)>) {
        self.environment = variables;
    }

    /// The directory of its files, its log among them.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.spot.directory
    }

    /// Starts the process and does not wait until it serves.
    ///
    /// # Errors
    /// [`Error::System`] if the process cannot be started or its directory cannot be written.
    pub fn start(&mut self) -> Result<(), Error> {
        let Spot { service, directory, yields, .. } = &self.spot;
        let mut command = if *yields {
            let mut nice = Command::new("nice");
            nice.args(["-n", NICENESS]).arg(&self.binary);
            nice
        } else {
            Command::new(&self.binary)
        };
        command.args(["serve", service]).arg("--config").arg(&self.configuration).arg("--data-dir").arg(directory);
        command.arg("--addr").arg(self.addr().to_string()).arg("--admin-addr").arg(self.admin_addr().to_string());
        for setting in self.common.iter().chain(&self.settings) {
            command.arg("--set").arg(setting);
        }
        without_settings(&mut command);
        // In the environment, because others can read a command line.
        command.env("CHECKUP_EVENTS__NATS", &self.broker);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        std::fs::create_dir_all(directory).map_err(Error::system(format!("make {}", directory.display())))?;
        let child = Child::spawn(self.name(), command, Signal::TERM, None)?;
        self.output = child.output().clone();
        self.output.copy_to(&directory.join("log"))?;
        (self.child, self.ended) = (Some(child), None);
        Ok(())
    }

    /// Asks for the state. An admin port that does not answer within half a second counts as [`State::Starting`].
    pub async fn state(&mut self) -> State {
        if let Some(status) = self.child.as_mut().and_then(Child::has_ended) {
            (self.child, self.ended) = (None, Some(status));
        }
        match (&self.child, self.ended) {
            (None, Some(status)) => State::Ended(status.to_string()),
            (None, None) => State::Stopped,
            (Some(_), _) => match timeout(ADMIN_TIMEOUT, ask(self.admin_addr())).await {
                Ok(Ok((200, _))) => State::Serving,
                Ok(Ok((_, body))) => State::Waiting(body.trim().to_owned()),
                Ok(Err(_)) | Err(_) => State::Starting,
            },
        }
    }

    /// Waits until the replica serves.
    ///
    /// # Errors
    /// [`Error::Failed`] if it is stopped or has ended, [`Error::Late`] if it does not serve within `limit`.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), Error> {
        let end = Instant::now() + limit;
        loop {
            let state = self.state().await;
            let output = || self.output.tail(SHOWN_LINES);
            match state {
                State::Serving => return Ok(()),
                State::Ended(_) | State::Stopped => {
                    return Err(Error::Failed { what: format!("{} {state}", self.name()), output: output() });
                }
                State::Starting | State::Waiting(_) if Instant::now() >= end => {
                    return Err(Error::Late { what: format!("{} is {state}", self.name()), limit, output: output() });
                }
                State::Starting | State::Waiting(_) => sleep(READINESS_POLL_INTERVAL).await,
            }
        }
    }

    /// Stops the replica with SIGTERM and waits until it has ended. Resumes it first if it is paused.
    ///
    /// # Errors
    /// [`Error::Late`] if it still runs after 30 seconds.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.signal(Signal::CONT);
        self.end(Signal::TERM).await
    }

    /// Kills the replica with SIGKILL and waits until it has ended.
    ///
    /// # Errors
    /// [`Error::Late`] if it still runs after 30 seconds.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.end(Signal::KILL).await
    }

    /// Sends SIGSTOP: connections stay open and nothing is answered.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT to a paused replica.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(child) = &mut self.child {
            child.signal(signal);
        }
    }

    async fn end(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(child) = &mut self.child {
            child.end(signal, STOP_TIMEOUT).await?;
            (self.child, self.ended) = (None, None);
        }
        Ok(())
    }
}

/// The status and the text of the admin page `/ready`.
async fn ask(admin: SocketAddr) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use testkit::eventually;

    use super::{NICENESS, Replica, Spot};

    /// The niceness that a replica's process prints.
    async fn niceness(yields: bool) -> i32 {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let binary = directory.path().join("says-niceness");
        std::fs::write(&binary, "#!/bin/sh\nnice\nexec sleep 60\n").expect("a program");
        std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).expect("its mode");
        let (service, directory) = ("any".to_owned(), directory.path().join("any-0"));
        let spot = Spot { service, index: 0, port: 1, admin_port: 2, directory, yields };
        let mut replica = Replica::new(spot, binary, "none".into(), "nats://nowhere".to_owned(), Vec::new());
        replica.start().expect("it starts");
        let said = replica.output().clone();
        eventually("its niceness", async || said.find(|line| line.parse().ok()).ok_or_else(|| said.tail(5))).await
    }

    #[tokio::test]
    async fn a_service_that_yields_is_nicer_than_the_others() {
        let more: i32 = NICENESS.parse().expect("a number");
        assert_eq!(niceness(true).await, (niceness(false).await + more).min(19));
    }
}
