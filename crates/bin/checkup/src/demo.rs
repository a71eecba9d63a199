//! `checkup demo`: plays the scenario against a running process, row by row, as its users would.
//!
//! It judges every answer by the contract and uses nothing else of the services.

mod marketing;
mod moving;
mod report;
mod rows;
mod stage;
mod waiting;

use crate::cli::DemoArgs;
use crate::exit::{Exit, Failure};
use crate::party::{Target, Wallet};
use crate::terminal;

use rows::Play;

/// Plays all fifteen rows and prints the results.
///
/// # Errors
/// Fails if the process cannot be reached or there is no token.
pub async fn run(args: DemoArgs) -> Result<Exit, Failure> {
    let wallet = Wallet::open(&args.target)?;
    let target = Target::reach(&args.target.addr).await?;
    let rows = Play::new(&target, &wallet).run().await;
    let ok = report::is_ok(&rows);
    if args.json {
        terminal::print(&format!("{:#}\n", report::json(&args.target.addr, &rows)))?;
    } else {
        terminal::print(&report::text(&args.target.addr, &rows))?;
    }
    Ok(if ok { Exit::Ok } else { Exit::Failed })
}
