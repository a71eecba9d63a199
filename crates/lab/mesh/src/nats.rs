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

/// How long a start or a stop may take. A start includes reading the store.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(60);
const START_POLL_INTERVAL: Duration = Duration::from_millis(5);
const SHOWN_LINES: usize = 20;
/// How many ports a start tries: another process can take a free port before the server binds it.
const PORTS_TRIED: usize = 5;

/// The server's configuration without its port, store and the users' passwords: `crates/lab/mesh/nats.conf`.
pub const CONFIGURATION: &str = include_str!("../nats.conf");
/// With this line, a client that names no user may do everything.
const NO_GUARD: &str = "\nno_auth_user: operator\n";
/// The users of the configuration. On loopback a user's name is the password too, unless one was given: that keeps
/// nobody out, and it prevents mistakes.
const USERS: [&str; 7] = ["hospital", "screening", "reservation", "mypage", "marketing", "tools", OPERATOR];
/// The one user who may do everything.
const OPERATOR: &str = "operator";
/// The line of the configuration before which further users stand.
const LAST_USER: &str = "    {user: operator,";
/// How long the server may take to answer an operator.
const OPERATOR_TIMEOUT: Duration = Duration::from_secs(10);

/// A private server on a free port of 127.0.0.1, with the configuration in this repository. It ends with its handle.
#[derive(Debug)]
pub struct Nats {
    child: Option<Child>,
    log: Output,
    program: PathBuf,
    port: u16,
    home: Home,
    door: Door,
}

/// Whom a server lets in.
#[derive(Debug, Clone, Default)]
struct Door {
    /// Whether a client that names no user may do everything.
    open: bool,
    /// Every user's password; `None` if each has its own name.
    password: Option<String>,
    /// Users besides those of the configuration, as they stand there.
    more_users: String,
}

impl Nats {
    /// Starts a server with a new temporary directory, which is removed with the handle.
    ///
    /// # Errors
    /// [`Error::Missing`] if nats-server is not installed, otherwise why it did not start.
    pub async fn start() -> Result<Self, Error> {
        let door = Door { open: true, ..Door::default() };
        Self::stopped(Home::temporary("nats")?, door)?.start_somewhere().await
    }

