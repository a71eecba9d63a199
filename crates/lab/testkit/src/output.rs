//! The output of a child process, line by line, readable while it runs and after it has ended.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A process that the child started may hold the stream open after the child has ended.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The lines of one output stream of a child, in order. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Output(Arc<Stream>);

#[derive(Debug, Default)]
struct Stream {
    read: Mutex<Lines>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Output {
    /// Reads `stream` on a thread of its own, so that a full pipe never stops the child.
    #[must_use]
    pub fn collect(stream: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let reading = output.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            // The last line of a killed child may be incomplete and not UTF-8.
            while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                reading.held().lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            reading.held().ended = true;
            reading.0.ended.notify_all();
        });
        output
    }

    /// Waits until the stream has ended, at most two seconds. The last lines of a child may arrive after its exit
    /// status.
    pub(crate) fn wait(&self) {
        let _ = self.0.ended.wait_timeout_while(self.held(), END_TIMEOUT, |lines| !lines.ended);
    }

    /// Every line so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.held().lines.clone()
    }

    /// The first value that `look` returns for a line.
    pub fn find<T>(&self, look: impl FnMut(&String) -> Option<T>) -> Option<T> {
        self.held().lines.iter().find_map(look)
    }

    /// The last `count` lines as one text.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let lines = &self.held().lines;
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    fn held(&self) -> MutexGuard<'_, Lines> {
        self.0.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
