//! Background work: revokes the claims of deleted hospitals and cancelled slots, and deletes old request records. Both
//! write through the coalescing writer.

use std::sync::Arc;
use std::time::Duration;

use domain::request;
use fault::Fault;
use runtime::Process;
use runtime::clock::Clock;
use runtime::tasks::Kind;
use store::{Database, Writer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::batch::HospitalBatchHandler;
use crate::command::{Command, Outcome};
use crate::tables::revocation::{Target, targets};

/// How often the worker looks for revocations without being woken: another process began them, or a crash left them.
const REVOCATION_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Revocations that one round works on at most.
const REVOCATIONS_PER_ROUND: u64 = 16;
/// How long one chunk may wait for its transaction.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often old request records are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);

pub(crate) fn spawn(process: &Process, writer: &Writer<HospitalBatchHandler>, database: &Database, wake: &Arc<Notify>) {
    let revoker =
        Revoker { writer: writer.clone(), database: database.clone(), wake: Arc::clone(wake), last: None, more: false };
    process.tasks.spawn(Kind::Loop, "hospital-revocations", revoker.run());
    process.tasks.spawn(Kind::Loop, "hospital-purge", purge(writer.clone(), process.clock));
}

struct Revoker {
    writer: Writer<HospitalBatchHandler>,
    database: Database,
    wake: Arc<Notify>,
    /// The last target of the round before, if others may follow it.
    last: Option<Target>,
    /// Whether one of those that had their turn has more to do.
    more: bool,
}

impl Revoker {
    async fn run(mut self) {
        loop {
            match self.round().await {
                Ok(true) => {}
                Ok(false) => drop(timeout(REVOCATION_POLL_INTERVAL, self.wake.notified()).await),
                Err(fault) => {
                    tracing::warn!(?fault, "revocations have to wait");
                    sleep(REVOCATION_POLL_INTERVAL).await;
                }
            }
        }
    }

    /// Revokes one chunk of each of some revocations under way, in turn. Returns whether there is more to do at once:
    /// another round until all had their turn, then whether one of them has more. One that fails does not keep the
    /// others from their turn.
    ///
    /// # Errors
    /// The first error, once the round is over.
    async fn round(&mut self) -> Result<bool, Fault> {
        let after = self.last.take();
        let found = targets(self.database.reader(), after.as_ref(), REVOCATIONS_PER_ROUND).await;
        let found = found.map_err(store::read::failed)?;
        let others = found.len() as u64 == REVOCATIONS_PER_ROUND;
        self.last = found.last().cloned().filter(|_| others);
        let mut failed = None;
        for target in found {
            let revoked = self.writer.submit(Command::Revoke(target), Instant::now() + COMMIT_TIMEOUT).await;
            match revoked.and_then(|answer| answer) {
                Ok(outcome) => self.more |= matches!(outcome, Outcome::Revoked { more: true }),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        match failed {
            Some(fault) => Err(fault),
            None => Ok(others || std::mem::take(&mut self.more)),
        }
    }
}

async fn purge(writer: Writer<HospitalBatchHandler>, clock: Clock) {
    loop {
        let limit = clock.now().checked_sub(request::RETENTION).unwrap_or(jiff::Timestamp::MIN);
        let purged = writer.submit(Command::Purge(limit), Instant::now() + COMMIT_TIMEOUT).await;
        if let Err(fault) = purged.and_then(|answer| answer) {
            tracing::warn!(?fault, "old request records have to wait");
        }
        sleep(PURGE_INTERVAL).await;
    }
}
