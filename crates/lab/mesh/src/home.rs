//! Where a server keeps its files, and which user owns them.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::Error;

/// The directory of one server.
#[derive(Debug)]
pub(crate) enum Home {
    /// Removed when the handle is dropped.
    Temporary(TempDir),
    /// Named by the caller and never removed.
    Kept(PathBuf),
}

impl Home {
    pub(crate) fn temporary(server: &str) -> Result<Self, Error> {
        let made = tempfile::Builder::new().prefix(&format!("checkup-{server}-")).tempdir();
        made.map(Self::Temporary).map_err(Error::system("make a temporary directory"))
    }

    pub(crate) fn kept(directory: &Path) -> Result<Self, Error> {
        let doing = || format!("make the directory {}", directory.display());
        std::fs::create_dir_all(directory).map_err(|cause| Error::System { doing: doing(), cause })?;
        let absolute = directory.canonicalize();
        absolute.map(Self::Kept).map_err(|cause| Error::System { doing: doing(), cause })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(directory) => directory,
        }
    }

    /// The directory to remove if this process is killed.
    pub(crate) fn scratch(&self) -> Option<&Path> {
        match self {
            Self::Temporary(directory) => Some(directory.path()),
            Self::Kept(_) => None,
        }
    }
}

/// The user that runs a server which refuses to run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// `postgres` or `nobody` if this process is root; otherwise `None`, because the server then runs as this user.
    pub(crate) fn instead_of_root() -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let users = std::fs::read_to_string("/etc/passwd").map_err(Error::system("read /etc/passwd"))?;
        let found = ["postgres", "nobody"].iter().find_map(|name| Self::named(&users, name));
        let missing =
            Error::Missing { program: "user postgres or nobody", advice: "PostgreSQL refuses to run as root" };
        found.map(Some).ok_or(missing)
    }

    fn named(users: &str, name: &str) -> Option<Self> {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
        Some(Self { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    }

    pub(crate) fn own(self, path: &Path) -> Result<(), Error> {
        let owned = std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid));
        owned.map_err(Error::system(format!("give {} to another user", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::User;

    #[test]
    fn a_user_is_found_by_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\npostgres:x:103:106:,,,:/var/lib/postgresql:/bin/bash\nbroken";
        assert_eq!(User::named(users, "postgres"), Some(User { uid: 103, gid: 106 }));
        assert_eq!(User::named(users, "nobody"), None);
        assert_eq!(User::named(users, "broken"), None);
    }
}
