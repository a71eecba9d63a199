//! A private PostgreSQL server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, kill_process};

use crate::child::Child;
use crate::home::{Home, User};
use crate::programs::PostgresPrograms;
use crate::{Error, Output, port};

/// How long a start, a stop or a command may take. A start includes recovery after an immediate stop.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
const SERVER_POLL_INTERVAL: Duration = Duration::from_millis(10);
const SHOWN_LINES: usize = 20;
/// How long the server of a killed process may take to end after it.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(10);
/// How many ports a start tries: another process can take a free port before the server binds it.
const PORTS_TRIED: usize = 5;
pub(crate) const SUPERUSER: &str = "postgres";

/// A private server on a free port of 127.0.0.1, without passwords, as durable as in production.
/// It ends with its handle.
#[derive(Debug)]
pub struct Postgres {
    child: Option<Child>,
    log: Output,
    programs: PostgresPrograms,
    user: Option<User>,
    port: u16,
    environment: Vec<(String, String)>,
    settings: Vec<String>,
    home: Home,
}

impl Postgres {
    /// Starts a server with a new temporary directory, which is removed with the handle.
    ///
    /// # Errors
    /// [`Error::Missing`] if PostgreSQL is not installed, otherwise why it did not start.
    pub async fn start() -> Result<Self, Error> {
        Self::start_at(Home::temporary("postgres")?).await
    }