    /// Starts a server whose store is in `directory`, and which lets nobody in who is no user of the configuration. The
    /// store stays there when the handle is dropped.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(directory: &Path) -> Result<Self, Error> {
        Self::stopped(Home::kept(directory)?, Door::default())?.start_somewhere().await
    }

    /// Starts a server with a new temporary directory, which lets in the users of the configuration, all with this
    /// password.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_guarded(password: &str) -> Result<Self, Error> {
        let door = Door { password: Some(password.to_owned()), ..Door::default() };
        Self::stopped(Home::temporary("nats")?, door)?.start_somewhere().await
    }

    /// Starts a server with a new temporary directory, which lets in the users of the configuration and these, which
    /// are written as they are there.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with_users(more_users: &str) -> Result<Self, Error> {
        let door = Door { more_users: more_users.to_owned(), ..Door::default() };
        Self::stopped(Home::temporary("nats")?, door)?.start_somewhere().await
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

    /// Makes a server with a port and a directory that starts at [`Self::restart`], for clients that start before it.
    ///
    /// # Errors
    /// [`Error::Missing`] if nats-server is not installed.
    pub fn absent() -> Result<Self, Error> {
        Self::stopped(Home::temporary("nats")?, Door { open: true, ..Door::default() })
    }

    fn stopped(home: Home, door: Door) -> Result<Self, Error> {
        let (program, port) = (programs::nats_server()?, port::free()?);
        Ok(Self { child: None, log: Output::default(), program, port, home, door })
    }

    /// The address of the server for a user whose password is the user's name.
    #[must_use]
    pub fn url_of(&self, user: &str) -> String {
        format!("nats://{user}:{user}@127.0.0.1:{}", self.port)
    }

    /// The address of the server, without a user.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1. It stays the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id; `None` while the server is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// The directory of the streams. It may not exist before the first start.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// The server's log since its last start.
    #[must_use]
    pub fn log(&self) -> &Output {
        &self.log
    }

    /// Kills the server with SIGKILL and waits until it has ended.
    ///
    /// # Errors
    /// [`Error::Late`] if it still runs after a minute.
    pub async fn kill(&mut self) -> Result<(), Error> {
        self.end(Signal::KILL).await
    }

    /// Stops the server with SIGTERM and waits until it has ended. Resumes it first if it is paused.
    ///
    /// # Errors
    /// [`Error::Late`] if it still runs after a minute.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.resume();
        self.end(Signal::TERM).await
    }

    /// Starts the server again on the same port and store. Stops it first with SIGTERM if it runs.
    ///
    /// # Errors
    /// [`Error::Late`] if it does not stop or does not answer in time, otherwise why it does not start.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.stop().await?;
        self.launch().await
    }

    /// Kills the server with SIGKILL and removes every stream and consumer. [`Self::restart`] starts it empty.
    ///
    /// # Errors
    /// [`Error::Late`] if it does not end, or [`Error::System`] if the store cannot be removed.
    pub async fn wipe(&mut self) -> Result<(), Error> {
        self.kill().await?;
        match std::fs::remove_dir_all(self.store_dir()) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::System { doing: format!("remove {}", self.store_dir().display()), cause })
            }
            _ => Ok(()),
        }
    }

    /// Sends SIGSTOP and waits until the server has stopped: connections stay open and nothing is answered.
    ///
    /// # Errors
    /// [`Error::Failed`] if the server does not run, [`Error::Late`] if it does not stop within a minute.
    pub async fn pause(&mut self) -> Result<(), Error> {
        match &mut self.child {
            Some(child) => child.pause(START_STOP_TIMEOUT).await,
            None => Err(Error::Failed { what: "pause nats-server".into(), output: "it does not run".into() }),
        }
    }

    /// Sends SIGCONT to a paused server.
    pub fn resume(&mut self) {
        if let Some(child) = &mut self.child {
            child.resume();
        }
    }

    /// Sends a request to JetStream as the operator, who may do what services may not. Returns the answer.
    ///
    /// # Errors
    /// [`Error::System`] if the connection fails, [`Error::Late`] without an answer within ten seconds.
    pub async fn operate(&self, subject: &str, request: &str) -> Result<String, Error> {
        let password = self.door.password.as_deref().unwrap_or(OPERATOR);
        let asked = tokio::time::timeout(OPERATOR_TIMEOUT, ask(self.port, password, subject, request)).await;
        let late = |_| Error::Late {
            what: format!("nats-server did not answer {subject}"),
            limit: OPERATOR_TIMEOUT,
            output: self.log.tail(SHOWN_LINES),
        };
        asked.map_err(late)?.map_err(Error::system(format!("ask nats-server {subject}")))
    }

    /// Deletes all but the newest event of each subject from a stream, as an operator does who tries a limit. The
    /// stream keeps its identity. The limit stays until the stream is configured again.
    ///
    /// # Errors
    /// As [`Self::operate`], and [`Error::Failed`] if the server refuses.
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
        let open = if self.door.open { NO_GUARD } else { "" };
        let users = CONFIGURATION.replacen(LAST_USER, &format!("{}{LAST_USER}", self.door.more_users), 1);
        std::fs::write(&configuration, format!("{users}{open}")).map_err(Error::system(doing))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(configuration).args(["--addr", "127.0.0.1", "--port", &self.port.to_string()]);
        command.arg("--store_dir").arg(self.store_dir());
        for user in USERS {
            let password = self.door.password.as_deref().unwrap_or(user);
            // The server parses these variables as values of its configuration, hence the quotes.
            command.env(format!("NATS_{}_PASSWORD", user.to_uppercase()), format!("{password:?}"));
        }
        let mut child = Child::spawn("nats-server", command, Signal::KILL, self.home.scratch())?;
        self.log = child.output().clone();
        ready(&mut child, self.port, Instant::now() + START_STOP_TIMEOUT).await?;
        self.child = Some(child);
        Ok(())
    }
}

/// The JSON object at the start of `text`. No string in a stream's configuration contains a brace.
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

/// Sends one request to the server in its own protocol, as the operator. Returns the answer.
async fn ask(port: u16, password: &str, subject: &str, request: &str) -> std::io::Result<String> {
    let mut connection = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
    let connect = format!("{{\"verbose\":false,\"user\":\"{OPERATOR}\",\"pass\":{password:?}}}");
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

/// Waits until the server greets a client, which it does once JetStream has read its store.
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
