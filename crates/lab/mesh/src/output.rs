//! The output of a child process, readable while it runs and after it has ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::Error;

/// Longer than any announcement or stack trace, and small enough for a process that runs for days.
const KEPT_LINES: usize = 4_000;
/// A process that the child started may hold a stream open after the child has ended.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The last lines of both output streams of a child, in order of arrival. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Output(Arc<Streams>);

#[derive(Debug, Default)]
struct Streams {
    held: Mutex<Held>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// The streams that are still read.
    open: usize,
    lines: VecDeque<String>,
    copy: Option<File>,
}

impl Output {
    /// Reads `stream` on a thread of its own, so that a full pipe never stops the child.
    pub(crate) fn collect(&self, stream: impl Read + Send + 'static) {
        let output = self.clone();
        self.held().open += 1;
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            // The last line of a killed child may be incomplete and not UTF-8.
            while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                let mut held = output.held();
                if held.lines.len() == KEPT_LINES {
                    held.lines.pop_front();
                }
                if let Some(copy) = &mut held.copy {
                    // A full disk is no reason to stop the child.
                    let _ = copy.write_all(&line);
                }
                held.lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            output.held().open -= 1;
            output.0.ended.notify_all();
        });
    }

    /// Waits until every stream has ended, at most two seconds. The last lines of a child may arrive after its exit
    /// status.
    pub(crate) fn wait(&self) {
        let _ = self.0.ended.wait_timeout_while(self.held(), END_TIMEOUT, |held| held.open > 0);
    }

    /// Appends the lines to a file as well, including those that have already arrived.
    ///
    /// # Errors
    /// [`Error::System`] if the file cannot be written.
    pub fn copy_to(&self, path: &Path) -> Result<(), Error> {
        let doing = || format!("write {}", path.display());
        let file = File::options().create(true).append(true).open(path);
        let mut file = file.map_err(|cause| Error::System { doing: doing(), cause })?;
        let mut held = self.held();
        for line in &held.lines {
            writeln!(file, "{line}").map_err(|cause| Error::System { doing: doing(), cause })?;
        }
        held.copy = Some(file);
        Ok(())
    }

    /// The first value that `pick` returns for a line, oldest line first.
    pub fn find<T>(&self, pick: impl FnMut(&String) -> Option<T>) -> Option<T> {
        self.held().lines.iter().find_map(pick)
    }

    /// The last `count` lines as one text.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let held = self.held();
        let lines = &held.lines;
        let last: Vec<&str> = lines.iter().skip(lines.len().saturating_sub(count)).map(String::as_str).collect();
        last.join("\n")
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
