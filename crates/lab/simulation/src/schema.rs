//! Migrated, empty databases, made once for many seeds.
//!
//! A seed starts from copies of these files. The files are in memory if the machine has such a file system. A killed
//! host loses the same either way: a simulated kill drops the host's tasks and not the process, so what was committed
//! is in the file. Every transaction is one step of the simulation, so no kill interrupts one. The simulation has no
//! power failures, so it needs no disk.

use std::io;
use std::path::{Path, PathBuf};

use checkup::service::Service;
use store::Location;
use tempfile::TempDir;

/// A temporary directory, in memory if possible.
pub(crate) fn scratch() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let at = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("checkup-simulation-").tempdir_in(at)
}

/// The services with a database, and the names of the copies that a seed gets of each. MyPage has one per host.
pub(crate) const SERVICES: [(Service, &[&str]); 4] = [
    (Service::Hospital, &[hospital::NAME]),
    (Service::Screening, &[screening::NAME]),
    (Service::Reservation, &[reservation::NAME]),
    (Service::MyPage, &crate::plan::PAGES),
];

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.db"))
}

/// The location of a database of a seed.
pub(crate) fn location(directory: &Path, name: &str) -> Location {
    Location::Sqlite(file(directory, name))
}

/// Migrates an empty database per service, from which many runs start. Call it in another process than a run:
/// migrations draw random ids and move counters, and the run must not depend on that.
///
/// # Errors
/// If the databases cannot be written.
pub fn make() -> io::Result<TempDir> {
    let directory = scratch()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for (service, _) in SERVICES {
            let opened = (service.row().open)(&location(directory.path(), service.name())).await;
            // Closing moves the write-ahead log into the file.
            opened.map_err(io::Error::other)?.close().await;
        }
        io::Result::Ok(())
    })?;
    Ok(directory)
}

/// Copies the databases for a seed.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for (service, copies) in SERVICES {
        for name in copies {
            std::fs::copy(file(from, service.name()), file(to, name))?;
        }
    }
    Ok(())
}
