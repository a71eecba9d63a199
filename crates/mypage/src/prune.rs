//! Removes changes that streams can no longer resume from, a chunk a transaction, so that nobody waits for it.

use std::time::Duration;

use ::store::{Writer, micros};
use fault::Fault;
use jiff::SignedDuration;
use runtime::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::unit::{Command, Fold};

/// How long a chunk may wait for its commit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes changes beyond an age and a number.
#[derive(Debug)]
pub(crate) struct Pruner {
    pub(crate) age: SignedDuration,
    pub(crate) count: u64,
    pub(crate) interval: Duration,
    pub(crate) clock: Clock,
    pub(crate) writer: Writer<Fold>,
}

impl Pruner {
    /// Runs until it is cut off.
    pub(crate) async fn run(self) {
        loop {
            sleep(self.interval).await;
            if let Err(fault) = self.prune().await {
                tracing::warn!(?fault, "old changes were not removed");
            }
        }
    }

    async fn prune(&self) -> Result<(), Fault> {
        let older_than = self.clock.now().checked_sub(self.age).map_or(i64::MIN, micros);
        let command = || Command::Prune { older_than, keep: self.count };
        while self.writer.submit(command(), Instant::now() + PATIENCE).await? {}
        Ok(())
    }
}
