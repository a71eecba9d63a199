//! Room on the disk of a file. SQLite writes to a log beside the file first and copies the log into the file later. On
//! a small disk the logs alone could take all the room, and the copying needs room too.
//!
//! So a log is copied and truncated while it is small compared with the room that is left; the file then has room for
//! the log's content. If a write finds no room all the same, because something else has taken it, the log is copied and
//! truncated too, and its room serves the next write. That copy fails if the file must grow for it and cannot. Nothing
//! is lost then, and nothing is written until somebody makes room; as much as the length of the logs is always enough.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::database::Database;
use crate::location::Location;

/// A log of at most this many bytes is never truncated early: a copy costs two syncs, whatever its size.
const SMALL: u64 = 1 << 20;
/// How many times a larger log must fit into the room that is left. The files of all five services may be on one disk.
const TIMES: u64 = 8;
/// The pause after an incomplete copy, which may have copied much in vain.
const PAUSE: Duration = Duration::from_millis(500);

/// Keeps the log of one database from taking the room that its file needs. PostgreSQL manages its own log.
#[derive(Debug)]
pub(crate) struct Room {
    log: Option<PathBuf>,
    not_before: Instant,
}

impl Room {
    pub(crate) fn of(database: &Database) -> Self {
        let log = match database.location() {
            Location::Sqlite(file) => {
                // The log lies beside the file that a symbolic link leads to.
                let mut log = fs::canonicalize(file).unwrap_or_else(|_| file.clone()).into_os_string();
                log.push("-wal");
                Some(log.into())
            }
            Location::Postgres(_) => None,
        };
        Self { log, not_before: Instant::now() }
    }

    /// Truncates the log if it is large compared with the room that is left.
    pub(crate) async fn keep(&mut self, database: &Database) {
        let Some(log) = &self.log else { return };
        let length = fs::metadata(log).map_or(0, |log| log.len());
        if length > SMALL && left(log).is_some_and(|left| length > left / TIMES) {
            self.make(database).await;
        }
    }

    /// Truncates the log because a write found no room. If a reader still needs the log, or the file has no room for
    /// the log's content, a later call tries again.
    pub(crate) async fn make(&mut self, database: &Database) {
        if self.log.is_none() || Instant::now() < self.not_before {
            return;
        }
        match database.cut_log().await {
            Ok(true) => return,
            Ok(false) => tracing::debug!(database = %database.location(), "a reader still needs the log"),
            Err(cause) => tracing::debug!(database = %database.location(), %cause, "the log cannot be cut off"),
        }
        self.not_before = Instant::now() + PAUSE;
    }
}

/// The bytes that this user may still write to the disk of a file; `None` if the system does not say.
fn left(file: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(file.as_os_str().as_bytes()).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}
