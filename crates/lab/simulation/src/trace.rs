//! A hash of everything that happens, in order. Two runs with the same hash did the same.

use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::clock;

/// Records what happens. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Trace(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    digest: Sha256,
    printed: bool,
}

impl Trace {
    /// An empty trace. With `printed` every line is also written to standard error.
    #[must_use]
    pub(crate) fn new(printed: bool) -> Self {
        Self(Arc::new(Mutex::new(Log { printed, ..Log::default() })))
    }

    /// Records one thing: who did what, and the outcome.
    pub(crate) fn note(&self, who: &str, what: &str, outcome: impl std::fmt::Display) {
        let line = format!("{:>9.3} {who} {what}: {outcome}\n", clock::elapsed().as_secs_f64());
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.digest.update(&line);
        if log.printed {
            eprint!("{line}");
        }
    }

    /// The hash of all lines as sixteen hexadecimal digits.
    #[must_use]
    pub(crate) fn hash(&self) -> String {
        let digest = self.0.lock().unwrap_or_else(PoisonError::into_inner).digest.clone().finalize();
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
