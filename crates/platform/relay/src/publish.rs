//! The loop that publishes one service's events to the broker, frame by frame as they stand in the outbox.
//!
//! A lease lets one process per service publish at a time. It takes the rows without a mark, oldest first, sends a
//! window of them at once, and marks the acknowledged ones while the next window is on its way. The other rows stay and
//! are sent again under the same ids. If few rows wait, the loop pauses briefly so that more of them share one window.
//!
//! An acknowledgement is not durability: a broker may lose what it acknowledged, or return empty. So each mark names
//! the stream that it refers to. If the stream is another one now, or the sequence of the newest acknowledged event
//! belongs to another event, all marks are removed and everything that the outbox still holds is published once more.
//! If the stream lost events before its end, only those are published again: see `gaps`.

mod cloud_event;
mod gaps;
mod term;

use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use bus::{Publish, StreamState};
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

/// The limits and pauses of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishOptions {
    /// How many frames are sent before the relay waits for acknowledgements; a frame has up to 128 KiB.
    pub window: usize,
    /// The shortest time between the starts of two reads of the outbox, unless the last read found more than a window.
    /// Many commits then share the cost of publishing. After a slow read the time is longer, up to twice as long as
    /// that read took.
    pub pace: Duration,
    /// How long the relay waits for all acknowledgements of a window together.
    pub timeout: Duration,
    /// How long the lease of a process that is gone blocks the others.
    pub term: Duration,
    /// The longest pause between two reads of an empty outbox. A commit of this process ends the pause at once; a
    /// commit of another replica does not.
    pub idle: Duration,
    /// Whether each message carries the context of a CloudEvent in its headers.
    pub cloud_events: bool,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            window: 128,
            pace: Duration::from_millis(10),
            timeout: Duration::from_secs(2),
            term: Duration::from_secs(5),
            idle: Duration::from_millis(40),
            cloud_events: false,
        }
    }
}

/// The pause after a failure.
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
                    // The next holder of the lease reports the backlog.
                    self.report_backlog(0, None);
                }
                // Another replica publishes.
                Ok(None) => sleep(self.options.term / 10).await,
                Err(error) => {
                    tracing::warn!(service = self.name, %error, "cannot ask for the lease of the relay");
                    sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    /// Reports how many events wait, and the age of the oldest.
    fn report_backlog(&self, waiting: i64, oldest: Option<Timestamp>) {
        let age = oldest.map_or(0.0, |oldest| self.clock.now().duration_since(oldest).as_secs_f64());
        metrics::gauge!("checkup_relay_backlog", "service" => self.name).set(waiting as f64);
        metrics::gauge!("checkup_relay_oldest_seconds", "service" => self.name).set(age.max(0.0));
    }

    /// Reports how full the stream is.
    fn report_room(&self, state: &StreamState) {
        metrics::gauge!("checkup_stream_bytes", "service" => self.name).set(state.bytes as f64);
        if let Some(limit) = state.max_bytes {
            metrics::gauge!("checkup_stream_limit_bytes", "service" => self.name).set(limit as f64);
        }
    }

    async fn lease(&self) -> Result<Option<Lease>, DbErr> {
        lease::acquire(&self.database, self.holder, self.options.term, self.clock.now()).await
    }

    /// Releases the lease, so that the next process can take it at once.
    async fn resign(&self) {
        const RESIGN_TIMEOUT: Duration = Duration::from_secs(1);
        let resigned = async {
            if let Some(lease) = self.lease().await? {
                lease::release(&self.database, lease.epoch).await?;
            }
            Ok::<_, DbErr>(())
        };
        // If releasing fails, the lease expires by itself.
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
                    // The rows wait, so one line is logged until publishing works again.
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
