//! A transport with every fault that the port allows: it fails now and then, repeats, reorders, delays, and loses
//! acknowledgements on the way to the broker.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bus::{Delivery, Error, Position, Subscribe, Subscription};
use tokio::time::timeout;

use crate::random::Random;

/// How long to wait for more events while there are some already.
const GLANCE: Duration = Duration::from_millis(5);

pub(crate) struct Faulty {
    inner: Arc<dyn Subscribe>,
    random: Mutex<Random>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn Subscribe>, seed: u64) -> Self {
        Self { inner, random: Mutex::new(Random::new(seed)) }
    }
}

#[async_trait]
impl Subscribe for Faulty {
    async fn subscribe(
        &self,
        name: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let random = Random::new(self.random.lock().expect("random").number());
        let inner = self.inner.subscribe(name, filter, from).await?;
        Ok(Box::new(Faults { inner, random, queue: VecDeque::new(), past: Vec::new() }))
    }
}

struct Faults {
    inner: Box<dyn Subscription>,
    random: Random,
    /// The deliveries to return next, repetitions included.
    queue: VecDeque<Delivery>,
    past: Vec<Delivery>,
}

impl Faults {
    fn arrive(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            let ordered = matches!(delivery.position, Position::Ordered { .. });
            self.past.push(delivery.clone());
            self.queue.push_back(delivery);
            if !self.random.chance(20) {
                continue;
            }
            if ordered {
                // Repeats in order: it goes back a little and delivers the same events again.
                let back = self.past.len() - 1 - self.random.below(self.past.len().min(4));
                self.queue.extend(self.past[back..].iter().cloned());
            } else {
                self.queue.push_back(self.past[self.random.below(self.past.len())].clone());
            }
        }
        let unordered = self.queue.iter().all(|delivery| matches!(delivery.position, Position::Unordered { .. }));
        if unordered {
            for index in (1..self.queue.len()).rev() {
                self.queue.swap(index, self.random.below(index + 1));
            }
        }
    }
}

#[async_trait]
impl Subscription for Faults {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        if self.random.chance(10) {
            return Err(Error::new("a faulty transport", "a fault"));
        }
        if self.queue.is_empty() {
            let found = self.inner.next(limit).await?;
            self.arrive(found);
        } else if let Ok(found) = timeout(GLANCE, self.inner.next(limit)).await {
            self.arrive(found?);
        }
        let count = limit.min(1 + self.random.below(self.queue.len()));
        Ok(self.queue.drain(..count).collect())
    }

    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), Error> {
        if self.random.chance(20) {
            return Ok(());
        }
        self.inner.acknowledge(deliveries).await
    }

    async fn postpone(&mut self, deliveries: &[Delivery], pause: Duration) -> Result<(), Error> {
        self.inner.postpone(deliveries, pause).await
    }

    async fn lag(&mut self) -> Result<u64, Error> {
        Ok(self.inner.lag().await? + self.queue.len() as u64)
    }
}
