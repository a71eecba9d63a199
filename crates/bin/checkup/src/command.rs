//! The command line from its arguments to its status.

use std::future::Future;
use std::io::Write;
use std::num::NonZero;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command};
use crate::exit::{Exit, Failure};
use crate::{
    backup, bench, config, dead_letters, demo, jwks, mesh, migrate, rebuild, recover, serve, terminal, token, up,
    verify,
};

/// Reads the arguments of the process and runs the command that they name. `started` is when the process began.
pub fn main(started: Instant) -> ExitCode {
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
    // one type of future, or the runtime would be compiled once for each command
    let running: Pin<Box<dyn Future<Output = Result<Exit, Failure>>>> = match command {
        Command::Token(args) => return token::run(args),
        Command::Jwks(args) => return jwks::run(args),
        Command::Restore(args) => return backup::restore(&args),
        Command::Config(command) => return config::run(command),
        Command::Up(args) => Box::pin(up::run(args, started)),
        Command::Serve(args) => Box::pin(serve::run(args, started)),
        Command::Migrate(args) => Box::pin(migrate::run(args)),
        Command::Mesh(args) => Box::pin(mesh::run(args, started)),
        Command::Demo(args) => Box::pin(demo::run(args)),
        Command::Verify(args) => Box::pin(verify::run(args)),
        Command::Bench(args) => Box::pin(bench::run(args)),
        Command::DeadLetters(command) => Box::pin(dead_letters::run(command)),
        Command::Rebuild(args) => Box::pin(rebuild::run(args)),
        Command::Backup(args) => Box::pin(backup::backup(args)),
        Command::Recover(args) => Box::pin(recover::run(args)),
    };
    runtime()?.block_on(running)
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
