//! `checkup bench`: how many bookings a second this machine carries, with the baseline beside it in the same run.
//!
//! A closed loop: so many callers, each with one call under way. Client and services share the machine, so the figures are those
//! of the whole. It judges no answer beyond OK and refused; `verify` does that.

mod load;
mod report;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::{BenchArgs, TargetArgs};
use crate::config::{Settings, Sources};
use crate::embedded::Embedded;
use crate::exit::{Exit, Failure, chain};
use crate::party::{Target, Wallet};
use crate::service::Service;
use crate::terminal::{self, Progress};

use load::{Kind, Load, Measured};
use report::Report;

/// Turns each kind of writer gets at a number of callers: the machine's other load then meets both.
const TURNS: u32 = 2;
/// Commands one transaction takes: the baseline's, and the product's default.
const NAIVE_BATCH: usize = 1;

/// Measures and prints.
///
/// # Errors
/// Where something cannot be measured.
pub async fn run(args: BenchArgs) -> Result<Exit, Failure> {
    let progress = Progress::new();
    let measured = match &args.addr {
        Some(addr) => remote(&args, addr, &progress).await,
        None => local(&args, &progress).await,
    };
    progress.clear();
    let report = measured?;
    terminal::print(&if args.json { format!("{:#}\n", report.json()) } else { report.text() });
    Ok(Exit::Ok)
}

/// Whole bookings against a running process.
async fn remote(args: &BenchArgs, addr: &str, progress: &Progress) -> Result<Report, Failure> {
    let (data_dir, tokens) = (args.data_dir.clone(), args.tokens.clone());
    let target_args = TargetArgs { addr: addr.to_owned(), data_dir, tokens };
    let wallet = Wallet::open(&target_args)?;
    let target = Target::reach(addr).await?;
    let load = Load::prepare(&target, &wallet).await?;
    let span = Duration::from_secs(args.seconds);
    progress.phase("measuring", Some(args.callers.len() as u64));
    let mut results = Vec::new();
    for callers in &args.callers {
        results.push(load.measure(Kind::Booking, *callers, span).await?);
        progress.done(1);
    }
    load.tidy_up().await;
    Ok(Report { place: format!("the process on {addr}"), seconds: args.seconds, results })
}

/// Both kinds of writer by turns, and whole bookings, on services of our own.
async fn local(args: &BenchArgs, progress: &Progress) -> Result<Report, Failure> {
    let dir = tempfile::Builder::new().prefix("checkup-bench-").tempdir();
    let dir = dir.map_err(|error| Failure::failed(format!("cannot make a temporary directory: {}", chain(&error))))?;
    let one_each = vec![format!("hospital.batch={NAIVE_BATCH}")];
    let naive = Stand::start(dir.path().join("naive"), &[Service::Hospital], one_each).await?;
    let coalesced = Stand::start(dir.path().join("coalesced"), &[Service::Hospital], Vec::new()).await?;
    let whole = Stand::start(dir.path().join("whole"), &Service::ALL, Vec::new()).await?;

    progress.phase("measuring", Some(args.callers.len() as u64 * u64::from(2 * TURNS + 1)));
    let span = Duration::from_secs(args.seconds);
    let mut results = Vec::new();
    for callers in &args.callers {
        let (mut one, mut many) = (Measured::none(Kind::Naive, *callers), Measured::none(Kind::Coalesced, *callers));
        for _ in 0..TURNS {
            one.add(naive.load.measure(Kind::Naive, *callers, span / TURNS).await?);
            progress.done(1);
            many.add(coalesced.load.measure(Kind::Coalesced, *callers, span / TURNS).await?);
            progress.done(1);
        }
        results.extend([one, many, whole.load.measure(Kind::Booking, *callers, span).await?]);
        progress.done(1);
    }
    for stand in [naive, coalesced, whole] {
        stand.services.stop().await;
    }
    Ok(Report { place: format!("services of its own in {}", dir.path().display()), seconds: args.seconds, results })
}

/// Services to be measured, and the load for them.
struct Stand {
    services: Embedded,
    load: Load,
}

impl Stand {
    async fn start(dir: PathBuf, services: &[Service], flags: Vec<String>) -> Result<Self, Failure> {
        // the defaults, whatever the environment says: figures are to be comparable
        let settings: Settings = Sources { flags, ..Sources::default() }.settings()?;
        let services = Embedded::start(&services.iter().copied().collect(), &settings, &dir).await?;
        let addr: SocketAddr = services.addr();
        let target = Target::reach(&addr.to_string()).await?;
        let load = Load::prepare(&target, &Wallet::of_directory(&dir)?).await?;
        Ok(Self { services, load })
    }
}
