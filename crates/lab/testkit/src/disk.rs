//! A disk that fails: a library between the process under test and the kernel, told what to do while the process runs.
//!
//! The library is `disk/disk.c`, compiled when it is first needed. It works in every process that uses the system's libc,
//! PostgreSQL included, and in none that does not, such as nats-server and a static build. [`Disk::environment`] puts it into
//! a child's environment; [`Disk::arm`] says what fails from now on; [`Disk::lose_power`] leaves of a killed process's files
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

/// What is compiled.
const SOURCE: &str = include_str!("../disk/disk.c");
/// The layout of the control file, as `disk.c` has it: a number, then rules of eight numbers and a pattern each.
const RULES: usize = 8;
const NUMBER: usize = 8;
const PATTERN: usize = 64;
const RULE: usize = 8 * NUMBER + PATTERN;
const HITS: usize = 7 * NUMBER;
const ALWAYS: i64 = -1;

/// A call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// write, pwrite, writev, pwritev.
    Write = 1,
    /// fsync, fdatasync.
    Sync = 2,
    /// ftruncate, fallocate.
    Truncate = 4,
    /// open.
    Open = 8,
    /// unlink.
    Unlink = 16,
    /// mkdir.
    Mkdir = 32,
    /// rename, by where it leads.
    Rename = 64,
}

/// Narrows a fault to calls that need room: writes beyond the end of a file, files that are new.
const GROWS: i64 = 128;

/// What happens instead of a call.
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

/// One way in which a disk fails.
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

    /// There is no room: nothing grows and nothing is made; what has its place can be written.
    #[must_use]
    pub fn full() -> Self {
        let fault = Self::new(Effect::Error(ENOSPC), &[Call::Write, Call::Truncate, Call::Open, Call::Mkdir]);
        Self { calls: fault.calls | GROWS, ..fault }
    }

    /// The room ends in the middle of a write: half of it is done, the rest fails.
    #[must_use]
    pub fn short_write() -> Self {
        Self::new(Effect::Short, &[Call::Write])
    }

    /// These calls fail with an I/O error.
    #[must_use]
    pub fn broken(calls: &[Call]) -> Self {
        Self::new(Effect::Error(EIO), calls)
    }

    /// What is written cannot be synced.
    #[must_use]
    pub fn failed_sync() -> Self {
        Self::broken(&[Call::Sync])
    }

    /// What is written cannot be synced and is gone for good: the file is as it was last synced, and the next sync succeeds. Kernels do that
    /// with pages they could not write; whoever only syncs again loses them. Only on a disk [`Disk::with_power`].
    #[must_use]
    pub fn dropped_sync() -> Self {
        Self::new(Effect::Drop, &[Call::Sync])
    }

    /// Nothing is synced and nobody is told: what SQLite does with `synchronous=OFF`.
    #[must_use]
    pub fn unsynced() -> Self {
        Self::new(Effect::Lie, &[Call::Sync])
    }

    /// Every call takes longer by this.
    #[must_use]
    pub fn slow(delay: Duration, calls: &[Call]) -> Self {
        Self::new(Effect::Delay(delay), calls)
    }

    /// Only of files whose path below the directory matches this pattern of a shell, where `*` matches `/` too.
    ///
    /// # Panics
    /// Where the pattern is too long.
    #[must_use]
    pub fn on(mut self, pattern: &str) -> Self {
        assert!(pattern.len() < PATTERN, "{pattern} is longer than {PATTERN} bytes");
        self.pattern = pattern.to_owned();
        self
    }

    /// Only the next calls, so many of them.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.remaining = i64::from(count);
        self
    }

    /// Only so many of a thousand calls, chosen by the seed.
    #[must_use]
    pub fn per_mille(mut self, share: u16, random: &mut Random) -> Self {
        (self.per_mille, self.seed) = (i64::from(share), random.number());
        self
    }

    /// The rule as the library reads it, not yet armed.
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

/// The disk under one directory. Without a fault it works like any other.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    library: PathBuf,
    control: File,
    power: Option<Power>,
    work: TempDir,
}

impl Disk {
    /// The disk under this directory, for processes that are started with [`Self::environment`].
    ///
    /// # Errors
    /// Why this machine cannot have one: mostly, that there is no C compiler.
    pub fn under(directory: &Path) -> Result<Self, String> {
        // PostgreSQL runs as another user where the tests run as root
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

    /// The same disk, in a machine that can lose power.
    ///
    /// # Errors
    /// Where the place for what was synced cannot be made.
    pub fn with_power(mut self) -> Result<Self, String> {
        self.power = Some(Power::new(&self.directory, &self.work.path().join("shadow"))?);
        Ok(self)
    }

    /// What a process has to be told that is to use this disk.
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

    /// From now on the disk fails in these ways and no others. The first that is to happen to a call does.
    ///
    /// # Panics
    /// Where there are more than eight, one needs power and the disk has none, or the control file cannot be written.
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

    /// The disk works again.
    ///
    /// # Panics
    /// As [`Self::arm`].
    pub fn heal(&self) {
        self.arm(&[]);
    }

    /// How many calls the faults have struck that were armed last.
    ///
    /// # Panics
    /// Where the control file cannot be read.
    #[must_use]
    pub fn hits(&self) -> u64 {
        (0..RULES).map(|index| self.read(place(index) + HITS)).sum()
    }

    /// How many processes have loaded the library. None of them has where it is linked statically.
    ///
    /// # Panics
    /// Where the control file cannot be read.
    #[must_use]
    pub fn processes(&self) -> u64 {
        self.read(0)
    }

    /// Leaves in the directory what a disk would hold after a power failure. No process may use it any more.
    ///
    /// With `torn`, blocks of what was written and not synced are there all the same, a random half of them, as a kernel writes
    /// back what it likes; otherwise none is.
    ///
    /// # Errors
    /// Where files cannot be read or written, or nothing was ever seen: then no process has loaded the library.
    ///
    /// # Panics
    /// Where the disk was made without [`Self::with_power`].
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

/// Where a rule begins.
fn place(index: usize) -> usize {
    NUMBER + index * RULE
}

/// Compiles the library to this path, or copies what was compiled before. It is kept in the target directory.
fn compiled(to: &Path) -> Result<(), String> {
    let Some(target) = target_directory() else { return compile(to) };
    let mut hash = DefaultHasher::new();
    SOURCE.hash(&mut hash);
    let kept = target.join("tmp").join(format!("disk-{:016x}.so", hash.finish()));
    if !kept.is_file() {
        fs::create_dir_all(target.join("tmp")).map_err(failed("make a directory for disk.so"))?;
        let beside = kept.with_extension(format!("{}", std::process::id()));
        compile(&beside)?;
        // whole or not at all: other test processes do the same
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
