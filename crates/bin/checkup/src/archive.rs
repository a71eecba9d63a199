//! The format of backups: a tar archive whose first member is a manifest of the others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use runtime::identity::Signer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use crate::service::Service;

const MANIFEST: &str = "manifest.json";
/// The format version that this build writes and reads.
const FORMAT: u32 = 1;
/// Readable for its owner only, because a backup contains the signing key.
const FILE_MODE: u32 = 0o600;
/// The most bytes that a manifest may have. A real one has a few hundred.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The manifest of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The version of the backup format.
    pub(crate) format: u32,
    /// The version of checkup that wrote the backup.
    pub(crate) version: String,
    /// The time of the cut: every database is copied as it was then.
    pub(crate) time: String,
    /// The newest position of each service's log, by service.
    pub(crate) positions: BTreeMap<String, i64>,
    /// The files of the backup, in the order of the archive.
    pub(crate) files: Vec<Member>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// The SHA-256 of its content, in hexadecimal.
    pub(crate) sha256: String,
}

impl Manifest {
    pub(crate) fn new(time: String, positions: BTreeMap<String, i64>, files: Vec<Member>) -> Self {
        Self { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), time, positions, files }
    }
}

/// The name of a service's file in a backup. The name of a rebuilt view's file is not kept.
pub(crate) fn file_name(service: Service) -> String {
    format!("{service}.db")
}

/// Whether a backup may contain a file of this name.
fn is_known(name: &str) -> bool {
    name == Signer::FILE || Service::ALL.into_iter().any(|service| file_name(service) == name)
}

/// Copies everything. Returns the number of bytes and their SHA-256 in hexadecimal.
fn copy_digested(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, String)> {
    let (mut buffer, mut digest, mut bytes) = (vec![0; 1 << 16], Sha256::new(), 0);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            let digits = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok((bytes, digits));
        }
        digest.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

/// The length and the digest of a file, as a member called `name`.
pub(crate) fn describe(path: &Path, name: String) -> io::Result<Member> {
    let (bytes, sha256) = copy_digested(&mut File::open(path)?, &mut io::sink())?;
    Ok(Member { name, bytes, sha256 })
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(FILE_MODE);
    header
}

/// Writes the manifest and the files of a directory as an archive.
pub(crate) fn write(to: &mut impl Write, manifest: &Manifest, directory: &Path) -> io::Result<()> {
    let mut archive = Builder::new(to);
    let text = serde_json::to_vec_pretty(manifest)?;
    archive.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice())?;
    for Member { name, bytes, .. } in &manifest.files {
        archive.append_data(&mut header(*bytes), name, File::open(directory.join(name))?)?;
    }
    archive.into_inner()?.flush()
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Unpacks a backup into an empty directory and syncs it. Fails unless the archive contains what its manifest says.
pub(crate) fn read(from: &mut impl Read, directory: &Path, mut unpacked: impl FnMut(&Member)) -> io::Result<Manifest> {
    let mut archive = Archive::new(from);
    let mut entries = archive.entries()?;
    let first = entries.next().transpose()?.filter(|entry| entry.path().is_ok_and(|path| path == Path::new(MANIFEST)));
    let mut first = first.ok_or_else(|| invalid("it does not begin with the manifest of a backup"))?;
    let mut text = Vec::new();
    (&mut first).take(MAX_MANIFEST_BYTES).read_to_end(&mut text)?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| invalid(format!("its manifest cannot be read: {error}")))?;
    if manifest.format != FORMAT {
        let Manifest { format, version, .. } = &manifest;
        return Err(invalid(format!("checkup {version} wrote it in format {format}, and this one reads {FORMAT}")));
    }
    for member in &manifest.files {
        let Member { name, bytes, sha256 } = member;
        if !is_known(name) {
            return Err(invalid(format!("it holds {name:?}, which belongs into no data directory")));
        }
        let mut entry = entries.next().transpose()?.ok_or_else(|| invalid(format!("it ends before {name}")))?;
        if entry.path()? != Path::new(name) {
            return Err(invalid(format!("where {name} should be it holds something else")));
        }
        let mut file = create(&directory.join(name))?;
        let found = copy_digested(&mut entry, &mut file)?;
        if found != (*bytes, sha256.clone()) {
            return Err(invalid(format!("its {name} is damaged")));
        }
        file.sync_all()?;
        unpacked(member);
    }
    if entries.next().transpose()?.is_some() {
        return Err(invalid("it holds more than its manifest says"));
    }
    Ok(manifest)
}

fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create_new(true).mode(FILE_MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(directory: &Path) -> Vec<u8> {
        std::fs::write(directory.join("hospital.db"), vec![7; 100_000]).unwrap();
        std::fs::write(directory.join(Signer::FILE), "key").unwrap();
        let files = ["hospital.db", Signer::FILE];
        let files = files.map(|name| describe(&directory.join(name), name.to_owned()).unwrap());
        let manifest = Manifest::new("now".into(), BTreeMap::from([("hospital".to_owned(), 3)]), files.to_vec());
        let mut bytes = Vec::new();
        write(&mut bytes, &manifest, directory).unwrap();
        bytes
    }

    fn restored(bytes: &[u8]) -> io::Result<Manifest> {
        let to = tempfile::tempdir().unwrap();
        read(&mut &*bytes, to.path(), |_| {})
    }

    #[test]
    fn a_backup_comes_back_as_it_was() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bytes = backup(from.path());
        let manifest = read(&mut bytes.as_slice(), to.path(), |_| {}).unwrap();
        assert_eq!(manifest.positions["hospital"], 3);
        for name in ["hospital.db", Signer::FILE] {
            let read = |directory: &Path| std::fs::read(directory.join(name)).unwrap();
            assert_eq!(read(from.path()), read(to.path()), "{name}");
        }
    }

    #[test]
    fn whatever_is_cut_off_or_altered_is_refused() {
        let from = tempfile::tempdir().unwrap();
        let bytes = backup(from.path());
        // zeros only after the last member
        let members = bytes.len() - 1_024;
        for length in (0..members).step_by(997) {
            assert!(restored(&bytes[..length]).is_err(), "cut off at {length}");
        }
        // padding and header fields that do not describe content may have any value
        for place in [600, 700, 2_000, 50_000] {
            let mut altered = bytes.clone();
            altered[place] ^= 1;
            assert!(restored(&altered).is_err(), "altered at {place}");
        }
        assert!(restored(b"no tar at all").is_err());
    }

    #[test]
    fn a_backup_puts_nothing_elsewhere() {
        let from = tempfile::tempdir().unwrap();
        std::fs::write(from.path().join("x"), "x").unwrap();
        let member = describe(&from.path().join("x"), "../x".to_owned()).unwrap();
        let text = serde_json::to_vec(&Manifest::new(String::new(), BTreeMap::new(), vec![member])).unwrap();
        let mut archive = Builder::new(Vec::new());
        archive.append_data(&mut header(text.len() as u64), MANIFEST, text.as_slice()).unwrap();
        let refused = restored(&archive.into_inner().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("no data directory"), "{refused}");
    }
}
