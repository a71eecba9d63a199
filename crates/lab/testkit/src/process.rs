//! The real binary as a child process: started, queried, killed, stopped and started again on the same data.
//!
//! Every process is killed when its handle is dropped. If the test is failing, the end of its standard error is shown.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tokio::time::{Instant, sleep};

use crate::client::{Party, Served};
use crate::launch::{Finished, Launch, StartFailure};
use crate::output::Output;
use crate::token::Tokens;
use crate::wait::wait_limit;

/// Precedes the address of the gRPC server on standard output.
const SERVING: &str = "checkup is serving on ";
/// Precedes the address on standard output if the process does not serve.
const NOT_SERVING: &str = "checkup does not serve on ";
/// Precedes the address of the admin pages on standard output.
const ADMIN: &str = "admin on ";
const OUTPUT_POLL_INTERVAL: Duration = Duration::from_millis(3);
const SHOWN_LINES: usize = 60;

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
    quiet: bool,
}

impl Process {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary runs");
        let stdout = Output::collect(child.stdout.take().expect("a piped stdout"));
        let stderr = Output::collect(child.stderr.take().expect("a piped stderr"));
        Self { child, stdout, stderr, quiet: false }
    }

    /// Waits for the address it serves on. The error is its exit status, or `None` if it printed no address in time.
    pub(crate) async fn serving(&mut self) -> Result<SocketAddr, Option<ExitStatus>> {
        self.until(SERVING).await
    }

    /// Waits for the address of a process that does not serve. Errors as [`Self::serving`].
    pub(crate) async fn refusing(&mut self) -> Result<SocketAddr, Option<ExitStatus>> {
        self.until(NOT_SERVING).await
    }

    async fn until(&mut self, beginning: &str) -> Result<SocketAddr, Option<ExitStatus>> {
        let end = Instant::now() + wait_limit();
        loop {
            let code = self.status();
            if let Some(addr) = self.announced(beginning) {
                return Ok(addr);
            }
            if code.is_some() || Instant::now() >= end {
                return Err(code);
            }
            sleep(OUTPUT_POLL_INTERVAL).await;
        }
    }

    /// The address that follows `beginning` in a line of standard output.
    fn announced(&self, beginning: &str) -> Option<SocketAddr> {
        self.stdout.find(|line| {
            let (_, after) = line.split_once(beginning)?;
            let addr: String = after.trim_start_matches("http://").chars().take_while(|c| !c.is_whitespace()).collect();
            addr.trim_end_matches('/').parse().ok()
        })
    }

    pub(crate) fn into_failure(mut self, code: Option<ExitStatus>) -> StartFailure {
        self.quiet = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.wait_for_output();
        StartFailure {
            code: code.and_then(|status| status.code()),
            stdout: self.stdout.tail(usize::MAX),
            stderr: self.stderr.tail(usize::MAX),
        }
    }

    fn pid(&self) -> Pid {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid")
    }

    fn signal(&self, signal: Signal) {
        // The process may have ended already.
        let _ = kill_process(self.pid(), signal);
    }

    /// The exit status once it has ended and everything it printed has been read.
    fn status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("the child can be waited for")?;
        self.wait_for_output();
        Some(status)
    }

    fn wait_for_output(&self) {
        self.stdout.wait();
        self.stderr.wait();
    }

    async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + wait_limit() * 2;
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(Instant::now() < end, "the process did not end\n{}", self.stderr.tail(SHOWN_LINES));
            sleep(OUTPUT_POLL_INTERVAL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() && !self.quiet {
            self.wait_for_output();
            eprintln!("--- stderr of checkup, last {SHOWN_LINES} lines ---\n{}", self.stderr.tail(SHOWN_LINES));
        }
    }
}

/// A running `checkup`.
#[derive(Debug)]
pub struct Checkup {
    served: Served,
    process: Process,
    launch: Launch,
}

impl Checkup {
    pub(crate) fn new(addr: SocketAddr, process: Process, launch: Launch) -> Self {
        let served = Served::new(addr, Tokens::of(launch.data().path()));
        Self { served, process, launch }
    }

    /// Its address and tokens: cheap to clone, for tasks.
    #[must_use]
    pub fn served(&self) -> Served {
        self.served.clone()
    }

    /// The address of its gRPC server.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.served.addr()
    }

    /// The address of its admin pages.
    ///
    /// # Panics
    /// If the process has not printed it.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.process.announced(ADMIN).expect("the process says where its admin pages are")
    }

    /// A party with this token, on a connection of its own.
    pub async fn party(&self, token: Option<String>) -> Party {
        self.served.party(token).await
    }

    /// An admin of every hospital, on a connection of its own.
    pub async fn admin(&self) -> Party {
        self.served.admin().await
    }

    /// A customer, on a connection of its own.
    pub async fn customer(&self, id: &str) -> Party {
        self.served.customer(id).await
    }

    /// An auditor, on a connection of its own.
    pub async fn auditor(&self) -> Party {
        self.served.auditor().await
    }

    /// One of the system's own services, on a connection of its own.
    pub async fn service(&self, name: &str) -> Party {
        self.served.service(name).await
    }

    /// A party without a token, on a connection of its own.
    pub async fn stranger(&self) -> Party {
        self.served.party(None).await
    }

    /// The tokens of its data directory.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        self.served.tokens()
    }

    /// How it was launched, to start it again or to run other commands of the binary.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Its standard output.
    #[must_use]
    pub fn stdout(&self) -> &Output {
        &self.process.stdout
    }

    /// Its standard error.
    #[must_use]
    pub fn stderr(&self) -> &Output {
        &self.process.stderr
    }

    /// Runs `checkup <arguments> --addr … --data-dir …` against this process.
    pub async fn run(&self, arguments: &[&str]) -> Finished {
        let addr = self.addr().to_string();
        let data = self.launch.data().path().to_string_lossy().into_owned();
        let mut all = arguments.to_vec();
        all.extend(["--addr", addr.as_str(), "--data-dir", data.as_str()]);
        self.launch.run(&all).await
    }

    /// Whether the process still runs.
    ///
    /// # Panics
    /// If the operating system does not know.
    pub fn is_alive(&mut self) -> bool {
        self.process.status().is_none()
    }

    /// Sends SIGKILL without waiting; [`Self::kill`] then waits for the end.
    pub fn kill_now(&self) {
        self.process.signal(Signal::KILL);
    }

    /// Sends SIGKILL and waits until the process has ended.
    pub async fn kill(mut self) -> Launch {
        self.process.signal(Signal::KILL);
        self.process.ended().await;
        self.launch.clone()
    }

    /// Limits the size of each file in bytes from now on; `None` removes the limit.
    ///
    /// # Panics
    /// If the limit cannot be set.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let pid = self.process.pid();
        // A child inherits the hard limit of this process, which nobody here changes.
        let maximum = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit { current: bytes.or(maximum), maximum };
        prlimit(Some(pid), Resource::Fsize, limit).expect("the limit of a child");
    }

    /// Sends SIGSTOP: the process stops, its connections and files stay open.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Sends SIGCONT: the process continues.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Sends SIGTERM without waiting.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until the process has ended by itself. Returns its exit code, `None` after a signal.
    pub async fn ended(mut self) -> (Option<i32>, Launch) {
        let status = self.process.ended().await;
        (status.code(), self.launch.clone())
    }

    /// Sends SIGTERM and waits until the process has ended.
    ///
    /// # Panics
    /// If its exit code is not 0, or if it says that it cut off work that did not finish in time.
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
