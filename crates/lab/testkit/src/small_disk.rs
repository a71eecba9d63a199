//! A small file system: a real one, if this user may mount it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const FILL_CHUNK: usize = 1 << 16;

/// A small file system in memory. It is unmounted when the handle is dropped.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts a file system of this many MiB.
    ///
    /// # Errors
    /// Why this machine cannot have one, usually because only root may mount.
    pub fn mount(mib: usize) -> Result<Self, String> {
        let everybody = std::fs::Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().prefix("checkup-small-").permissions(everybody).tempdir();
        let directory = directory.map_err(|error| format!("cannot make a temporary directory: {error}"))?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0755"), "tmpfs"]).arg(directory.path());
        let why = match command.output() {
            Ok(output) if output.status.success() => return Ok(Self(directory)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Err(format!("a small disk needs root and mount: {why}"))
    }

    /// The mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the file system.
    ///
    /// # Errors
    /// If the file that fills it cannot be made.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.filler())?;
        let chunk = vec![1; FILL_CHUNK];
        while file.write_all(&chunk).is_ok() {}
        Ok(())
    }

    /// Frees the room that [`Self::fill`] took.
    ///
    /// # Errors
    /// If it was not filled.
    pub fn empty(&self) -> io::Result<()> {
        std::fs::remove_file(self.filler())
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount: processes that still use it are about to end.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
