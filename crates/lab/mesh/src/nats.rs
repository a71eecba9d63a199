//! A private nats-server with JetStream.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::child::Child;
use crate::home::Home;
use crate::{Error, Output, port, programs};

/// How long a start or a stop may take; reading the store is part of a start.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(60);
const START_POLL_INTERVAL: Duration = Duration::from_millis(5);
const SHOWN_LINES: usize = 20;
/// A port that was free can be taken before the server has it.
const PORTS_TRIED: usize = 5;

/// What the server is configured by, apart from its port, its store and its passwords: `crates/lab/mesh/nats.conf`.
pub const CONFIGURATION: &str = include_str!("../nats.conf");
/// Who a client is that does not say who it is: a service.
const NO_GUARD: &str = "\nno_auth_user: checkup\n";
/// Of the users on loopback where no password was given. They keep nobody out; they tell a mistake from an intention.
const PASSWORD: &str = "checkup";
const OPERATOR_PASSWORD: &str = "operator";
/// How long the server may take to answer an operator.
const OPERATOR_TIMEOUT: Duration = Duration::from_secs(10);

/// A server of its own on a free port of 127.0.0.1, with the configuration this repository ships. It ends with its handle.
#[derive(Debug)]
pub struct Nats {
    child: Option<Child>,
    log: Output,
    program: PathBuf,
    port: u16,
    home: Home,
    guard: Option<String>,
}

impl Nats {
    /// Starts one with a new temporary directory, which is removed with the handle.
    ///
    /// # Errors
    /// [`Error::Missing`] where nats-server is not installed, otherwise why it did not start.
    pub async fn start() -> Result<Self, Error> {
        Self::start_at(Home::temporary("nats")?).await
    }

    /// Starts one whose store is in `directory` and stays there, for the next start too.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(directory: &Path) -> Result<Self, Error> {
        Self::start_at(Home::kept(directory)?).await
    }

    /// Starts one with a new temporary directory that lets no service in but who shows the name `checkup` and this password.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_guarded(password: &str) -> Result<Self, Error> {
        let mut server = Self::stopped(Home::temporary("nats")?)?;
        server.guard = Some(password.to_owned());
        server.start_somewhere().await
    }

    async fn start_at(home: Home) -> Result<Self, Error> {
        Self::stopped(home)?.start_somewhere().await
    }

    async fn start_somewhere(self) -> Result<Self, Error> {
        let mut server = self;
        for _ in 1..PORTS_TRIED {
            match server.launch().await {
                Err(Error::Failed { output, .. }) if output.contains("address already in use") => {
                    server.port = port::free()?;
                }
                other => return other.map(|()| server),
            }
        }
        server.launch().await.map(|()| server)
    }

    /// Has a port and a directory, and does not run before [`Self::restart`]: for clients that come before their server.
    ///
    /// # Errors
    /// [`Error::Missing`] where nats-server is not installed.
    pub fn absent() -> Result<Self, Error> {
        Self::stopped(Home::temporary("nats")?)
    }

    fn stopped(home: Home) -> Result<Self, Error> {
        let (program, port) = (programs::nats_server()?, port::free()?);
        Ok(Self { child: None, log: Output::default(), program, port, home, guard: None })
    }

    /// Its address, for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it listens on 127.0.0.1, also after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process to signal; `None` while stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Where its streams are.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// What it logged since it was last started.
    #[must_use]
    pub fn log(&self) -> &Output {
        &self.log
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// [`Error::Late`].
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.end(Signal::KILL).await
    }

    /// Stops it in an orderly way.
    ///
    /// # Errors
    /// [`Error::Late`].
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.resume();
        self.end(Signal::TERM).await
    }

    /// Starts it again on the same port and store; stops it first, in an orderly way, where it runs.
    ///
    /// # Errors
    /// Why it does not start.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.stop().await?;
        self.launch().await
    }

    /// `kill -9`, and every stream and consumer is gone. [`Self::restart`] starts it anew.
    ///
    /// # Errors
    /// [`Error::Late`], or [`Error::System`] where the store cannot be removed.
    pub async fn wipe(&mut self) -> Result<(), Error> {
        self.kill().await?;
        match std::fs::remove_dir_all(self.store_dir()) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::System { doing: format!("remove {}", self.store_dir().display()), cause })
            }
            _ => Ok(()),
        }
    }

    /// SIGSTOP: connections stay, and nothing is answered any more when this returns.
    ///
    /// # Errors
    /// [`Error::Failed`] where it has ended.
    pub async fn pause(&mut self) -> Result<(), Error> {
        match &mut self.child {
            Some(child) => child.pause(START_STOP_TIMEOUT).await,
            None => Err(Error::Failed { what: "pause nats-server".into(), output: "it does not run".into() }),
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        if let Some(child) = &mut self.child {
            child.resume();
        }
    }

    /// Asks the server's JetStream something as its operator, who may do what services may not; its answer.
    ///
    /// # Errors
    /// [`Error::System`] or [`Error::Late`] where there is none.
    pub async fn operate(&self, subject: &str, request: &str) -> Result<String, Error> {
        let asked = tokio::time::timeout(OPERATOR_TIMEOUT, ask(self.port, subject, request)).await;
        let late = |_| Error::Late {
            what: format!("nats-server did not answer {subject}"),
            limit: OPERATOR_TIMEOUT,
            output: self.log.tail(SHOWN_LINES),
        };
        asked.map_err(late)?.map_err(Error::system(format!("ask nats-server {subject}")))
    }

    /// Loses events in the middle of a stream that stays the same otherwise, as an operator does who tries a limit: of each subject
    /// all but the newest event are gone. The limit stays until somebody holds the stream to another one.
    ///
    /// # Errors
    /// As [`Self::operate`], and [`Error::Failed`] where the server refuses.
    pub async fn thin_out(&self, stream: &str) -> Result<(), Error> {
        const EVERY_ONE: &str = "\"max_msgs_per_subject\":-1";
        const NEWEST: &str = "\"max_msgs_per_subject\":1";
        let described = self.operate(&format!("$JS.API.STREAM.INFO.{stream}"), "").await?;
        let failed = |output: &str| Error::Failed { what: format!("thin out {stream}"), output: output.to_owned() };
        let config = described.split_once("\"config\":").and_then(|(_, rest)| object(rest));
        let config = config.filter(|config| config.contains(EVERY_ONE)).ok_or_else(|| failed(&described))?;
        let config = config.replace(EVERY_ONE, NEWEST);
        let answer = self.operate(&format!("$JS.API.STREAM.UPDATE.{stream}"), &config).await?;
        if answer.contains("\"error\"") { Err(failed(&answer)) } else { Ok(()) }
    }

    async fn end(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(child) = &mut self.child {
            child.end(signal, START_STOP_TIMEOUT).await?;
            self.child = None;
        }
        Ok(())
    }

    async fn launch(&mut self) -> Result<(), Error> {
        let configuration = self.home.path().join("nats.conf");
        let doing = format!("write {}", configuration.display());
        let open = if self.guard.is_some() { "" } else { NO_GUARD };
        std::fs::write(&configuration, format!("{CONFIGURATION}{open}")).map_err(Error::system(doing))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(configuration).args(["--addr", "127.0.0.1", "--port", &self.port.to_string()]);
        command.arg("--store_dir").arg(self.store_dir());
        // the server reads them as values of its configuration
        command.env("NATS_PASSWORD", format!("{:?}", self.guard.as_deref().unwrap_or(PASSWORD)));
        command.env("NATS_OPERATOR_PASSWORD", format!("{OPERATOR_PASSWORD:?}"));
        let mut child = Child::spawn("nats-server", command, Signal::KILL, self.home.scratch())?;
        self.log = child.output().clone();
        ready(&mut child, self.port, Instant::now() + START_STOP_TIMEOUT).await?;
        self.child = Some(child);
        Ok(())
    }
}

