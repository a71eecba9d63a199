//! The output of a child process, line by line, readable while it runs and after it has ended.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The lines of one output stream of a child, in order. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Output(Arc<Mutex<Vec<String>>>);

impl Output {
    /// Reads `stream` on a thread of its own, so that a full pipe never stops the child.
    #[must_use]
    pub fn collect(stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let lines = output.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            // The last line of a killed child may be incomplete and not UTF-8.
            while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                lines.held().push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
        output
    }

    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.held().clone()
    }

    /// The first value that `look` returns for a line.
    pub fn find<T>(&self, look: impl FnMut(&String) -> Option<T>) -> Option<T> {
        self.held().iter().find_map(look)
    }

    /// The last `count` lines as one text.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let lines = self.held();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    fn held(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
