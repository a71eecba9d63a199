//! `checkup rebuild`: builds a view again from the events while the old one answers.
//!
//! The command only sends a request. The process that runs on the data directory does the work, see [`Keeper`]. Both
//! communicate through files in the directory, so no port is needed, and whoever may use the directory may request a
//! rebuild.

mod feed;
mod keeper;

use std::path::Path;
use std::time::{Duration, Instant};

use store::Location;
use tokio::time::sleep;

pub use feed::Feed;
pub use keeper::{Builder, Keeper};

use crate::cli::RebuildArgs;
use crate::config::Sources;
use crate::data_dir;
use crate::exit::{Exit, Failure, chain};
use crate::service::Service;
use crate::terminal::{self, Progress};
use crate::view_files::{Report, State, ViewFiles};

const PROGRESS_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long the running process may take to accept the request.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests a rebuild and waits until the new view answers.
///
/// # Errors
/// Fails if no process can answer the request, or the rebuild fails or takes too long.
pub async fn run(args: RebuildArgs) -> Result<Exit, Failure> {
    let settings = Sources::of_process(&args.config).settings()?;
    if args.service != Service::MyPage {
        return Err(Failure::usage(format!("{} cannot be built anew while it runs; only mypage can", args.service)));
    }
    match settings.databases.get(&Service::MyPage) {
        None => {}
        Some(location @ Location::Postgres(_)) => {
            return Err(Failure::usage(format!(
                "mypage.database is {location}, which its replicas share; only a view in a data directory can be built anew \
                 beside itself"
            )));
        }
        Some(location) => {
            return Err(Failure::usage(format!(
                "mypage.database is {location}; only a view in a data directory can be built anew beside itself"
            )));
        }
    }
    let directory = &args.data_dir;
    if !is_in_use(directory)? {
        let help = "start it and ask again; a process that starts without a view builds one by itself";
        return Err(Failure::failed(format!(
            "no process runs on {}, and nothing was done; {help}",
            directory.display()
        )));
    }
    let files = ViewFiles::of(directory);
    let (request, joined) = files.ask().map_err(|error| unusable(directory, &error))?;
    if joined {
        terminal::complain("a rebuild is under way already; waiting for it");
    }
    let waiting = Waiting { directory, files, request, asked: Instant::now(), progress: Progress::new() };
    let report = waiting.done(args.wait).await;
    waiting.progress.clear();
    let report = report?;
    let took = terminal::span(waiting.asked.elapsed());
    terminal::print(&format!("mypage was built anew from {} events in {took}\n", terminal::count(report.applied)))?;
    Ok(Exit::Ok)
}

fn is_in_use(directory: &Path) -> Result<bool, Failure> {
    data_dir::is_in_use(directory).map_err(|error| unusable(directory, &error))
}

fn unusable(directory: &Path, error: &std::io::Error) -> Failure {
    let (directory, why) = (directory.display(), chain(error));
    Failure::failed(format!(
        "cannot use the data directory {directory} ({why}); name that of the process with --data-dir"
    ))
}

/// A request whose end the command waits for.
struct Waiting<'a> {
    directory: &'a Path,
    files: ViewFiles,
    request: String,
    asked: Instant,
    progress: Progress,
}

impl Waiting<'_> {
    /// Waits for the report that the new view answers.
    async fn done(&self, wait: Duration) -> Result<Report, Failure> {
        let mut shown: Option<u64> = None;
        loop {
            let report = self.files.report_of(&self.request);
            match &report {
                Some(Report { state: State::Done, .. }) => {}
                Some(Report { state: State::Failed(why), .. }) => {
                    return Err(Failure::failed(format!("mypage was not built anew: {why}")));
                }
                Some(report) => {
                    let before = shown.unwrap_or_else(|| {
                        self.progress.phase("events applied", Some(report.applied + report.waiting));
                        0
                    });
                    self.progress.done(report.applied.saturating_sub(before));
                    shown = Some(report.applied.max(before));
                }
                None => {}
            }
            match report {
                Some(report) if report.state == State::Done => return Ok(report),
                report => self.is_worth_waiting(report.is_some(), wait)?,
            }
            sleep(PROGRESS_POLL_INTERVAL).await;
        }
    }

    fn is_worth_waiting(&self, taken: bool, wait: Duration) -> Result<(), Failure> {
        let wanted = self.files.asked().map_err(|error| unusable(self.directory, &error))?;
        let is_wanted = wanted.is_some_and(|request| request == self.request);
        // nobody can answer any more, unless the answer came after the report was read
        let is_answered = self.files.report_of(&self.request).is_some_and(|report| report.state != State::Building);
        if !is_answered && (!is_wanted || !is_in_use(self.directory)?) {
            let help = "the old view stays in use; ask again once it runs";
            return Err(Failure::failed(format!("the process ended before the new view was there; {help}")));
        }
        let waited = self.asked.elapsed();
        if !taken && waited >= ACCEPT_TIMEOUT {
            let _ = self.files.withdraw();
            let help = "each replica of a mesh has a directory of its own, such as data-mesh/mypage-0";
            let directory = self.directory.display();
            return Err(Failure::failed(format!("the process on {directory} does not answer; {help}")));
        }
        if waited >= wait {
            let help = "it goes on, and the old view answers meanwhile; the same command waits for it on";
            return Err(Failure::failed(format!("the new view was not there within {}; {help}", terminal::span(wait))));
        }
        Ok(())
    }
}
