//! Removes what counts no longer, a chunk a transaction, so that nobody waits for it: bookings and refusals that are not of
//! late, and slots whose date is long over.

use std::time::Duration;

use ::store::Writer;
use domain::demand::of_late;
use fault::Fault;
use runtime::clock::Clock;
use tokio::time::{Instant, sleep};

use crate::unit::{Command, Demand};

/// How long a chunk may wait for its commit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Removes rows in the background.
#[derive(Debug)]
pub(crate) struct Pruner {
    pub(crate) interval: Duration,
    pub(crate) clock: Clock,
    pub(crate) writer: Writer<Demand>,
}

impl Pruner {
    /// Runs until it is cut off.
    pub(crate) async fn run(self) {
        loop {
            sleep(self.interval).await;
            if let Err(fault) = self.prune().await {
                tracing::warn!(?fault, "old demand was not removed");
            }
        }
    }

    async fn prune(&self) -> Result<(), Fault> {
        let since = of_late(self.clock.now());
        while self.writer.submit(Command::Prune { since }, Instant::now() + PATIENCE).await? {}
        Ok(())
    }
}
