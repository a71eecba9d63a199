//! Publishing from the outbox to the broker, by the replica that has the lease.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus::jetstream::{JetStream, JetStreamOptions};
use bus::{Publish, Subscribe};
use domain::frame::Opened;
use mesh::Nats;
use relay::{PublishOptions, publish};
use runtime::clock::Clock;
use runtime::lifecycle::{DrainTrigger, drain_pair};
use store::outbox;
use testkit::eventually;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{Broker, Side, replicas, side};

/// Short terms, because tests wait for their end.
pub(crate) const OPTIONS: PublishOptions = PublishOptions {
    window: 64,
    pace: Duration::from_millis(2),
    timeout: Duration::from_secs(2),
    term: Duration::from_millis(300),
    idle: Duration::from_millis(40),
    cloud_events: false,
};

pub(crate) fn start(side: &Side, transport: Arc<dyn Publish>) -> (DrainTrigger, JoinHandle<()>) {
    start_with(side, transport, OPTIONS)
}

pub(crate) fn start_with(
    side: &Side,
    transport: Arc<dyn Publish>,
    options: PublishOptions,
) -> (DrainTrigger, JoinHandle<()>) {
    let (trigger, drain) = drain_pair();
    let publishing = publish("test", side.database.clone(), transport, options, Clock::system(), drain);
    (trigger, tokio::spawn(publishing))
}

pub(crate) async fn all_marked(side: &Side) {
    eventually("everything to be marked", async || {
        let waiting = outbox::backlog(side.database.reader()).await.expect("a backlog").0;
        if waiting == 0 { Ok(()) } else { Err(format!("{waiting} wait")) }
    })
    .await;
}

