//! `chaos`: plays scenarios against the real binary and prints the table.
#![allow(clippy::disallowed_methods, reason = "a test tool stands on the machine's own clock")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chaos::{Error, Form, Row, Scenario};
use clap::Parser;
use serde_json::Value;

const EXAMPLES: &str = "\
Examples:
  chaos
  chaos nats-down --seconds 60
  chaos kill postgres --rounds 5 --rate 2000
  chaos --hours 24
  chaos --short --json | jq '.[] | select(.clean | not)'
  chaos --markdown > target/chaos.md

Needs the programs of PostgreSQL 15 or newer and of nats-server 2.12 or newer, and a binary of checkup. A scenario starts a mesh \
of its own on loopback, those that begin with \"embedded\" one process; its directory is kept where something is wrong, and named. What breaks \
a disk needs a C compiler besides, and is skipped where there is none.

What is wrong: an answer that is not true any more (lost), a booking that nobody asked for or asked for once (doubled), a slot \
with more places taken than it has at any look (oversold), and whatever `checkup verify` reports of either set of replicas once \
the load is over. Calls without a definite answer are sent again with the same request_id, until they have one.

Exit status: 0 where nothing is wrong; 1 where something is, or a scenario could not be played; 64 for a wrong command line.";

const HOUR: Duration = Duration::from_secs(60 * 60);
/// What of a rate asked for can be waited for.
const ATTAINABLE_SHARE: f64 = 0.9;
/// The largest number that makes sense anywhere here; as hours a century and more.
const MAX_NUMBER: f64 = 1_000_000.0;

/// Breaks a mesh, or one process with everything in it, under load, in every way it promises to survive, and prints what came of it.
#[derive(Debug, Parser)]
#[command(name = "chaos", after_help = EXAMPLES, max_term_width = 100)]
struct Args {
    /// Which; all of them where none is named; --list names them
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// Lists the scenarios and ends
    #[arg(long)]
    list: bool,
    /// How often each fault comes, instead of each scenario's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: Option<u32>,
    /// How long a fault lasts that lasts, instead of each scenario's own time
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// Calls a second, fewer where the mesh does not answer that many
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Calls a second there have to be before a fault strikes, waited for two minutes at most [default: 1000, with --short 0]
    #[arg(long, value_name = "N", value_parser = amount)]
    least: Option<f64>,
    /// Callers, each with one call at a time
    #[arg(long, value_name = "N")]
    callers: Option<usize>,
    /// Bookings, where a scenario counts them
    #[arg(long, value_name = "N")]
    bookings: Option<usize>,
    /// Plays them again and again, with another seed each time, until so many hours have passed
    #[arg(long, value_name = "N", value_parser = amount)]
    hours: Option<f64>,
    /// Seconds instead of minutes, and little load: what the tests play
    #[arg(long)]
    short: bool,
    /// The binary of checkup [default: beside this one]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// What random choices follow from [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Prints a JSON array instead, at the end
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Prints a Markdown table instead
    #[arg(long)]
    markdown: bool,
}

fn amount(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=MAX_NUMBER).contains(number));
    number.ok_or_else(|| format!("it must be a number from 0 to {MAX_NUMBER}"))
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // where it cannot be printed there is nobody to tell
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    if args.list {
        Scenario::ALL.iter().for_each(|scenario| println!("{:<20} {}", scenario.name(), scenario.about()));
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chaos: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    if runtime.block_on(play(&args)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The binary of checkup that was built with this one.
fn beside() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("checkup")
}

/// Plays what was asked for; whether nothing is wrong.
async fn play(args: &Args) -> bool {
    let scenarios = if args.scenarios.is_empty() { Scenario::ALL.to_vec() } else { args.scenarios.clone() };
    let binary = args.binary.clone().unwrap_or_else(beside);
    if !binary.is_file() {
        eprintln!(
            "chaos: there is no {}; build it with cargo build -p checkup, or name one with --binary",
            binary.display()
        );
        return false;
    }
    let end = args.hours.map(|hours| Instant::now() + HOUR.mul_f64(hours));
    let mut seed = args.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_secs()));
    let mut rows: Vec<Value> = Vec::new();
    print_heading(args);
    let mut clean = all(args, &scenarios, &binary, seed, &mut rows).await;
    while end.is_some_and(|end| Instant::now() < end) {
        seed = seed.wrapping_add(1);
        clean &= all(args, &scenarios, &binary, seed, &mut rows).await;
    }
    if args.json {
        println!("{:#}", Value::Array(rows));
    }
    clean
}

/// Plays the scenarios, one after the other; whether nothing is wrong.
async fn all(args: &Args, scenarios: &[Scenario], binary: &Path, seed: u64, rows: &mut Vec<Value>) -> bool {
    eprintln!("seed {seed}");
    let mut clean = true;
    for scenario in scenarios.iter().copied() {
        eprintln!("{}: {}", scenario.name(), scenario.about());
        match one(scenario, args, binary.to_owned(), seed).await {
            Ok(row) => {
                clean &= row.is_clean();
                print_row(args, &row);
                rows.push(row.json());
            }
            Err(error @ Error::Skipped(_)) => eprintln!("{}: {error}", scenario.name()),
            Err(error) => {
                clean = false;
                eprintln!("{}: could not be played: {error}", scenario.name());
            }
        }
    }
    clean
}

async fn one(scenario: Scenario, args: &Args, binary: PathBuf, seed: u64) -> Result<Row, Error> {
    let mut plan = scenario.plan(if args.short { Form::Short } else { Form::Full }, binary, seed);
    plan.rounds = args.rounds.unwrap_or(plan.rounds);
    plan.bookings = args.bookings.unwrap_or(plan.bookings);
    plan.pressure.rate = args.rate.unwrap_or(plan.pressure.rate);
    plan.least = args.least.unwrap_or_else(|| plan.least.min(plan.pressure.rate * ATTAINABLE_SHARE));
    plan.pressure.callers = args.callers.unwrap_or(plan.pressure.callers);
    if let Some(seconds) = args.seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0) {
        plan.fault = Duration::from_secs_f64(seconds.min(86_400.0));
    }
    scenario.run(&plan).await
}

fn print_heading(args: &Args) {
    if args.markdown {
        let known = |name: &str| ["machine", "build", "commit", "date"].contains(&name);
        for (name, value) in bench::Machine::inspect().lines().iter().filter(|line| known(line.0)) {
            println!("* {name}: {value}");
        }
        print!("\n{}", Row::markdown_heading());
    } else if !args.json {
        print!("{}", Row::heading());
    }
}

fn print_row(args: &Args, row: &Row) {
    if args.json || args.markdown {
        row.complaints.iter().for_each(|complaint| eprintln!("{}: ✗ {complaint}", row.scenario));
    }
    if args.markdown {
        print!("{}", row.markdown());
    } else if !args.json {
        print!("{}", row.text());
    }
}
