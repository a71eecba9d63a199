//! Old events are removed, and those that the state follows from are repeated.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bus::tail::Log as _;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, ScreeningConfirmed};
use domain::frame::Opened;
use domain::ids::ScreeningId;
use domain::retention::Aggregate;
use relay::{OutboxLog, Removed, Retention, Versions};
use runtime::clock::Clock;
use runtime::lifecycle::drain_pair;
use sea_orm::DbErr;
use store::{Connection, outbox};
use tokio::time::timeout;
use uuid::Uuid;

use crate::publishing::{all_marked, start};
use crate::support::{Broker, Side, event, event_of_now, numbers, replicas, side};

/// Every screening has this version.
#[derive(Debug)]
struct Newest(i64);

#[async_trait]
impl Versions for Newest {
    async fn of(
        &self,
        _connection: &dyn Connection,
        aggregates: HashSet<Aggregate>,
    ) -> Result<HashMap<Aggregate, i64>, DbErr> {
        Ok(aggregates.into_iter().map(|aggregate| (aggregate, self.0)).collect())
    }
}

/// An event about the screening `screening`, of 1970.
fn confirmed(number: u128, screening: u128, version: i64) -> EventEnvelope {
    EventEnvelope {
        aggregate: ScreeningId(Uuid::from_u128(screening)).to_string(),
        aggregate_version: version,
        payload: Some(Payload::ScreeningConfirmed(ScreeningConfirmed::default())),
        ..event(number)
    }
}

fn retention(side: &Side, published: bool) -> Retention {
    Retention {
        service: "test",
        database: side.database.clone(),
        versions: Arc::new(Newest(2)),
        period: Duration::from_secs(3_600),
        published,
        clock: Clock::system(),
    }
}

async fn rows(side: &Side) -> Vec<outbox::Model> {
    outbox::read_after(side.database.reader(), 0, 10_000).await.expect("rows")
}

#[tokio::test]
async fn an_event_that_nothing_has_replaced_is_repeated() {
    let side = side().await;
    // 4 is a report, 5 is of now
    let young = EventEnvelope { occur_time: event_of_now(5).occur_time, ..confirmed(5, 3, 1) };
    side.append(vec![confirmed(1, 1, 1), confirmed(2, 1, 2), confirmed(3, 2, 2), event(4), young]).await;
    let before = rows(&side).await;
    let removed = retention(&side, false).round().await.expect("removed");
    assert_eq!(removed, Removed { events: 4, repeated: 2 });

    let left = rows(&side).await;
    assert_eq!(numbers(&left), [5, 2, 3], "5 is too young, 2 and 3 come again behind it");
    assert_eq!(left.iter().map(|row| row.position).collect::<Vec<_>>(), [5, 6]);
    let opened = Opened::new(&left[1].payload);
    let old: Vec<&[u8]> = before[1..3].iter().flat_map(|row| Opened::new(&row.payload).events).collect();
    assert_eq!(opened.events, old, "byte by byte");
    assert_eq!(opened.repeat_time.map(store::micros), Some(left[1].occur_time));
    assert_eq!(opened.id(), Some(left[1].event_id));
    assert!(before.iter().all(|row| row.event_id != left[1].event_id));

    assert_eq!(retention(&side, false).round().await.expect("removed"), Removed::default(), "they are young now");
}

#[tokio::test]
async fn a_reader_of_the_log_goes_on_with_what_is_repeated() {
    let side = side().await;
    let log = OutboxLog::new("test", side.database.clone());
    side.append((1..=300).map(|number| confirmed(number, number, 2)).collect()).await;
    let read = log.read_after(0, 1_000).await.expect("read").last().expect("entries").position;
    assert_eq!(retention(&side, false).round().await.expect("removed"), Removed { events: 300, repeated: 300 });
    side.append(vec![confirmed(301, 301, 2)]).await;
    let mut numbers = Vec::new();
    for entry in log.read_after(read, 1_000).await.expect("read") {
        let events = Opened::new(&entry.message.payload).decode().expect("events");
        numbers.extend(events.iter().map(|event| Uuid::try_parse(&event.event_id).expect("an id").as_u128()));
    }
    assert_eq!(numbers, (1..=301).collect::<Vec<u128>>());
    let reader = store::inbox::ReadPosition { consumer: "late".into(), position: read, event_id: None };
    let contradiction = store::past::contradiction(side.database.reader(), &reader).await.expect("an answer");
    assert_eq!(contradiction, None, "a reader that stands at a removed frame is believed");
}

#[tokio::test]
async fn what_the_broker_does_not_have_stays_and_the_rest_is_published_again() {
    let (side, broker) = (side().await, Broker::new());
    side.append((1..=100).map(|number| confirmed(number, number, 2)).collect()).await;
    assert_eq!(retention(&side, true).round().await.expect("removed"), Removed::default());
    let running = start(&side, Arc::new(broker.clone()));
    all_marked(&side).await;
    assert_eq!(broker.acknowledged(), 100);
    assert_eq!(retention(&side, true).round().await.expect("removed"), Removed { events: 100, repeated: 100 });
    all_marked(&side).await;
    assert_eq!(broker.acknowledged(), 101, "one frame has them all, under an id of its own");
    drop(running);
}

#[tokio::test]
async fn an_event_is_removed_by_one_of_two_replicas() {
    let Some([one, other]) = replicas().await else { return };
    one.append((1..=500).map(|number| confirmed(number, number, 2)).collect()).await;
    let rounds = (retention(&one, false), retention(&other, false));
    let both = tokio::join!(rounds.0.round(), rounds.1.round());
    let removed = [both.0.expect("removed"), both.1.expect("removed")];
    // who was late may have given up before everything was removed
    let rest = retention(&one, false).round().await.expect("removed");
    let repeated: u64 = removed.iter().map(|removed| removed.repeated).sum::<u64>() + rest.repeated;
    assert_eq!(repeated, 500, "{removed:?} {rest:?}");
    let mut left = numbers(&rows(&one).await);
    left.sort_unstable();
    assert_eq!(left, (1..=500).collect::<Vec<u128>>());
}

/// A loop that ends takes its process with it.
#[tokio::test]
async fn without_a_limit_the_loop_goes_on_and_removes_nothing() {
    let side = side().await;
    side.append(vec![confirmed(1, 1, 1)]).await;
    let (trigger, drain) = drain_pair();
    let kept = Retention { period: Duration::ZERO, ..retention(&side, false) };
    let running = tokio::spawn(kept.run(drain));
    tokio::task::yield_now().await;
    assert!(!running.is_finished());
    trigger.request();
    timeout(Duration::from_secs(20), running).await.expect("it ends").expect("it does not panic");
    assert_eq!(numbers(&rows(&side).await), [1]);
}
