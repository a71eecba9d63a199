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
use crate::tables::revocation::targets;

/// How often the worker looks for revocations without being woken: another process began them, or a crash left them.
const REVOCATION_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Revocations that one round works on at most.
const REVOCATIONS_PER_ROUND: u64 = 16;
/// How long one chunk may wait for its transaction.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often old request records are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);

pub(crate) fn spawn(process: &Process, writer: &Writer<HospitalBatchHandler>, database: &Database, wake: &Arc<Notify>) {
    let revoker = Revoker { writer: writer.clone(), database: database.clone(), wake: Arc::clone(wake) };
    process.tasks.spawn(Kind::Loop, "hospital-revocations", revoker.run());
    process.tasks.spawn(Kind::Loop, "hospital-purge", purge(writer.clone(), process.clock));
}

struct Revoker {
    writer: Writer<HospitalBatchHandler>,
    database: Database,
    wake: Arc<Notify>,
}

impl Revoker {
    async fn run(self) {
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

    /// Revokes one chunk per revocation under way. Returns whether one of them has more to do at once.
    async fn round(&self) -> Result<bool, Fault> {
        let targets = targets(self.database.reader(), REVOCATIONS_PER_ROUND).await.map_err(store::read::failed)?;
        let mut more = false;
        for target in targets {
            let outcome = self.writer.submit(Command::Revoke(target), Instant::now() + COMMIT_TIMEOUT).await??;
            more |= matches!(outcome, Outcome::Revoked { more: true });
        }
        Ok(more)
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
