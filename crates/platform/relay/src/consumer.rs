//! A consumer of events as a service declares it: its name, what it reads, and what applies the events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::event::v1::EventEnvelope;
use fault::Fault;
use runtime::backoff::Backoff;
use store::Database;
use store::dead_letter::DeadLetter;
use store::inbox::InboxKey;
use uuid::Uuid;

/// One event on its way into a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The decoded envelope.
    pub envelope: EventEnvelope,
    /// The envelope's `event_id`, parsed.
    pub event_id: Uuid,
    /// The key by which the inbox recognises the event.
    pub inbox_key: InboxKey,
}

/// A service's reaction to events.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Applies a batch and its inbox keys in one transaction, in this order. A batch may be repeated, in part or in
    /// whole, and may begin or end in the middle of a frame.
    ///
    /// # Errors
    /// A fault means that nothing of the batch was applied. The code INTERNAL says that the content of the batch is to
    /// blame.
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault>;

    /// Stores an event that cannot be applied, and marks it as seen, in one transaction.
    ///
    /// # Errors
    /// A fault means that the dead letter was not stored.
    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault>;
}

/// A durable consumer, as a service declares it.
#[derive(Clone)]
pub struct Consumer {
    /// Its name, for example `screening-capacity`. It must never change.
    pub name: &'static str,
    /// The subjects that it reads: see `domain::event::subject_filter`.
    pub filter: Vec<String>,
    /// Applies the events and stores dead letters.
    pub handler: Arc<dyn Handler>,
    /// The database with its inbox.
    pub database: Database,
    /// The shortest time between the starts of two batches, for a consumer that may lag behind others; see
    /// [`ConsumeOptions::pace`].
    pub pace: Option<Duration>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name).field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// The limits and pauses of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumeOptions {
    /// A call of the handler gets whole frames until they have at least so many events.
    pub batch: usize,
    /// The shortest time between the starts of two batches, so that events that arrive close together share one
    /// transaction. A batch after a silence begins at once, and so does a batch after a large one. After a slow batch
    /// the time is longer, up to twice as long as that batch took.
    pub pace: Duration,
    /// How often an event is tried before it becomes a dead letter.
    pub attempts: i32,
    /// The pause after the first failure; it doubles up to `last_pause`.
    pub first_pause: Duration,
    /// The longest pause between two tries.
    pub last_pause: Duration,
    /// How long the inbox remembers an applied event, on transports that may repeat it.
    pub memory: Duration,
}

impl Default for ConsumeOptions {
    fn default() -> Self {
        Self {
            batch: 1_024,
            pace: Duration::from_millis(10),
            attempts: 10,
            first_pause: Duration::from_millis(50),
            last_pause: Duration::from_secs(5),
            memory: Duration::from_secs(8 * 24 * 60 * 60),
        }
    }
}

impl ConsumeOptions {
    /// The pauses between tries of something that no event is to blame for.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.first_pause, self.last_pause)
    }
}
