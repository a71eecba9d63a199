//! The transports under test. A new one implements [`Transport`] and adds one line to [`transports`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bus::jetstream::{JetStream, JetStreamOptions};
use bus::tail::{Entry, Log, Tailer};
use bus::{Error, Message, Outbound, Publish, Subscribe};
use mesh::Nats;
use mesh::for_tests::or_skip;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::faulty::Faulty;
use crate::random::seed;
use crate::reader::EVENT_TIMEOUT;

/// A transport under test, with a way to publish.
#[async_trait]
pub(crate) trait Transport: Send + Sync {
    fn name(&self) -> &str;
    /// Whether it delivers events in strict order.
    fn is_ordered(&self) -> bool;
    async fn publish(&self, producer: &str, events: &[(&str, u32)]);
    fn subscribe(&self) -> Arc<dyn Subscribe>;
}

pub(crate) fn message(subject: &str, number: u32) -> Message {
    Message { subject: subject.to_owned(), payload: number.to_be_bytes().to_vec() }
}

/// A log in memory. Its positions have gaps, as those of a database may.
struct MemoryLog {
    name: String,
    entries: Mutex<Vec<Entry>>,
    /// How many entries were read from it, repeated reads included.
    read: AtomicUsize,
    changes: watch::Sender<u64>,
}

#[async_trait]
impl Log for MemoryLog {
    fn name(&self) -> &str {
        &self.name
    }

    async fn read_after(&self, position: i64, limit: usize) -> Result<Vec<Entry>, Error> {
        // Yields, as a database takes time.
        yield_now().await;
        let entries = self.entries.lock().expect("entries");
        let found: Vec<Entry> = entries.iter().filter(|entry| entry.position > position).take(limit).cloned().collect();
        self.read.fetch_add(found.len(), Ordering::Relaxed);
        Ok(found)
    }

    async fn head(&self) -> Result<i64, Error> {
        Ok(self.entries.lock().expect("entries").last().map_or(0, |entry| entry.position))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

pub(crate) struct Tail(Vec<Arc<MemoryLog>>);

impl Default for Tail {
    fn default() -> Self {
        let log = |name: &str| {
            let (entries, read, changes) = Default::default();
            Arc::new(MemoryLog { name: name.into(), entries, read, changes })
        };
        Self(vec![log("hospital"), log("screening")])
    }
}

impl Tail {
    /// How many entries were read from the logs.
    pub(crate) fn read(&self) -> usize {
        self.0.iter().map(|log| log.read.load(Ordering::Relaxed)).sum()
    }
}

#[async_trait]
impl Transport for Tail {
    fn name(&self) -> &str {
        "tail"
    }

    fn is_ordered(&self) -> bool {
        true
    }

    async fn publish(&self, producer: &str, events: &[(&str, u32)]) {
        let log = self.0.iter().find(|log| log.name == producer).expect("a producer");
        {
            let mut entries = log.entries.lock().expect("entries");
            for (subject, number) in events {
                let position = entries.last().map_or(0, |entry| entry.position) + 3;
                entries.push(Entry { position, message: Arc::new(message(subject, *number)) });
            }
        }
        log.changes.send_modify(|count| *count += 1);
    }

    fn subscribe(&self) -> Arc<dyn Subscribe> {
        Arc::new(Tailer::new(self.0.iter().map(|log| Arc::clone(log) as Arc<dyn Log>).collect()))
    }
}

/// JetStream over a broker of its own.
struct Broker {
    name: &'static str,
    ordered: bool,
    bus: JetStream,
    _server: Nats,
}

/// How long a consumer that is gone keeps events from others; short, so that tests need not wait.
pub(crate) const ACK_WAIT: Duration = Duration::from_millis(400);

/// Options of a stream whose first event has the sequence 1.
pub(crate) fn counted(url: String) -> JetStreamOptions {
    JetStreamOptions { first_sequence: Some(1), ..JetStreamOptions::new(url) }
}

pub(crate) async fn connect(server: &Nats) -> JetStream {
    let options = JetStreamOptions { ack_wait: ACK_WAIT, ..counted(server.url()) };
    JetStream::connect(options).await.expect("usable options")
}

impl Broker {
    async fn start(name: &'static str, ordered: bool) -> Option<Box<dyn Transport>> {
        let server = or_skip("NATS", Nats::start().await)?;
        Some(Box::new(Self { name, ordered, bus: connect(&server).await, _server: server }))
    }
}

#[async_trait]
impl Transport for Broker {
    fn name(&self) -> &str {
        self.name
    }

    fn is_ordered(&self) -> bool {
        self.ordered
    }

    async fn publish(&self, producer: &str, events: &[(&str, u32)]) {
        let outbound = events.iter().map(|(subject, number)| Outbound {
            id: format!("{producer}-{number}"),
            message: message(subject, *number),
            headers: Vec::new(),
        });
        let outbound: Vec<_> = outbound.collect();
        for result in self.bus.publish(&outbound, Instant::now() + EVENT_TIMEOUT).await {
            result.expect("published");
        }
    }

    fn subscribe(&self) -> Arc<dyn Subscribe> {
        if self.ordered { Arc::new(self.bus.ordered()) } else { Arc::new(self.bus.durable()) }
    }
}

/// Another transport, with injected faults.
struct Bad {
    name: String,
    transport: Box<dyn Transport>,
    seed: u64,
}

#[async_trait]
impl Transport for Bad {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_ordered(&self) -> bool {
        self.transport.is_ordered()
    }

    async fn publish(&self, producer: &str, events: &[(&str, u32)]) {
        self.transport.publish(producer, events).await;
    }

    fn subscribe(&self) -> Arc<dyn Subscribe> {
        Arc::new(Faulty::new(self.transport.subscribe(), self.seed))
    }
}

fn bad(transport: Box<dyn Transport>, seed: u64) -> Box<dyn Transport> {
    Box::new(Bad { name: format!("{} with faults", transport.name()), transport, seed })
}

/// Every transport, empty, each also with faults. Those over a broker are included if one is installed.
pub(crate) async fn transports(test: &str) -> Vec<Box<dyn Transport>> {
    let seed = seed(test);
    let mut transports: Vec<Box<dyn Transport>> = vec![Box::<Tail>::default(), bad(Box::<Tail>::default(), seed)];
    for (name, ordered) in [("durable", false), ("ordered", true)] {
        transports.extend(Broker::start(name, ordered).await);
        transports.extend(Broker::start(name, ordered).await.map(|transport| bad(transport, seed)));
    }
    transports
}
