//! The real binary as a child process: started, asked, killed, stopped and started again on the same data.
//!
//! Every process is killed when its handle goes; when the test is failing, what the process wrote is printed first.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::client::{Party, Served};
use crate::output::Output;
use crate::patience::patience;
use crate::token::Tokens;

/// Begins the line on standard output that says where the process serves.
const SERVING: &str = "checkup is serving on ";
/// Begins the line on standard output that says where the admin pages are.
const ADMIN: &str = "admin on ";
const BETWEEN_LOOKS: Duration = Duration::from_millis(3);
const SHOWN_LINES: usize = 60;

/// A data directory that is removed with its last handle.
#[derive(Debug, Clone)]
pub struct DataDir(Arc<TempDir>);

impl Default for DataDir {
    fn default() -> Self {
        Self::new()
    }
}

impl DataDir {
    /// An empty one.
    ///
    /// # Panics
    /// Where the temporary directory cannot be written.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(tempfile::Builder::new().prefix("checkup-").tempdir().expect("a temporary directory")))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Names the topology that tests run against: `embedded`, or `mesh`.
const TOPOLOGY: &str = "CHECKUP_TEST_TOPOLOGY";

/// What a test runs against. Everything it does goes through one address in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// `checkup up`: one process.
    Embedded,
    /// `checkup mesh`: PostgreSQL, nats-server and replicas of every service.
    Mesh,
}

impl Topology {
    /// The one that the environment asks for.
    ///
    /// # Panics
    /// Where it asks for one that there is not.
    #[must_use]
    pub fn asked_for() -> Self {
        match std::env::var(TOPOLOGY).as_deref() {
            Err(_) | Ok("embedded") => Self::Embedded,
            Ok("mesh") => Self::Mesh,
            Ok(other) => panic!("{TOPOLOGY} is embedded or mesh, not {other:?}"),
        }
    }
}

/// How to run the binary.
#[derive(Debug, Clone)]
pub struct Launch {
    binary: PathBuf,
    topology: Topology,
    data: DataDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// What a command that ended by itself left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended; `None` after a signal.
    pub code: Option<i32>,
    /// Everything it wrote for its caller.
    pub stdout: String,
    /// Everything it wrote for the operator.
    pub stderr: String,
}

/// A process that ended, or stayed silent, instead of serving.
#[derive(Debug, Clone)]
pub struct StartFailure {
    /// How it ended; `None` where it was still running, or was killed by a signal.
    pub code: Option<i32>,
    /// Everything it wrote for its caller.
    pub stdout: String,
    /// Everything it wrote for the operator.
    pub stderr: String,
}

