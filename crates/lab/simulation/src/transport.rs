//! The transport of events: a broker outside of every host that promises no more than a real one.
//!
//! It repeats, delays and reorders events. Acknowledgements get lost in both directions. It becomes unreachable, and
//! loses the end of its stream, some of its middle or all of it. It never invents an event.

mod past;
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Message, Outbound, StreamState};
use tokio::sync::watch;

use crate::chance::Chance;
use crate::clock;

pub(crate) use ports::{Durable, Ordered, Sender};

/// How long a delivery may stay unacknowledged before it is repeated.
const ACK_WAIT: Duration = Duration::from_millis(1_500);
/// How long a client waits for an unreachable broker before that is an error.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_millis(500);

/// How the broker misbehaves. A rate is "one in this many"; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeliveryFaults {
    /// Events that are delivered again although they were acknowledged.
    pub(crate) repeats: u64,
    /// Acknowledgements to publishers that get lost.
    pub(crate) silent: u64,
    /// Acknowledgements from consumers that get lost.
    pub(crate) deaf: u64,
    /// The longest delay of a delivery. Each has its own, so deliveries overtake each other.
    pub(crate) delay: Duration,
    /// Calls of publishers that take far longer than their deadline, as if the process were stopped.
    pub(crate) slow: u64,
    /// Whether ordered consumers are not told that the end of the stream was lost.
    pub(crate) blind: bool,
    /// Whether publishers are not told that events before the end of the stream were lost.
    pub(crate) discreet: bool,
    /// Whether deliveries count as acknowledged when they are handed over.
    pub(crate) hasty: bool,
}

/// A fault for the next publisher among `hosts`. The broker acknowledges a window and loses it at once, as a broker
/// that fails before it writes. The acknowledgements take `lasts`. Until some time later the broker refuses the older
/// half of those events.
#[derive(Debug, Clone, Copy)]
struct Stall {
    hosts: &'static [&'static str],
    lasts: Duration,
}

/// The broker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    connections: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct State {
    chance: Chance,
    delivery_faults: DeliveryFaults,
    stream: Option<Stream>,
    streams_made: u64,
    tails_lost: u64,
    /// How many times publishers reported that sequences were assigned again.
    renumbered: u64,
    down: bool,
    cut: BTreeSet<String>,
    stall: Option<Stall>,
    /// Events that are refused until this time.
    refused: (BTreeSet<String>, Duration),
}

#[derive(Debug, Default)]
struct Stream {
    identity: String,
    /// Every event, from sequence 1 on.
    events: Vec<Stored>,
    /// The sequences of events that were lost before the end.
    lost: BTreeSet<u64>,
    by_id: BTreeMap<String, u64>,
    consumers: BTreeMap<String, Reader>,
}

#[derive(Debug, Clone)]
struct Stored {
    id: String,
    message: Message,
}

/// A durable consumer as the broker keeps it.
#[derive(Debug, Default)]
struct Reader {
    filter: Vec<String>,
    /// The last sequence that was compared with the filter.
    seen: u64,
    /// The unacknowledged sequences, and when each is delivered next.
    due: BTreeMap<u64, Duration>,
    /// Acknowledged sequences that are delivered once more.
    again: BTreeSet<u64>,
}

