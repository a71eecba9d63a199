//! A service's record of how far another service's log has come, if both run in one process.
//!
//! A consumer's cursor covers only the events that it subscribes to. Hospital reads only the events of bookings that
//! end. If Screening's database lost only confirmed bookings, no cursor would contradict it unless a view had read
//! them. The witness covers every event.

use std::sync::Arc;
use std::time::Duration;

use runtime::lifecycle::Drain;
use store::inbox::{self, InboxKey};
use store::{Database, DbErr, past};
use tokio::time::sleep;

use crate::chain;

/// The consumer name under which a witness stores its cursor.
const WITNESS: &str = "witness";
/// How long after a commit the position is stored; further commits meanwhile are covered by the same write.
const PACE: Duration = Duration::from_millis(100);

/// A log, and the database that remembers how far it has come.
#[derive(Debug, Clone)]
pub struct Witness {
    /// The service that owns the log.
    pub source: &'static str,
    /// The database with the log.
    pub log: Database,
    /// The database that stores the position.
    pub keeper: Database,
}

impl Witness {
    /// Stores the position while the log grows, until the drain is requested.
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

    /// Stores the position a last time, once nothing is added to the log any more.
    pub async fn keep_last(&self) {
        if let Err(error) = self.keep(0).await {
            tracing::warn!(log = self.source, error = chain(&error), "nobody knows how far a log has come");
        }
    }

    /// Stores the newest position unless it is `kept`; returns the newest position.
    async fn keep(&self, kept: i64) -> Result<i64, DbErr> {
        let Some((position, frame_id)) = past::newest(self.log.reader()).await? else { return Ok(kept) };
        if position != kept {
            let inbox_key = InboxKey::at(Arc::from(self.source), position, frame_id);
            inbox::note(&self.keeper, WITNESS, inbox_key).await?;
        }
        Ok(position)
    }
}
