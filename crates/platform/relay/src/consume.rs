//! The loop that brings events to one consumer.
//!
//! A batch is applied whole or not at all. A batch that fails because of one of its events is halved until that event
//! stands alone. The event is tried again with growing pauses and, after its last try, stored as a dead letter so that
//! later events go on. Later events wait for it if the transport keeps an order; otherwise they overtake it. A store
//! that does not answer is waited for without limit.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use async_trait::async_trait;
use bus::{Subscribe, Subscription};
use contract::event::v1::EventEnvelope;
use fault::Fault;
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use runtime::lifecycle::{Drain, Latch};
use store::Database;
use store::dead_letter::DeadLetter;
use store::inbox::{self, InboxKey};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use crate::apply::Applier;
use crate::chain;
use crate::pace::spacing;
use crate::upkeep::upkeep;

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
    /// whole.
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
    /// The most events per call of the handler.
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

/// Brings events to a consumer until the drain is requested. `caught_up` is released once no event waits for it any
/// more.
#[boxed]
pub async fn consume(
    consumer: Consumer,
    transport: Arc<dyn Subscribe>,
    options: ConsumeOptions,
    clock: Clock,
    drain: Drain,
    caught_up: Option<Latch>,
) {
    let upkeep = upkeep(consumer.clone(), options, clock);
    let reader = Reader { applier: Applier::new(consumer, options, clock), options, drain: drain.clone(), caught_up };
    // Anything that is cut off here either was not committed, or is recognised by its inbox key when it is repeated.
    tokio::select! {
        biased;
        () = drain.requested() => {}
        () = reader.run(transport) => {}
        () = upkeep => {}
    }
}

struct Reader {
    applier: Applier,
    options: ConsumeOptions,
    drain: Drain,
    caught_up: Option<Latch>,
}

/// A batch counts as large from a quarter of the maximum.
const LARGE_BATCH_DIVISOR: usize = 4;
/// How often the lag is measured until no event waits.
const LAG_INTERVAL: Duration = Duration::from_secs(1);
/// The same while readiness waits for the consumer to catch up. If the rest of the log does not concern the consumer,
/// no event arrives that would end the wait.
const CATCH_UP_LAG_INTERVAL: Duration = Duration::from_millis(100);

impl Reader {
    async fn run(mut self, transport: Arc<dyn Subscribe>) {
        let name = self.applier.consumer.name;
        let mut backoff = self.options.backoff();
        while !self.drain.is_requested() {
            match self.subscribe(&transport).await {
                Ok(subscription) => {
                    if self.read(subscription).await {
                        backoff.reset();
                    }
                }
                Err(error) => tracing::warn!(consumer = name, error, "cannot subscribe"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn subscribe(&self, transport: &Arc<dyn Subscribe>) -> Result<Box<dyn Subscription>, String> {
        let Consumer { name, filter, database, .. } = &self.applier.consumer;
        let cursors = inbox::cursors(database.reader(), name).await;
        let cursors: HashMap<String, i64> = cursors.map_err(|error| error.to_string())?;
        let subscription = transport.subscribe(name, filter, cursors).await;
        subscription.map_err(|error| chain(&error))
    }

    /// Reads until the transport fails; a new subscription then starts from what was committed. Returns whether any
    /// read succeeded.
    async fn read(&mut self, mut subscription: Box<dyn Subscription>) -> bool {
        let name = self.applier.consumer.name;
        let lag = metrics::gauge!("checkup_consumer_lag", "consumer" => name);
        self.applier.age(None);
        let applied = metrics::counter!("checkup_consumer_events_total", "consumer" => name);
        let mut due = Instant::now();
        // Whether the lag was 0 when it was last measured and no event has arrived since.
        let mut settled = false;
        let mut worked = false;
        let pace = self.applier.consumer.pace.unwrap_or_default().max(self.options.pace);
        let mut begin = Instant::now();
        loop {
            if !settled && Instant::now() >= due {
                if let Ok(waiting) = subscription.lag().await {
                    lag.set(waiting as f64);
                    settled = waiting == 0;
                }
                if settled {
                    self.applier.age(None);
                    self.caught_up.take().into_iter().for_each(Latch::release);
                }
                due = Instant::now() + if self.caught_up.is_some() { CATCH_UP_LAG_INTERVAL } else { LAG_INTERVAL };
            }
            sleep_until(begin).await;
            let next = subscription.next(self.options.batch);
            let next = if settled { Ok(next.await) } else { timeout_at(due, next).await };
            let mut deliveries = match next {
                Err(_) => continue,
                Ok(Ok(deliveries)) => deliveries,
                Ok(Err(error)) => {
                    tracing::warn!(consumer = name, error = chain(&error), "cannot read events");
                    return worked;
                }
            };
            (worked, settled) = (true, false);
            let (begun, count) = (Instant::now(), deliveries.len());
            let later = self.applier.apply(&deliveries).await;
            applied.increment((count - later.len()) as u64);
            if !later.is_empty() {
                deliveries.retain(|delivery| later.iter().all(|(late, _)| late.position != delivery.position));
            }
            let mut settled_all = subscription.acknowledge(&deliveries).await;
            for (delivery, pause) in later {
                settled_all = settled_all.and(subscription.postpone(std::slice::from_ref(&delivery), pause).await);
            }
            if let Err(error) = settled_all {
                tracing::warn!(consumer = name, error = chain(&error), "cannot acknowledge events");
                return worked;
            }
            // More events follow a large batch, so waiting would save little.
            let large = count * LARGE_BATCH_DIVISOR >= self.options.batch;
            begin = begun + if large { Duration::ZERO } else { spacing(pace, begun.elapsed()) };
        }
    }
}
