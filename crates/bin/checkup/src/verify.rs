//! `checkup verify`: reads every service as an auditor and reports what does not agree.
//!
//! `domain::invariants` says what has to agree. This module reads the services, and reads again what events may still
//! change. It trusts no service more than another. If it can read the data directory of the process, it also looks up
//! in the files what the services answered, because a service may answer what its storage does not have, and it checks
//! that no log has lost events that were read. If it is given the configuration of a mesh, it also looks for events
//! that the broker lost.

mod reader;
mod report;
mod rows;
mod settle;
mod stored;
mod stream;

use runtime::clock::Clock;

use crate::cli::VerifyArgs;
use crate::config::Sources;
use crate::exit::{Exit, Failure};
use crate::party::{Target, Wallet};
use crate::recover;
use crate::terminal::{self, Progress};

use reader::Reader;

/// Reads, compares, waits for events under way, and prints what still disagrees.
///
/// # Errors
/// Fails if the process cannot be reached or read, or there is no auditor's token.
pub async fn run(args: VerifyArgs) -> Result<Exit, Failure> {
    let looks = args.target.tokens.is_empty();
    let lost = if looks { Box::pin(recover::lost_in(&args.target.data_dir)).await? } else { Vec::new() };
    if !lost.is_empty() {
        // a service that lost its past serves nothing, so nothing can be read
        let report = report::lost(&lost);
        terminal::print(&if args.json { format!("{:#}\n", report::lost_json(&lost)) } else { report })?;
        return Ok(Exit::Failed);
    }
    let wallet = Wallet::open(&args.target)?;
    let target = Target::reach(&args.target.addr).await?;
    let auditor = wallet.auditor(&target);
    let auditor =
        auditor.ok_or_else(|| Failure::usage("verify reads as an auditor: give an auditor's token with --token"))?;
    let mesh = Box::pin(stream::Mesh::open(&args.config)).await?;
    let progress = Progress::new();
    // A configuration that is not for this program is no reason not to look. Then the services run on the system's
    // time.
    let offset = Sources::of_process(&args.config).settings().map(|settings| settings.clock_offset).unwrap_or_default();
    let clock = Clock::shifted(offset);
    let mut reader = Reader::new(auditor, clock, progress.clone());
    let report = settle::verify(&mut reader, args.settle, wallet.directory()).await;
    progress.clear();
    let mut report = report?;
    if let Some(mesh) = mesh {
        let stream = Box::pin(mesh.verify(args.settle)).await;
        mesh.close().await;
        report.stream = Some(stream?);
    }
    if args.json {
        terminal::print(&format!("{:#}\n", report.json()))?;
    } else {
        terminal::print(&report.text())?;
    }
    Ok(if report.is_ok() { Exit::Ok } else { Exit::Failed })
}
