//! Room on the disk of a file. SQLite writes to a log beside the file first and copies the log into the file later; on a small disk the
//! logs alone could take all the room there is, and the copying needs room too.
//!
//! So a log is copied and cut off while it is small beside the room that is left: then the file has room for all that is in the log.
//! Where a write finds no room all the same, because somebody else has taken it, the log is copied and cut off too, and what it had is
//! there for the next write. That copy fails where the file has to grow for it and cannot. Then nothing is lost and nothing is written
//! until somebody makes room; as much as the logs are long is always enough.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm::DbErr;
use tokio::time::Instant;

use crate::database::Database;
use crate::failure::{is_content, is_full};
use crate::location::Location;

/// Bytes of a log that are never too many: a copy costs two syncs, whatever its size.
const SMALL: u64 = 1 << 20;
/// How many times a larger log goes into the room that is left. The files of all five services may be on one disk.
const TIMES: u64 = 8;
/// How soon a copy is tried again that did not get to its end: it may have copied much for nothing.
const PAUSE: Duration = Duration::from_millis(500);

/// Keeps the log of one database from taking the room of its file. PostgreSQL keeps its own.
#[derive(Debug)]
pub(crate) struct Room {
    log: Option<PathBuf>,
    not_before: Instant,
}

impl Room {
    pub(crate) fn of(database: &Database) -> Self {
        let log = match database.location() {
            Location::Sqlite(file) => {
                // a log lies beside the file that a link leads to
                let mut log = fs::canonicalize(file).unwrap_or_else(|_| file.clone()).into_os_string();
                log.push("-wal");
                Some(log.into())
            }
            Location::Postgres(_) => None,
        };
        Self { log, not_before: Instant::now() }
    }

    /// Cuts the log off where it has become large beside the room that is left.
    pub(crate) async fn keep(&mut self, database: &Database) {
        let Some(log) = &self.log else { return };
        let length = fs::metadata(log).map_or(0, |log| log.len());
        if length > SMALL && left(log).is_some_and(|left| length > left / TIMES) {
            self.make(database).await;
        }
    }

    /// Cuts the log off because a write found no room. Where a reader still needs the log, or the file has no room for what is in it,
    /// the next call tries again.
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

/// Bytes that are left for this user on the disk that a file is on, where the system says.
fn left(file: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(file.as_os_str().as_bytes()).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Whether a file could not be opened because there is no room for what lies beside it. Of a new file SQLite only says that it cannot be
/// opened, so one is made here.
pub(crate) fn is_missing(file: &Path, error: &DbErr) -> bool {
    is_full(error) || !is_content(error) && takes_no_file(file)
}

/// Whether a small file beside this one finds no room.
fn takes_no_file(beside: &Path) -> bool {
    /// What the index of a log takes at least.
    const SIZE: usize = 1 << 15;
    let mut path = beside.as_os_str().to_owned();
    path.push("-room");
    let written = File::create(&path).and_then(|mut file| file.write_all(&[1; SIZE]));
    // it may not have been made
    drop(fs::remove_file(&path));
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    written.is_err_and(|error| full.contains(&error.kind()))
}
