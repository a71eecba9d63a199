//! Reads outside the writer: the faults of failed reads, and reads that must not be older than a write.

use std::time::Duration;

use domain::token::ConsistencyToken;
use fault::{Fault, Reason};
use sea_orm::error::ConnAcquireErr;
use sea_orm::{DbErr, RuntimeErr, sqlx};
use tokio::time::{Instant, timeout_at};

use crate::database::Database;
use crate::writer::overloaded;

/// The fault of a read that failed. If every connection stayed busy until the wait for one ended, the service is
/// overloaded; otherwise the storage is unavailable.
#[must_use]
pub fn failed(cause: DbErr) -> Fault {
    if is_busy(&cause) {
        return overloaded().caused_by(cause);
    }
    Fault::new(Reason::StorageUnavailable, "the storage does not answer; send the same request again").caused_by(cause)
}

fn is_busy(cause: &DbErr) -> bool {
    match cause {
        DbErr::ConnectionAcquire(why) => matches!(why, ConnAcquireErr::Timeout),
        DbErr::Conn(RuntimeErr::SqlxError(cause)) => matches!(cause.as_ref(), sqlx::Error::PoolTimedOut),
        _ => false,
    }
}

/// The longest time that a read waits for a write.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The part of the caller's time that is reserved for the read itself and the answer.
const RESPONSE_RESERVE: Duration = Duration::from_millis(50);
/// After a shorter wait a view cannot be said to lag, because the caller left too little time.
const MIN_FAIR_WAIT: Duration = Duration::from_millis(200);
/// How often a wait checks again without a commit in this process, because another replica on the same database may
/// have committed.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until this database has applied the version that a token names. `seen` reads the greatest applied version of
/// that screening, 0 for none. It is called at once, and again after every commit.
///
/// # Errors
/// VIEW_LAGGING once the wait has lasted 5 s or the deadline is 50 ms away; DEADLINE_EXCEEDED instead if the caller
/// left less than 200 ms; the fault of [`failed`] if `seen` fails.
pub async fn wait_for<F, R>(
    database: &Database,
    token: ConsistencyToken,
    deadline: Instant,
    mut seen: F,
) -> Result<(), Fault>
where
    F: FnMut() -> R,
    R: Future<Output = Result<i64, DbErr>>,
{
    let begun = Instant::now();
    let limit = deadline.checked_sub(RESPONSE_RESERVE).unwrap_or(deadline).min(Instant::now() + MAX_WAIT);
    let mut commits = database.commits();
    loop {
        commits.mark_unchanged();
        if seen().await.map_err(failed)? >= token.version {
            return Ok(());
        }
        if Instant::now() >= limit {
            return Err(if begun.elapsed() < MIN_FAIR_WAIT { late() } else { lagging(token) });
        }
        // In either case it is time to check again; the sender lives in `database`, so the channel stays open.
        drop(timeout_at(limit.min(Instant::now() + POLL_INTERVAL), commits.changed()).await);
    }
}

fn late() -> Fault {
    let message =
        "the deadline passed before the view could be waited for; send the same request again, with more time";
    Fault::new(Reason::DeadlineExceeded, message)
}

fn lagging(token: ConsistencyToken) -> Fault {
    let ConsistencyToken { screening, version } = token;
    let message = format!("this view has not yet seen version {version} of {screening}; send the same request again");
    Fault::new(Reason::ViewLagging, message).with("screening", screening).with("version", version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_connections_are_too_much_to_do_and_lost_ones_are_not() {
        let busy = DbErr::ConnectionAcquire(ConnAcquireErr::Timeout);
        assert_eq!(failed(busy).reason(), Reason::Overloaded);
        let closed = DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed);
        for lost in [closed, DbErr::Custom("gone".to_owned())] {
            assert_eq!(failed(lost).reason(), Reason::StorageUnavailable);
        }
    }
}