impl Launch {
    /// Runs this binary on a new data directory, in the topology that the environment asks for:
    /// `Launch::new(env!("CARGO_BIN_EXE_checkup"))`.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let (binary, topology) = (binary.into(), Topology::asked_for());
        Self { binary, topology, data: DataDir::new(), arguments: Vec::new(), variables: Vec::new() }
    }

    /// In this topology, whatever the environment asks for.
    #[must_use]
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Uses this data directory, for example that of a process that was killed.
    #[must_use]
    pub fn on(mut self, data: &DataDir) -> Self {
        self.data = data.clone();
        self
    }

    /// Leaves services out, by comma-separated name.
    #[must_use]
    pub fn without(mut self, services: &str) -> Self {
        self.arguments.extend(["--without".to_owned(), services.to_owned()]);
        self
    }

    /// Overrides one configuration key: `.set("screening.hospital_address", proxy.uri())`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        self
    }

    /// Sets one environment variable of the child.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The data directory it will use.
    #[must_use]
    pub fn data(&self) -> &DataDir {
        &self.data
    }

    /// Starts `checkup up` on free ports and waits until it says that it is serving.
    ///
    /// # Panics
    /// Where it does not.
    pub async fn start(&self) -> Checkup {
        match self.try_start().await {
            Ok(checkup) => checkup,
            Err(failure) => panic!("checkup did not start: {failure:#?}"),
        }
    }

    /// Starts `checkup up`, for tests of what refuses to start.
    ///
    /// # Errors
    /// What the process said instead of serving.
    ///
    /// # Panics
    /// Where the binary cannot be run at all.
    pub async fn try_start(&self) -> Result<Checkup, StartFailure> {
        let mut command = match self.topology {
            Topology::Embedded => self.command(&["up", "--addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"]),
            Topology::Mesh => {
                // PostgreSQL runs as another user where the tests run as root
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(self.data.path(), open).expect("our own directory");
                self.command(&["mesh", "--addr", "127.0.0.1:0"])
            }
        };
        command.arg("--data-dir").arg(self.data.path()).args(&self.arguments);
        let mut child = command.spawn().expect("the binary runs");
        let stdout = Output::collect(child.stdout.take().expect("a piped stdout"));
        let stderr = Output::collect(child.stderr.take().expect("a piped stderr"));
        let mut process = Process { child, stdout, stderr, quiet: false };
        let end = Instant::now() + patience();
        loop {
            if let Some(addr) = process.announced(SERVING) {
                return Ok(Checkup::new(addr, process, self.clone()));
            }
            let code = process.child.try_wait().expect("the child can be waited for");
            if code.is_some() || Instant::now() >= end {
                return Err(process.into_failure(code));
            }
            sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Runs another command of the binary, for example `verify --addr …`, to its end.
    ///
    /// # Panics
    /// Where it does not end within twice the suite's patience.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null());
        let mut child = tokio::process::Command::from(command);
        let running = child.kill_on_drop(true).output();
        let output = match tokio::time::timeout(patience() * 2, running).await {
            Ok(output) => output.expect("the binary runs"),
            Err(_) => panic!("checkup {} did not end", arguments.join(" ")),
        };
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The developer's own settings are not part of a test.
        let own = |name: &str| name.starts_with("CHECKUP_") || name == "RUST_LOG";
        for (name, _) in std::env::vars().filter(|(name, _)| own(name)) {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
    quiet: bool,
}

impl Process {
    /// The address in the line of standard output that has `beginning` in it.
    fn announced(&self, beginning: &str) -> Option<SocketAddr> {
        self.stdout.find(|line| {
            let (_, after) = line.split_once(beginning)?;
            let addr: String = after.trim_start_matches("http://").chars().take_while(|c| !c.is_whitespace()).collect();
            addr.trim_end_matches('/').parse().ok()
        })
    }

    fn into_failure(mut self, code: Option<ExitStatus>) -> StartFailure {
        self.quiet = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
        StartFailure {
            code: code.and_then(|status| status.code()),
            stdout: self.stdout.tail(usize::MAX),
            stderr: self.stderr.tail(usize::MAX),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        // A process that has already ended needs no signal.
        let _ = kill_process(pid, signal);
    }

    async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + patience() * 2;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(Instant::now() < end, "the process did not end\n{}", self.stderr.tail(SHOWN_LINES));
            sleep(BETWEEN_LOOKS).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() && !self.quiet {
            eprintln!("--- stderr of checkup, last {SHOWN_LINES} lines ---\n{}", self.stderr.tail(SHOWN_LINES));
        }
    }
}

/// A running `checkup up`.
#[derive(Debug)]
pub struct Checkup {
    served: Served,
    process: Process,
    launch: Launch,
}

impl Checkup {
    fn new(addr: SocketAddr, process: Process, launch: Launch) -> Self {
        let served = Served::new(addr, Tokens::of(launch.data.path()));
        Self { served, process, launch }
    }

    /// Where it serves, with the tokens that open it: cheap to clone, for tasks.
    #[must_use]
    pub fn served(&self) -> Served {
        self.served.clone()
    }

    /// Where it serves.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.served.addr()
    }

    /// Where its admin pages are.
    ///
    /// # Panics
    /// Where it did not say so.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.process.announced(ADMIN).expect("the process says where its admin pages are")
    }

    /// A party with this token, on a connection of its own.
    pub async fn party(&self, token: Option<String>) -> Party {
        self.served.party(token).await
    }

    /// An admin of every hospital.
    pub async fn admin(&self) -> Party {
        self.served.admin().await
    }

    /// A customer.
    pub async fn customer(&self, id: &str) -> Party {
        self.served.customer(id).await
    }

    /// An auditor.
    pub async fn auditor(&self) -> Party {
        self.served.auditor().await
    }

    /// One of the system's own services.
    pub async fn service(&self, name: &str) -> Party {
        self.served.service(name).await
    }

    /// Somebody without a token.
    pub async fn stranger(&self) -> Party {
        self.served.party(None).await
    }

    /// The tokens of its data directory.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        self.served.tokens()
    }

    /// How it was launched: to start it again, or to run other commands of the binary.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// What it wrote for its caller.
    #[must_use]
    pub fn stdout(&self) -> &Output {
        &self.process.stdout
    }

    /// What it wrote for the operator.
    #[must_use]
    pub fn stderr(&self) -> &Output {
        &self.process.stderr
    }

    /// Runs `checkup <command> --addr … --data-dir …` against it.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let addr = self.addr().to_string();
        let data = self.launch.data.path().to_string_lossy().into_owned();
        let mut all = arguments.to_vec();
        all.extend(["--addr", addr.as_str(), "--data-dir", data.as_str()]);
        self.launch.run(&all).await
    }

    /// Whether the process has not ended.
    ///
    /// # Panics
    /// Where the operating system does not know.
    pub fn is_alive(&mut self) -> bool {
        self.process.child.try_wait().expect("the child can be waited for").is_none()
    }

    /// `kill -9`: nothing of it runs any more when this returns.
    pub async fn kill(mut self) -> Launch {
        self.process.signal(Signal::KILL);
        self.process.ended().await;
        self.launch.clone()
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> (Option<i32>, Launch) {
        let status = self.process.ended().await;
        (status.code(), self.launch.clone())
    }

    /// SIGTERM, then waits; for tests that only want it to stop in an orderly way.
    ///
    /// # Panics
    /// Where it does not end with 0.
    pub async fn stop(self) -> Launch {
        self.terminate();
        let stderr = self.process.stderr.clone();
        let (code, launch) = self.ended().await;
        let said = stderr.tail(SHOWN_LINES);
        assert_eq!(code, Some(0), "an orderly stop ends with 0\n{said}");
        assert!(!said.contains("did not finish in time"), "an orderly stop cuts nothing off\n{said}");
        launch
    }
}
