//! Runs the command line and turns the result into an exit status.

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
    backup, bench, config, consumers, dead_letters, demo, jwks, mesh, migrate, rebuild, recover, serve, terminal,
    token, up, verify,
};

/// Reads the process's arguments and runs the command. `started` is when the process began.
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
    // one boxed type for all commands, so that the runtime is not compiled once per command
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
        Command::Consumers(command) => Box::pin(consumers::run(command)),
        Command::Rebuild(args) => Box::pin(rebuild::run(args)),
        Command::Backup(args) => Box::pin(backup::backup(args)),
        Command::Recover(args) => Box::pin(recover::run(args)),
    };
    runtime()?.block_on(running)
}

/// Chooses the runtime. One thread on one or two cores: handing work between threads would cost more than a second
/// thread adds, and databases have their own threads or processes. A few threads on more cores: the services wait far
/// more than they compute.
fn runtime() -> Result<Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = match cores {
        ..=2 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let built = builder.worker_threads(cores.clamp(2, 4)).enable_all().build();
    built.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}

/// Prints what clap says. Help and version end with status 0, any error in the command line with status 64.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    if error.use_stderr() {
        // whether the error could be printed does not change the status
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
