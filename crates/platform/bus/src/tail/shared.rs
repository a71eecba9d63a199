//! One log, read once for all who follow it.
//!
//! The newest entries are kept, and whoever has read as far as them gets them from here; the first one to come to their end
//! reads on for everybody. A subscription that is far behind reads the log by itself until it has caught up. Looks at the log
//! keep a distance, so that what is committed in quick succession is read together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;

use super::{Entry, Log};
use crate::port::{Error, Message};

/// How many entries one look at the log reads.
const ENTRIES_PER_READ: usize = 1_024;
/// How many entries are kept: what the slowest of those who keep up is behind.
const KEPT_ENTRIES: usize = 2_048;
/// The shortest time between two looks at the log.
const MIN_READ_INTERVAL: Duration = Duration::from_millis(2);

/// A log and its newest entries.
pub(super) struct SharedLog {
    log: Arc<dyn Log>,
    recent: Mutex<Recent>,
}

/// The entries behind `first` up to `last`, all of them.
struct Recent {
    entries: VecDeque<Entry>,
    first: i64,
    last: i64,
    changes: watch::Receiver<u64>,
    /// Whether there may be entries behind `last`.
    unread: bool,
    looked: Option<Instant>,
}

/// What somebody found on the way.
pub(super) struct Walk {
    /// What was wanted.
    pub(super) found: Vec<Entry>,
    /// How far it went.
    pub(super) position: i64,
    /// What lies ahead.
    pub(super) rest: Rest,
}

/// What lies ahead of a reader.
pub(super) enum Rest {
    /// Nothing until the log changes.
    Ended,
    /// Perhaps more.
    More,
    /// Perhaps more, but not before this.
    NotBefore(Instant),
}

impl Walk {
    fn new(position: i64) -> Self {
        Self { found: Vec::new(), position, rest: Rest::Ended }
    }

    /// Takes what is wanted of these, at most `limit`; says whether it came to their end.
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
        let recent = Recent { entries: VecDeque::new(), first: 0, last: 0, changes, unread: true, looked: None };
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

    /// Goes on from `position` until `limit` wanted entries are found, or to the end of what one look at the log shows.
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
                recent.forget();
            }
        }
        Ok(walk)
    }

    /// Reads what has been added to the log; how many entries that are.
    async fn read_added(&self, recent: &mut MutexGuard<'_, Recent>) -> Result<usize, Error> {
        recent.changes.mark_unchanged();
        // given up on the way, or failed, there still is something to read
        (recent.unread, recent.looked) = (true, Some(Instant::now()));
        let entries = self.log.read_after(recent.last, ENTRIES_PER_READ).await?;
        let added = entries.len();
        recent.unread = added == ENTRIES_PER_READ;
        recent.last = entries.last().map_or(recent.last, |entry| entry.position);
        recent.entries.extend(entries);
        Ok(added)
    }
}

impl Recent {
    /// When the log may be looked at; never where nothing was added.
    fn due(&self) -> Option<Instant> {
        let added = self.unread || self.changes.has_changed().unwrap_or(false);
        // a look that was full is followed by the next one at once
        let pause = if self.unread { Duration::ZERO } else { MIN_READ_INTERVAL };
        added.then(|| self.looked.map_or_else(Instant::now, |looked| looked + pause))
    }

    /// Follows a reader who is further than all before.
    fn begin_at(&mut self, position: i64) {
        self.entries.clear();
        (self.first, self.last, self.unread) = (position, position, true);
    }

    /// Lets go of the oldest.
    fn forget(&mut self) {
        let surplus = self.entries.len().saturating_sub(KEPT_ENTRIES);
        if let Some(last) = self.entries.drain(..surplus).next_back() {
            self.first = last.position;
        }
    }
}
