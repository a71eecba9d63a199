//! A consumer as the port expects it: it recognises repetitions by their position, subscribes again after an error, and
//! acknowledges the events that it has taken.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bus::{Delivery, Position, Subscribe, Subscription};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub(crate) const WANTED_SUBJECTS: &str = "checkup.v1.screening.screening_cancelled.*";
/// How long a test waits for an event that must arrive.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Reader {
    transport: Arc<dyn Subscribe>,
    name: String,
    subscription: Option<Box<dyn Subscription>>,
    pub(crate) cursors: HashMap<String, i64>,
    /// The events taken from transports without order.
    seen: HashSet<u32>,
    /// The events taken, in this order.
    pub(crate) taken: Vec<u32>,
    pub(crate) errors: Vec<String>,
}

pub(crate) fn number(delivery: &Delivery) -> u32 {
    u32::from_be_bytes(delivery.message.payload.as_slice().try_into().expect("a number"))
}

impl Reader {
    pub(crate) fn new(transport: Arc<dyn Subscribe>, name: &str) -> Self {
        Self {
            transport,
            name: name.into(),
            subscription: None,
            cursors: HashMap::new(),
            seen: HashSet::new(),
            taken: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Loses the subscription, as a process does when it ends.
    pub(crate) fn restart(&mut self) {
        self.subscription = None;
    }

    /// The subscription; subscribes first if there is none.
    pub(crate) async fn subscription(&mut self) -> &mut Box<dyn Subscription> {
        while self.subscription.is_none() {
            match self.transport.subscribe(&self.name, &[WANTED_SUBJECTS.to_owned()], self.cursors.clone()).await {
                Ok(subscription) => self.subscription = Some(subscription),
                Err(error) => {
                    self.errors.push(format!("{error}: {}", error.cause));
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
        self.subscription.as_mut().expect("a subscription")
    }

    /// Takes new events of the next batch. Takes none if the batch has only repetitions, or after an error.
    pub(crate) async fn step(&mut self, limit: usize) {
        let found = match self.subscription().await.next(limit).await {
            Ok(found) => found,
            Err(error) => {
                self.errors.push(format!("{error}: {}", error.cause));
                self.subscription = None;
                return;
            }
        };
        assert!(!found.is_empty() && found.len() <= limit, "{} deliveries of {limit}", found.len());
        for delivery in &found {
            let new = match &delivery.position {
                Position::Unordered { .. } => self.seen.insert(number(delivery)),
                Position::Ordered { source, position } => {
                    let cursor = self.cursors.entry(source.to_string()).or_default();
                    let new = *position > *cursor;
                    *cursor = (*cursor).max(*position);
                    new
                }
            };
            if new {
                self.taken.push(number(delivery));
            }
        }
        if self.subscription().await.acknowledge(&found).await.is_err() {
            self.subscription = None;
        }
    }

    /// Reads until `count` events have been taken in total.
    pub(crate) async fn collect(&mut self, count: usize) -> &[u32] {
        let end = Instant::now() + EVENT_TIMEOUT;
        while self.taken.len() < count {
            if timeout_at(end, self.step(10.max(count / 10))).await.is_err() {
                panic!("{}: {} of {count} events, errors {:?}", self.name, self.taken.len(), self.errors);
            }
        }
        &self.taken
    }

    /// Reads repetitions until the transport reports no lag.
    pub(crate) async fn catch_up(&mut self) {
        let end = Instant::now() + EVENT_TIMEOUT;
        let mut lag = self.subscription().await.lag().await;
        while !matches!(lag, Ok(0)) {
            assert!(Instant::now() < end, "{}: lag {lag:?}", self.name);
            let _ = timeout(Duration::from_millis(10), self.step(100)).await;
            lag = self.subscription().await.lag().await;
        }
    }
}
