//! Consumers of one process share the reads of a log, even if their positions are far apart.

use std::sync::Arc;

use bus::Subscribe;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::reader::{EVENT_TIMEOUT, Reader};
use crate::transports::{Tail, Transport};

const CANCELLED: &str = "checkup.v1.screening.screening_cancelled.s";
const OTHER: &str = "checkup.v1.claim.x.s";

/// Publishes more events, of which every second one is wanted; returns all wanted numbers so far.
async fn publish(transport: &Tail, numbers: std::ops::Range<u32>) -> Vec<u32> {
    let events: Vec<_> = numbers.clone().map(|n| (if n % 2 == 0 { CANCELLED } else { OTHER }, n)).collect();
    transport.publish("screening", &events).await;
    (0..numbers.end).step_by(2).collect()
}

fn readers(transport: &Arc<dyn Subscribe>, count: usize) -> Vec<Reader> {
    (0..count).map(|_| Reader::new(Arc::clone(transport), "test")).collect()
}

#[tokio::test]
async fn what_one_has_read_the_others_need_not_read_again() {
    let transport = Tail::default();
    let mut readers = readers(&transport.subscribe(), 5);
    for round in 0..20 {
        let wanted = publish(&transport, round * 10..round * 10 + 10).await;
        for reader in &mut readers {
            assert_eq!(reader.collect(wanted.len()).await, wanted);
        }
    }
    assert_eq!(transport.read(), 200);
}

/// The distance between the two readers is longer than the entries that are kept.
#[tokio::test]
async fn one_who_is_far_behind_misses_nothing_and_catches_up() {
    let transport = Tail::default();
    let mut readers = readers(&transport.subscribe(), 2);
    let mut wanted = publish(&transport, 0..10).await;
    assert_eq!(readers[1].collect(wanted.len()).await, wanted);
    for round in 1..=10 {
        wanted = publish(&transport, round * 1_000..round * 1_000 + 1_000).await;
        wanted.retain(|number| *number < 10 || *number >= 1_000);
        assert_eq!(readers[0].collect(wanted.len()).await, wanted);
    }
    assert_eq!(readers[1].collect(wanted.len()).await, wanted);
    let read = transport.read();
    publish(&transport, 20_000..20_010).await;
    wanted.extend((20_000..20_010).step_by(2));
    for reader in &mut readers {
        assert_eq!(reader.collect(wanted.len()).await, wanted);
    }
    assert_eq!(transport.read(), read + 10);
}

/// If a subscription that reads for all is dropped, the others still get what it would have found.
#[tokio::test(start_paused = true)]
async fn one_who_gives_up_takes_nothing_with_it() {
    let transport = Tail::default();
    let subscribed = transport.subscribe();
    let mut readers = readers(&subscribed, 2);
    for round in 0..50_u32 {
        let numbers = round * 10..round * 10 + 10;
        let events: Vec<_> = numbers.clone().map(|number| (CANCELLED, number)).collect();
        transport.publish("screening", &events).await;
        let subscription = readers[0].subscription().await;
        let mut next = subscription.next(3);
        for _ in 0..round % 4 {
            if futures::poll!(&mut next).is_ready() {
                break;
            }
            yield_now().await;
        }
        drop(next);
        let all = (round as usize + 1) * 10;
        let taken = timeout(EVENT_TIMEOUT, readers[1].collect(all)).await.expect("all of them in time");
        assert_eq!(taken.len(), all);
    }
}
