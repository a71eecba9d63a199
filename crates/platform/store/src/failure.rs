//! The classes of failed writes: see the table in [`crate::writer`].

use std::fs::{self, File};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use fault::{Fault, Reason};
use sea_orm::sqlx::{self, error::ErrorKind};
use sea_orm::{DbErr, RuntimeErr};

/// How a run of a batch failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Before COMMIT, because of the batch's content: nothing was changed.
    Content(DbErr),
    /// Before COMMIT, because of the storage: nothing was changed.
    Storage(DbErr),
    /// At COMMIT: the outcome is unknown.
    Unknown(DbErr),
}

/// The retry delay for callers while the storage takes no writes.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Failure {
    /// The refusal for a caller whose command was given up.
    pub(crate) fn refusal(&self) -> Fault {
        let (text, cause) = match self {
            Self::Content(cause) => return Fault::internal(cause),
            Self::Storage(cause) => {
                ("the storage takes no writes, nothing was changed; send the same request again", cause)
            }
            Self::Unknown(cause) => (
                "the storage takes no writes, whether this one took place is unknown; send the same request again",
                cause,
            ),
        };
        Fault::new(Reason::StorageUnavailable, text).retry_after(RETRY_DELAY).caused_by(cause)
    }
}

/// Whether an error comes from the content that was written, and not from the storage.
pub(crate) fn is_content(error: &DbErr) -> bool {
    let runtime = match error {
        DbErr::Exec(runtime) | DbErr::Query(runtime) => runtime,
        DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => return false,
        _ => return true,
    };
    match runtime {
        RuntimeErr::SqlxError(cause) => match cause.as_ref() {
            sqlx::Error::Database(database) => {
                !matches!(database.kind(), ErrorKind::Other)
                    || database.code().is_some_and(|code| is_content_code(&code))
            }
            sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => true,
            _ => false,
        },
        RuntimeErr::Internal(_) => true,
    }
}

/// Whether a file had no room for a write: SQLite's FULL, and IOERR_SHMSIZE if the index of a log cannot grow.
pub(crate) fn is_full(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(cause))
    | DbErr::Query(RuntimeErr::SqlxError(cause))
    | DbErr::Conn(RuntimeErr::SqlxError(cause))) = error
    else {
        return false;
    };
    let sqlx::Error::Database(said) = cause.as_ref() else { return false };
    said.code().is_some_and(|code| matches!(code.as_ref(), "13" | "4874"))
}

/// Whether a file could not be opened because there is no room for the files beside it. SQLite only reports that the
/// file cannot be opened, so this writes a small file to find out.
pub(crate) fn is_without_room(file: &Path, error: &DbErr) -> bool {
    is_full(error) || !is_content(error) && takes_no_file(file)
}

/// Whether a small file beside this one finds no room.
fn takes_no_file(beside: &Path) -> bool {
    /// The smallest size of a log's index.
    const SIZE: usize = 1 << 15;
    let mut path = beside.as_os_str().to_owned();
    path.push("-room");
    let written = File::create(&path).and_then(|mut file| file.write_all(&[1; SIZE]));
    // The file may not have been made.
    drop(fs::remove_file(&path));
    let full = [IoErrorKind::StorageFull, IoErrorKind::QuotaExceeded, IoErrorKind::FileTooLarge];
    written.is_err_and(|error| full.contains(&error.kind()))
}

/// The length of a PostgreSQL error code; SQLite's codes are shorter numbers.
const SQLSTATE: usize = 5;

/// Whether an error code blames the statement. In PostgreSQL these are the classes for data, for integrity, and for
/// statements that are wrong in themselves; in SQLite ERROR, TOOBIG, CONSTRAINT, MISMATCH and RANGE. All other codes
/// blame the storage or its other users.
fn is_content_code(code: &str) -> bool {
    if code.len() == SQLSTATE {
        return ["22", "23", "42"].iter().any(|class| code.starts_with(class));
    }
    // The lowest byte of an extended code is the primary code.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 1 | 18 | 19 | 20 | 25))
}
