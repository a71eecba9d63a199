//! One replica of a service: a process that can be started, asked how it is, stopped, killed and paused.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::child::Child;
use crate::topology::without_settings;
use crate::{Error, Output};

const READINESS_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long an answer on the admin port is waited for.
const ADMIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an orderly end may take: the drain, and then some.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const SHOWN_LINES: usize = 30;
/// Of a process that yields: it has about a tenth of the time that another one has which wants as much.
const NICENESS: &str = "10";

/// Where a replica is.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    pub(crate) service: String,
    pub(crate) index: usize,
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    pub(crate) directory: PathBuf,
    /// Whether it lets others go first where processors are few.
    pub(crate) yields: bool,
}

/// How a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs and does not answer yet.
    Starting,
    /// It answers and waits for this before it serves.
    Waiting(String),
    /// It serves.
    Serving,
    /// It ended by itself; how.
    Ended(String),
    /// It was stopped.
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

/// A replica. It ends with its handle.
#[derive(Debug)]
pub struct Replica {
    spot: Spot,
    binary: PathBuf,
    configuration: PathBuf,
    /// What all replicas are told besides.
    common: Vec<String>,
    /// What only this one is told.
    settings: Vec<String>,
    /// Variables that only this one has.
    environment: Vec<(String, String)>,
    child: Option<Child>,
    /// How it ended last, where it did so by itself.
    ended: Option<ExitStatus>,
    output: Output,
}

impl Replica {
    pub(crate) fn new(spot: Spot, binary: PathBuf, configuration: PathBuf, common: Vec<String>) -> Self {
        let (settings, environment, output) = (Vec::new(), Vec::new(), Output::default());
        Self { spot, binary, configuration, common, settings, environment, child: None, ended: None, output }
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.spot.service
    }

    /// Which of its replicas, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.spot.index
    }

    /// `hospital-0`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.spot.service, self.spot.index)
    }

    /// Where it serves, also after a restart.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.spot.port).into()
    }

    /// Where its admin pages are.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.spot.admin_port).into()
    }

    /// `http://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// What it wrote since it was last started.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The process; `None` where there is none.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Tells only this replica, from its next start on: `KEY=VALUE`. Replaces what it was told before.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
    }

    /// Gives variables to only this replica's process, from its next start on. Replaces those it was given before.
    pub fn set_environment(&mut self, variables: Vec<(String, String)>) {
        self.environment = variables;
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.spot.directory
    }

    /// Starts it; does not wait until it serves.
    ///
    /// # Errors
    /// Where it cannot be run.
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
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        std::fs::create_dir_all(directory).map_err(Error::system(format!("make {}", directory.display())))?;
        let child = Child::spawn(self.name(), command, Signal::TERM, None)?;
        self.output = child.output().clone();
        self.output.copy_to(&directory.join("log"))?;
        (self.child, self.ended) = (Some(child), None);
        Ok(())
    }

    /// How it is.
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

    /// Waits until it serves.
    ///
    /// # Errors
    /// [`Error::Failed`] where it ended instead, [`Error::Late`] where it does not after `limit`.
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

    /// Stops it in an orderly way.
    ///
    /// # Errors
    /// [`Error::Late`].
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.signal(Signal::CONT);
        self.end(Signal::TERM).await
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// [`Error::Late`].
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.end(Signal::KILL).await
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
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

/// What the admin page `/ready` says: the status and the text.
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

    /// What the process of a replica says its niceness is.
    async fn niceness(yields: bool) -> i32 {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let binary = directory.path().join("says-niceness");
        std::fs::write(&binary, "#!/bin/sh\nnice\nexec sleep 60\n").expect("a program");
        std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).expect("its mode");
        let (service, directory) = ("any".to_owned(), directory.path().join("any-0"));
        let spot = Spot { service, index: 0, port: 1, admin_port: 2, directory, yields };
        let mut replica = Replica::new(spot, binary, "none".into(), Vec::new());
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
