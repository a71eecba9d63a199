//! A child process that outlives neither its handle nor this process.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::{Error, Output};

const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(3);
/// How long a process may take to end in an orderly way when its handle is dropped.
const ORDERLY_EXIT_TIMEOUT: Duration = Duration::from_secs(5);
const SHOWN_LINES: usize = 40;

/// A running or ended process, with the last lines of its output.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    output: Output,
    last_signal: Signal,
    _guard: Guard,
}

impl Child {
    /// Starts `command` in a process group of its own, so that Ctrl-C reaches only this process, and collects its
    /// output. When the handle is dropped, the child gets `last_signal`, then SIGKILL if it does not end. When this
    /// process ends without dropping the handle, for example by `kill -9`, a guard does the same and removes `scratch`.
    ///
    /// # Errors
    /// [`Error::System`] if the command, or the guard's shell, cannot be started.
    pub fn spawn(
        name: impl Into<String>,
        mut command: Command,
        last_signal: Signal,
        scratch: Option<&Path>,
    ) -> Result<Self, Error> {
        let name = name.into();
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(Error::system(format!("start {name}")))?;
        let output = Output::default();
        if let Some(stdout) = process.stdout.take() {
            output.collect(stdout);
        }
        if let Some(stderr) = process.stderr.take() {
            output.collect(stderr);
        }
        match Guard::over(process.id(), last_signal, scratch) {
            Ok(guard) => Ok(Self { name, process, output, last_signal, _guard: guard }),
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                Err(error)
            }
        }
    }

    /// The name of the process in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id. Once the process has ended, the id may belong to another process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the process has written to standard output and standard error.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The exit status once everything that the process wrote has been read; `None` while it runs, or if the operating
    /// system does not know.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.try_wait().ok().flatten()?;
        self.output.wait();
        Some(status)
    }

    /// Sends a signal and does not wait for its effect. Does nothing if the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.has_ended().is_some() {
            return;
        }
        if let Some(pid) = self.raw_pid() {
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends SIGSTOP and waits until the process has stopped. Its connections stay open.
    ///
    /// # Errors
    /// [`Error::Failed`] if the process has ended, [`Error::Late`] if it does not stop within `limit`.
    pub async fn pause(&mut self, limit: Duration) -> Result<(), Error> {
        let end = Instant::now() + limit;
        self.signal(Signal::STOP);
        while !self.has_stopped() {
            let ended = self.has_ended().is_some();
            let name = &self.name;
            if ended {
                return Err(Error::Failed { what: format!("{name} ended"), output: self.output.tail(SHOWN_LINES) });
            }
            if Instant::now() >= end {
                let what = format!("{name} did not stop");
                return Err(Error::Late { what, limit, output: self.output.tail(SHOWN_LINES) });
            }
            tokio::time::sleep(EXIT_POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Sends SIGCONT: the process continues where it was paused.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Whether the process is stopped. A process still runs for a moment after SIGSTOP is sent.
    fn has_stopped(&self) -> bool {
        // NOWAIT leaves the status to be read again.
        let flags = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.raw_pid().is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), flags), Ok(Some(_))))
    }

    fn raw_pid(&self) -> Option<Pid> {
        i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// [`Error::Late`] if it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus, Error> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.has_ended() {
                return Ok(status);
            }
            if Instant::now() >= end {
                let what = format!("{} did not end", self.name);
                return Err(Error::Late { what, limit, output: self.output.tail(SHOWN_LINES) });
            }
            tokio::time::sleep(EXIT_POLL_INTERVAL).await;
        }
    }

    /// Sends a signal and waits until the process has ended.
    ///
    /// # Errors
    /// [`Error::Late`] if it still runs after `limit`.
    pub async fn end(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus, Error> {
        self.signal(signal);
        self.ended(limit).await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {}, last {SHOWN_LINES} lines ---\n{}", self.name, self.output.tail(SHOWN_LINES));
        }
        self.signal(self.last_signal);
        // A paused process would not act on the signal.
        self.signal(Signal::CONT);
        let end = Instant::now() + ORDERLY_EXIT_TIMEOUT;
        while self.has_ended().is_none() && Instant::now() < end {
            thread::sleep(EXIT_POLL_INTERVAL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Removes the `CHECKUP_…` variables of this process from the command: a process of the mesh takes every setting from
/// its configuration file and its flags.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CHECKUP_")) {
        command.env_remove(name);
    }
}

/// Ends a child when this process is gone: a shell that waits for the end of a pipe which only this process holds.
#[derive(Debug)]
struct Guard(std::process::Child);

/// Arguments: process id, signal number, path to remove (may be empty).
const GUARD: &str = r#"
trap '' HUP INT TERM
read _
kill -"$2" "$1"; kill -CONT "$1"
tries=0
while kill -0 "$1" && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
kill -KILL "$1"
[ -z "$3" ] || rm -rf -- "$3"
"#;

impl Guard {
    fn over(pid: u32, signal: Signal, scratch: Option<&Path>) -> Result<Self, Error> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD, "guard", &pid.to_string(), &signal.as_raw().to_string()]);
        command.arg(scratch.unwrap_or_else(|| Path::new(""))).process_group(0).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).map_err(Error::system("start /bin/sh"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
