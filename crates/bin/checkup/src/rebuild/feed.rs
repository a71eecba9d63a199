//! Gives events to one generation of the view, and reports progress.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bus::{Delivery, Error, Subscribe, Subscription};
use relay::{ConsumeOptions, Consumer};
use runtime::Process;
use runtime::lifecycle::{DrainTrigger, Latch, drain_pair};
use runtime::tasks::Kind;

/// Gives events to a consumer until this value is dropped or the process stops.
#[derive(Debug)]
pub struct Feed {
    // dropping it stops the feed
    _stop: DrainTrigger,
}

impl Feed {
    /// Starts a feed. `caught_up` is released once the consumer has no lag.
    #[must_use]
    pub fn start(
        process: &Process,
        consumer: Consumer,
        transport: Arc<dyn Subscribe>,
        options: ConsumeOptions,
        caught_up: Option<Latch>,
    ) -> Self {
        let Process { clock, tasks, drain, .. } = process;
        let (stop, stopped) = drain_pair();
        let (name, end) = (consumer.name, drain.clone());
        // boxed, so that it can be dropped, with its view, before the task ends
        let consuming = Box::pin(relay::consume(consumer, transport, options, *clock, stopped.clone(), caught_up));
        tasks.spawn(Kind::Loop, name, async move {
            {
                let consuming = consuming;
                tokio::select! {
                    biased;
                    () = end.requested() => {}
                    () = consuming => {}
                }
            }
            if stopped.is_requested() {
                // a task that ends early would stop the process
                end.requested().await;
            }
        });
        Self { _stop: stop }
    }
}

/// The progress of a new view.
#[derive(Debug, Default)]
pub(super) struct Progress {
    applied: AtomicU64,
    waiting: AtomicU64,
}

impl Progress {
    /// The number of events that were applied, and of those that are still to be read.
    pub(super) fn figures(&self) -> (u64, u64) {
        (self.applied.load(Ordering::Relaxed), self.waiting.load(Ordering::Relaxed))
    }
}

/// A transport that counts what its reader does.
pub(super) struct Counted {
    transport: Arc<dyn Subscribe>,
    progress: Arc<Progress>,
}

impl Counted {
    pub(super) fn new(transport: Arc<dyn Subscribe>, progress: Arc<Progress>) -> Self {
        Self { transport, progress }
    }
}

#[async_trait]
impl Subscribe for Counted {
    async fn subscribe(
        &self,
        name: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let inner = self.transport.subscribe(name, filter, from).await?;
        Ok(Box::new(CountedSubscription { inner, progress: Arc::clone(&self.progress) }))
    }
}

struct CountedSubscription {
    inner: Box<dyn Subscription>,
    progress: Arc<Progress>,
}

#[async_trait]
impl Subscription for CountedSubscription {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        self.inner.next(limit).await
    }

    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), Error> {
        self.progress.applied.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
        self.inner.acknowledge(deliveries).await
    }

    async fn postpone(&mut self, deliveries: &[Delivery], pause: Duration) -> Result<(), Error> {
        self.inner.postpone(deliveries, pause).await
    }

    async fn lag(&mut self) -> Result<u64, Error> {
        let waiting = self.inner.lag().await?;
        self.progress.waiting.store(waiting, Ordering::Relaxed);
        Ok(waiting)
    }
}
