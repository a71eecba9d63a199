//! One log, read once for all its readers.
//!
//! The newest entries are kept in memory, and readers that are close to the end get them from here. The first reader
//! that reaches the end reads on for all. A subscription that is far behind reads the log by itself until it has caught
//! up. Reads of the log keep a minimum interval, so that entries committed in quick succession are read together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;

use super::{Entry, Log};
use crate::port::{Error, Message};

/// The most entries per read of the log. An entry has up to 128 KiB.
const ENTRIES_PER_READ: usize = 128;
/// How many bytes of entries are kept, unless the last read found more: a reader that is further behind reads the log
/// by itself.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// The shortest time between two reads of the log.
const MIN_READ_INTERVAL: Duration = Duration::from_millis(2);

/// A log and its newest entries.
pub(super) struct SharedLog {
    log: Arc<dyn Log>,
    recent: Mutex<Recent>,
}

/// All entries after the position `first` up to `last`.
struct Recent {
    entries: VecDeque<Entry>,
    /// The size of their payloads.
    bytes: usize,
    first: i64,
    last: i64,
    changes: watch::Receiver<u64>,
    /// Whether there may be entries after `last`.
    unread: bool,
    looked: Option<Instant>,
}

/// The result of one walk along the log.
pub(super) struct Walk {
    /// The entries that the reader wants.
    pub(super) found: Vec<Entry>,
    /// The position that the walk reached.
    pub(super) position: i64,
    /// What follows after that position.
    pub(super) rest: Rest,
}

/// What follows after a reader's position.
pub(super) enum Rest {
    /// Nothing until the log changes.
    Ended,
    /// There may be more entries.
    More,
    /// There may be more entries, but the log is not read before this instant.
    NotBefore(Instant),
}

impl Walk {
    fn new(position: i64) -> Self {
        Self { found: Vec::new(), position, rest: Rest::Ended }
    }

    /// Takes the wanted ones of these entries, at most `limit`; returns whether it reached their end.
    fn take<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
        wanted: impl Fn(&Message) -> bool,
        limit: usize,
    ) -> bool {
        for entry in entries {
            if self.found.len() == limit {
                return false;
            }
            self.position = entry.position;
            if wanted(&entry.message) {
                self.found.push(entry.clone());
            }
        }
        true
    }
}

impl SharedLog {
    pub(super) fn new(log: Arc<dyn Log>) -> Self {
        let changes = log.changes();
        let recent =
            Recent { entries: VecDeque::new(), bytes: 0, first: 0, last: 0, changes, unread: true, looked: None };
        Self { log, recent: Mutex::new(recent) }
    }

    pub(super) fn name(&self) -> &str {
        self.log.name()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.log.changes()
    }

    pub(super) async fn head(&self) -> Result<i64, Error> {
        self.log.head().await
    }

    /// Walks on from `position` until it has found `limit` wanted entries, or reached the end of one read of the log.
    pub(super) async fn walk(
        &self,
        position: i64,
        wanted: impl Fn(&Message) -> bool,
        limit: usize,
    ) -> Result<Walk, Error> {
        let mut walk = Walk::new(position);
        let mut recent = self.recent.lock().await;
        if position < recent.first {
            drop(recent);
            let entries = self.log.read_after(position, ENTRIES_PER_READ).await?;
            if !walk.take(entries.iter(), wanted, limit) || entries.len() == ENTRIES_PER_READ {
                walk.rest = Rest::More;
            }
            return Ok(walk);
        }
        if position > recent.last {
            recent.begin_at(position);
        }
        let known = recent.entries.partition_point(|entry| entry.position <= position);
        if !walk.take(recent.entries.range(known..), &wanted, limit) {
            walk.rest = Rest::More;
            return Ok(walk);
        }
        match recent.due() {
            None => {}
            Some(due) if due > Instant::now() => walk.rest = Rest::NotBefore(due),
            Some(_) => {
                let added = self.read_added(&mut recent).await?;
                let known = recent.entries.len() - added;
                if !walk.take(recent.entries.range(known..), &wanted, limit) || recent.unread {
                    walk.rest = Rest::More;
                }
                recent.forget(known);
            }
        }
        Ok(walk)
    }

    /// Reads the entries that were added to the log; returns how many there are.
    async fn read_added(&self, recent: &mut MutexGuard<'_, Recent>) -> Result<usize, Error> {
        recent.changes.mark_unchanged();
        // Set before the read: if it fails or is dropped, there is still something to read.
        (recent.unread, recent.looked) = (true, Some(Instant::now()));
        let entries = self.log.read_after(recent.last, ENTRIES_PER_READ).await?;
        let added = entries.len();
        recent.unread = added == ENTRIES_PER_READ;
        recent.last = entries.last().map_or(recent.last, |entry| entry.position);
        recent.bytes += entries.iter().map(size).sum::<usize>();
        recent.entries.extend(entries);
        Ok(added)
    }
}

impl Recent {
    /// When the log may be read next; `None` if nothing was added.
    fn due(&self) -> Option<Instant> {
        let added = self.unread || self.changes.has_changed().unwrap_or(false);
        // After a full read the next one follows at once.
        let pause = if self.unread { Duration::ZERO } else { MIN_READ_INTERVAL };
        added.then(|| self.looked.map_or_else(Instant::now, |looked| looked + pause))
    }

    /// Starts again at the position of a reader that is further than all before it.
    fn begin_at(&mut self, position: i64) {
        self.entries.clear();
        (self.bytes, self.first, self.last, self.unread) = (0, position, position, true);
    }

    /// Drops the oldest of the first `old` entries beyond [`KEPT_BYTES`].
    fn forget(&mut self, old: usize) {
        for _ in 0..old {
            if self.bytes <= KEPT_BYTES {
                return;
            }
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= size(&entry);
                self.first = entry.position;
            }
        }
    }
}

fn size(entry: &Entry) -> usize {
    entry.message.payload.len()
}
