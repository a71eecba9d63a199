//! A disk that fails: a library between the process under test and the kernel, which can be given faults while the
//! process runs.
//!
//! The library is `disk/disk.c`, compiled when it is first needed. It works in every process that uses the system's
//! libc, PostgreSQL included. It does not work in others, such as nats-server and a static build. [`Disk::environment`]
//! loads it into a child; [`Disk::arm`] sets the faults; [`Disk::lose_power`] reduces the files of a killed process to
//! what it had synced.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::power::Power;
use crate::seed::Random;

/// The source of the library.
const SOURCE: &str = include_str!("../disk/disk.c");
/// The layout of the control file, as in `disk.c`: one number, then rules of eight numbers and a pattern each.
const RULES: usize = 8;
const NUMBER: usize = 8;
const PATTERN: usize = 64;
const RULE: usize = 8 * NUMBER + PATTERN;
const HITS: usize = 7 * NUMBER;
const ALWAYS: i64 = -1;

/// A group of system calls that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// write, pwrite, writev and pwritev.
    Write = 1,
    /// fsync and fdatasync.
    Sync = 2,
    /// ftruncate and fallocate.
    Truncate = 4,
    /// open, by path.
    Open = 8,
    /// unlink, by path.
    Unlink = 16,
    /// mkdir, by path.
    Mkdir = 32,
    /// rename, by its new path.
    Rename = 64,
}

/// Narrows a fault to calls that need room: writes beyond the end of a file, and new files.
const GROWS: i64 = 128;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Error(i64),
    Short,
    Lie,
    Drop,
    Delay(Duration),
}

const ENOSPC: i64 = 28;
const EIO: i64 = 5;

/// One way in which a disk fails: which calls, on which files, how often.
#[derive(Debug, Clone)]
pub struct Fault {
    calls: i64,
    effect: Effect,
    pattern: String,
    remaining: i64,
    per_mille: i64,
    seed: u64,
}

impl Fault {
    fn new(effect: Effect, calls: &[Call]) -> Self {
        let calls = calls.iter().fold(0, |all, call| all | *call as i64);
        Self { calls, effect, pattern: "*".to_owned(), remaining: ALWAYS, per_mille: 1_000, seed: 0 }
    }

    /// A full disk: no file grows and none is made. Existing bytes of a file can be overwritten.
    #[must_use]
    pub fn full() -> Self {
        let fault = Self::new(Effect::Error(ENOSPC), &[Call::Write, Call::Truncate, Call::Open, Call::Mkdir]);
        Self { calls: fault.calls | GROWS, ..fault }
    }

    /// A disk that fills in the middle of a write: half of the bytes are written, and the rest fails.
    #[must_use]
    pub fn short_write() -> Self {
        Self::new(Effect::Short, &[Call::Write])
    }

    /// Fails these calls with EIO.
    #[must_use]
    pub fn broken(calls: &[Call]) -> Self {
        Self::new(Effect::Error(EIO), calls)
    }

    /// Fails every sync with EIO.
    #[must_use]
    pub fn failed_sync() -> Self {
        Self::broken(&[Call::Sync])
    }

    /// Fails a sync and reverts the file to what was last synced. The next sync succeeds, as some kernels do with pages
    /// they could not write: a program that only syncs again loses them. Needs a disk [`Disk::with_power`].
    #[must_use]
    pub fn dropped_sync() -> Self {
        Self::new(Effect::Drop, &[Call::Sync])
    }

    /// Reports syncs as successful without syncing, as SQLite does with `synchronous=OFF`.
    #[must_use]
    pub fn unsynced() -> Self {
        Self::new(Effect::Lie, &[Call::Sync])
    }

    /// Delays each of these calls.
    #[must_use]
    pub fn slow(delay: Duration, calls: &[Call]) -> Self {
        Self::new(Effect::Delay(delay), calls)
    }

    /// Limits the fault to files whose path below the directory matches this shell pattern, where `*` matches `/` too.
    ///
    /// # Panics
    /// If the pattern has 64 bytes or more.
    #[must_use]
    pub fn on(mut self, pattern: &str) -> Self {
        assert!(pattern.len() < PATTERN, "{pattern} is longer than {PATTERN} bytes");
        self.pattern = pattern.to_owned();
        self
    }

    /// Limits the fault to the next `count` calls.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.remaining = i64::from(count);
        self
    }

    /// Limits the fault to this share of the calls, in thousandths. `random` gives the seed of the choice.
    #[must_use]
    pub fn per_mille(mut self, share: u16, random: &mut Random) -> Self {
        (self.per_mille, self.seed) = (i64::from(share), random.number());
        self
    }

    /// The rule in the library's format, not yet armed.
    fn encode(&self) -> [u8; RULE] {
        let (effect, micros) = match self.effect {
            Effect::Error(errno) => (errno, 0),
            Effect::Short => (-1, 0),
            Effect::Lie => (-2, 0),
            Effect::Drop => (-4, 0),
            Effect::Delay(delay) => (-3, i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)),
        };
        let seed = i64::from_ne_bytes(self.seed.to_ne_bytes());
        let numbers = [0, self.calls, effect, self.remaining, self.per_mille, seed, micros, 0];
        let mut rule = [0; RULE];
        for (place, number) in rule.chunks_exact_mut(NUMBER).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        rule[8 * NUMBER..][..self.pattern.len()].copy_from_slice(self.pattern.as_bytes());
        rule
    }
}

/// The disk under one directory. Without faults it works like any other.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    library: PathBuf,
    control: File,
    power: Option<Power>,
    work: TempDir,
}

