//! The transport of events: a broker that lives outside of every host and keeps no more promises than a real one.
//!
//! It repeats, delays and reorders; acknowledgements get lost in both directions; it goes away for a while, forgets the end of
//! its stream, some of its middle or all of it. What it never does is to make an event up.

mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Message, Outbound, StreamState};
use tokio::sync::watch;

use crate::chance::Chance;
use crate::clock;

pub(crate) use ports::{Durable, Ordered, Sender};

/// How long a delivery may stay without an acknowledgement before it comes again.
const ACK_WAIT: Duration = Duration::from_millis(1_500);
/// How long a broker that is away is waited for before that is an error.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_millis(500);

/// How badly it behaves. A rate is "once in so many"; 0 is never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeliveryFaults {
    /// Events that are delivered again although they were acknowledged.
    pub(crate) repeats: u64,
    /// Acknowledgements to the publisher that get lost.
    pub(crate) silent: u64,
    /// Acknowledgements of consumers that get lost.
    pub(crate) deaf: u64,
    /// The longest delay of a delivery; each has its own, so they overtake each other.
    pub(crate) delay: Duration,
    /// Calls of publishers that take far longer than their deadline, as those of a process that is stopped meanwhile.
    pub(crate) slow: u64,
    /// Readers in order are not told that the end of the stream was lost.
    pub(crate) blind: bool,
    /// Publishers are not told that events before the end of the stream were lost.
    pub(crate) discreet: bool,
    /// Deliveries count as acknowledged when they are handed over.
    pub(crate) hasty: bool,
}

/// What is going to happen to somebody who publishes: the broker acknowledges a window and loses it at once, as one that fails
/// before it has written anything; the acknowledgements take this long; and until some time after that it does not take the older
/// half of those events again.
#[derive(Debug, Clone, Copy)]
struct Stall {
    hosts: &'static [&'static str],
    lasts: Duration,
}

/// The broker; a cheap handle.
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
    /// How often publishers said that sequences were given out again.
    renumbered: u64,
    down: bool,
    cut: BTreeSet<String>,
    stall: Option<Stall>,
    /// Events that are not taken before this time.
    refused: (BTreeSet<String>, Duration),
}

#[derive(Debug, Default)]
struct Stream {
    identity: String,
    /// From sequence 1 on.
    events: Vec<Stored>,
    /// The sequences of events that were lost in the middle.
    lost: BTreeSet<u64>,
    by_id: BTreeMap<String, u64>,
    consumers: BTreeMap<String, Reader>,
}

#[derive(Debug, Clone)]
struct Stored {
    id: String,
    message: Message,
}

/// A durable consumer, as the broker keeps it.
#[derive(Debug, Default)]
struct Reader {
    filter: Vec<String>,
    /// Everything up to here was looked at.
    seen: u64,
    /// What was not acknowledged, and when it is to be delivered.
    due: BTreeMap<u64, Duration>,
    /// What was acknowledged and is to be delivered once more.
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

    /// Behaves like this from now on.
    pub(crate) fn behave(&self, delivery_faults: DeliveryFaults) {
        self.lock().delivery_faults = delivery_faults;
        self.wake();
    }

    /// Goes away, or comes back.
    pub(crate) fn set_down(&self, down: bool) {
        self.lock().down = down;
        self.connections.send_modify(|count| *count += 1);
        self.wake();
    }

    /// Cuts a host off, or lets it in again.
    pub(crate) fn set_cut(&self, host: &str, cut: bool) {
        let mut state = self.lock();
        let _ = if cut { state.cut.insert(host.to_owned()) } else { state.cut.remove(host) };
        drop(state);
        self.connections.send_modify(|count| *count += 1);
        self.wake();
    }

    /// Forgets the newest events, as a machine that lost its power before it wrote them: the stream is the same.
    pub(crate) fn forget_tail(&self, count: usize) -> usize {
        let lost = self.lock().forget_tail(count).len();
        self.connections.send_modify(|count| *count += 1);
        self.wake();
        lost
    }

    /// Loses one in so many of the events it has, wherever they are; the stream is the same. One in one is a purge.
    pub(crate) fn lose(&self, one_in: u64) -> usize {
        let lost = self.lock().lose(one_in);
        self.connections.send_modify(|count| *count += 1);
        self.wake();
        lost
    }

    /// The next window of new events that one of these hosts sends stalls for so long.
    pub(crate) fn stall(&self, hosts: &'static [&'static str], lasts: Duration) {
        self.lock().stall = Some(Stall { hosts, lasts });
    }

    /// Nothing stalls or is refused from now on.
    pub(crate) fn settle(&self) {
        let mut state = self.lock();
        (state.stall, state.refused.1) = (None, Duration::ZERO);
    }

    /// Takes an event from a host without a word, if it gets here.
    pub(crate) fn leak(&self, host: &str, id: &str, message: &Message) {
        let mut state = self.lock();
        if state.reachable_from(host) {
            state.store(id, message);
        }
        drop(state);
        self.wake();
    }

    /// Loses everything it ever had.
    pub(crate) fn wipe(&self) {
        self.lock().stream = None;
        self.connections.send_modify(|count| *count += 1);
        self.wake();
    }

    /// Whether everything was delivered and acknowledged by every consumer there is.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.stream.as_ref().is_none_or(|stream| {
            let last = stream.events.len() as u64;
            stream.consumers.values().all(|reader| reader.seen == last && reader.due.is_empty())
        })
    }

    /// Events it has.
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
        StreamState { identity, first, last, gaps, max_age: Duration::ZERO }
    }

    /// What readers in order call this stream. It has another name once a publisher noticed that it lost its end: other events
    /// get those sequences then, and a cursor beyond the loss would pass them over.
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

    /// The events that were lost.
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

    /// What becomes of a window that a host sends: the sequences of those that were stored, and how long all of it takes.
    fn take(&mut self, host: &str, events: &[Outbound]) -> (Vec<Option<u64>>, Option<Duration>) {
        let before = self.stream().events.len();
        let refused = |state: &Self, id: &str| state.refused.1 > clock::elapsed() && state.refused.0.contains(id);
        let sequences: Vec<Option<u64>> = events
            .iter()
            .map(|event| (!refused(self, &event.id)).then(|| self.store(&event.id, &event.message)))
            .collect();
        let fresh = self.stream().events.len() - before;
        let Some(stall) = self.stall.take_if(|stall| fresh > 0 && stall.hosts.contains(&host)) else {
            // a process that is stopped in the middle of a call finds its answer late, whatever the deadline was
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

    /// What this consumer may have now, at most so many; none where it has to wait, and until when.
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

/// Whether a subject matches a filter: tokens between dots, a star for any one of them.
fn matches(filter: &str, subject: &str) -> bool {
    let (wanted, given): (Vec<_>, Vec<_>) = (filter.split('.').collect(), subject.split('.').collect());
    wanted.len() == given.len() && wanted.iter().zip(&given).all(|(wanted, given)| *wanted == "*" || wanted == given)
}