impl Broker {
    pub(crate) fn new(chance: Chance) -> Self {
        let delivery_faults = DeliveryFaults::default();
        let state = State {
            chance,
            delivery_faults,
            stream: None,
            streams_made: 0,
            tails_lost: 0,
            renumbered: 0,
            down: false,
            cut: BTreeSet::new(),
            stall: None,
            refused: (BTreeSet::new(), Duration::ZERO),
        };
        let changed = Arc::new(watch::Sender::new(0));
        Self { state: Arc::new(Mutex::new(state)), changed, connections: Arc::new(watch::Sender::new(0)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Sets how the broker misbehaves from now on.
    pub(crate) fn behave(&self, delivery_faults: DeliveryFaults) {
        self.lock().delivery_faults = delivery_faults;
        self.wake();
    }

    /// Makes the broker unreachable or reachable for all hosts.
    pub(crate) fn set_down(&self, down: bool) {
        self.lock().down = down;
        self.connections.send_modify(|count| *count += 1);
        self.wake();
    }

    /// Makes the broker unreachable or reachable for one host.
    pub(crate) fn set_cut(&self, host: &str, cut: bool) {
        let mut state = self.lock();
        let _ = if cut { state.cut.insert(host.to_owned()) } else { state.cut.remove(host) };
        drop(state);
        self.connections.send_modify(|count| *count += 1);
        self.wake();
    }

    /// Loses the newest events, as a machine that lost power before it wrote them. The stream keeps its identity.
    pub(crate) fn forget_tail(&self, count: usize) -> usize {
        let lost = self.lock().forget_tail(count).len();
        self.connections.send_modify(|count| *count += 1);
        self.wake();
        lost
    }

    /// Loses each event with a probability of one in `one_in`. The stream keeps its identity. One in one is a purge.
    pub(crate) fn lose(&self, one_in: u64) -> usize {
        let lost = self.lock().lose(one_in);
        self.connections.send_modify(|count| *count += 1);
        self.wake();
        lost
    }

    /// Stalls the next window of new events that one of these hosts publishes.
    pub(crate) fn stall(&self, hosts: &'static [&'static str], lasts: Duration) {
        self.lock().stall = Some(Stall { hosts, lasts });
    }

    /// Ends stalls and refusals.
    pub(crate) fn settle(&self) {
        let mut state = self.lock();
        (state.stall, state.refused.1) = (None, Duration::ZERO);
    }

    /// Stores an event from a host without an acknowledgement, if the host reaches the broker.
    pub(crate) fn leak(&self, host: &str, id: &str, message: &Message) {
        let mut state = self.lock();
        if state.reachable_from(host) {
            state.store(id, message);
        }
        drop(state);
        self.wake();
    }

    /// Loses the whole stream.
    pub(crate) fn wipe(&self) {
        self.lock().stream = None;
        self.connections.send_modify(|count| *count += 1);
        self.wake();
    }

    /// Whether every consumer has received and acknowledged every event.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.stream.as_ref().is_none_or(|stream| {
            let last = stream.events.len() as u64;
            stream.consumers.values().all(|reader| reader.seen == last && reader.due.is_empty())
        })
    }

    /// The number of events in the stream, lost ones included.
    pub(crate) fn len(&self) -> usize {
        self.lock().stream.as_ref().map_or(0, |stream| stream.events.len())
    }
}

impl State {
    fn reachable_from(&self, host: &str) -> bool {
        !self.down && !self.cut.contains(host)
    }

    fn stream(&mut self) -> &mut Stream {
        let made = &mut self.streams_made;
        self.stream.get_or_insert_with(|| {
            *made += 1;
            Stream { identity: format!("{made}"), ..Stream::default() }
        })
    }

    fn description(&mut self) -> StreamState {
        let discreet = self.delivery_faults.discreet;
        let stream = self.stream();
        let (identity, last) = (stream.identity.clone(), stream.events.len() as u64);
        let first = (1..=last).find(|sequence| !stream.lost.contains(sequence)).unwrap_or(last + 1);
        let gaps = stream.lost.range(first..).count() as u64;
        let (first, gaps) = if discreet { (1, 0) } else { (first, gaps) };
        StreamState { identity, origin: 1, first, last, gaps, max_age: Duration::ZERO, bytes: 0, max_bytes: None }
    }

    /// The name of the stream for ordered consumers. It changes once a publisher reports that the stream lost its end:
    /// other events get those sequences then, and a cursor beyond the loss would skip them.
    fn source(&mut self) -> String {
        let renumbered = if self.delivery_faults.blind { 0 } else { self.renumbered };
        format!("checkup@{}+{renumbered}", self.stream().identity)
    }

    fn lose(&mut self, one_in: u64) -> usize {
        let mut chance = self.chance.fork();
        let Some(stream) = &mut self.stream else { return 0 };
        let held = (1..=stream.events.len() as u64).filter(|sequence| !stream.lost.contains(sequence));
        let lost: Vec<u64> = held.filter(|_| chance.one_in(one_in)).collect();
        for sequence in &lost {
            stream.by_id.remove(&stream.events[usize::try_from(*sequence).unwrap_or(1) - 1].id);
            for reader in stream.consumers.values_mut() {
                reader.due.remove(sequence);
                reader.again.remove(sequence);
            }
        }
        let count = lost.len();
        stream.lost.extend(lost);
        count
    }

    /// Removes the newest events and returns them.
    fn forget_tail(&mut self, count: usize) -> Vec<Stored> {
        self.tails_lost += 1;
        let Some(stream) = &mut self.stream else { return Vec::new() };
        let kept = stream.events.len().saturating_sub(count);
        let lost = stream.events.split_off(kept);
        stream.lost.retain(|sequence| *sequence <= kept as u64);
        for stored in &lost {
            stream.by_id.remove(&stored.id);
        }
        for reader in stream.consumers.values_mut() {
            reader.seen = reader.seen.min(kept as u64);
            reader.due.retain(|sequence, _| *sequence <= kept as u64);
            reader.again.retain(|sequence| *sequence <= kept as u64);
        }
        lost
    }

