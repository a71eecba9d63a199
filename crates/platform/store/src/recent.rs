//! The newest frames of a file's outbox, as this process committed them.
//!
//! Consumers of the same process read a log right after it grew. What was just committed is handed to them from memory;
//! the table is read by those that are behind. This process is the only one that writes a file, so memory holds every
//! frame between its first and its last position. Where that might not be so (a commit with an unknown outcome, or
//! positions that were left out), memory is forgotten and the table is read.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::frame::Frame;

/// How many bytes of frames are kept, unless the newest transaction has more.
const KEPT_BYTES: usize = 1024 * 1024;

/// A frame in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The position in the log, from 1.
    pub position: i64,
    /// The subject of its events.
    pub subject: String,
    /// The encoded frame.
    pub payload: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(position: i64, frame: &Frame) -> Self {
        Self { position, subject: frame.subject.clone(), payload: frame.payload.clone() }
    }
}

/// What is kept of one log.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Held>);

/// Every frame after the position `first` up to the last one; nothing is known if there is no entry.
#[derive(Debug, Default)]
struct Held {
    entries: VecDeque<Entry>,
    first: i64,
    bytes: usize,
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction with these frames is being committed.
    pub(crate) fn committing(&self, frames: Vec<Entry>) -> Committing<'_> {
        Committing { recent: self, frames: Some(frames) }
    }

    /// Adds the frames of a transaction that has committed, in the order of their positions.
    fn add(&self, committed: Vec<Entry>) {
        let (Some(first), mut held) = (committed.first().map(|entry| entry.position - 1), self.lock()) else { return };
        match held.entries.back().map(|last| last.position) {
            Some(last) if last == first => {}
            // Another transaction was quicker with later positions.
            Some(last) if last > first => return,
            Some(_) | None => *held = Held { first, ..Held::default() },
        }
        let new = committed.len();
        held.bytes += committed.iter().map(|entry| entry.payload.len()).sum::<usize>();
        held.entries.extend(committed);
        while held.bytes > KEPT_BYTES && held.entries.len() > new {
            if let Some(oldest) = held.entries.pop_front() {
                held.bytes -= oldest.payload.len();
                held.first = oldest.position;
            }
        }
    }

    /// Forgets everything, because something may have been committed that is not here.
    pub(crate) fn forget(&self) {
        *self.lock() = Held::default();
    }

    /// At most `limit` frames after a position, oldest first; `None` if memory does not reach back to it.
    pub(crate) fn after(&self, position: i64, limit: usize) -> Option<Vec<Entry>> {
        let held = self.lock();
        let last = held.entries.back()?.position;
        if !(held.first..=last).contains(&position) {
            return None;
        }
        let begin = held.entries.partition_point(|entry| entry.position <= position);
        Some(held.entries.range(begin..).take(limit).cloned().collect())
    }
}

/// A commit whose outcome is not known yet. If it is dropped before it succeeded, memory is forgotten.
pub(crate) struct Committing<'a> {
    recent: &'a Recent,
    frames: Option<Vec<Entry>>,
}

impl Committing<'_> {
    pub(crate) fn succeeded(mut self) {
        if let Some(frames) = self.frames.take() {
            self.recent.add(frames);
        }
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        if self.frames.is_some() {
            self.recent.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(positions: std::ops::RangeInclusive<i64>, size: usize) -> Vec<Entry> {
        let entry = |position| Entry { position, subject: String::new(), payload: vec![0; size] };
        positions.map(entry).collect()
    }

    fn positions(recent: &Recent, after: i64, limit: usize) -> Option<Vec<i64>> {
        Some(recent.after(after, limit)?.iter().map(|entry| entry.position).collect())
    }

    #[test]
    fn a_reader_at_the_end_gets_what_was_added() {
        let recent = Recent::default();
        assert_eq!(positions(&recent, 0, 9), None);
        recent.add(entries(5..=7, 1));
        recent.add(entries(8..=8, 1));
        recent.add(Vec::new());
        assert_eq!(positions(&recent, 4, 9), Some(vec![5, 6, 7, 8]));
        assert_eq!(positions(&recent, 6, 1), Some(vec![7]));
        assert_eq!(positions(&recent, 8, 9), Some(vec![]));
        assert_eq!((positions(&recent, 3, 9), positions(&recent, 9, 9)), (None, None));
    }

    #[test]
    fn positions_that_are_not_here_are_read_from_the_table() {
        let recent = Recent::default();
        recent.add(entries(1..=3, 1));
        // 4 and 5 are missing.
        recent.add(entries(6..=7, 1));
        assert_eq!((positions(&recent, 3, 9), positions(&recent, 5, 9)), (None, Some(vec![6, 7])));
        // They come late, and memory already knows that it does not have them.
        recent.add(entries(4..=5, 1));
        assert_eq!((positions(&recent, 3, 9), positions(&recent, 5, 9)), (None, Some(vec![6, 7])));
        recent.committing(entries(8..=8, 1)).succeeded();
        assert_eq!(positions(&recent, 5, 9), Some(vec![6, 7, 8]));
        drop(recent.committing(entries(9..=9, 1)));
        assert_eq!(positions(&recent, 7, 9), None);
    }

    #[test]
    fn it_does_not_grow() {
        let recent = Recent::default();
        for number in 0..10 {
            recent.add(entries(4 * number + 1..=4 * number + 4, KEPT_BYTES / 8));
        }
        assert_eq!((positions(&recent, 31, 99), positions(&recent, 32, 99)), (None, Some((33..=40).collect())));
        // A transaction larger than that is kept whole.
        recent.add(entries(41..=60, KEPT_BYTES / 8));
        assert_eq!(positions(&recent, 40, 99), Some((41..=60).collect()));
        assert_eq!(positions(&recent, 39, 99), None);
    }
}
