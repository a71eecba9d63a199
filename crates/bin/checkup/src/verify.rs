//! `checkup verify`: reads every service as an auditor and reports what does not agree.
//!
//! What has to agree is `domain::invariants`; here the services are read, and read again where something may still be on its
//! way. It trusts no service more than another. Where the data directory of the process is at hand, what the services said is also
//! looked up in their files, for a service may serve what its storage does not hold, and so is whether the logs there have what was
//! read of them.

mod reader;
mod report;
mod rows;
mod settle;
mod stored;

use crate::cli::VerifyArgs;
use crate::exit::{Exit, Failure};
use crate::party::{Target, Wallet};
use crate::recover;
use crate::terminal::{self, Progress};

use reader::Reader;

/// Reads, compares, waits for what may settle, and prints what did not.
///
/// # Errors
/// Where the process cannot be reached or read, or there is no auditor's token.
pub async fn run(args: VerifyArgs) -> Result<Exit, Failure> {
    let looks = args.target.tokens.is_empty();
    let lost = if looks { Box::pin(recover::lost_in(&args.target.data_dir)).await? } else { Vec::new() };
    if !lost.is_empty() {
        // such services answer nothing that could be read
        let report = report::lost(&lost);
        terminal::print(&if args.json { format!("{:#}\n", report::lost_json(&lost)) } else { report })?;
        return Ok(Exit::Failed);
    }
    let wallet = Wallet::open(&args.target)?;
    let target = Target::reach(&args.target.addr).await?;
    let auditor = wallet.auditor(&target);
    let auditor =
        auditor.ok_or_else(|| Failure::usage("verify reads as an auditor: give an auditor's token with --token"))?;
    let progress = Progress::new();
    let mut reader = Reader::new(auditor, progress.clone());
    let report = settle::verify(&mut reader, args.settle, wallet.directory()).await;
    progress.clear();
    let report = report?;
    if args.json {
        terminal::print(&format!("{:#}\n", report.json()))?;
    } else {
        terminal::print(&report.text())?;
    }
    Ok(if report.is_ok() { Exit::Ok } else { Exit::Failed })
}