impl Disk {
    /// Makes a faulty disk of this directory, for processes that are started with [`Self::environment`].
    ///
    /// # Errors
    /// Why this machine cannot have one, usually because it has no C compiler.
    pub fn under(directory: &Path) -> Result<Self, String> {
        // PostgreSQL runs as another user if the tests run as root.
        let everybody = || fs::Permissions::from_mode(0o777);
        let work = tempfile::Builder::new().prefix("checkup-disk-").permissions(everybody()).tempdir();
        let work = work.map_err(failed("make a temporary directory"))?;
        fs::set_permissions(work.path(), everybody()).map_err(failed("open a temporary directory to all"))?;
        let library = work.path().join("disk.so");
        compiled(&library)?;
        let path = work.path().join("control");
        let control = File::options().read(true).write(true).create_new(true).open(&path);
        let control = control.map_err(failed("make the control file"))?;
        control.set_len((NUMBER + RULES * RULE) as u64).map_err(failed("make the control file"))?;
        fs::set_permissions(&path, everybody()).map_err(failed("make the control file"))?;
        let directory = directory.canonicalize().map_err(failed("find the directory"))?;
        Ok(Self { directory, library, control, power: None, work })
    }

    /// Records what is synced from now on, so that the disk can lose power.
    ///
    /// # Errors
    /// If the directory of that record cannot be made.
    pub fn with_power(mut self) -> Result<Self, String> {
        self.power = Some(Power::new(&self.directory, &self.work.path().join("shadow"))?);
        Ok(self)
    }

    /// The environment variables of a process that is to use this disk.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut variables = vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("FAULTY_DISK_DIR".to_owned(), text(&self.directory)),
            ("FAULTY_DISK_CONTROL".to_owned(), text(&self.work.path().join("control"))),
        ];
        variables.extend(self.power.iter().map(|power| ("FAULTY_DISK_SHADOW".to_owned(), text(power.shadow()))));
        variables
    }

    /// Replaces the faults of the disk. If several match a call, the first decides; delays before it are added.
    ///
    /// # Panics
    /// If there are more than eight faults, if one needs power and the disk has none, or if the control file cannot be
    /// written.
    pub fn arm(&self, faults: &[Fault]) {
        assert!(faults.len() <= RULES, "there is room for {RULES} faults");
        let drops = faults.iter().any(|fault| fault.effect == Effect::Drop);
        assert!(!drops || self.power.is_some(), "only a disk with power knows what was synced");
        let write = |bytes: &[u8], at: usize| self.control.write_all_at(bytes, at as u64).expect("the control file");
        (0..RULES).for_each(|index| write(&0_i64.to_ne_bytes(), place(index)));
        for (index, fault) in faults.iter().enumerate() {
            write(&fault.encode(), place(index));
            write(&1_i64.to_ne_bytes(), place(index));
        }
    }

    /// Removes all faults.
    ///
    /// # Panics
    /// As [`Self::arm`].
    pub fn heal(&self) {
        self.arm(&[]);
    }

    /// The number of calls that the current faults have hit.
    ///
    /// # Panics
    /// If the control file cannot be read.
    #[must_use]
    pub fn hits(&self) -> u64 {
        (0..RULES).map(|index| self.read(place(index) + HITS)).sum()
    }

    /// The number of processes that have loaded the library. A statically linked program does not load it.
    ///
    /// # Panics
    /// If the control file cannot be read.
    #[must_use]
    pub fn processes(&self) -> u64 {
        self.read(0)
    }

    /// Replaces the directory's content by what a disk would hold after a power failure. No process may still use it.
    ///
    /// With `torn`, a random half of the blocks that were written and not synced are kept, because a kernel may write
    /// back any of them. Without it, none are kept.
    ///
    /// # Errors
    /// If files cannot be read or written, or if no process has loaded the library.
    ///
    /// # Panics
    /// If the disk was made without [`Self::with_power`].
    pub fn lose_power(&self, torn: Option<&mut Random>) -> Result<(), String> {
        self.power.as_ref().expect("a disk with power").fail(torn)
    }

    fn read(&self, at: usize) -> u64 {
        let mut number = [0; NUMBER];
        self.control.read_exact_at(&mut number, at as u64).expect("the control file");
        u64::from_ne_bytes(number)
    }
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> String + '_ {
    move |error| format!("cannot {what}: {error}")
}

/// The offset of a rule in the control file.
fn place(index: usize) -> usize {
    NUMBER + index * RULE
}

/// Compiles the library to this path, or copies the compiled library that the target directory keeps.
fn compiled(to: &Path) -> Result<(), String> {
    let Some(target) = target_directory() else { return compile(to) };
    let mut hash = DefaultHasher::new();
    SOURCE.hash(&mut hash);
    let kept = target.join("tmp").join(format!("disk-{:016x}.so", hash.finish()));
    if !kept.is_file() {
        fs::create_dir_all(target.join("tmp")).map_err(failed("make a directory for disk.so"))?;
        let beside = kept.with_extension(format!("{}", std::process::id()));
        compile(&beside)?;
        // Other test processes do the same: a rename shows them the whole file or none.
        fs::rename(&beside, &kept).map_err(failed("keep disk.so"))?;
    }
    fs::copy(&kept, to).map(drop).map_err(|error| format!("cannot copy {}: {error}", kept.display()))
}

fn target_directory() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file()).map(Path::to_owned)
}

fn compile(to: &Path) -> Result<(), String> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let source = to.with_extension("c");
    fs::write(&source, SOURCE).map_err(|error| format!("cannot write {}: {error}", source.display()))?;
    let mut command = Command::new(&compiler);
    command.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(to).arg(&source);
    let output = command.output().map_err(|error| format!("no C compiler ({compiler}: {error})"))?;
    let _ = fs::remove_file(&source);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{compiler} cannot compile disk.c: {said}")) }
}