#[tokio::test]
async fn what_is_committed_is_published_in_order() {
    let (producing, broker) = (side().await, Broker::new());
    producing.produce(1..=200).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    producing.produce(201..=400).await;
    broker.holds(1..=400).await;
    assert_eq!(broker.events(), (1..=400).collect::<Vec<u128>>());
    all_marked(&producing).await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_waited_for() {
    let (producing, broker) = (side().await, Broker::new());
    broker.away(true);
    let _running = start(&producing, Arc::new(broker.clone()));
    producing.produce(1..=100).await;
    broker.away(false);
    broker.holds(1..=100).await;
    broker.away(true);
    producing.produce(101..=200).await;
    broker.away(false);
    broker.holds(1..=200).await;
}

#[tokio::test]
async fn everything_is_published_again_to_a_broker_that_comes_back_empty() {
    let (producing, broker) = (side().await, Broker::new());
    producing.produce(1..=150).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    broker.holds(1..=150).await;
    all_marked(&producing).await;
    broker.wipe();
    producing.produce(151..=160).await;
    broker.holds(1..=160).await;
}

/// Other events take the sequences of the lost ones, so the number of events alone would not show the loss.
#[tokio::test]
async fn everything_is_published_again_to_a_broker_that_lost_its_tail() {
    let (producing, broker) = (side().await, Broker::new());
    producing.produce(1..=100).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    broker.holds(1..=100).await;
    all_marked(&producing).await;
    broker.lose_tail(30, 40);
    broker.holds(1..=100).await;
}

/// The next events take the lost sequences at once, and their acknowledgements are newer than any mark.
#[tokio::test]
async fn a_loss_in_the_middle_of_publishing_is_noticed() {
    let (producing, broker) = (side().await, Broker::new());
    producing.produce(1..=100).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    broker.holds(1..=100).await;
    all_marked(&producing).await;
    broker.lose_unnoticed(20);
    producing.produce(101..=160).await;
    broker.holds(1..=160).await;
    all_marked(&producing).await;
}

/// Several windows per read of the outbox: one is on its way while the one before is marked, and it takes the sequences
/// that the other has lost.
#[tokio::test]
async fn a_loss_between_two_windows_is_noticed() {
    let (producing, broker) = (side().await, Broker::new());
    producing.produce(1..=100).await;
    let _running = start(&producing, Arc::new(broker.clone()));
    broker.holds(1..=100).await;
    all_marked(&producing).await;
    broker.lose_later(20, 2);
    producing.produce(101..=340).await;
    broker.holds(1..=340).await;
    all_marked(&producing).await;
}

#[tokio::test]
async fn events_that_the_broker_let_go_by_age_are_not_published_again() {
    let (producing, broker) = (side().await, Broker::new());
    producing.produce(1..=50).await;
    let (trigger, task) = start(&producing, Arc::new(broker.clone()));
    broker.holds(1..=50).await;
    all_marked(&producing).await;
    trigger.request();
    task.await.expect("it ends");
    broker.age(51, Duration::from_secs(3_600));
    let acknowledged = broker.acknowledged();
    let _again = start(&producing, Arc::new(broker.clone()));
    producing.produce(51..=60).await;
    broker.holds(1..=60).await;
    all_marked(&producing).await;
    assert_eq!(broker.acknowledged(), acknowledged + 10);
}

#[tokio::test]
async fn two_replicas_publish_once_and_one_takes_over_from_the_other() {
    let Some([one, other]) = replicas().await else { return };
    let broker = Broker::new();
    let (trigger, first) = start(&one, Arc::new(broker.clone()));
    let _second = start(&other, Arc::new(broker.clone()));
    let producing = async {
        for round in 0..10_u128 {
            one.produce(round * 100 + 1..=round * 100 + 50).await;
            other.produce(round * 100 + 51..=round * 100 + 100).await;
            if round == 4 {
                // Killed without a drain, so its lease must expire.
                first.abort();
            }
        }
    };
    producing.await;
    broker.holds(1..=1_000).await;
    all_marked(&one).await;
    drop(trigger);
}

/// A leader stalls between the broker's acknowledgement and its mark. Meanwhile another process takes over, and the
/// broker loses everything. The late mark must not apply to the new stream. The mutant: marks that are not bound to the
/// epoch.
#[tokio::test]
async fn a_leader_that_slept_marks_nothing() {
    let Some([slow, quick]) = replicas().await else { return };
    let broker = Broker::new();
    let stuck = broker.that_waits();
    slow.produce(1..=50).await;
    let (_asleep, _task) = start(&slow, Arc::new(stuck.clone()));
    broker.holds(1..=50).await;
    broker.wipe();
    let _awake = start(&quick, Arc::new(broker.clone()));
    // The new leader has published everything again. The events are lost once more, right before the old leader wakes.
    broker.holds(1..=50).await;
    all_marked(&quick).await;
    broker.wipe();
    stuck.gate.add_permits(1);
    broker.holds(1..=50).await;
}

/// A real broker is killed and wiped while events are published; in the end none is missing.
#[tokio::test]
async fn nothing_is_lost_with_jetstream() {
    let Some(mut server) = mesh::for_tests::or_skip("nats-server", Nats::start().await) else { return };
    let producing = side().await;
    let transport = JetStream::connect(JetStreamOptions::new(server.url())).await.expect("usable options");
    let _running = start(&producing, Arc::new(transport.clone()));
    producing.produce(1..=300).await;
    server.kill().await.expect("killed");
    producing.produce(301..=600).await;
    server.restart().await.expect("started");
    all_marked(&producing).await;
    server.wipe().await.expect("wiped");
    producing.produce(601..=700).await;
    server.restart().await.expect("started");

    let numbers = timeout(Duration::from_secs(30), read(&transport, 700)).await.expect("all events in time");
    assert_eq!(numbers, (1..=700).collect());
}

/// Reads the stream from its first event until this many different events were read.
pub(crate) async fn read(transport: &JetStream, count: usize) -> BTreeSet<u128> {
    let filter = [domain::event::subject_filter("slot", "screening_refused")];
    let mut numbers = BTreeSet::new();
    while numbers.len() < count {
        let mut subscription = eventually("a subscription", async || {
            let made = transport.ordered().subscribe("reader", &filter, Default::default()).await;
            made.map_err(|error| error.to_string())
        })
        .await;
        while numbers.len() < count {
            let Ok(found) = subscription.next(256).await else { break };
            for delivery in found {
                for event in Opened::new(&delivery.message.payload).decode().expect("events") {
                    numbers.insert(Uuid::try_parse(&event.event_id).expect("an id").as_u128());
                }
            }
        }
    }
    numbers
}
