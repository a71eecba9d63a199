//! The broker as the services see it: the ports of `bus`, from one host.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bus::{Delivery, Error, Outbound, Position, Publish, StreamState, Subscribe, Subscription};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{Broker, UNREACHABLE_TIMEOUT, matches};
use crate::clock;

/// The longest round trip to the broker.
const MAX_ROUND_TRIP: Duration = Duration::from_millis(10);

fn unreachable() -> Error {
    Error::new("broker", "out of reach")
}

/// The broker from one host, for publishers.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(super) broker: Broker,
    host: Arc<str>,
}

impl Sender {
    pub(crate) fn new(broker: &Broker, host: &str) -> Self {
        Self { broker: broker.clone(), host: host.into() }
    }

    /// Waits for a round trip. An error if the broker is unreachable.
    pub(super) async fn travel(&self) -> Result<(), Error> {
        let (way, reachable) = {
            let mut state = self.broker.lock();
            (state.chance.between(Duration::from_millis(1), MAX_ROUND_TRIP), state.reachable_from(&self.host))
        };
        sleep(if reachable { way } else { UNREACHABLE_TIMEOUT }).await;
        if self.broker.lock().reachable_from(&self.host) { Ok(()) } else { Err(unreachable()) }
    }
}

#[async_trait]
impl Publish for Sender {
    async fn publish(&self, events: &[Outbound], deadline: Instant) -> Vec<Result<u64, Error>> {
        if self.travel().await.is_err() {
            sleep_until(deadline).await;
            return events.iter().map(|_| Err(unreachable())).collect();
        }
        let (acknowledged, slow, lost) = {
            let mut state = self.broker.lock();
            let lost = state.tails_lost;
            let (sequences, slow) = state.take(&self.host, events);
            let silent = state.delivery_faults.silent;
            let acknowledgement =
                |sequence: Option<u64>| sequence.filter(|_| !state.chance.one_in(silent)).ok_or_else(unreachable);
            let acknowledged: Vec<_> = sequences.into_iter().map(acknowledgement).collect();
            (acknowledged, slow, state.tails_lost > lost)
        };
        if lost {
            self.broker.connections.send_modify(|count| *count += 1);
        }
        self.broker.wake();
        if let Some(slow) = slow {
            sleep(slow).await;
        }
        acknowledged
    }

    async fn state(&self) -> Result<StreamState, Error> {
        self.travel().await?;
        Ok(self.broker.lock().description())
    }

    async fn id_at(&self, sequence: u64) -> Result<Option<String>, Error> {
        self.travel().await?;
        let mut state = self.broker.lock();
        let index = usize::try_from(sequence).unwrap_or_default().checked_sub(1);
        let index = index.filter(|_| !state.stream().lost.contains(&sequence));
        Ok(index.and_then(|index| state.stream().events.get(index)).map(|stored| stored.id.clone()))
    }

    async fn gaps(&self) -> Result<Vec<RangeInclusive<u64>>, Error> {
        self.travel().await?;
        let mut state = self.broker.lock();
        let first = state.description().first;
        Ok(state.stream().lost.range(first..).map(|sequence| *sequence..=*sequence).collect())
    }

    async fn renumbered(&self) -> Result<(), Error> {
        self.travel().await?;
        self.broker.lock().renumbered += 1;
        self.broker.wake();
        Ok(())
    }

    fn connections(&self) -> watch::Receiver<u64> {
        self.broker.connections.subscribe()
    }
}

/// Shared durable consumers, from one host.
#[derive(Debug, Clone)]
pub(crate) struct Durable(pub(crate) Sender);

/// An ordered consumer, from one host.
#[derive(Debug, Clone)]
pub(crate) struct Ordered(pub(crate) Sender);

#[async_trait]
impl Subscribe for Durable {
    async fn subscribe(
        &self,
        name: &str,
        filter: &[String],
        _: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        self.0.travel().await?;
        let changes = self.0.broker.changed.subscribe();
        Ok(Box::new(DurableReader { at: self.0.clone(), name: name.to_owned(), filter: filter.to_vec(), changes }))
    }
}

struct DurableReader {
    at: Sender,
    name: String,
    filter: Vec<String>,
    changes: watch::Receiver<u64>,
}

fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
    let sequence = |delivery: &Delivery| match delivery.position {
        Position::Unordered { sequence } => Some(sequence),
        Position::Ordered { .. } => None,
    };
    deliveries.iter().filter_map(sequence).collect()
}

