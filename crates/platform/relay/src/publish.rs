//! The loop that brings one service's events to the broker.
//!
//! One process a service does it at a time, by a lease. It takes what carries no mark, oldest first, sends a window of it at once,
//! and marks what the broker acknowledged while the next window is on its way; the rest stays and is sent again, under the same
//! ids. Where little waits it is given a moment to become more. An acknowledgement is not
//! durability: a broker may lose what it acknowledged, or come back empty. So the marks name the stream they speak of, and
//! where it is not that stream any more, or the sequence of the newest acknowledged event is another's, all marks are taken
//! away and everything the outbox still holds is published once more. Where the stream lost events before its end, those alone
//! are: see `gaps`.

mod gaps;
mod term;

use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use bus::Publish;
use jiff::Timestamp;
use runtime::clock::Clock;
use runtime::entropy::uuid_v4;
use runtime::lifecycle::Drain;
use store::lease::{self, Lease};
use store::{Database, DbErr};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::chain;

use term::{Term, Trouble};

/// Limits and pauses of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishOptions {
    /// Events sent before the first acknowledgement is waited for.
    pub window: usize,
    /// How long after the beginning of one look at the outbox the next one begins at the earliest, unless the last one found
    /// more than a window: so many commits share the cost of publishing. Behind a slow one it is later, by as long as that took.
    pub pace: Duration,
    /// How long the acknowledgements of a window are waited for, all together.
    pub timeout: Duration,
    /// How long the lease of a process that is gone keeps the others waiting.
    pub term: Duration,
    /// The longest pause between two looks at an outbox that was empty. Commits of this process end it at once; those of other
    /// replicas do not.
    pub idle: Duration,
    /// How long published events are kept, to fill a broker from that lost its data.
    pub retention: Duration,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            window: 1_024,
            pace: Duration::from_millis(10),
            timeout: Duration::from_secs(2),
            term: Duration::from_secs(5),
            idle: Duration::from_millis(40),
            retention: Duration::from_secs(72 * 60 * 60),
        }
    }
}

/// The pause after something failed.
const FAILURE_PAUSE: Duration = Duration::from_millis(250);

/// Publishes the events of the service `name` until the drain is requested.
#[boxed]
pub async fn publish(
    name: &'static str,
    database: Database,
    transport: Arc<dyn Publish>,
    options: PublishOptions,
    clock: Clock,
    drain: Drain,
) {
    let relay = Relay { name, database, transport, options, clock, holder: uuid_v4() };
    tokio::select! {
        biased;
        () = drain.requested() => relay.resign().await,
        () = relay.run() => {}
    }
}

struct Relay {
    name: &'static str,
    database: Database,
    transport: Arc<dyn Publish>,
    options: PublishOptions,
    clock: Clock,
    holder: Uuid,
}

impl Relay {
    async fn run(&self) {
        let leading = metrics::gauge!("checkup_relay_leading", "service" => self.name);
        loop {
            match self.lease().await {
                Ok(Some(lease)) => {
                    tracing::info!(service = self.name, epoch = lease.epoch, "publishing events");
                    leading.set(1.0);
                    self.lead(lease).await;
                    leading.set(0.0);
                    // what waits is the next one's to tell
                    self.report_backlog(0, None);
                }
                // another replica publishes
                Ok(None) => sleep(self.options.term / 10).await,
                Err(error) => {
                    tracing::warn!(service = self.name, %error, "cannot ask for the lease of the relay");
                    sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    /// Shows how many events wait, and since when.
    fn report_backlog(&self, waiting: i64, oldest: Option<Timestamp>) {
        let age = oldest.map_or(0.0, |oldest| self.clock.now().duration_since(oldest).as_secs_f64());
        metrics::gauge!("checkup_relay_backlog", "service" => self.name).set(waiting as f64);
        metrics::gauge!("checkup_relay_oldest_seconds", "service" => self.name).set(age.max(0.0));
    }

    async fn lease(&self) -> Result<Option<Lease>, DbErr> {
        lease::acquire(&self.database, self.holder, self.options.term, self.clock.now()).await
    }

    /// Gives the lease to the next at once.
    async fn resign(&self) {
        const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);
        let resigned = async {
            if let Some(lease) = self.lease().await? {
                lease::release(&self.database, lease.epoch).await?;
            }
            Ok::<_, DbErr>(())
        };
        // without it the term ends by itself
        let _ = timeout(RESIGN_TIMEOUT, resigned).await;
    }

    /// Publishes for as long as the lease can be renewed.
    async fn lead(&self, lease: Lease) {
        let mut term = Term::begin(self, lease);
        let mut warned = false;
        loop {
            match term.publish().await {
                Ok(()) => return tracing::info!(service = self.name, "another process publishes now"),
                Err(trouble) => {
                    let why = match &trouble {
                        Trouble::Store(cause) => chain(cause),
                        Trouble::Broker(cause) => chain(cause),
                    };
                    // the rows wait, so one line is enough until it works again
                    if !std::mem::replace(&mut warned, !matches!(trouble, Trouble::Store(_))) {
                        tracing::warn!(service = self.name, why, "events wait to be published");
                    }
                    sleep(FAILURE_PAUSE).await;
                }
            }
            if matches!(term.renew().await, Ok(false)) {
                return;
            }
        }
    }
}
