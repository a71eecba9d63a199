//! How to run the real binary: its data directory, topology and settings.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use crate::disk::Disk;
use crate::wait::wait_limit;

/// A data directory that is removed with its last handle.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
    temporary: Option<Arc<TempDir>>,
}

impl Default for DataDir {
    fn default() -> Self {
        Self::new()
    }
}

impl DataDir {
    /// Makes an empty data directory.
    ///
    /// # Panics
    /// If the temporary directory cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let temporary = tempfile::Builder::new().prefix("checkup-").tempdir().expect("a temporary directory");
        Self { path: temporary.path().to_owned(), temporary: Some(Arc::new(temporary)) }
    }

    /// A data directory that does not exist yet, in a temporary directory: the process makes it.
    #[must_use]
    pub fn missing() -> Self {
        let made = Self::new();
        Self { path: made.path.join("data"), ..made }
    }

    /// A data directory that the caller owns and removes.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), temporary: None }
    }

    /// The path of the data directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The temporary directory that is, or contains, the data directory. For [`Self::at`], the parent directory.
    #[must_use]
    pub fn parent(&self) -> &Path {
        let outside = || self.path.parent().unwrap_or(&self.path);
        self.temporary.as_ref().map_or_else(outside, |temporary| temporary.path())
    }
}

/// The environment variable that names the topology of the tests: `embedded` or `mesh`.
const TOPOLOGY: &str = "CHECKUP_TEST_TOPOLOGY";

/// The topology of the system under test. A test uses one address in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// `checkup up`: one process.
    Embedded,
    /// `checkup mesh`: PostgreSQL, nats-server and replicas of every service.
    Mesh,
}

impl Topology {
    /// The topology that the environment variable `CHECKUP_TEST_TOPOLOGY` names; [`Self::Embedded`] without it.
    ///
    /// # Panics
    /// If it names an unknown topology.
    #[must_use]
    pub fn asked_for() -> Self {
        match std::env::var(TOPOLOGY).as_deref() {
            Err(_) | Ok("embedded") => Self::Embedded,
            Ok("mesh") => Self::Mesh,
            Ok(other) => panic!("{TOPOLOGY} is embedded or mesh, not {other:?}"),
        }
    }
}

/// How to run the binary: a builder.
#[derive(Debug, Clone)]
pub struct Launch {
    binary: PathBuf,
    pub(crate) topology: Topology,
    data: DataDir,
    pub(crate) arguments: Vec<String>,
    variables: Vec<(String, String)>,
    largest_file: Option<u64>,
    pub(crate) port: u16,
}

/// The result of a command that ended by itself.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A process that ended, or printed no address in time, instead of serving.
#[derive(Debug, Clone)]
pub struct StartFailure {
    /// The exit code; `None` if the process still ran or was killed by a signal.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Launch {
    /// Runs this binary on a new data directory, in the topology that the environment asks for:
    /// `Launch::new(env!("CARGO_BIN_EXE_checkup"))`.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let (binary, topology) = (binary.into(), Topology::asked_for());
        let (data, arguments, variables) = (DataDir::new(), Vec::new(), Vec::new());
        Self { binary, topology, data, arguments, variables, largest_file: None, port: 0 }
    }

    /// Sets the topology, whatever the environment says.
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

    /// Leaves services out, by comma-separated names.
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

    /// Serves on this loopback port, so that clients find it again after a restart. Without a port, a free one is used.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Runs on a disk that can be made to fail.
    #[must_use]
    pub fn disk(mut self, disk: &Disk) -> Self {
        self.variables.extend(disk.environment());
        self
    }

    /// Limits the size of each file of `checkup up` in bytes: larger writes fail as on a full disk, but with another
    /// error. `None` removes the limit. [`crate::Checkup::limit_files`] changes it while the process runs.
    #[must_use]
    pub fn largest_file(mut self, bytes: Option<u64>) -> Self {
        self.largest_file = bytes;
        self
    }

    /// The data directory that the process will use.
    #[must_use]
    pub fn data(&self) -> &DataDir {
        &self.data
    }

    /// Runs another command of the binary to its end, for example `verify --addr …`.
    ///
    /// # Panics
    /// If it does not end within twice [`wait_limit`].
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null());
        let mut child = tokio::process::Command::from(command);
        let running = child.kill_on_drop(true).output();
        let output = match tokio::time::timeout(wait_limit() * 2, running).await {
            Ok(output) => output.expect("the binary runs"),
            Err(_) => panic!("checkup {} did not end", arguments.join(" ")),
        };
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A command under the limit on file sizes, if there is one. The shell ignores SIGXFSZ, which would end the
    /// process, and its successor inherits that. Only the soft limit is set, so that it can be raised again.
    pub(crate) fn limited(&self, arguments: &[&str]) -> Command {
        const BLOCK: u64 = 512;
        let Some(bytes) = self.largest_file else { return self.command(arguments) };
        let mut command = self.prepared(Command::new("/bin/sh"));
        command.arg("-c").arg(format!("trap '' XFSZ; ulimit -S -f {}; exec \"$0\" \"$@\"", bytes / BLOCK));
        command.arg(&self.binary).args(arguments);
        command
    }

    /// A command of the binary with its standard streams piped.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.prepared(Command::new(&self.binary));
        command.args(arguments);
        command
    }

    fn prepared(&self, mut command: Command) -> Command {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The developer's own settings must not affect a test.
        let own = |name: &str| name.starts_with("CHECKUP_") || name == "RUST_LOG";
        for (name, _) in std::env::vars().filter(|(name, _)| own(name)) {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}
