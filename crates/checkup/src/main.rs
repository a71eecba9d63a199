//! The binary: reads the command line, runs one command, ends with its status.

use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Instant;

use checkup::cli::{Cli, Command};
use checkup::exit::{Exit, Failure};
use checkup::{
    backup, bench, config, dead_letters, demo, jwks, mesh, migrate, rebuild, recover, serve, terminal, token, up,
    verify,
};
use clap::Parser;
use mimalloc::MiMalloc;
use tokio::runtime::{Builder, Runtime};

/// Calls allocate on one thread and free on another, which this allocator is made for. An image on an empty base would otherwise
/// have that of musl, which serialises all threads. SQLite gets it too (its feature `override`): glibc's has an arena for each of
/// SQLite's threads, and what is free in one is of no use to another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let started = Instant::now();
    use_small_pages();
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(cli.command, started),
        Err(error) => return usage(&error),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            terminal::complain(&format!("checkup: {failure}"));
            failure.exit.into()
        }
    }
}

fn run(command: Command, started: Instant) -> Result<Exit, Failure> {
    match command {
        Command::Up(args) => runtime()?.block_on(up::run(args, started)),
        Command::Serve(args) => runtime()?.block_on(serve::run(args, started)),
        Command::Migrate(args) => runtime()?.block_on(migrate::run(args)),
        Command::Mesh(args) => runtime()?.block_on(mesh::run(args, started)),
        Command::Token(args) => token::run(args),
        Command::Jwks(args) => jwks::run(args),
        Command::Demo(args) => runtime()?.block_on(demo::run(args)),
        Command::Verify(args) => runtime()?.block_on(verify::run(args)),
        Command::Bench(args) => runtime()?.block_on(bench::run(args)),
        Command::DeadLetters(command) => runtime()?.block_on(dead_letters::run(command)),
        Command::Rebuild(args) => runtime()?.block_on(rebuild::run(args)),
        Command::Backup(args) => runtime()?.block_on(backup::backup(args)),
        Command::Restore(args) => backup::restore(&args),
        Command::Recover(args) => runtime()?.block_on(recover::run(args)),
        Command::Config(command) => config::run(command),
    }
}

/// The allocator asks the kernel for pages of 2 MB, and whoever uses a few kilobytes here and there has all of them: four fifths of the
/// anonymous memory of a service at rest. A kernel that knows no such pages is no reason to stop.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// On one or two cores a single thread: what a second one adds is less than what handing work back and forth costs, and databases
/// have threads or processes of their own. On more, a few: the services wait far more than they compute.
fn runtime() -> Result<Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = match cores {
        ..=2 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let built = builder.worker_threads(cores.clamp(2, 4)).enable_all().build();
    built.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}

/// Help and version are no errors; everything else the command line can say wrong ends with the status for that.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    if error.use_stderr() {
        // a closed terminal is no reason to fail differently
        return Exit::Usage.into();
    }
    match terminal::written(printed) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            terminal::complain(&format!("checkup: {failure}"));
            failure.exit.into()
        }
    }
}
