//! The guarantees of JetStream while the broker runs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bus::jetstream::{JetStream, JetStreamOptions};
use bus::{Outbound, Publish, Subscribe, Subscription};
use mesh::Nats;
use mesh::for_tests::or_skip;
use tokio::time::{Instant, timeout};

use crate::reader::{EVENT_TIMEOUT, Reader, WANTED_SUBJECTS, number};
use crate::transports::{ACK_WAIT, connect, counted, message};

pub(crate) const CANCELLED: &str = "checkup.v1.screening.screening_cancelled.s";

pub(crate) fn outbound(numbers: std::ops::Range<u32>) -> Vec<Outbound> {
    numbers
        .map(|number| Outbound { id: format!("id-{number}"), message: message(CANCELLED, number), headers: Vec::new() })
        .collect()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + EVENT_TIMEOUT
}

/// Publishes valid events and returns their sequences.
pub(crate) async fn publish(bus: &JetStream, events: &[Outbound]) -> Vec<u64> {
    bus.publish(events, soon()).await.into_iter().map(|result| result.expect("published")).collect()
}

pub(crate) async fn subscribe(transport: &dyn Subscribe) -> Box<dyn Subscription> {
    transport.subscribe("test", &[WANTED_SUBJECTS.to_owned()], HashMap::new()).await.expect("a subscription")
}

#[tokio::test]
async fn an_event_is_stored_once_whoever_publishes_it_again() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let (bus, other) = (connect(&server).await, connect(&server).await);
    let empty = bus.state().await.unwrap();
    assert_eq!((empty.first, empty.last), (1, 0));
    let events = outbound(0..10);
    assert_eq!(publish(&bus, &events).await, (1..=10).collect::<Vec<_>>());
    assert_eq!(publish(&other, &events).await, (1..=10).collect::<Vec<_>>());
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(publish(&bus, &events[5..]).await, (6..=10).collect::<Vec<_>>());
    let state = bus.state().await.unwrap();
    assert_eq!((state.identity, state.first, state.last), (empty.identity, 1, 10));
    assert_eq!(bus.id_at(7).await.unwrap().as_deref(), Some("id-6"));
    assert_eq!(bus.id_at(11).await.unwrap(), None);
}

#[tokio::test]
async fn a_broker_that_asks_who_we_are_is_told_what_the_address_says() {
    let Some(server) = or_skip("NATS", Nats::start_guarded("p@ss/word").await) else { return };
    let stranger = connect(&server).await;
    let address = server.url().replace("nats://", "nats://operator:p%40ss%2Fword@");
    // The second address has no credentials, like the addresses that servers announce to each other.
    let bus = JetStream::connect(counted(format!("{address},{}", server.url()))).await.unwrap();
    assert_eq!(publish(&bus, &outbound(0..3)).await, [1, 2, 3]);
    let refused = stranger.publish(&outbound(3..4), Instant::now() + Duration::from_secs(1)).await;
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    let unusable = JetStream::connect(JetStreamOptions::new("nats://checkup:secret@host:port")).await.unwrap_err();
    assert!(!chain(&unusable).contains("secret"), "{unusable:?}");
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[tokio::test]
async fn a_large_window_is_stored_in_its_order_and_read_in_it() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    let (events, began) = (outbound(0..20_000), Instant::now());
    assert_eq!(publish(&bus, &events).await, (1..=20_000).collect::<Vec<_>>());
    let published = began.elapsed();
    for (name, mut reader) in [
        ("ordered", Reader::new(std::sync::Arc::new(bus.ordered()), "test")),
        ("durable", Reader::new(std::sync::Arc::new(bus.durable()), "test")),
    ] {
        let began = Instant::now();
        assert_eq!(reader.collect(20_000).await, (0..20_000).collect::<Vec<_>>());
        let rate = 20_000.0 / began.elapsed().as_secs_f64();
        println!("{name}: {rate:.0} events a second; publishing: {:.0}", 20_000.0 / published.as_secs_f64());
        reader.catch_up().await;
    }
}

#[tokio::test]
async fn one_event_that_is_refused_does_not_hold_up_the_others() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    let mut events = outbound(0..5);
    events[1].message.payload = vec![0; 2 << 20];
    events[2].id = "a\r\nb".into();
    events[3].message.subject = "elsewhere".into();
    let results = bus.publish(&events, soon()).await;
    assert!(results[0].is_ok() && results[4].is_ok(), "{results:?}");
    assert!(results[1..4].iter().all(Result::is_err), "{results:?}");
    assert_eq!(bus.state().await.unwrap().last, 2);
}

