//! Events that a broker acknowledged and lost while its stream kept its identity: exactly those are published again.

use std::sync::Arc;
use std::time::Duration;

use bus::Publish;
use bus::jetstream::{JetStream, JetStreamOptions};
use mesh::Nats;
use relay::PublishOptions;
use tokio::time::timeout;

use crate::publishing::{OPTIONS, all_marked, read, start, start_with};
use crate::support::{Broker, Side, event_of_now, replicas, side};

/// A side and a broker with this many events, published and marked.
async fn published(count: u128) -> (Side, Broker) {
    let (producing, broker) = (side().await, Broker::new());
    producing.produce(1..=count).await;
    (producing, broker)
}

async fn settled(side: &Side, broker: &Broker, count: u128) {
    broker.holds(1..=count).await;
    all_marked(side).await;
}

#[tokio::test]
async fn what_was_purged_is_published_again() {
    let (producing, broker) = published(150).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    settled(&producing, &broker, 150).await;
    broker.lose(1..=150);
    settled(&producing, &broker, 150).await;
    // Once more, with events that were produced meanwhile.
    producing.produce(151..=160).await;
    settled(&producing, &broker, 160).await;
    broker.lose(1..=305);
    settled(&producing, &broker, 160).await;
    assert_eq!(broker.renumbered(), 0);
}

#[tokio::test]
async fn what_was_lost_in_the_middle_is_published_again_and_nothing_else() {
    let (producing, broker) = published(150).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    settled(&producing, &broker, 150).await;
    broker.lose(40..=59);
    settled(&producing, &broker, 150).await;
    broker.lose(150..=150);
    settled(&producing, &broker, 150).await;
    // Two losses at once: the beginning, and events that were published again.
    broker.lose(1..=10);
    broker.lose(161..=165);
    settled(&producing, &broker, 150).await;
    assert_eq!(broker.acknowledged(), 150 + 20 + 1 + 15);
}

/// The next process to publish knows nothing of what the previous one saw.
#[tokio::test]
async fn what_was_lost_while_nobody_published_is_published_again() {
    let Some([one, other]) = replicas().await else { return };
    let broker = Broker::new();
    one.produce(1..=100).await;
    let (trigger, task) = start(&one, Arc::new(broker.clone()));
    settled(&one, &broker, 100).await;
    trigger.request();
    task.await.expect("it ends");
    broker.lose(1..=30);
    broker.lose(70..=75);
    let _running = start(&other, Arc::new(broker.clone()));
    settled(&other, &broker, 100).await;
    assert_eq!(broker.acknowledged(), 136);
}

/// More events than one step of the search reads.
#[tokio::test]
async fn a_long_outbox_is_searched_to_its_end() {
    let (producing, broker) = published(22_000).await;
    let options = PublishOptions { window: 2_048, ..OPTIONS };
    let _running = start_with(&producing, Arc::new(broker.clone()), options);
    settled(&producing, &broker, 22_000).await;
    broker.lose(9_990..=10_010);
    broker.lose(21_990..=22_000);
    settled(&producing, &broker, 22_000).await;
    assert_eq!(broker.acknowledged(), 22_000 + 21 + 11);
}

/// If the stream drops events by age, the loss of younger ones is still noticed.
#[tokio::test]
async fn events_that_are_too_young_to_have_left_by_age_are_published_again() {
    let (producing, broker) = published(50).await;
    producing.append((51..=80).map(event_of_now).collect()).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    settled(&producing, &broker, 80).await;
    broker.age(51, Duration::from_secs(3_600));
    broker.lose(51..=60);
    broker.lose(75..=75);
    settled(&producing, &broker, 80).await;
    assert_eq!(broker.acknowledged(), 80 + 11);
}

#[tokio::test]
async fn readers_are_told_of_a_lost_end_and_of_nothing_else() {
    let (producing, broker) = published(100).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    settled(&producing, &broker, 100).await;
    broker.lose(20..=30);
    settled(&producing, &broker, 100).await;
    assert_eq!(broker.renumbered(), 0);
    broker.lose_tail(30, 40);
    settled(&producing, &broker, 100).await;
    assert_eq!(broker.renumbered(), 1);
    broker.wipe();
    settled(&producing, &broker, 100).await;
    assert_eq!(broker.renumbered(), 1, "another stream has another identity");
}

/// A real broker, an operator's deletion, and ids that the broker remembers longer than their events.
#[tokio::test]
async fn what_jetstream_lost_is_published_again() {
    let Some(server) = mesh::for_tests::or_skip("nats-server", Nats::start().await) else { return };
    let producing = side().await;
    let transport =
        JetStream::connect(JetStreamOptions { first_sequence: Some(1), ..JetStreamOptions::new(server.url()) })
            .await
            .expect("usable options");
    let (_trigger, _task) = start(&producing, Arc::new(transport.clone()));
    producing.produce(1..=300).await;
    all_marked(&producing).await;
    let before = transport.state().await.expect("a state");
    server.thin_out("checkup").await.expect("thinned out");
    assert_eq!(transport.state().await.expect("a state").first, 300, "of one subject one event is left");
    let numbers = timeout(Duration::from_secs(30), read(&transport, 300)).await.expect("all events in time");
    assert_eq!(numbers, (1..=300).collect());
    let after = transport.state().await.expect("a state");
    assert_eq!((after.identity, after.last), (before.identity, 599));
}
