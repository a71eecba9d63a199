//! The servers of a run of tests: PostgreSQL and a broker that all its tests share, until standard input ends.
//!
//! Prints one line `VARIABLE=URL` for each of them, then an empty line, and reads standard input. A server that is not installed
//! has no line: the tests that need one say so themselves.

use std::io::Read as _;
use std::process::ExitCode;

use mesh::{Error, Nats, Postgres, for_tests};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("servers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Error> {
    let postgres = installed(Postgres::start().await)?;
    let nats = installed(Nats::start().await)?;
    if let Some(postgres) = &postgres {
        println!("{}={}", for_tests::POSTGRES_URL, postgres.url("postgres"));
    }
    if let Some(nats) = &nats {
        println!("{}={}", for_tests::NATS_URL, nats.url());
    }
    println!();
    // the servers' output is read by tasks of this thread meanwhile; whether reading failed or ended is the same here
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
    Ok(())
}

fn installed<T>(started: Result<T, Error>) -> Result<Option<T>, Error> {
    match started {
        Ok(server) => Ok(Some(server)),
        Err(Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