#[tokio::test]
async fn a_full_stream_keeps_what_it_has() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let options = JetStreamOptions { max_bytes: 4_096, ..counted(server.url()) };
    let bus = JetStream::connect(options).await.unwrap();
    let results = bus.publish(&outbound(0..100), soon()).await;
    let stored = results.iter().take_while(|result| result.is_ok()).count();
    assert!(stored > 0 && results[stored..].iter().all(Result::is_err), "{results:?}");
    let refusal = results[99].as_ref().unwrap_err().cause.to_string();
    assert!(refusal.contains("maximum bytes exceeded"), "{refusal}");
    assert_eq!(bus.state().await.unwrap().first, 1);
    // The room comes from the options, which are applied when the stream is read.
    let bus = connect(&server).await;
    bus.state().await.unwrap();
    assert_eq!(publish(&bus, &outbound(99..100)).await, [stored as u64 + 1]);
}

#[tokio::test]
async fn replicas_share_the_events_of_one_consumer() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let options = JetStreamOptions::new(server.url());
    let (one, other) = (JetStream::connect(options.clone()).await.unwrap(), JetStream::connect(options).await.unwrap());
    let (mut first, mut second) = (subscribe(&one.durable()).await, subscribe(&other.durable()).await);
    let mut taken = Vec::new();
    for round in 0..100 {
        publish(&one, &outbound(round * 10..round * 10 + 10)).await;
        while taken.len() < round as usize * 10 + 10 {
            let (reader, found) = tokio::select! {
                found = first.next(10) => (&mut first, found),
                found = second.next(10) => (&mut second, found),
            };
            let found = found.unwrap();
            reader.acknowledge(&found).await.unwrap();
            taken.extend(found.iter().map(number));
        }
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_acknowledgement_of_a_wiped_stream_settles_nothing_in_the_new_one() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let options = JetStreamOptions { ack_wait: ACK_WAIT, ..JetStreamOptions::new(server.url()) };
    let bus = JetStream::connect(options).await.unwrap();
    publish(&bus, &outbound(0..1)).await;
    let mut old = subscribe(&bus.durable()).await;
    let held = timeout(EVENT_TIMEOUT, old.next(1)).await.unwrap().unwrap();
    server.wipe().await.unwrap();
    server.restart().await.unwrap();
    publish(&bus, &outbound(7..8)).await;
    let mut new = subscribe(&bus.durable()).await;
    let found = timeout(EVENT_TIMEOUT, new.next(1)).await.unwrap().unwrap();
    assert_eq!(number(&found[0]), 7);
    old.acknowledge(&held).await.unwrap();
    let again = timeout(EVENT_TIMEOUT, new.next(1)).await.expect("an event that is not settled comes again").unwrap();
    assert_eq!(number(&again[0]), 7);
}

#[tokio::test]
async fn options_that_cannot_work_are_refused_at_once() {
    let with_stream = |stream: &str| JetStreamOptions { stream: stream.into(), ..JetStreamOptions::new("127.0.0.1:1") };
    for options in [with_stream(""), with_stream("a.b"), with_stream("a b"), JetStreamOptions::new("http://a b/")] {
        assert!(JetStream::connect(options.clone()).await.is_err(), "{options:?}");
    }
}

#[tokio::test]
async fn closing_sends_what_is_on_its_way_and_does_not_wait_for_a_broker_that_is_away() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    publish(&bus, &outbound(0..5)).await;
    let mut reader = subscribe(&bus.durable()).await;
    let mut settled = HashSet::new();
    while settled.len() < 5 {
        let found = timeout(EVENT_TIMEOUT, reader.next(5)).await.unwrap().unwrap();
        reader.acknowledge(&found).await.unwrap();
        settled.extend(found.iter().map(number));
    }
    bus.close().await;
    let other = connect(&server).await;
    let mut reader = subscribe(&other.durable()).await;
    // An unsettled event would still count as lag, whether or not it is delivered again.
    let all_settled = async { while reader.lag().await.unwrap() > 0 {} };
    timeout(EVENT_TIMEOUT, all_settled).await.expect("all were settled");
    server.kill().await.unwrap();
    timeout(Duration::from_secs(10), other.close()).await.unwrap();
}
