//! `chaos`: plays scenarios against the real binary and prints a table.
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
/// The share of the requested rate that a fault waits for.
const ATTAINABLE_SHARE: f64 = 0.9;
/// The largest number that any option takes. As hours, it is more than a century.
const MAX_NUMBER: f64 = 1_000_000.0;

/// Breaks a mesh, or one embedded process, under load in every way it promises to survive, and prints the results
#[derive(Debug, Parser)]
#[command(name = "chaos", after_help = EXAMPLES, max_term_width = 100)]
struct Args {
    /// The scenarios to play; all of them if none is named (see --list)
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// Lists the scenarios and exits
    #[arg(long)]
    list: bool,
    /// How often each fault happens, instead of each scenario's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: Option<u32>,
    /// How many seconds a lasting fault lasts, instead of each scenario's own time
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// Calls per second; fewer if the system does not answer that many
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Answered calls per second to wait for, for two minutes at most, before a fault [default: 1000, with --short 0]
    #[arg(long, value_name = "N", value_parser = amount)]
    least: Option<f64>,
    /// The number of callers; each has one call at a time
    #[arg(long, value_name = "N")]
    callers: Option<usize>,
    /// The number of bookings, for scenarios that count them
    #[arg(long, value_name = "N")]
    bookings: Option<usize>,
    /// Repeats the scenarios, each time with another seed, until this many hours have passed
    #[arg(long, value_name = "N", value_parser = amount)]
    hours: Option<f64>,
    /// Takes seconds instead of minutes, with little load, as the tests do
    #[arg(long)]
    short: bool,
    /// The checkup binary [default: beside this one]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// The checkup binary of an earlier version, for the scenario that replaces it
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
    /// The seed of all random choices [default: the time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Prints a JSON array at the end instead of a table
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Prints a Markdown table
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
            // Nobody can be told if the message cannot be printed.
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

/// The path of the checkup binary that was built with this one.
fn beside() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("checkup")
}

/// Plays the requested scenarios. Returns whether no violation was found.
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

/// Plays the scenarios one after the other. Returns whether no violation was found.
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
    plan.before.clone_from(&args.before);
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