#[async_trait]
impl Subscription for DurableReader {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        loop {
            self.changes.mark_unchanged();
            let delivered = {
                let mut state = self.at.broker.lock();
                if !state.reachable_from(&self.at.host) {
                    return Err(unreachable());
                }
                state.deliver(&self.name, &self.filter, limit.max(1))
            };
            match delivered {
                Ok(events) => {
                    let position = |sequence| Position::Unordered { sequence };
                    let events = events.into_iter();
                    return Ok(events
                        .map(|(at, message)| Delivery { message: Arc::new(message), position: position(at) })
                        .collect());
                }
                Err(due) => wait(&mut self.changes, due).await,
            }
        }
    }

    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), Error> {
        let mut state = self.at.broker.lock();
        if !state.reachable_from(&self.at.host) {
            return Err(unreachable());
        }
        state.acknowledge(&self.name, &sequences(deliveries));
        Ok(())
    }

    async fn postpone(&mut self, deliveries: &[Delivery], pause: Duration) -> Result<(), Error> {
        let mut state = self.at.broker.lock();
        if let Some(reader) = state.stream().consumers.get_mut(&self.name) {
            for sequence in sequences(deliveries) {
                reader.due.insert(sequence, clock::elapsed() + pause);
            }
        }
        Ok(())
    }

    async fn lag(&mut self) -> Result<u64, Error> {
        let mut state = self.at.broker.lock();
        let stream = state.stream();
        let last = stream.events.len() as u64;
        Ok(stream.consumers.get(&self.name).map_or(last, |reader| reader.due.len() as u64 + last - reader.seen))
    }
}

/// Waits for a change, or until `due`.
async fn wait(changes: &mut watch::Receiver<u64>, due: Option<Duration>) {
    let change = changes.changed();
    match due {
        // One millisecond more, because the simulated clock moves in steps.
        Some(due) => {
            let until = Instant::now() + due.saturating_sub(clock::elapsed()) + Duration::from_millis(1);
            drop(timeout_at(until, change).await);
        }
        None => drop(change.await),
    }
}

#[async_trait]
impl Subscribe for Ordered {
    async fn subscribe(
        &self,
        _: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        // From here on a lost connection is noticed.
        let (connections, changes) = (self.0.broker.connections.subscribe(), self.0.broker.changed.subscribe());
        self.0.travel().await?;
        let (stream, (source, position)) = {
            let mut state = self.0.broker.lock();
            let stream = state.source();
            let at = cursor(&stream, state.description().last, &from);
            (stream, at)
        };
        let filter = filter.to_vec();
        Ok(Box::new(OrderedReader { at: self.0.clone(), stream, source, position, filter, changes, connections }))
    }
}

/// Where a reader continues. As on the real transport, a reader that is beyond the end of the stream starts again under
/// another name.
fn cursor(base: &str, last: u64, from: &HashMap<String, i64>) -> (String, u64) {
    let position = |source: &str| u64::try_from(from.get(source).copied().unwrap_or_default()).unwrap_or_default();
    let names = (0..).map(|generation| if generation == 0 { base.to_owned() } else { format!("{base}.{generation}") });
    let found = names.map(|name| (position(&name), name)).find(|(position, _)| *position <= last);
    found.map_or_else(|| (base.to_owned(), 0), |(position, name)| (name, position))
}

struct OrderedReader {
    at: Sender,
    /// The name of the stream at the subscription.
    stream: String,
    source: String,
    position: u64,
    filter: Vec<String>,
    changes: watch::Receiver<u64>,
    connections: watch::Receiver<u64>,
}

impl OrderedReader {
    fn read(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        let mut state = self.at.broker.lock();
        if !state.reachable_from(&self.at.host) || self.connections.has_changed().unwrap_or(true) {
            return Err(unreachable());
        }
        if state.source() != self.stream {
            return Err(Error::new("broker", "the stream gave out sequences again"));
        }
        let stream = state.stream();
        let from = usize::try_from(self.position).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        for (index, stored) in stream.events.iter().enumerate().skip(from) {
            if found.len() == limit {
                break;
            }
            self.position = index as u64 + 1;
            if stream.lost.contains(&self.position) {
                continue;
            }
            if self.filter.iter().any(|filter| matches(filter, &stored.message.subject)) {
                let position = i64::try_from(self.position).unwrap_or(i64::MAX);
                let position = Position::Ordered { source: self.source.as_str().into(), position };
                found.push(Delivery { message: Arc::new(stored.message.clone()), position });
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Subscription for OrderedReader {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        loop {
            self.changes.mark_unchanged();
            let found = self.read(limit.max(1))?;
            if !found.is_empty() {
                return Ok(found);
            }
            wait(&mut self.changes, None).await;
        }
    }

    async fn acknowledge(&mut self, _: &[Delivery]) -> Result<(), Error> {
        Ok(())
    }

    async fn postpone(&mut self, _: &[Delivery], _: Duration) -> Result<(), Error> {
        Err(Error::new("broker", "a transport in strict order puts nothing off"))
    }

    async fn lag(&mut self) -> Result<u64, Error> {
        let state = self.at.broker.lock();
        let last = state.stream.as_ref().map_or(0, |stream| stream.events.len() as u64);
        Ok(last.saturating_sub(self.position))
    }
}
