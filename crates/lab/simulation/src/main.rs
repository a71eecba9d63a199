//! `simulate`: runs one seed, or many seeds in one process each.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{ArgGroup, Parser};
use indicatif::{ProgressBar, ProgressStyle};
use simulation::{Batch, Mutant, Run};

/// Runs the whole mesh in one thread, repeatable by a seed. Exit status 0: all services agreed; 1: they did not.
#[derive(Debug, Parser)]
#[command(name = "simulate", group = ArgGroup::new("what").required(true))]
struct Args {
    /// The seed to run.
    #[arg(long, group = "what")]
    seed: Option<u64>,
    /// How many seeds to run.
    #[arg(long, group = "what")]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    first: u64,
    /// Processes at a time; by default as many as there are cores.
    #[arg(long, conflicts_with = "seed")]
    jobs: Option<usize>,
    /// A bug to plant, to see whether it is found.
    #[arg(long)]
    mutant: Option<Mutant>,
    /// Print everything that happens to standard error.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Start from the migrated databases in this directory.
    #[arg(long, requires = "seed", hide = true)]
    schemas: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.seed {
        Some(seed) => one(seed, &args),
        None => many(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot simulate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, args: &Args) -> std::io::Result<bool> {
    let Some(schemas) = args.schemas.clone() else { return afresh() };
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_default_env() {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    watch(seed, args.mutant.is_some());
    let run = Run { seed, mutant: args.mutant, printed: args.trace, schemas };
    let outcome = simulation::run(run)?;
    println!("seed {seed} {outcome}");
    Ok(outcome.wrong.is_none())
}

/// Runs the seed as a batch does: on copies of migrated databases, in a new process.
fn afresh() -> std::io::Result<bool> {
    let schemas = simulation::schemas()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("--schemas").arg(schemas.path());
    Ok(command.status()?.success())
}

/// Ends a run that hangs, by real time: a simulated clock cannot do that. A planted bug may leave a database locked,
/// for which every writer waits in real time, so runs with one end sooner.
fn watch(seed: u64, planted: bool) {
    let limit = Duration::from_secs(if planted { 30 } else { 180 });
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        println!("seed {seed} hangs: it is not over after {limit:?} of real time");
        std::process::exit(1);
    });
}

fn many(args: &Args) -> std::io::Result<bool> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let batch = Batch {
        program: std::env::current_exe()?,
        first: args.first,
        count: args.seeds.unwrap_or_default(),
        jobs: args.jobs.unwrap_or(cores),
        mutant: args.mutant,
        until_found: false,
    };
    let style = "{bar:32} {pos}/{len} seeds, {per_sec}, {eta} left {msg}";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(batch.count).with_style(style);
    let summary = batch.run(|seed, ended| {
        bar.inc(1);
        if !ended.ok {
            bar.suspend(|| println!("{}\n  {}", ended.line, batch.repeat(seed)));
        }
    })?;
    bar.finish_and_clear();
    let failed = summary.failures().count();
    let (seeds, queues) = (summary.ended.len(), summary.queues());
    println!("{seeds} seeds, {queues} with queues, {failed} failed, {:.0} seeds a minute", summary.rate());
    Ok(failed == 0)
}
