//! What goes on without being asked for: revoking the claims of deleted hospitals and cancelled slots, and forgetting old
//! request records. Both go through the writer like everything else.

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

/// How often the worker looks for revocations that nobody told it of: those of another process, or left by a crash.
const REVOCATION_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Revocations worked on in turn.
const REVOCATIONS_PER_ROUND: u64 = 16;
/// How long one chunk may wait for its transaction.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often old request records are forgotten.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);

/// Starts both.
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

    /// Revokes one chunk of each revocation under way; says whether one has more to do at once.
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