    /// Starts a server whose data is in `directory`. The data stays there when the handle is dropped. If this process
    /// is root, the server runs as the user `postgres` or `nobody`, who must be able to reach the directory.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in(directory: &Path) -> Result<Self, Error> {
        Self::start_at(Home::kept(directory)?).await
    }

    async fn start_at(home: Home) -> Result<Self, Error> {
        let (programs, user) = (PostgresPrograms::find()?, User::instead_of_root()?);
        if let Some(user) = user {
            user.own(home.path())?;
        }
        let (environment, settings, port) = (Vec::new(), Vec::new(), port::free()?);
        let mut server =
            Self { child: None, log: Output::default(), programs, user, port, environment, settings, home };
        if !server.data_dir().join("PG_VERSION").exists() {
            server.initialise().await?;
        }
        let mut ports_tried = 1;
        let end = Instant::now() + PREDECESSOR_TIMEOUT;
        while ports_tried < PORTS_TRIED {
            match server.launch().await {
                // The server of a process that was killed a moment ago ends soon, but not at once.
                Err(Error::Failed { output, .. }) if output.contains("postmaster.pid") && Instant::now() < end => {
                    tokio::time::sleep(SERVER_POLL_INTERVAL).await;
                    continue;
                }
                Err(Error::Failed { output, .. }) if output.contains("Address already in use") => {
                    server.port = port::free()?;
                }
                other => return other.map(|()| server),
            }
            ports_tried += 1;
        }
        server.launch().await.map(|()| server)
    }

    /// The address of a database on this server, for clients.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// [`Error::Failed`], for example if a database of that name exists.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        create_database(&self.programs.program("psql"), &self.url("postgres"), name).await
    }

    /// Runs SQL with `psql`. Returns what it prints, unaligned and without headings.
    ///
    /// # Errors
    /// [`Error::Failed`] with the message of the server.
    pub async fn sql(&self, database: &str, statement: &str) -> Result<String, Error> {
        sql(&self.programs.program("psql"), &self.url(database), statement).await
    }

    /// A client program of the same installation, such as `pgbench`, without the `PG…` variables of this process, which
    /// are about other servers. The caller adds arguments that say where to connect.
    #[must_use]
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.program(program));
        without_defaults(&mut command);
        command
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

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Sets the server's environment variables and its settings (`NAME=VALUE`) from its next start on. Replaces those
    /// of an earlier call.
    pub fn set(&mut self, environment: Vec<(String, String)>, settings: &[&str]) {
        self.environment = environment;
        self.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
    }

    /// Kills the server and all its sessions with SIGKILL at the same moment, and waits until they have ended. Nothing
    /// ends in an orderly way.
    ///
    /// # Errors
    /// [`Error::Late`] if a process still runs after a minute.
    pub async fn kill(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // A stopped server starts no session that this loop would miss.
        child.pause(COMMAND_TIMEOUT).await?;
        let sessions = children(child.pid());
        for session in &sessions {
            let _ = kill_process(*session, Signal::KILL);
        }
        child.end(Signal::KILL, COMMAND_TIMEOUT).await?;
        let end = Instant::now() + COMMAND_TIMEOUT;
        while sessions.iter().any(|session| is_running(*session)) {
            if Instant::now() >= end {
                let what = "the sessions of postgres did not end".into();
                return Err(Error::Late { what, limit: COMMAND_TIMEOUT, output: self.log.tail(SHOWN_LINES) });
            }
            tokio::time::sleep(SERVER_POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// The server's log since its last start.
    #[must_use]
    pub fn log(&self) -> &Output {
        &self.log
    }

    /// Stops the server as a crash would: it flushes nothing, cuts every connection and recovers at the next start.
    ///
    /// # Errors
    /// [`Error::Late`] if it still runs after a minute.
    pub async fn stop_immediate(&mut self) -> Result<(), Error> {
        self.stop(Signal::QUIT).await
    }

    /// Stops the server in an orderly way: it rolls back transactions, cuts connections and flushes files.
    ///
    /// # Errors
    /// [`Error::Late`] if it still runs after a minute.
    pub async fn stop_fast(&mut self) -> Result<(), Error> {
        self.stop(Signal::INT).await
    }

    /// Starts the server again on the same port and data. Stops it first as [`Self::stop_fast`] does if it runs.
    ///
    /// # Errors
    /// [`Error::Late`] if it does not stop or does not answer in time, otherwise why it does not start.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.stop_fast().await?;
        self.launch().await
    }

    async fn stop(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(child) = &mut self.child {
            child.end(signal, COMMAND_TIMEOUT).await?;
            self.child = None;
        }
        Ok(())
    }

    async fn initialise(&self) -> Result<(), Error> {
        let mut command = self.command("initdb");
        command.args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]);
        // A new, empty server has nothing worth a sync. What it stores later is synced.
        command.args(["--no-sync", "--no-instructions", "--pgdata"]).arg(self.data_dir());
        run("initdb", command).await.map(drop)
    }

    async fn launch(&mut self) -> Result<(), Error> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data_dir()).arg("-p").arg(self.port.to_string());
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // SIGQUIT ends the sessions too. After SIGKILL they would have to notice the end by themselves.
        let mut child = Child::spawn("postgres", command, Signal::QUIT, self.home.scratch())?;
        self.log = child.output().clone();
        self.ready(&mut child, Instant::now() + COMMAND_TIMEOUT).await?;
        self.child = Some(child);
        Ok(())
    }

    async fn ready(&self, child: &mut Child, end: Instant) -> Result<(), Error> {
        loop {
            let mut probe = self.command("pg_isready");
            probe.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q"]);
            if run("pg_isready", probe).await.is_ok() {
                return Ok(());
            }
            if child.has_ended().is_some() {
                return Err(Error::Failed { what: "postgres ended".into(), output: self.log.tail(SHOWN_LINES) });
            }
            if Instant::now() >= end {
                let what = "postgres did not answer".into();
                return Err(Error::Late { what, limit: COMMAND_TIMEOUT, output: self.log.tail(SHOWN_LINES) });
            }
            tokio::time::sleep(SERVER_POLL_INTERVAL).await;
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.program(program));
        // The server's user may not be able to enter the caller's directory, and the caller's `PG…` variables are about
        // another server.
        command.current_dir(self.home.path());
        without_defaults(&mut command);
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// The children of a process that have not been waited for.
fn children(pid: u32) -> Vec<Pid> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok().and_then(Pid::from_raw)).collect()
}

/// Whether the process still runs. A zombie does not.
fn is_running(process: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

fn without_defaults(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
}

pub(crate) async fn create_database(psql: &Path, url: &str, name: &str) -> Result<(), Error> {
    let name = name.replace('"', "\"\"");
    sql(psql, url, &format!("CREATE DATABASE \"{name}\"")).await.map(drop)
}

pub(crate) async fn sql(psql: &Path, url: &str, statement: &str) -> Result<String, Error> {
    let mut command = Command::new(psql);
    without_defaults(&mut command);
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement]);
    run("psql", command).await
}

/// Runs a command to its end. Returns its standard output.
async fn run(what: &str, mut command: Command) -> Result<String, Error> {
    command.stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let output = tokio::time::timeout(COMMAND_TIMEOUT, command.kill_on_drop(true).output()).await;
    let late = |_| Error::Late { what: format!("{what} did not end"), limit: COMMAND_TIMEOUT, output: String::new() };
    let output = output.map_err(late)?.map_err(Error::system(format!("run {what}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    Err(Error::Failed { what: format!("{what} failed"), output })
}
