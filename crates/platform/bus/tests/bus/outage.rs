//! Outages of the broker: it starts late, is killed, paused or wiped, or stays away.

use std::sync::Arc;
use std::time::Duration;

use bus::jetstream::JetStream;
use bus::{Outbound, Publish, Subscribe};
use mesh::Nats;
use mesh::for_tests::or_skip;
use tokio::time::{Instant, timeout};

use crate::broker::{outbound, publish, soon, subscribe};
use crate::random::{Random, seed};
use crate::reader::{EVENT_TIMEOUT, Reader};
use crate::transports::connect;

#[tokio::test]
async fn a_client_may_come_before_its_broker() {
    let Some(mut server) = or_skip("NATS", Nats::absent()) else { return };
    let bus = connect(&server).await;
    let began = Instant::now();
    let results = bus.publish(&outbound(0..3), began + Duration::from_millis(300)).await;
    assert!(results.iter().all(Result::is_err));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let mut connections = bus.connections();
    assert_eq!(*connections.borrow_and_update(), 0);
    server.restart().await.unwrap();
    // Events whose publishing failed were not left in a queue: they are published now, as the first ones.
    assert_eq!(publish(&bus, &outbound(3..6)).await, [1, 2, 3]);
    timeout(EVENT_TIMEOUT, connections.changed()).await.unwrap().unwrap();
    assert_eq!(*connections.borrow(), 1);
    let mut reader = Reader::new(Arc::new(bus.durable()), "test");
    assert_eq!(reader.collect(3).await, [3, 4, 5]);
}

#[tokio::test]
async fn a_window_has_one_deadline_when_the_broker_hangs() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    publish(&bus, &outbound(0..1)).await;
    server.pause().await.unwrap();
    let (began, limit) = (Instant::now(), Duration::from_millis(700));
    let results = bus.publish(&outbound(0..9_000), began + limit).await;
    let took = began.elapsed();
    let stored: Vec<_> = results.iter().flatten().collect();
    assert!(stored.is_empty(), "{stored:?}");
    assert!(took >= limit && took < limit * 3, "{took:?}");
    server.resume();
    // A part of the window arrives now, and then all of it again.
    publish(&bus, &outbound(0..9_000)).await;
    assert_eq!(bus.state().await.unwrap().last, 9_000);
}

/// Publishes until all events are acknowledged, as a relay does.
async fn publish_all(bus: JetStream, events: Vec<Outbound>) {
    let end = soon();
    for window in events.chunks(50) {
        let mut left = window.to_vec();
        while !left.is_empty() {
            assert!(Instant::now() < end, "{} events left", left.len());
            let results = bus.publish(&left, Instant::now() + Duration::from_secs(2)).await;
            let mut results = results.iter();
            left.retain(|_| results.next().expect("a result each").is_err());
        }
    }
}

async fn read_all(transport: Arc<dyn Subscribe>, count: usize) -> Reader {
    let mut reader = Reader::new(transport, "test");
    reader.collect(count).await;
    reader
}

#[tokio::test]
async fn nothing_is_lost_when_the_broker_is_killed_under_readers_and_a_publisher() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let mut random = Random::new(seed("killed"));
    let (bus, count) = (connect(&server).await, 15_000);
    let publisher = tokio::spawn(publish_all(bus.clone(), outbound(0..count)));
    let ordered = tokio::spawn(read_all(Arc::new(bus.ordered()), count as usize));
    let durable = tokio::spawn(read_all(Arc::new(connect(&server).await.durable()), count as usize));
    let mut kills = 0;
    while !publisher.is_finished() {
        // The broker is killed after a random amount of progress, wherever the three tasks are by then.
        let reached = bus.state().await.map_or(0, |state| state.last) + 500 + random.below(1_500) as u64;
        let end = soon();
        while !publisher.is_finished() && bus.state().await.map_or(0, |state| state.last) < reached {
            assert!(Instant::now() < end, "the publisher stands still");
        }
        if !publisher.is_finished() {
            server.kill().await.unwrap();
            server.restart().await.unwrap();
            kills += 1;
        }
    }
    publisher.await.unwrap();
    let (mut ordered, mut durable) = (ordered.await.unwrap(), durable.await.unwrap());
    println!("{kills} kills; errors of the ordered reader: {:?}; of the durable: {:?}", ordered.errors, durable.errors);
    assert!(kills >= 3);
    durable.taken.sort_unstable();
    ordered.taken.sort_unstable();
    let all: Vec<u32> = (0..count).collect();
    assert!(durable.taken == all && ordered.taken == all);
    assert_eq!(bus.state().await.unwrap().last, u64::from(count), "nothing is stored twice");
}

#[tokio::test]
async fn a_wiped_broker_is_another_one() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    publish(&bus, &outbound(0..3)).await;
    let before = bus.state().await.unwrap();
    let mut durable = Reader::new(Arc::new(bus.durable()), "test");
    let mut ordered = Reader::new(Arc::new(bus.ordered()), "test");
    durable.collect(3).await;
    ordered.collect(3).await;
    let mut connections = bus.connections();
    connections.mark_unchanged();
    server.wipe().await.unwrap();
    server.restart().await.unwrap();
    timeout(EVENT_TIMEOUT, connections.changed()).await.unwrap().unwrap();
    // The broker does not know event 2 any more, and soon holds more events than the readers had read.
    assert_eq!(publish(&bus, &outbound(2..12)).await, (1..=10).collect::<Vec<_>>());
    let after = bus.state().await.unwrap();
    assert_ne!(after.identity, before.identity);
    assert_eq!(after.last, 10);
    // Without order, a repetition is recognised by the event's id; in order, every event of another source is new.
    assert_eq!(durable.collect(12).await[3..], (3..12).collect::<Vec<_>>());
    assert_eq!(ordered.collect(13).await[3..], (2..12).collect::<Vec<_>>());
    assert_eq!(ordered.cursors.len(), 2, "{:?}", ordered.cursors);
}

#[tokio::test]
async fn a_reader_is_told_when_the_broker_stays_away_and_reads_on_when_it_is_back() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    publish(&bus, &outbound(0..1)).await;
    let (mut durable, mut ordered) = (subscribe(&bus.durable()).await, subscribe(&bus.ordered()).await);
    for reader in [&mut durable, &mut ordered] {
        let found = reader.next(10).await.unwrap();
        reader.acknowledge(&found).await.unwrap();
    }
    let mut asked = subscribe(&bus.ordered()).await;
    server.kill().await.unwrap();
    let limit = Duration::from_secs(15);
    let (first, second, lag) =
        tokio::join!(timeout(limit, durable.next(10)), timeout(limit, ordered.next(10)), timeout(limit, asked.lag()));
    assert!(first.expect("an answer").is_err() && second.expect("an answer").is_err());
    assert!(lag.expect("an answer").is_err());
    server.restart().await.unwrap();
    publish(&bus, &outbound(1..2)).await;
    let mut reader = Reader::new(Arc::new(bus.durable()), "test");
    assert_eq!(reader.collect(1).await, [1]);
}

#[tokio::test]
async fn a_reader_goes_on_when_the_broker_is_back_soon() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    let mut reader = Reader::new(Arc::new(bus.durable()), "test");
    for round in 0..5 {
        publish(&bus, &outbound(round * 10..round * 10 + 10)).await;
        reader.collect(round as usize * 10 + 10).await;
        server.kill().await.unwrap();
        server.restart().await.unwrap();
    }
    assert_eq!(reader.taken, (0..50).collect::<Vec<_>>());
    assert!(reader.errors.is_empty(), "{:?}", reader.errors);
}
