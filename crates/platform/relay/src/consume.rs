//! The loop that brings events to one consumer.
//!
//! A batch is applied whole or not at all. A batch that fails because of one of its events is halved until that event
//! stands alone. The event is tried again with growing pauses and, after its last try, stored as a dead letter so that
//! later events go on. Later events wait for it if the transport keeps an order; otherwise those of other frames
//! overtake it. A store that does not answer is waited for without limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use bus::{Delivery, Subscribe, Subscription};
use runtime::clock::Clock;
use runtime::lifecycle::{Drain, Latch};
use store::inbox;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::apply::{Applier, Outcome};
use crate::chain;
use crate::consumer::{ConsumeOptions, Consumer};
use crate::pace::spacing;
use crate::upkeep::upkeep;

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

/// The most frames per read of the transport. A frame has up to 128 KiB.
const FRAMES_PER_READ: usize = 128;
/// A batch counts as large from a quarter of the maximum.
const LARGE_BATCH_DIVISOR: u64 = 4;
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
        self.applier.settled();
        let applied = metrics::counter!("checkup_consumer_events_total", "consumer" => name);
        let mut due = Instant::now();
        // Whether the lag was 0 when it was last measured and no event has arrived since.
        let mut settled = false;
        let mut worked = false;
        let pace = self.applier.consumer.pace.unwrap_or_default().max(self.options.pace);
        let mut begin = Instant::now();
        loop {
            if !settled && Instant::now() >= due {
                settled = self.has_settled(subscription.as_mut(), &lag).await;
                due = Instant::now() + if self.caught_up.is_some() { CATCH_UP_LAG_INTERVAL } else { LAG_INTERVAL };
            }
            sleep_until(begin).await;
            let next = subscription.next(FRAMES_PER_READ);
            let next = if settled { Ok(next.await) } else { timeout_at(due, next).await };
            let deliveries = match next {
                Err(_) => continue,
                Ok(Ok(deliveries)) => deliveries,
                Ok(Err(error)) => {
                    tracing::warn!(consumer = name, error = chain(&error), "cannot read events");
                    return worked;
                }
            };
            (worked, settled) = (true, false);
            let (begun, frames) = (Instant::now(), deliveries.len());
            let Outcome { later, done } = self.applier.apply(&deliveries).await;
            applied.increment(done);
            if let Err(error) = acknowledge(subscription.as_mut(), deliveries, later).await {
                tracing::warn!(consumer = name, error = chain(&error), "cannot acknowledge events");
                return worked;
            }
            // More events follow a large batch or a full read, so waiting would save little.
            let large = frames == FRAMES_PER_READ || done * LARGE_BATCH_DIVISOR >= self.options.batch as u64;
            begin = begun + if large { Duration::ZERO } else { spacing(pace, begun.elapsed()) };
        }
    }

    /// Measures the lag. Returns whether no event waits; if so, whoever waits for the consumer to catch up goes on.
    async fn has_settled(&mut self, subscription: &mut dyn Subscription, lag: &metrics::Gauge) -> bool {
        let Ok(waiting) = subscription.lag().await else { return false };
        lag.set(waiting as f64);
        if waiting > 0 {
            return false;
        }
        self.applier.settled();
        self.caught_up.take().into_iter().for_each(Latch::release);
        true
    }
}

/// Settles the deliveries that are applied, and asks again for those to repeat later.
async fn acknowledge(
    subscription: &mut dyn Subscription,
    mut deliveries: Vec<Delivery>,
    later: Vec<(Delivery, Duration)>,
) -> Result<(), bus::Error> {
    if !later.is_empty() {
        deliveries.retain(|delivery| later.iter().all(|(late, _)| late.position != delivery.position));
    }
    let mut outcome = subscription.acknowledge(&deliveries).await;
    for (delivery, pause) in later {
        outcome = outcome.and(subscription.postpone(std::slice::from_ref(&delivery), pause).await);
    }
    outcome
}
