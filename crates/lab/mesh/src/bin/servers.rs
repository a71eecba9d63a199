//! Starts a PostgreSQL server and a broker for one test run, which all its tests share. Both end when standard input
//! ends.
//!
//! Prints one line `VARIABLE=URL` per server, then an empty line. A server that is not installed has no line: the tests
//! that need it report that themselves.

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
    // Tasks of this thread read the servers' output meanwhile. A read error on standard input ends the servers too.
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
