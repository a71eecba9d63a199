//! What a consumer may rely on, whichever road its events take.

use std::collections::HashMap;
use std::time::Duration;

use bus::Place;
use tokio::time::{Instant, timeout};

use crate::reader::{PATIENCE, Reader, WANTED, number};
use crate::roads::{Road, Tail, roads};

const CANCELLED: &str = "checkup.v1.screening.screening_cancelled.s";
const OTHER: &str = "checkup.v1.claim.x.s";

fn reader(road: &dyn Road) -> Reader {
    Reader::new(road.subscribe(), "test")
}

/// What was taken, in an order that can be compared.
fn comparable(road: &dyn Road, taken: &[u32]) -> Vec<u32> {
    let mut taken = taken.to_vec();
    if !road.is_ordered() {
        taken.sort_unstable();
    }
    taken
}

#[tokio::test]
async fn a_new_consumer_reads_what_matches_from_the_first_event() {
    for road in roads("first event").await {
        let events: Vec<_> = (0..2_000).map(|n| (if n % 2 == 0 { CANCELLED } else { OTHER }, n)).collect();
        road.publish("screening", &events).await;
        let mut reader = reader(road.as_ref());
        let taken = reader.collect(1_000).await.to_vec();
        let expected: Vec<u32> = (0..2_000).step_by(2).collect();
        assert_eq!(comparable(road.as_ref(), &taken), expected, "{}", road.name());
        reader.catch_up().await;
        assert_eq!(reader.taken.len(), 1_000, "{}", road.name());
    }
}

#[tokio::test]
async fn a_consumer_that_waits_is_woken() {
    for road in roads("woken").await {
        let mut reader = reader(road.as_ref());
        reader.subscription().await;
        for number in 0..20 {
            let producer = if number % 2 == 0 { "hospital" } else { "screening" };
            let events = [(CANCELLED, number)];
            tokio::join!(reader.collect(number as usize + 1), road.publish(producer, &events));
            assert_eq!(reader.taken.last(), Some(&number), "{}", road.name());
        }
    }
}

#[tokio::test]
async fn a_consumer_that_starts_again_goes_on_where_it_stood() {
    for road in roads("goes on").await {
        road.publish("screening", &[(CANCELLED, 1), (CANCELLED, 2), (CANCELLED, 3)]).await;
        road.publish("hospital", &[(CANCELLED, 9)]).await;
        let mut reader = reader(road.as_ref());
        while reader.taken.len() < 2 {
            timeout(PATIENCE, reader.step(1)).await.expect("events in time");
        }
        let before = reader.taken.clone();
        reader.restart();
        let mut taken = reader.collect(4).await.to_vec();
        assert_eq!(taken[..2], before);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3, 9], "{}", road.name());
    }
}

#[tokio::test]
async fn what_was_not_settled_comes_to_the_next_subscription() {
    for road in roads("not settled").await {
        road.publish("screening", &[(CANCELLED, 1)]).await;
        for _ in 0..2 {
            let subscribe = road.subscribe();
            let mut subscription = subscribe.subscribe("test", &[WANTED.to_owned()], HashMap::new()).await.unwrap();
            let found = loop {
                match timeout(PATIENCE, subscription.next(10)).await.expect("an event in time") {
                    Ok(found) => break found,
                    Err(error) => println!("{}: {error}", road.name()),
                }
            };
            assert_eq!(number(&found[0]), 1, "{}", road.name());
        }
    }
}

#[tokio::test]
async fn what_is_put_off_is_overtaken_and_comes_again_and_in_strict_order_nothing_is() {
    for road in roads("put off").await {
        road.publish("screening", &[(CANCELLED, 1), (CANCELLED, 2), (CANCELLED, 3)]).await;
        let mut reader = reader(road.as_ref());
        let first = loop {
            // A faulty road fails, too.
            if let Ok(found) = timeout(PATIENCE, reader.subscription().await.next(1)).await.expect("an event in time") {
                break found;
            }
        };
        let (began, pause) = (Instant::now(), Duration::from_millis(250));
        let postponed = reader.subscription().await.postpone(&first, pause).await;
        if road.is_ordered() {
            assert!(matches!(first[0].place, Place::Ordered { .. }) && postponed.is_err(), "{}", road.name());
            continue;
        }
        postponed.expect("postponed");
        let taken = reader.collect(3).await.to_vec();
        assert_eq!(comparable(road.as_ref(), &taken), [1, 2, 3], "{}", road.name());
        if road.name() == "durable" {
            assert_eq!(taken, [2, 3, 1]);
            assert!(began.elapsed() >= pause, "{:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn a_busy_producer_does_not_starve_another() {
    let road = Tail::default();
    road.publish("hospital", &[(CANCELLED, 1); 2_000]).await;
    road.publish("screening", &[(CANCELLED, 2)]).await;
    assert!(reader(&road).collect(100).await.contains(&2));
}
