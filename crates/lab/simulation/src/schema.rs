//! Databases as their migrations leave them, made once for many seeds.
//!
//! A seed starts from copies of these files. The files lie in memory where there is such a place, and that changes nothing of what
//! a killed host loses: a simulated kill drops the host's tasks and leaves the process, so what was committed is in the file, and
//! since every transaction is one step of the simulation no kill comes in the middle of one. What a power failure would lose is
//! no subject here, so no seed need wait for a disk.

use std::io;
use std::path::{Path, PathBuf};

use store::migration::MigratorTrait;
use store::{Database, Location};
use tempfile::TempDir;

/// Where databases cost no disk, if there is such a place.
pub(crate) fn scratch() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let at = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("checkup-simulation-").tempdir_in(at)
}

/// One empty, migrated file a service, and the hosts that get a copy of their own where that is not one a service.
const SERVICES: [(&str, &[&str]); 4] = [
    (hospital::NAME, &[hospital::NAME]),
    (screening::NAME, &[screening::NAME]),
    (reservation::NAME, &[reservation::NAME]),
    (mypage::NAME, &crate::plan::PAGES),
];

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.db"))
}

/// Where a database of a seed is.
pub(crate) fn location(directory: &Path, name: &str) -> Location {
    Location::Sqlite(file(directory, name))
}

/// Migrates an empty database for each service, for many runs to start from. Not in the process of a run: migrations draw ids, and
/// what they draw and count there would be missing in a run that starts from copies.
///
/// # Errors
/// Where they cannot be written.
pub fn make() -> io::Result<TempDir> {
    let directory = scratch()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        migrate::<hospital::Migrator>(directory.path(), hospital::NAME).await?;
        migrate::<screening::Migrator>(directory.path(), screening::NAME).await?;
        migrate::<reservation::Migrator>(directory.path(), reservation::NAME).await?;
        migrate::<mypage::Migrator>(directory.path(), mypage::NAME).await
    })?;
    Ok(directory)
}

async fn migrate<M: MigratorTrait>(directory: &Path, name: &str) -> io::Result<()> {
    let database = Database::open::<M>(&location(directory, name)).await.map_err(io::Error::other)?;
    // closed, its write-ahead log is in the file
    database.close().await;
    Ok(())
}

/// Gives a seed its copies.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for (service, copies) in SERVICES {
        for name in copies {
            std::fs::copy(file(from, service), file(to, name))?;
        }
    }
    Ok(())
}
