//! Reading the events of one producer from the stream.

use std::time::Duration;

use bus::{Message, Outbound, Publish};
use mesh::Nats;
use mesh::for_tests::or_skip;

use crate::broker::{publish, soon, subscribe};
use crate::transports::connect;

fn of(producer: &str, number: u32) -> Outbound {
    let fact = if number.is_multiple_of(2) { "screening_cancelled" } else { "screening_confirmed" };
    let subject = format!("checkup.v1.screening.{fact}.{producer}");
    Outbound {
        id: format!("{producer}-{number}"),
        message: Message { subject, payload: vec![u8::try_from(number).unwrap()] },
        headers: Vec::new(),
    }
}

#[tokio::test]
async fn a_producer_finds_what_it_told_behind_what_it_knows() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    assert_eq!(bus.newest_of("a").await.unwrap(), None, "there is no stream, and none is made");
    assert!(bus.events_of("a", "", 0).await.unwrap().is_none());
    bus.read_again("test").await.unwrap();

    let identity = bus.state().await.unwrap().identity;
    assert_eq!(bus.newest_of("a").await.unwrap(), None);
    let events: Vec<Outbound> = (0..3).flat_map(|number| [of("a", number), of("b", number)]).collect();
    assert_eq!(publish(&bus, &events).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(bus.newest_of("a").await.unwrap(), Some(of("a", 2).message));
    assert_eq!(bus.newest_of("c").await.unwrap(), None);

    let events_after = async |known: &str, sequence| {
        let mut events_after = bus.events_of("a", known, sequence).await.unwrap().expect("a stream");
        let (mut found, mut rounds) = (Vec::new(), 0);
        loop {
            let next =
                tokio::time::timeout(Duration::from_secs(10), events_after.next()).await.expect("in time").unwrap();
            if next.is_empty() {
                return found;
            }
            rounds += 1;
            assert!(rounds < 10);
            found.extend(next.into_iter().map(|(sequence, message)| (sequence, message.payload[0])));
        }
    };
    assert_eq!(events_after(&identity, 1).await, [(3, 1), (5, 2)]);
    assert_eq!(events_after(&identity, 5).await, []);
    assert_eq!(events_after("another stream", 5).await, [(1, 0), (3, 1), (5, 2)]);
}

#[tokio::test]
async fn a_durable_consumer_that_is_forgotten_begins_again() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    publish(&bus, &[of("a", 0), of("a", 2)]).await;
    let mut first = subscribe(&bus.durable()).await;
    let mut read = Vec::new();
    while read.len() < 2 {
        let next = tokio::time::timeout_at(soon(), first.next(10)).await.expect("in time").unwrap();
        first.acknowledge(&next).await.unwrap();
        read.extend(next);
    }
    drop(first);
    bus.read_again("test").await.unwrap();
    let mut again = subscribe(&bus.durable()).await;
    let next = tokio::time::timeout_at(soon(), again.next(10)).await.expect("in time").unwrap();
    assert_eq!(next[0].message.payload, [0], "from the first event");
}
