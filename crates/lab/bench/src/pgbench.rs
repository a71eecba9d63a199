//! One row-locking transaction per request, by PostgreSQL's own tool: the cost of a booking without the coalescing
//! writer.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use mesh::Postgres;
use tempfile::TempDir;

use crate::Error;
use crate::load::{Measured, histogram};

const DATABASE: &str = "bench_baseline";
const TABLES: &str = "\
    CREATE TABLE slot (id integer PRIMARY KEY, capacity integer NOT NULL, booked integer NOT NULL CHECK (booked <= capacity));\
    CREATE TABLE claim (id uuid PRIMARY KEY, slot integer NOT NULL, taken timestamptz NOT NULL);\
    CREATE TABLE event (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text NOT NULL);\
    INSERT INTO slot VALUES (1, 2000000000, 0);";
/// Takes a place, then writes its claim and its event, as the service does.
const SCRIPT: &str = "\
BEGIN;
UPDATE slot SET booked = booked + 1 WHERE id = 1 AND booked < capacity;
INSERT INTO claim VALUES (gen_random_uuid(), 1, now());
INSERT INTO event (payload) VALUES (repeat('x', 200));
COMMIT;
";
/// How much longer than the measured time the tool may take.
const EXTRA_TIMEOUT: Duration = Duration::from_secs(30);

/// A database for pgbench, and how to run pgbench on it.
#[derive(Debug)]
pub(crate) struct Pgbench {
    program: PathBuf,
    /// Environment variables that are meant for other servers.
    unset: Vec<OsString>,
    url: String,
    scratch: TempDir,
}

impl Pgbench {
    /// Creates the database and its tables.
    pub(crate) async fn prepare(postgres: &Postgres) -> Result<Self, Error> {
        postgres.create_database(DATABASE).await?;
        postgres.sql(DATABASE, TABLES).await?;
        let scratch = tempfile::tempdir().map_err(Error::system("make a temporary directory"))?;
        std::fs::write(scratch.path().join("script.sql"), SCRIPT).map_err(Error::system("write a script"))?;
        let client = postgres.client("pgbench");
        let unset = client.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name.to_owned()).collect();
        Ok(Self { program: client.get_program().into(), unset, url: postgres.url(DATABASE), scratch })
    }

    /// Runs `callers` sessions for `span` in whole seconds, at least two, because the sessions connect first.
    pub(crate) async fn run(&self, callers: usize, span: Duration) -> Result<Measured, Error> {
        let seconds = span.as_secs_f64().ceil().max(2.0) as u64;
        let mut command = tokio::process::Command::new(&self.program);
        for name in &self.unset {
            command.env_remove(name);
        }
        command.args(["-n", "-M", "prepared", "-j", "2", "-l", "--log-prefix", "taken", "-f", "script.sql"]);
        command.args(["-c", &callers.to_string(), "-T", &seconds.to_string(), &self.url]);
        command.current_dir(self.scratch.path()).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(span + EXTRA_TIMEOUT, command.output()).await;
        let output = output.map_err(|_| Error::failed("pgbench did not end"))?;
        let output = output.map_err(Error::system("run pgbench, which comes with PostgreSQL's server package"))?;
        if !output.status.success() {
            return Err(Error::failed(format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        self.read(Duration::from_secs(seconds))
    }

    /// Reads the logs: one line per transaction, with its microseconds in the third column.
    fn read(&self, took: Duration) -> Result<Measured, Error> {
        let mut latency = histogram();
        let entries = std::fs::read_dir(self.scratch.path()).map_err(Error::system("read the logs of pgbench"))?;
        for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("taken.")) {
            let text = std::fs::read_to_string(entry.path()).map_err(Error::system("read a log of pgbench"))?;
            for micros in text.lines().filter_map(|line| line.split(' ').nth(2)?.parse().ok()) {
                latency.saturating_record(micros);
            }
            std::fs::remove_file(entry.path()).map_err(Error::system("remove a log of pgbench"))?;
        }
        let done = latency.len();
        if done == 0 {
            return Err(Error::failed("pgbench committed nothing"));
        }
        Ok(Measured { took, done, refused: 0, worked: done, latency, unsent: 0 })
    }
}
