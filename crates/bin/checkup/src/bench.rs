//! `checkup bench`: runs the measurements, shows progress, prints and writes the results.

use std::path::Path;
use std::time::Duration;

use ::bench::{Error, Item, Plan, Report, Sizes, Step};
use runtime::entropy;

use crate::cli::{BenchArgs, BenchItem};
use crate::exit::{Exit, Failure, chain};
use crate::service::Service;
use crate::terminal::{self, Progress};

/// How long calls run before a measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);
/// The warm-up and the duration of each side of a pair, with `--short`.
const SHORT: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];

/// Measures, prints and writes.
///
/// # Errors
/// Fails if something cannot be measured or written.
pub async fn run(args: BenchArgs) -> Result<Exit, Failure> {
    if let Some(addr) = args.serve_hello {
        return ::bench::hello::serve(addr).await.map(|()| Exit::Ok).map_err(failure);
    }
    let plan = plan(&args)?;
    // first, because measuring takes long and the results must not be lost
    for path in [&args.write, &args.json].into_iter().flatten().filter(|path| path.as_os_str() != "-") {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(directory).map_err(|error| cannot_write(path, &error))?;
    }
    let progress = Progress::new();
    let say = |step| match step {
        Step::Phase(name, steps) => progress.phase(name, steps),
        Step::Done => progress.done(1),
    };
    let measured = tokio::select! {
        measured = ::bench::run(&plan, &say) => measured.map_err(failure),
        // dropping the measurement ends what it has started
        () = interrupted() => Err(Failure::failed("interrupted; nothing was written")),
    };
    progress.clear();
    finish(&args, &measured?)
}

fn plan(args: &BenchArgs) -> Result<Plan, Failure> {
    let mut items: Vec<Item> = Vec::new();
    for item in &args.items {
        match item {
            BenchItem::All => items.extend(Item::ALL),
            BenchItem::One(one) => items.push(*one),
        }
    }
    if items.is_empty() {
        items.extend(Item::ALL);
    }
    items.sort_unstable();
    items.dedup();
    if let Some(needed) = args.without.iter().find(|service| matches!(service, Service::Hospital | Service::Screening))
    {
        return Err(Failure::usage(format!("--without {needed}: there is no booking without it")));
    }
    let sizes = if args.short { Sizes::SHORT } else { Sizes::WHOLE };
    let [warm_up, span] = if args.short { SHORT } else { [WARM_UP, Duration::from_secs(args.seconds)] };
    let binary = std::env::current_exe().map_err(|error| Failure::failed(format!("cannot find myself: {error}")))?;
    Ok(Plan {
        binary,
        items,
        topology: args.topology,
        pairs: args.pairs,
        span,
        warm_up,
        connections: args.connections.into(),
        without: args.without.iter().map(ToString::to_string).collect(),
        settings: args.set.clone(),
        order: args.order,
        // Of 32 bits, because people copy it from the report.
        seed: args.seed.unwrap_or_else(|| u32::from_le_bytes(entropy::bytes()).into()),
        sizes: Sizes {
            rows: args.rows.unwrap_or(sizes.rows),
            bookings: args.bookings.unwrap_or(sizes.bookings),
            ..sizes
        },
    })
}

/// Ends at Ctrl-C or SIGTERM. If signals cannot be handled, it never ends.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        signalled = tokio::signal::ctrl_c() => if signalled.is_err() { std::future::pending().await },
        _ = terminate.recv() => {}
    }
}

fn finish(args: &BenchArgs, report: &Report) -> Result<Exit, Failure> {
    let json = format!("{:#}\n", report.json());
    // measuring took long, so every output that can be written is written
    let written = match &args.json {
        Some(path) if path.as_os_str() == "-" => terminal::print(&json),
        Some(path) => {
            write(path, &json)?;
            terminal::print(&report.text())
        }
        None => terminal::print(&report.text()),
    };
    if let Some(path) = &args.write {
        for (path, text) in report.document(path).map_err(failure)? {
            write(&path, &text)?;
        }
    }
    written?;
    let (broken, failed) = (report.broken(), &report.failed);
    if !failed.is_empty() {
        Err(Failure::failed(format!("could not be measured: {}", failed.join("; "))))
    } else if !broken.is_empty() {
        Err(Failure::failed(format!("no noise explains {}", broken.join("; "))))
    } else {
        Ok(Exit::Ok)
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}: {}", path.display(), chain(error)))
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Usage(what) => Failure::usage(what),
        error => Failure::failed(chain(&error)),
    }
}
