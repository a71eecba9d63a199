//! The real binary as a child process: started, asked, killed, stopped and started again on the same data.
//!
//! Every process is killed when its handle goes; when the test is failing, what the process wrote is printed first.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tokio::time::{Instant, sleep};

use crate::client::{Party, Served};
use crate::launch::{Finished, Launch, StartFailure};
use crate::output::Output;
use crate::patience::patience;
use crate::token::Tokens;

/// Begins the line on standard output that says where the process serves.
const SERVING: &str = "checkup is serving on ";
/// The same where it serves nothing, and says why.
const NOT_SERVING: &str = "checkup does not serve on ";
/// Begins the line on standard output that says where the admin pages are.
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

    /// Waits until it says where it serves; otherwise how it ended, or `None` where it went on in silence.
    pub(crate) async fn serving(&mut self) -> Result<SocketAddr, Option<ExitStatus>> {
        self.until(SERVING).await
    }

    /// Waits until it says where it would serve, and why it does not.
    pub(crate) async fn refusing(&mut self) -> Result<SocketAddr, Option<ExitStatus>> {
        self.until(NOT_SERVING).await
    }

    async fn until(&mut self, beginning: &str) -> Result<SocketAddr, Option<ExitStatus>> {
        let end = Instant::now() + patience();
        loop {
            if let Some(addr) = self.announced(beginning) {
                return Ok(addr);
            }
            let code = self.child.try_wait().expect("the child can be waited for");
            if code.is_some() || Instant::now() >= end {
                return Err(code);
            }
            sleep(OUTPUT_POLL_INTERVAL).await;
        }
    }

    /// The address in the line of standard output that has `beginning` in it.
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
        // A process that has already ended needs no signal.
        let _ = kill_process(self.pid(), signal);
    }

    async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + patience() * 2;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
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
    pub(crate) fn new(addr: SocketAddr, process: Process, launch: Launch) -> Self {
        let served = Served::new(addr, Tokens::of(launch.data().path()));
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
        let data = self.launch.data().path().to_string_lossy().into_owned();
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

    /// `kill -9` in the middle of something else; [`Self::kill`] then waits for the end.
    pub fn kill_now(&self) {
        self.process.signal(Signal::KILL);
    }

    /// `kill -9`: nothing of it runs any more when this returns.
    pub async fn kill(mut self) -> Launch {
        self.process.signal(Signal::KILL);
        self.process.ended().await;
        self.launch.clone()
    }

    /// Lets no file grow beyond this many bytes from now on; `None` takes the limit away.
    ///
    /// # Panics
    /// Where the limit cannot be set.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let pid = self.process.pid();
        // a child has its parent's hard limit, which nobody here changes
        let maximum = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit { current: bytes.or(maximum), maximum };
        prlimit(Some(pid), Resource::Fsize, limit).expect("the limit of a child");
    }

    /// SIGSTOP: it stands still, its connections and its files stay open.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
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
