//! Settings of the connections to files.

use std::time::Duration;

/// How long a use of a connection waits for the one before it, and a write to a file for other writes to it.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many pages of 4 KiB the write-ahead log takes before they are copied into the file. SQLite's default of 1,000 is
/// reached many times per second in a rush, and most pages are then written again soon after. It is also how much a
/// start after a crash must read.
pub(crate) const CHECKPOINT_PAGES: u32 = 8_000;
/// How many bytes the log file keeps after it was copied. In a rush it may grow longer while readers delay the copying.
pub(crate) const LOG_BYTES: u64 = 4_096 * CHECKPOINT_PAGES as u64;
/// How many statements a connection keeps prepared: one per table and number of rows that are written at once.
pub(crate) const PREPARED_STATEMENTS: usize = 400;
/// How many pages the writing connection caches. A process with all services has one such cache per service.
pub(crate) const CACHED_PAGES: u32 = 1_000;
