//! What one service keeps of how far another one's log has come, where both are in one process.
//!
//! A consumer's cursor says so too, but only of the events that it wants. Hospital wants those of bookings that end, so that
//! a database of Screening that lost nothing but confirmed bookings would contradict nobody where no view has read of them.

use std::sync::Arc;
use std::time::Duration;

use runtime::lifecycle::Drain;
use store::inbox::{self, InboxKey};
use store::{Database, DbErr, past};
use tokio::time::sleep;

use crate::chain;

/// The name under which the cursor of a witness is kept.
const WITNESS: &str = "witness";
/// How long after a commit it is kept; what is committed meanwhile is kept with it.
const PACE: Duration = Duration::from_millis(100);

/// A log, and a database that remembers how far it has come.
#[derive(Debug, Clone)]
pub struct Witness {
    /// Whose log.
    pub source: &'static str,
    /// Where it is.
    pub log: Database,
    /// Where it is kept how far it has come.
    pub keeper: Database,
}

impl Witness {
    /// Keeps it while the log grows, until the drain is requested.
    pub async fn run(self, drain: Drain) {
        let mut commits = self.log.commits();
        let mut kept = 0;
        tokio::select! {
            biased;
            () = drain.requested() => {}
            () = async {
                loop {
                    match self.keep(kept).await {
                        Ok(position) => kept = position,
                        Err(error) => tracing::debug!(log = self.source, error = chain(&error), "a witness has to wait"),
                    }
                    if commits.changed().await.is_err() {
                        return;
                    }
                    sleep(PACE).await;
                    commits.mark_unchanged();
                }
            } => {}
        }
    }

    /// Keeps it once more, when nothing is added to the log any more.
    pub async fn keep_last(&self) {
        if let Err(error) = self.keep(0).await {
            tracing::warn!(log = self.source, error = chain(&error), "nobody knows how far a log has come");
        }
    }

    /// Keeps the newest position, where it is another one than this; says which it is.
    async fn keep(&self, kept: i64) -> Result<i64, DbErr> {
        let Some((position, event_id)) = past::newest(self.log.reader()).await? else { return Ok(kept) };
        if position != kept {
            let inbox_key = InboxKey::Ordered { source: Arc::from(self.source), position, event_id };
            inbox::note(&self.keeper, WITNESS, inbox_key).await?;
        }
        Ok(position)
    }
}
