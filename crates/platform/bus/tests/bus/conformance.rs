//! The guarantees of the port, tested over every transport.

use std::collections::HashMap;
use std::time::Duration;

use bus::Position;
use tokio::time::{Instant, timeout};

use crate::reader::{EVENT_TIMEOUT, Reader, WANTED_SUBJECTS, number};
use crate::transports::{Tail, Transport, transports};

const CANCELLED: &str = "checkup.v1.screening.screening_cancelled.s";
const OTHER: &str = "checkup.v1.claim.x.s";

fn reader(transport: &dyn Transport) -> Reader {
    Reader::new(transport.subscribe(), "test")
}

/// The events that were taken, in an order that can be compared.
fn comparable(transport: &dyn Transport, taken: &[u32]) -> Vec<u32> {
    let mut taken = taken.to_vec();
    if !transport.is_ordered() {
        taken.sort_unstable();
    }
    taken
}

#[tokio::test]
async fn a_new_consumer_reads_what_matches_from_the_first_event() {
    for transport in transports("first event").await {
        let events: Vec<_> = (0..2_000).map(|n| (if n % 2 == 0 { CANCELLED } else { OTHER }, n)).collect();
        transport.publish("screening", &events).await;
        let mut reader = reader(transport.as_ref());
        let taken = reader.collect(1_000).await.to_vec();
        let expected: Vec<u32> = (0..2_000).step_by(2).collect();
        assert_eq!(comparable(transport.as_ref(), &taken), expected, "{}", transport.name());
        reader.catch_up().await;
        assert_eq!(reader.taken.len(), 1_000, "{}", transport.name());
    }
}

#[tokio::test]
async fn a_consumer_that_waits_is_woken() {
    for transport in transports("woken").await {
        let mut reader = reader(transport.as_ref());
        reader.subscription().await;
        for number in 0..20 {
            let producer = if number % 2 == 0 { "hospital" } else { "screening" };
            let events = [(CANCELLED, number)];
            tokio::join!(reader.collect(number as usize + 1), transport.publish(producer, &events));
            assert_eq!(reader.taken.last(), Some(&number), "{}", transport.name());
        }
    }
}

#[tokio::test]
async fn a_consumer_that_starts_again_goes_on_where_it_stood() {
    for transport in transports("goes on").await {
        transport.publish("screening", &[(CANCELLED, 1), (CANCELLED, 2), (CANCELLED, 3)]).await;
        transport.publish("hospital", &[(CANCELLED, 9)]).await;
        let mut reader = reader(transport.as_ref());
        while reader.taken.len() < 2 {
            timeout(EVENT_TIMEOUT, reader.step(1)).await.expect("events in time");
        }
        let before = reader.taken.clone();
        reader.restart();
        let mut taken = reader.collect(4).await.to_vec();
        assert_eq!(taken[..2], before);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3, 9], "{}", transport.name());
    }
}

#[tokio::test]
async fn what_was_not_settled_comes_to_the_next_subscription() {
    for transport in transports("not settled").await {
        transport.publish("screening", &[(CANCELLED, 1)]).await;
        for _ in 0..2 {
            let subscribe = transport.subscribe();
            let mut subscription =
                subscribe.subscribe("test", &[WANTED_SUBJECTS.to_owned()], HashMap::new()).await.unwrap();
            let found = loop {
                match timeout(EVENT_TIMEOUT, subscription.next(10)).await.expect("an event in time") {
                    Ok(found) => break found,
                    Err(error) => println!("{}: {error}", transport.name()),
                }
            };
            assert_eq!(number(&found[0]), 1, "{}", transport.name());
        }
    }
}

#[tokio::test]
async fn what_is_put_off_is_overtaken_and_comes_again_and_in_strict_order_nothing_is() {
    for transport in transports("put off").await {
        transport.publish("screening", &[(CANCELLED, 1), (CANCELLED, 2), (CANCELLED, 3)]).await;
        let mut reader = reader(transport.as_ref());
        let first = loop {
            // A transport with faults may also return an error.
            if let Ok(found) =
                timeout(EVENT_TIMEOUT, reader.subscription().await.next(1)).await.expect("an event in time")
            {
                break found;
            }
        };
        let (began, pause) = (Instant::now(), Duration::from_millis(250));
        let postponed = reader.subscription().await.postpone(&first, pause).await;
        if transport.is_ordered() {
            assert!(
                matches!(first[0].position, Position::Ordered { .. }) && postponed.is_err(),
                "{}",
                transport.name()
            );
            continue;
        }
        postponed.expect("postponed");
        let taken = reader.collect(3).await.to_vec();
        assert_eq!(comparable(transport.as_ref(), &taken), [1, 2, 3], "{}", transport.name());
        if transport.name() == "durable" {
            assert_eq!(taken, [2, 3, 1]);
            assert!(began.elapsed() >= pause, "{:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn a_busy_producer_does_not_starve_another() {
    let transport = Tail::default();
    transport.publish("hospital", &[(CANCELLED, 1); 2_000]).await;
    transport.publish("screening", &[(CANCELLED, 2)]).await;
    assert!(reader(&transport).collect(100).await.contains(&2));
}
