//! Settings of the connections to files.

use std::time::Duration;

/// How long a use of a connection waits for the one before it, and a write to a file for other writes to it.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pragmas of a connection that may write, in this order.
pub(crate) fn pragmas() -> [(&'static str, String); 5] {
    [
        ("journal_mode", "WAL".to_owned()),
        ("synchronous", "FULL".to_owned()),
        ("wal_autocheckpoint", CHECKPOINT_PAGES.to_string()),
        ("journal_size_limit", LOG_BYTES.to_string()),
        ("cache_size", CACHED_PAGES.to_string()),
    ]
}

/// How many pages of 4 KiB the write-ahead log takes before they are copied into the file. SQLite's default of 1,000 is
/// reached many times per second in a rush, and most pages are then written again soon after. It is also how much a
/// start after a crash must read.
const CHECKPOINT_PAGES: u32 = 8_000;
/// How many bytes the log file keeps after it was copied. In a rush it may grow longer while readers delay the copying.
const LOG_BYTES: u64 = 4_096 * CHECKPOINT_PAGES as u64;
/// How many statements a connection keeps prepared: one per table that is written, and one per list of keys that is
/// looked up, for each power of two of its length.
pub(crate) const PREPARED_STATEMENTS: usize = 400;
/// How many pages the writing connection caches. A process with all services has one such cache per service.
const CACHED_PAGES: u32 = 1_000;