/// The JSON object that a text begins with. No string of a stream's configuration has a brace in it.
fn object(text: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        depth += match character {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return text.get(..=at);
        }
    }
    None
}

/// Says one thing to the server in its own protocol, as the operator; its answer.
async fn ask(port: u16, subject: &str, request: &str) -> std::io::Result<String> {
    let mut connection = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    let connect = format!("{{\"verbose\":false,\"user\":\"operator\",\"pass\":\"{OPERATOR_PASSWORD}\"}}");
    let said = format!("CONNECT {connect}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{request}\r\n", request.len());
    connection.get_mut().write_all(said.as_bytes()).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if connection.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.starts_with("-ERR") {
            return Err(std::io::Error::other(line.trim().to_owned()));
        }
        if line.starts_with("MSG answer") {
            break;
        }
    }
    line.clear();
    connection.read_line(&mut line).await?;
    Ok(line)
}

/// Waits until it greets; it does so once JetStream has read its store.
async fn ready(child: &mut Child, port: u16, end: Instant) -> Result<(), Error> {
    loop {
        if greets(port).await {
            return Ok(());
        }
        if child.has_ended().is_some() {
            return Err(Error::Failed { what: "nats-server ended".into(), output: child.output().tail(SHOWN_LINES) });
        }
        if Instant::now() >= end {
            let what = "nats-server did not answer".into();
            return Err(Error::Late { what, limit: START_STOP_TIMEOUT, output: child.output().tail(SHOWN_LINES) });
        }
        tokio::time::sleep(START_POLL_INTERVAL).await;
    }
}

async fn greets(port: u16) -> bool {
    let Ok(mut connection) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return false };
    let mut greeting = [0; 5];
    let read = tokio::time::timeout(Duration::from_secs(1), connection.read_exact(&mut greeting)).await;
    matches!(read, Ok(Ok(_))) && &greeting == b"INFO "
}
