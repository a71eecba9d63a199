//! The conformance suite of the bus: what a consumer may rely on, whichever road its events take.
//!
//! A road joins by implementing [`Road`] and one more line in [`roads`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bus::tail::{Entry, Log, Tailer};
use bus::{Delivery, Error, Message, Place, Subscribe, Subscription};
use tokio::sync::watch;
use tokio::time::timeout;

/// A way to publish, and the port under test.
trait Road: Send + Sync {
    fn publish(&self, producer: &str, messages: &[(&str, u8)]);
    fn subscribe(&self) -> Arc<dyn Subscribe>;
}

/// A log in memory; positions have gaps, as those of a database may.
struct MemoryLog {
    name: String,
    entries: Mutex<Vec<Entry>>,
    changes: watch::Sender<u64>,
}

#[async_trait]
impl Log for MemoryLog {
    fn name(&self) -> &str {
        &self.name
    }

    async fn read_after(&self, position: i64, limit: usize) -> Result<Vec<Entry>, Error> {
        let entries = self.entries.lock().expect("entries");
        Ok(entries.iter().filter(|entry| entry.position > position).take(limit).cloned().collect())
    }

    async fn head(&self) -> Result<i64, Error> {
        Ok(self.entries.lock().expect("entries").last().map_or(0, |entry| entry.position))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

struct Tail(Vec<Arc<MemoryLog>>);

impl Road for Tail {
    fn publish(&self, producer: &str, messages: &[(&str, u8)]) {
        let log = self.0.iter().find(|log| log.name == producer).expect("a producer");
        {
            let mut entries = log.entries.lock().expect("entries");
            for (subject, payload) in messages {
                let position = entries.last().map_or(0, |entry| entry.position) + 3;
                let message = Message { subject: (*subject).to_owned(), payload: vec![*payload] };
                entries.push(Entry { position, message });
            }
        }
        log.changes.send_modify(|count| *count += 1);
    }

    fn subscribe(&self) -> Arc<dyn Subscribe> {
        Arc::new(Tailer::new(self.0.iter().map(|log| Arc::clone(log) as Arc<dyn Log>).collect()))
    }
}

fn roads() -> Vec<Box<dyn Road>> {
    let log = |name: &str| {
        Arc::new(MemoryLog { name: name.into(), entries: Mutex::default(), changes: watch::Sender::new(0) })
    };
    vec![Box::new(Tail(vec![log("hospital"), log("screening")]))]
}

const WANTED: &str = "checkup.v1.screening.screening_cancelled.*";

async fn subscribe(road: &dyn Road, from: HashMap<String, i64>) -> Box<dyn Subscription> {
    road.subscribe().subscribe("test", &[WANTED.to_owned()], from).await.expect("a subscription")
}

async fn next(subscription: &mut Box<dyn Subscription>, limit: usize) -> Vec<Delivery> {
    let deliveries = timeout(Duration::from_secs(10), subscription.next(limit)).await.expect("events in time");
    let deliveries = deliveries.expect("the road works");
    subscription.acknowledge(&deliveries).await.expect("acknowledged");
    deliveries
}

/// Reads until `count` events have come.
async fn collect(subscription: &mut Box<dyn Subscription>, count: usize) -> Vec<u8> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        payloads.extend(next(subscription, 10).await.iter().map(|delivery| delivery.message.payload[0]));
    }
    payloads
}

#[tokio::test]
async fn a_new_consumer_starts_from_the_first_event_and_gets_what_it_asked_for() {
    for road in roads() {
        let events: Vec<_> = (0..=255)
            .map(|n| {
                (if n % 2 == 0 { "checkup.v1.screening.screening_cancelled.s" } else { "checkup.v1.claim.x.s" }, n)
            })
            .collect();
        for _ in 0..8 {
            road.publish("screening", &events);
        }
        let mut subscription = subscribe(road.as_ref(), HashMap::new()).await;
        let expected: Vec<u8> = (0..8).flat_map(|_| (0..=254).step_by(2)).collect();
        assert_eq!(collect(&mut subscription, 1_024).await, expected);
        assert_eq!(subscription.lag().await.expect("a lag"), 0);
    }
}

#[tokio::test]
async fn a_consumer_that_waits_is_woken() {
    for road in roads() {
        let mut subscription = subscribe(road.as_ref(), HashMap::new()).await;
        for number in 0..20 {
            let producer = if number % 2 == 0 { "hospital" } else { "screening" };
            let (found, ()) = tokio::join!(next(&mut subscription, 10), async {
                road.publish(producer, &[("checkup.v1.screening.screening_cancelled.s", number)]);
            });
            assert_eq!(found[0].message.payload, [number]);
        }
    }
}

#[tokio::test]
async fn a_consumer_goes_on_where_its_cursor_stands() {
    for road in roads() {
        let cancelled = "checkup.v1.screening.screening_cancelled.s";
        road.publish("screening", &[(cancelled, 1), (cancelled, 2), (cancelled, 3)]);
        road.publish("hospital", &[(cancelled, 9)]);
        let mut cursors = HashMap::new();
        let mut first = subscribe(road.as_ref(), HashMap::new()).await;
        for _ in 0..2 {
            let found = next(&mut first, 1).await;
            if let Place::Ordered { source, position } = &found[0].place {
                cursors.insert(source.clone(), *position);
            }
        }
        drop(first);
        let mut second = subscribe(road.as_ref(), cursors).await;
        let mut rest = collect(&mut second, 2).await;
        rest.sort_unstable();
        assert!(rest == [2, 3] || rest == [3, 9], "{rest:?}");
    }
}

#[tokio::test]
async fn what_is_postponed_comes_again_before_what_follows_it() {
    for road in roads() {
        let cancelled = "checkup.v1.screening.screening_cancelled.s";
        road.publish("screening", &[(cancelled, 1), (cancelled, 2)]);
        let mut subscription = subscribe(road.as_ref(), HashMap::new()).await;
        let found = subscription.next(1).await.expect("an event");
        assert_eq!(found[0].message.payload, [1]);
        subscription.postpone(&found, Duration::from_millis(5)).await.expect("postponed");
        assert_eq!(collect(&mut subscription, 2).await, [1, 2]);
    }
}

#[tokio::test]
async fn a_busy_producer_does_not_starve_another() {
    for road in roads() {
        let cancelled = "checkup.v1.screening.screening_cancelled.s";
        road.publish("hospital", &[(cancelled, 1); 2_000]);
        road.publish("screening", &[(cancelled, 2)]);
        let mut subscription = subscribe(road.as_ref(), HashMap::new()).await;
        let early = collect(&mut subscription, 100).await;
        assert!(early.contains(&2));
    }
}