    /// Takes a window from a host. Returns the sequence of each event that was stored, and how long the call takes
    /// beyond its normal time.
    fn take(&mut self, host: &str, events: &[Outbound]) -> (Vec<Option<u64>>, Option<Duration>) {
        let before = self.stream().events.len();
        let refused = |state: &Self, id: &str| state.refused.1 > clock::elapsed() && state.refused.0.contains(id);
        let sequences: Vec<Option<u64>> = events
            .iter()
            .map(|event| (!refused(self, &event.id)).then(|| self.store(&event.id, &event.message)))
            .collect();
        let fresh = self.stream().events.len() - before;
        let Some(stall) = self.stall.take_if(|stall| fresh > 0 && stall.hosts.contains(&host)) else {
            // A process that is stopped during a call gets its answer late, whatever the deadline was.
            let slow = self.chance.one_in(self.delivery_faults.slow);
            return (sequences, slow.then(|| self.chance.between(UNREACHABLE_TIMEOUT, UNREACHABLE_TIMEOUT * 20)));
        };
        let older = self.forget_tail(fresh).into_iter().take(fresh.div_ceil(2)).map(|stored| stored.id);
        self.refused = (older.collect(), clock::elapsed() + stall.lasts + UNREACHABLE_TIMEOUT);
        (sequences, Some(stall.lasts))
    }

    fn store(&mut self, id: &str, message: &Message) -> u64 {
        let stream = self.stream();
        if let Some(sequence) = stream.by_id.get(id) {
            return *sequence;
        }
        stream.events.push(Stored { id: id.to_owned(), message: message.clone() });
        let sequence = stream.events.len() as u64;
        stream.by_id.insert(id.to_owned(), sequence);
        sequence
    }

    /// The messages for this consumer now, at most `limit`. Without any, the error is the time of the next one, if it
    /// is known.
    fn deliver(
        &mut self,
        name: &str,
        filter: &[String],
        limit: usize,
    ) -> Result<Vec<(u64, Message)>, Option<Duration>> {
        let (delivery_faults, now) = (self.delivery_faults, clock::elapsed());
        let mut chance = self.chance.fork();
        let stream = self.stream();
        let reader = stream.consumers.entry(name.to_owned()).or_default();
        reader.filter = filter.to_vec();
        for (index, stored) in stream.events.iter().enumerate().skip(usize::try_from(reader.seen).unwrap_or_default()) {
            let wanted = reader.filter.iter().any(|filter| matches(filter, &stored.message.subject));
            if wanted && !stream.lost.contains(&(index as u64 + 1)) {
                reader.due.insert(index as u64 + 1, now + chance.between(Duration::ZERO, delivery_faults.delay));
            }
        }
        reader.seen = stream.events.len() as u64;
        let mut ready: Vec<(Duration, u64)> =
            reader.due.iter().filter(|(_, due)| **due <= now).map(|(sequence, due)| (*due, *sequence)).collect();
        ready.sort();
        ready.truncate(limit);
        if ready.is_empty() {
            return Err(reader.due.values().min().copied());
        }
        for (_, sequence) in &ready {
            if delivery_faults.hasty {
                reader.due.remove(sequence);
            } else {
                reader.due.insert(*sequence, now + ACK_WAIT);
            }
        }
        let message = |sequence: u64| stream.events[usize::try_from(sequence).unwrap_or(1) - 1].message.clone();
        Ok(ready.into_iter().map(|(_, sequence)| (sequence, message(sequence))).collect())
    }

    fn acknowledge(&mut self, name: &str, sequences: &[u64]) {
        let (delivery_faults, now) = (self.delivery_faults, clock::elapsed());
        let mut chance = self.chance.fork();
        let Some(reader) = self.stream().consumers.get_mut(name) else { return };
        for sequence in sequences {
            if chance.one_in(delivery_faults.deaf) {
                continue;
            }
            let repeated = chance.one_in(delivery_faults.repeats) && reader.again.insert(*sequence);
            if repeated && reader.due.contains_key(sequence) {
                reader.due.insert(*sequence, now + chance.between(Duration::ZERO, delivery_faults.delay * 4));
            } else {
                reader.due.remove(sequence);
            }
        }
    }
}

/// Whether a subject matches a filter of tokens between dots. A star matches any one token.
fn matches(filter: &str, subject: &str) -> bool {
    let (wanted, given): (Vec<_>, Vec<_>) = (filter.split('.').collect(), subject.split('.').collect());
    wanted.len() == given.len() && wanted.iter().zip(&given).all(|(wanted, given)| *wanted == "*" || wanted == given)
}
