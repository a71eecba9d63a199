//! All services in one process with one data directory.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mesh::child::Child;
use mesh::{Signal, port, without_settings};
use tokio::time::{Instant, sleep};

use super::START_TIMEOUT;
use crate::Error;

/// Part of the line that a process prints once it serves.
pub(crate) const GREETING: &str = "checkup is serving on";
/// How long an orderly end may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const OUTPUT_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// `checkup up`, which can be stopped and started again.
#[derive(Debug)]
pub(crate) struct Embedded {
    binary: PathBuf,
    directory: PathBuf,
    left_out: Vec<String>,
    settings: Vec<String>,
    port: u16,
    admin_port: u16,
    child: Option<Child>,
}

impl Embedded {
    pub(crate) fn new(
        binary: PathBuf,
        directory: &Path,
        left_out: Vec<String>,
        settings: Vec<String>,
    ) -> Result<Self, Error> {
        let (port, admin_port) = (port::free()?, port::free()?);
        Ok(Self { binary, directory: directory.to_owned(), left_out, settings, port, admin_port, child: None })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn admin_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin_port).into()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// The last output if the process has ended by itself.
    pub(crate) fn last_words(&mut self) -> Option<String> {
        let child = self.child.as_mut()?;
        child.has_ended().map(|status| format!("{status}\n{}", child.output().tail(20)))
    }

    /// Starts the process and waits until it announces that it serves. Returns how long that took.
    pub(crate) async fn start(&mut self) -> Result<Duration, Error> {
        let mut command = Command::new(&self.binary);
        command.arg("up").arg("--data-dir").arg(&self.directory).arg("--addr").arg(self.addr().to_string());
        command.arg("--admin-addr").arg(self.admin_addr().to_string());
        if !self.left_out.is_empty() {
            command.arg("--without").arg(self.left_out.join(","));
        }
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        without_settings(&mut command);
        let begun = Instant::now();
        let mut child = Child::spawn("checkup up", command, Signal::TERM, None)?;
        while child.output().find(|line| line.contains(GREETING).then_some(())).is_none() {
            if child.has_ended().is_some() || begun.elapsed() > START_TIMEOUT {
                return Err(Error::failed(format!("the services do not serve:\n{}", child.output().tail(20))));
            }
            sleep(OUTPUT_POLL_INTERVAL).await;
        }
        let took = begun.elapsed();
        self.child = Some(child);
        Ok(took)
    }

    /// Stops the process in an orderly way. Its data stays.
    pub(crate) async fn stop(&mut self) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            child.end(Signal::TERM, STOP_TIMEOUT).await?;
        }
        Ok(())
    }
}
