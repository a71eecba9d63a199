//! Level-triggered waits: poll until the answer is the wanted one, and report the last answer when time is up.
//!
//! No test sleeps and hopes that it was long enough. The longest wait is one setting of the whole suite, the
//! environment variable `CHECKUP_TEST_PATIENCE` in seconds: on a slow machine a wait takes longer but is not wrong.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

const WAIT_LIMIT_VARIABLE: &str = "CHECKUP_TEST_PATIENCE";
const POLL_INTERVAL: Duration = Duration::from_millis(15);

/// How long to wait for something that the contract sets no limit for: `CHECKUP_TEST_PATIENCE`, or 20 seconds.
#[must_use]
pub fn wait_limit() -> Duration {
    let seconds = std::env::var(WAIT_LIMIT_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    Duration::from_secs(seconds)
}

/// Calls `look` until it returns `Ok`, and returns what that has.
///
/// # Panics
/// With the last `Err` if there is none after [`wait_limit`].
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    eventually_within(wait_limit(), what, look).await
}

/// Calls `look` until it returns `Ok`, and returns what that has. The limit is then part of what is tested.
///
/// # Panics
/// With the last `Err` if there is none after `limit`.
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

/// Waits for work that must end by itself.
///
/// # Panics
/// If it has not ended after `limit`.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not end within {limit:?}"),
    }
}
