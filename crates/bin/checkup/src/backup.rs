//! `checkup backup` and `checkup restore`: copy a data directory as of one instant, and make a directory from a copy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::Path;
use std::time::Instant;

use runtime::clock::Clock;
use runtime::identity::Signer;
use store::backup::{Copy, copy_all};
use tempfile::TempDir;

use crate::archive::{self, Manifest, Member, describe, file_name};
use crate::cli::{BackupArgs, RestoreArgs};
use crate::data_dir::{file, files, is_in_use};
use crate::exit::{Exit, Failure, chain};
use crate::service::Service;
use crate::terminal::{self, Progress};

/// Copies a data directory into an archive, while a process uses it or not.
///
/// # Errors
/// Fails if there is nothing to copy, or a file cannot be read or written.
pub async fn backup(args: BackupArgs) -> Result<Exit, Failure> {
    let BackupArgs { data_dir, to } = args;
    let begin = Instant::now();
    if to.exists() {
        return Err(Failure::failed(format!("{} is there already; choose another name with --to", to.display())));
    }
    let cannot = |error: &dyn std::error::Error| {
        Failure::failed(format!("cannot back up {} to {} ({})", data_dir.display(), to.display(), chain(error)))
    };
    let beside = parent(&to);
    let work =
        tempfile::Builder::new().prefix(".checkup-backup-").tempdir_in(beside).map_err(|error| cannot(&error))?;
    let progress = Progress::new();
    let manifest = copy(&data_dir, &work, &progress).await?;
    progress.phase("writing the archive", None);
    // readable for its owner only, like the signing key in it
    let mut archive = tempfile::NamedTempFile::new_in(work.path()).map_err(|error| cannot(&error))?;
    let written = archive::write(&mut BufWriter::new(archive.as_file_mut()), &manifest, work.path());
    written.and_then(|()| archive.as_file().sync_all()).map_err(|error| cannot(&error))?;
    archive.persist_noclobber(&to).map_err(|error| cannot(&error.error))?;
    sync(beside).map_err(|error| cannot(&error))?;
    progress.clear();
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let (count, took) = (manifest.positions.len(), terminal::span(begin.elapsed()));
    let bytes = terminal::count(bytes);
    terminal::print(&format!(
        "{count} services as of {}, {bytes} bytes, written to {} in {took}; whoever has it can make tokens\n",
        manifest.time,
        to.display()
    ))?;
    Ok(Exit::Ok)
}

/// Copies the files of a data directory into a working directory.
async fn copy(data_dir: &Path, work: &TempDir, progress: &Progress) -> Result<Manifest, Failure> {
    let services: Vec<Service> = files(data_dir).map(|(service, _)| service).collect();
    if services.is_empty() {
        let help = "name the data directory with --data-dir";
        return Err(Failure::failed(format!("there is no database in {}; {help}", data_dir.display())));
    }
    let cannot = |why: String| Failure::failed(format!("cannot copy {} ({why})", data_dir.display()));
    let copy =
        |service: &Service| Copy { source: file(data_dir, *service), target: work.path().join(file_name(*service)) };
    let copies: Vec<Copy> = services.iter().map(copy).collect();
    progress.phase("databases copied", Some(copies.len() as u64));
    let time = Clock::system().now().to_string();
    let positions = copy_all(&copies, |_| progress.done(1)).await.map_err(|error| cannot(chain(&error)))?;
    let names = services.iter().map(|service| file_name(*service));
    let positions: BTreeMap<String, i64> = services.iter().map(|service| service.to_string()).zip(positions).collect();
    let mut files: Vec<String> = names.collect();
    let key = data_dir.join(Signer::FILE);
    if key.is_file() {
        fs::copy(&key, work.path().join(Signer::FILE)).map_err(|error| cannot(chain(&error)))?;
        files.push(Signer::FILE.to_owned());
    }
    let described = files.into_iter().map(|name| describe(&work.path().join(&name), name));
    let files = described.collect::<io::Result<Vec<Member>>>().map_err(|error| cannot(chain(&error)))?;
    Ok(Manifest::new(time, positions, files))
}

/// Makes a data directory from an archive.
///
/// # Errors
/// Fails if the directory is used or not empty, or the archive is damaged.
pub fn restore(args: &RestoreArgs) -> Result<Exit, Failure> {
    let RestoreArgs { from, data_dir } = args;
    let begin = Instant::now();
    refuse_used(data_dir)?;
    let cannot = |why: String| {
        Failure::failed(format!(
            "cannot restore {} ({why}); nothing was put into {}",
            from.display(),
            data_dir.display()
        ))
    };
    let beside = parent(data_dir);
    fs::create_dir_all(beside).map_err(|error| cannot(chain(&error)))?;
    let work = tempfile::Builder::new().prefix(".checkup-restore-").tempdir_in(beside);
    let work = work.map_err(|error| cannot(chain(&error)))?;
    let progress = Progress::new();
    progress.phase("files restored", None);
    let archive = File::open(from).map_err(|error| cannot(chain(&error)))?;
    let read = archive::read(&mut BufReader::new(archive), work.path(), |_| progress.done(1));
    progress.clear();
    let manifest = read.map_err(|error| cannot(chain(&error)))?;
    let placed = sync(work.path()).and_then(|()| fs::rename(work.path(), data_dir)).and_then(|()| sync(beside));
    placed.map_err(|error| cannot(chain(&error)))?;
    // the directory has been renamed, so there is nothing to remove
    let _ = work.keep();
    let Manifest { version, time, positions, .. } = manifest;
    terminal::print(&format!(
        "{} services as of {time}, backed up by checkup {version}, are in {} ({}); `checkup up --data-dir {}` serves them\n",
        positions.len(),
        data_dir.display(),
        terminal::span(begin.elapsed()),
        data_dir.display()
    ))?;
    Ok(Exit::Ok)
}

/// Refuses a directory that a process uses or that is not empty.
fn refuse_used(data_dir: &Path) -> Result<(), Failure> {
    let dir = data_dir.display();
    let help = "choose another with --data-dir, or move it away";
    let unusable =
        |error: &io::Error| Failure::failed(format!("cannot use the directory {dir} ({}); {help}", chain(error)));
    if is_in_use(data_dir).map_err(|error| unusable(&error))? {
        return Err(Failure::failed(format!("a process uses the data directory {dir}; {help}")));
    }
    match fs::read_dir(data_dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::failed(format!("the directory {dir} is not empty; {help}"))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unusable(&error)),
    }
}

/// The directory that contains a path.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_is_in_the_directory_one_is_in() {
        assert_eq!(parent(Path::new("x.tar")), Path::new("."));
        assert_eq!(parent(Path::new("/a/x.tar")), Path::new("/a"));
        assert_eq!(parent(Path::new("a/x.tar")), Path::new("a"));
    }
}
