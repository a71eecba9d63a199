//! Reads outside of the writer: what a failed one means to a client, and those that must not be older than a write.

use std::time::Duration;

use domain::token::ConsistencyToken;
use fault::{Fault, Reason};
use sea_orm::error::ConnAcquireErr;
use sea_orm::{DbErr, RuntimeErr, sqlx};
use tokio::time::{Instant, timeout_at};

use crate::database::Database;
use crate::writer::overloaded;

/// The fault of a read that the database did not answer. Where every connection was busy until the wait for one was over, there is
/// too much to do, and nothing is wrong with who does it.
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

/// How long a read waits for a write at most.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// What is kept of the caller's time for the read itself and the way back.
const RESPONSE_RESERVE: Duration = Duration::from_millis(50);
/// A view that was waited for less than this cannot be said to lag: whoever asked had no time.
const MIN_FAIR_WAIT: Duration = Duration::from_millis(200);
/// How often a wait looks without having seen a commit: another replica on the same database may have made one.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Waits until this database has taken in the version that a token names. `seen` reads the greatest version of that
/// screening it has taken in, 0 for none; it is asked at once, and again after every commit.
///
/// # Errors
/// VIEW_LAGGING once the wait has lasted 5 s or the deadline is 50 ms away; DEADLINE_EXCEEDED instead where the caller gave less
/// time than 200 ms; what [`failed`] says where `seen` fails.
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
        // Either way there is something to look at again; the sender lives in `database`.
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
