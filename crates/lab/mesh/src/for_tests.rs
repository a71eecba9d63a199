//! Servers for tests: one that the environment names, or one that is started; without either, a line that says which
//! tests were skipped.
//!
//! * `CHECKUP_TEST_POSTGRES_URL` (`postgres://user@host:port/database`) and `CHECKUP_TEST_NATS_URL`
//!   (`nats://host:port`) name running servers. A test that stops or kills a server starts one of its own in any case.
//! * `CHECKUP_REQUIRE_SERVERS=1` turns a missing server from a skipped test into a failed one; `make test` sets it.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::OnceCell;

use crate::{Error, Nats, Postgres, postgres, programs};

/// The variable that names a running PostgreSQL server.
pub const POSTGRES_URL: &str = "CHECKUP_TEST_POSTGRES_URL";
/// The variable that names a running broker.
pub const NATS_URL: &str = "CHECKUP_TEST_NATS_URL";
const REQUIRE: &str = "CHECKUP_REQUIRE_SERVERS";

/// A PostgreSQL server that many tests share, each with databases of its own.
#[derive(Debug)]
pub struct SharedPostgres {
    url: String,
    psql: PathBuf,
    _server: Option<Postgres>,
}

impl SharedPostgres {
    /// Makes an empty database with a unique name that begins with `prefix`. Returns its address.
    ///
    /// # Errors
    /// [`Error::Failed`] with the message of the server.
    pub async fn database(&self, prefix: &str) -> Result<String, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{prefix}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        postgres::create_database(&self.psql, &self.url, &name).await?;
        Ok(with_database(&self.url, &name))
    }

    /// Runs SQL with `psql` in the database at this address. Returns what it prints, unaligned and without headings.
    ///
    /// # Errors
    /// [`Error::Failed`] with the message of the server.
    pub async fn sql(&self, url: &str, statement: &str) -> Result<String, Error> {
        postgres::sql(&self.psql, url, statement).await
    }
}

/// The address of another database on the same server.
fn with_database(url: &str, database: &str) -> String {
    let (address, options) = url.split_once('?').map_or((url, None), |(address, options)| (address, Some(options)));
    let authority = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    format!("{}/{database}{options}", &address[..end])
}

/// The PostgreSQL server of this test process: the one that [`POSTGRES_URL`] names, or one that the first call starts
/// and that ends with the process. Tests that stop or kill a server use [`Postgres::start`] instead.
///
/// # Errors
/// [`Error::Missing`] if PostgreSQL or `psql` is not installed, otherwise why the server did not start.
pub async fn postgres() -> Result<&'static SharedPostgres, Error> {
    static SHARED: OnceCell<SharedPostgres> = OnceCell::const_new();
    SHARED.get_or_try_init(shared_postgres).await
}

async fn shared_postgres() -> Result<SharedPostgres, Error> {
    if let Some(url) = given(POSTGRES_URL) {
        return Ok(SharedPostgres { url, psql: programs::psql()?, _server: None });
    }
    let server = Postgres::start().await?;
    Ok(SharedPostgres { url: server.url("postgres"), psql: programs::psql()?, _server: Some(server) })
}

/// A broker that other tests may use at the same time: each test needs a stream name of its own.
#[derive(Debug)]
pub struct SharedNats {
    url: String,
    _server: Option<Nats>,
}

impl SharedNats {
    /// The address of the broker, for clients.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// The broker that [`NATS_URL`] names, or a new one that ends with the handle. Tests that stop one use
/// [`Nats::start`] instead.
///
/// # Errors
/// [`Error::Missing`] if nats-server is not installed, otherwise why it did not start.
pub async fn nats() -> Result<SharedNats, Error> {
    if let Some(url) = given(NATS_URL) {
        return Ok(SharedNats { url, _server: None });
    }
    let server = Nats::start().await?;
    Ok(SharedNats { url: server.url(), _server: Some(server) })
}

fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Returns the server, or `None` if it is not installed, and then writes `skipped: PostgreSQL: …` for the person who
/// runs the tests. A test begins with `let Some(server) = or_skip("PostgreSQL", …) else { return };`.
///
/// # Panics
/// If the server is installed and does not start, or is not installed although `CHECKUP_REQUIRE_SERVERS=1` demands it.
pub fn or_skip<T>(server: &str, started: Result<T, Error>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(error @ Error::Missing { .. }) if given(REQUIRE).is_none_or(|required| required == "0") => {
            // Not with eprintln: the test harness hides its output when the test passes.
            let _ = writeln!(std::io::stderr(), "skipped: {server}: {error}");
            None
        }
        Err(Error::System { doing, cause }) => panic!("{server}: cannot {doing}: {cause}"),
        Err(error) => panic!("{server}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn the_address_of_another_database_keeps_everything_else() {
        assert_eq!(
            with_database("postgres://me@host:1/old?sslmode=off", "new"),
            "postgres://me@host:1/new?sslmode=off"
        );
        assert_eq!(with_database("postgres://host", "new"), "postgres://host/new");
    }
}
