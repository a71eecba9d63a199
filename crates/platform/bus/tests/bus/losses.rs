//! A stream that keeps its identity but loses events: it is purged, thinned out by a limit, loses a file, or is put
//! back to an earlier state.

use std::path::Path;
use std::sync::Arc;

use bus::{Outbound, Publish};
use mesh::Nats;
use mesh::for_tests::or_skip;
use tokio::time::timeout;

use crate::broker::{outbound, publish};
use crate::reader::{EVENT_TIMEOUT, Reader};
use crate::transports::{connect, message};

/// The stream's configuration before its events were protected.
const UNPROTECTED: &str = r#"{"name":"checkup","subjects":["checkup.v1.>"],"storage":"file","retention":"limits",
    "discard":"new","max_bytes":4294967296,"duplicate_window":600000000000,"num_replicas":1}"#;

async fn operate(server: &Nats, subject: &str, request: &str) -> String {
    server.operate(&format!("$JS.API.STREAM.{subject}.checkup"), &request.replace('\n', " ")).await.expect("an answer")
}

/// The broker remembers ids longer than the events: purged events were once taken for duplicates and lost.
#[tokio::test]
async fn what_was_purged_is_stored_again_although_its_ids_are_remembered() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    assert!(!operate(&server, "CREATE", UNPROTECTED).await.contains("error"));
    assert_eq!(publish(&bus, &outbound(0..5)).await, [1, 2, 3, 4, 5]);
    let purged = operate(&server, "PURGE", "").await;
    assert!(purged.contains("\"success\":true"), "{purged}");
    let stored = publish(&bus, &outbound(0..5)).await;
    assert_eq!(stored, [6, 7, 8, 9, 10]);
    assert_eq!(publish(&bus, &outbound(0..5)).await, stored, "a repetition of what it has");
    assert_eq!(bus.id_at(6).await.unwrap().as_deref(), Some("id-0"));
    // All events but the last are lost again; the broker now knows each under two ids.
    server.thin_out("checkup").await.unwrap();
    let stored = publish(&bus, &outbound(0..5)).await;
    assert_eq!(stored, [11, 12, 13, 14, 10]);
    assert_eq!(publish(&bus, &outbound(0..5)).await, stored, "a repetition of what it has");
    assert_eq!(bus.id_at(14).await.unwrap().as_deref(), Some("id-3"));
}

#[tokio::test]
async fn events_of_a_stream_that_was_there_before_are_protected() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    operate(&server, "CREATE", UNPROTECTED).await;
    publish(&bus, &outbound(0..5)).await;
    let before = bus.state().await.unwrap();
    for (subject, request) in [("PURGE", ""), ("PURGE", r#"{"keep":1}"#), ("MSG.DELETE", r#"{"seq":2}"#)] {
        let refused = operate(&server, subject, request).await;
        assert!(refused.contains("not permitted"), "{refused}");
    }
    assert_eq!(bus.state().await.unwrap(), before);
    assert_eq!((before.last, before.gaps), (5, 0));
}

#[tokio::test]
async fn an_operator_may_delete_a_stream_and_its_owner_makes_another() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    publish(&bus, &outbound(0..5)).await;
    let before = bus.state().await.unwrap();
    assert!(operate(&server, "DELETE", "").await.contains("\"success\":true"));
    assert_ne!(bus.state().await.unwrap().identity, before.identity);
}

fn about(subject: &str, numbers: std::ops::Range<u32>) -> Vec<Outbound> {
    let subject = format!("checkup.v1.screening.screening_cancelled.{subject}");
    numbers
        .map(|number| Outbound { id: format!("id-{number}"), message: message(&subject, number), headers: Vec::new() })
        .collect()
}

#[tokio::test]
async fn gaps_are_told_and_what_was_in_them_is_stored_again() {
    let Some(server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    let events = [about("a", 0..1), about("b", 1..6), about("c", 6..8)].concat();
    publish(&bus, &events).await;
    server.thin_out("checkup").await.unwrap();
    // Reading the stream's state removes the limit again.
    let state = bus.state().await.unwrap();
    assert_eq!((state.first, state.last, state.gaps), (1, 8, 5));
    assert_eq!(bus.gaps().await.unwrap(), [2..=5, 7..=7]);
    assert_eq!(publish(&bus, &events).await, [1, 9, 10, 11, 12, 6, 13, 8]);
    for (name, reader) in [
        ("ordered", Reader::new(Arc::new(bus.ordered()), "test")),
        ("durable", Reader::new(Arc::new(bus.durable()), "test")),
    ] {
        let mut reader = reader;
        let mut taken = reader.collect(8).await.to_vec();
        taken.sort_unstable();
        assert_eq!(taken, (0..8).collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test]
async fn what_was_in_a_lost_file_of_the_stream_is_stored_again() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let bus = connect(&server).await;
    let mut events = outbound(0..40);
    // The broker begins another file after eight megabytes.
    events.iter_mut().for_each(|event| event.message.payload = vec![0; 900_000]);
    publish(&bus, &events).await;
    let before = bus.state().await.unwrap();
    server.kill().await.unwrap();
    std::fs::remove_file(server.store_dir().join("jetstream/$G/streams/checkup/msgs/3.blk")).unwrap();
    server.restart().await.unwrap();
    let after = bus.state().await.unwrap();
    assert_eq!((after.identity, after.first, after.last), (before.identity, 1, 40));
    let lost: u64 = bus.gaps().await.unwrap().into_iter().map(|gap| gap.end() - gap.start() + 1).sum();
    assert!(lost > 3 && lost == after.gaps, "{lost} of {}", after.gaps);
    publish(&bus, &events).await;
    assert_eq!(bus.state().await.unwrap().last, 40 + lost);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Stops the broker, restores its earlier store and starts it again.
async fn put_back(server: &mut Nats, older: &Path) {
    server.stop().await.unwrap();
    std::fs::remove_dir_all(server.store_dir()).unwrap();
    copy(older, &server.store_dir());
    server.restart().await.unwrap();
}

/// The stream keeps its identity, but has other events at sequences that a reader has already passed.
#[tokio::test]
async fn readers_hear_of_sequences_that_were_given_out_again() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    let older = tempfile::tempdir().unwrap();
    let bus = connect(&server).await;
    publish(&bus, &outbound(0..5)).await;
    server.stop().await.unwrap();
    copy(&server.store_dir(), older.path());
    server.restart().await.unwrap();
    publish(&bus, &outbound(5..10)).await;
    let mut ordered = Reader::new(Arc::new(bus.ordered()), "test");
    let mut durable = Reader::new(Arc::new(bus.durable()), "test");
    ordered.collect(10).await;
    durable.collect(10).await;
    ordered.restart();
    durable.restart();
    put_back(&mut server, older.path()).await;
    assert_eq!(publish(&bus, &outbound(20..30)).await, (6..=15).collect::<Vec<_>>());
    // The reader continues after its cursor, because nobody has called `renumbered` yet: the events below stay unread.
    let taken = ordered.collect(15).await;
    assert_eq!(taken[10..], [25, 26, 27, 28, 29]);
    bus.renumbered().await.unwrap();
    timeout(EVENT_TIMEOUT, async {
        while !(20..25).all(|number| ordered.taken.contains(&number)) {
            ordered.step(10).await;
        }
    })
    .await
    .expect("all of them");
    assert_eq!(durable.collect(20).await[10..], (20..30).collect::<Vec<_>>());
}
