//! The data directory of an embedded process. It is created if it is missing, and one process uses it at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use store::Location;

use crate::exit::{Failure, chain};
use crate::service::Service;
use crate::view_files::ViewFiles;

/// The name of the lock file. The file stays when the process ends. Only its lock counts, and the operating system
/// releases the lock however the process ends.
const LOCK: &str = "checkup.lock";

/// A data directory that is locked for this process until this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // keeps the lock
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing and locks it.
    ///
    /// # Errors
    /// Fails if the directory cannot be used, or another process uses it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, error: &std::io::Error| {
            let (dir, why) = (path.display(), chain(error));
            Failure::failed(format!("cannot {what} the data directory {dir} ({why}); choose another with --data-dir"))
        };
        make(path).map_err(|error| failed("make", &error))?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path.join(LOCK));
        let mut lock = file.map_err(|error| failed("write to", &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &error)),
        }
        // without room on the disk, the pid is missing from another process's error message; nothing else depends on it
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| write!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database of a service in this directory. For my-page it is the view in use. Views that an interrupted
    /// rebuild left behind are removed.
    #[must_use]
    pub fn database(&self, service: Service) -> Location {
        if service == Service::MyPage
            && let Err(error) = ViewFiles::of(&self.path).settle()
        {
            tracing::warn!(error = chain(&error), "cannot remove what a rebuild left behind");
        }
        Location::Sqlite(file(&self.path, service))
    }
}

/// Creates a directory and its missing parents, and syncs each name. A file that is synced in a directory is lost in a
/// power failure all the same if the name of the directory was never synced.
fn make(path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        None => return Ok(()),
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
    };
    if path.is_dir() {
        // its creator may have been killed before the name was synced; a directory of another owner may not be readable
        let _ = File::open(above).and_then(|above| above.sync_all());
        return Ok(());
    }
    make(above)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    File::open(above)?.sync_all()
}

/// The path of a service's file in a data directory, whether the file exists or not.
#[must_use]
pub fn file(directory: &Path, service: Service) -> PathBuf {
    match service {
        Service::MyPage => {
            let files = ViewFiles::of(directory);
            // opening the view reports an unreadable pointer; the first view can always be rebuilt from the events
            files.path(files.current().unwrap_or(1))
        }
        _ => directory.join(format!("{service}.db")),
    }
}

/// The files of a data directory that exist, by service.
pub fn files(directory: &Path) -> impl Iterator<Item = (Service, PathBuf)> {
    let files = Service::ALL.map(|service| (service, file(directory, service)));
    files.into_iter().filter(|(_, path)| path.is_file())
}

/// Whether a process uses this data directory.
///
/// # Errors
/// Fails if the lock file cannot be read.
pub fn is_in_use(directory: &Path) -> io::Result<bool> {
    let lock = match File::open(directory.join(LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn in_use(path: &Path, lock: &mut File) -> Failure {
    let mut pid = String::new();
    // the holder writes its pid a moment after it has taken the lock
    let holder = match lock.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("the process with pid {}", pid.trim()),
        _ => "another process".to_owned(),
    };
    let dir = path.display();
    Failure::failed(format!(
        "the data directory {dir} is in use by {holder}; stop it, or choose another with --data-dir"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_at_a_time_and_names_it() {
        let dir = std::env::temp_dir().join(format!("checkup-lock-{}", runtime::entropy::uuid_v4()));
        assert!(!is_in_use(&dir).unwrap());
        let first = DataDir::open(&dir).unwrap();
        assert!(is_in_use(&dir).unwrap());
        let refused = DataDir::open(&dir).unwrap_err();
        assert!(refused.message.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(first);
        assert!(!is_in_use(&dir).unwrap());
        assert_eq!(DataDir::open(&dir).unwrap().path(), dir);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn directories_are_made_down_to_the_last() {
        let dir = std::env::temp_dir().join(format!("checkup-deep-{}", runtime::entropy::uuid_v4()));
        let deep = dir.join("one/two");
        make(&deep).unwrap();
        make(&deep).unwrap();
        assert!(deep.is_dir());
        fs::write(dir.join("file"), "").unwrap();
        assert!(make(&dir.join("file")).is_err() && make(&dir.join("file/below")).is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
