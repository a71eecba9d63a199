//! Runs many seeds, each in a process of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::mutant::Mutant;
use crate::schema;

/// The seeds to run, and how.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The path of the `simulate` binary.
    pub program: PathBuf,
    /// The first seed.
    pub first: u64,
    /// The number of seeds.
    pub count: u64,
    /// The number of processes that run at the same time.
    pub jobs: usize,
    /// The bug to plant in every run.
    pub mutant: Option<Mutant>,
    /// Whether the batch ends with the first seed that finds something wrong.
    pub until_found: bool,
}

/// The result of one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whether nothing was wrong.
    pub ok: bool,
    /// The line that the run printed.
    pub line: String,
}

impl Ended {
    /// Whether bookings waited for places.
    #[must_use]
    pub fn has_queues(&self) -> bool {
        self.line.contains(" waited, ") && !self.line.contains(" 0 waited, ")
    }

    /// Whether something was wrong with what the services answered. A run that hangs says nothing of that.
    #[must_use]
    pub fn found(&self) -> bool {
        !self.ok && !self.line.contains(" hangs: ")
    }
}

/// The result of a batch.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The result of every seed that was run, in order.
    pub ended: BTreeMap<u64, Ended>,
    /// The real time of the whole batch.
    pub elapsed: Duration,
}

impl Summary {
    /// Seeds per minute of real time.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.ended.len() as f64 * 60.0 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// How many seeds had queues.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.ended.values().filter(|ended| ended.has_queues()).count()
    }

    /// The seeds that failed, and their lines.
    pub fn failures(&self) -> impl Iterator<Item = (u64, &str)> {
        self.ended.iter().filter(|(_, ended)| !ended.ok).map(|(seed, ended)| (*seed, ended.line.as_str()))
    }
}

impl Batch {
    /// Runs the batch and calls `report` with every seed as it ends.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn run(&self, report: impl Fn(u64, &Ended) + Sync) -> io::Result<Summary> {
        let schemas = schema::make()?;
        let (next, over, begun) = (AtomicU64::new(self.first), AtomicBool::new(false), Instant::now());
        let (ended, failed) = (Mutex::new(BTreeMap::new()), Mutex::new(None));
        let last = self.first.saturating_add(self.count);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= last {
                            return;
                        }
                        match self.one(seed, schemas.path()) {
                            Ok(one) => {
                                report(seed, &one);
                                if self.until_found && one.found() {
                                    over.store(true, Ordering::Relaxed);
                                }
                                ended.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, one);
                            }
                            Err(error) => {
                                over.store(true, Ordering::Relaxed);
                                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            }
                        }
                    }
                });
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => {
                let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
                Ok(Summary { ended, elapsed: begun.elapsed() })
            }
        }
    }

    /// The command line that repeats a seed.
    #[must_use]
    pub fn repeat(&self, seed: u64) -> String {
        let mutant = self.mutant.map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
        format!("cargo run -p simulation -- --seed {seed}{mutant} --trace")
    }

    fn one(&self, seed: u64, schemas: &Path) -> io::Result<Ended> {
        let mut command = Command::new(&self.program);
        command
            .arg("--seed")
            .arg(seed.to_string())
            .arg("--schemas")
            .arg(schemas)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(mutant) = self.mutant {
            command.arg("--mutant").arg(mutant.name());
        }
        let output = command.output()?;
        let mut line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if line.is_empty() {
            // The process ended before it could print a line: its error output has the reason.
            let words = String::from_utf8_lossy(&output.stderr);
            let words =
                words.lines().find(|line| line.contains("panicked") || line.contains("cannot")).unwrap_or("no word");
            line = format!("seed {seed} ended with {}: {words}", output.status);
        }
        Ok(Ended { ok: output.status.success(), line })
    }
}
