//! Level-triggered waits: ask again until the answer is the wanted one, and say what it was instead when time is up.
//!
//! There is no sleep to hope by. How long a wait may last is one knob for the whole suite, the environment variable
//! `CHECKUP_TEST_PATIENCE` in seconds, because a slow machine makes every wait slower and no wait wrong.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

const PATIENCE_VARIABLE: &str = "CHECKUP_TEST_PATIENCE";
const POLL_INTERVAL: Duration = Duration::from_millis(15);

/// How long a wait lasts that nothing in the contract bounds.
#[must_use]
pub fn patience() -> Duration {
    let seconds = std::env::var(PATIENCE_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    Duration::from_secs(seconds)
}

/// Looks until `look` answers `Ok`; panics with the last `Err` after [`patience`].
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    eventually_within(patience(), what, look).await
}

/// Looks until `look` answers `Ok`; panics with the last `Err` after `limit`, which is then part of what is tested.
pub async fn eventually_within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    let mut seen = String::from("nothing");
    loop {
        match timeout(end.saturating_duration_since(Instant::now()), look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(now)) => seen = now,
            Err(_) => panic!("waited {limit:?} for {what}; the last look did not end, the one before saw: {seen}"),
        }
        assert!(Instant::now() < end, "waited {limit:?} for {what}; last seen: {seen}");
        sleep(POLL_INTERVAL).await;
    }
}

/// Waits for one thing that has to end by itself.
///
/// # Panics
/// Where it has not ended after `limit`.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not end within {limit:?}"),
    }
}
