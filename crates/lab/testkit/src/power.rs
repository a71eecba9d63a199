//! What is left of a directory after a power failure: the files that the library `disk/disk.c` saw being synced.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::seed::Random;

/// The unit in bytes that a kernel writes back whole.
const BLOCK: usize = 4096;

/// A directory and its shadow, which has what was synced. The comment at `keep` in `disk.c` describes its layout.
#[derive(Debug)]
pub(crate) struct Power {
    directory: PathBuf,
    shadow: PathBuf,
}

impl Power {
    /// Makes an empty shadow. The first process that starts copies the directory into it.
    pub(crate) fn new(directory: &Path, shadow: &Path) -> Result<Self, String> {
        let power = Self { directory: directory.to_owned(), shadow: shadow.to_owned() };
        power.forget().map_err(|error| format!("cannot make {}: {error}", shadow.display()))?;
        Ok(power)
    }

    pub(crate) fn shadow(&self) -> &Path {
        &self.shadow
    }

    /// Replaces the directory's content by its shadow, then empties the shadow.
    pub(crate) fn fail(&self, torn: Option<&mut Random>) -> Result<(), String> {
        let key = fs::read_to_string(self.shadow.join("root"));
        let key = key.map_err(|error| format!("no process has used {}: {error}", self.directory.display()))?;
        let failed = |error| format!("cannot replace {} by its shadow: {error}", self.directory.display());
        if let Some(random) = torn {
            self.tear(random).map_err(failed)?;
        }
        let owner = fs::metadata(&self.directory).map_err(failed)?;
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed)?;
        }
        self.restore(&key, &self.directory, &owner).map_err(failed)?;
        self.forget().map_err(failed)
    }

    fn forget(&self) -> io::Result<()> {
        if self.shadow.exists() {
            fs::remove_dir_all(&self.shadow)?;
        }
        fs::create_dir(&self.shadow)?;
        // The process under test writes to it and may run as another user.
        fs::set_permissions(&self.shadow, fs::Permissions::from_mode(0o777))
    }

    /// Restores the directory with this key. A file or directory that was never synced itself is empty.
    fn restore(&self, key: &str, at: &Path, owner: &Metadata) -> io::Result<()> {
        let list = match fs::read_to_string(self.shadow.join(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            list => list?,
        };
        for line in list.lines() {
            let (is_directory, line) = line.strip_prefix("d ").map_or((false, line), |line| (true, line));
            let (key, name) = line.split_once(' ').ok_or_else(|| io::Error::other(format!("a line {line:?}")))?;
            let path = at.join(name);
            if is_directory {
                fs::create_dir(&path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
                self.restore(key, &path, owner)?;
            } else {
                match fs::copy(self.shadow.join(key), &path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => drop(File::create(&path)?),
                    copied => drop(copied?),
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            }
            chown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    }

    /// Copies a random half of the blocks that differ from the files into the shadow.
    fn tear(&self, random: &mut Random) -> io::Result<()> {
        for (key, path) in files(&self.directory)? {
            let shadow = self.shadow.join(key);
            if !shadow.exists() {
                continue;
            }
            let (now, shadow) = (fs::read(path)?, File::options().read(true).write(true).open(shadow)?);
            let mut synced = [0; BLOCK];
            for (index, block) in now.chunks(BLOCK).enumerate() {
                let at = (index * BLOCK) as u64;
                let length = read_at(&shadow, &mut synced, at)?;
                if synced[..length.min(block.len())] != *block && random.chance(50) {
                    shadow.write_all_at(block, at)?;
                }
            }
        }
        Ok(())
    }
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], at + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// Every file below a directory, by its key.
fn files(directory: &Path) -> io::Result<HashMap<String, PathBuf>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            found.extend(files(&path)?);
        } else if metadata.is_file() {
            found.insert(key_of(&metadata), path);
        }
    }
    Ok(found)
}

/// The same as `key_of` in `disk.c`.
fn key_of(metadata: &Metadata) -> String {
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}-{}", metadata.ino(), born.as_secs(), born.subsec_nanos())
}
