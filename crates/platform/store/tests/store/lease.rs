//! The relay's lease and the marks that depend on it.

use std::time::Duration;

use contract::event::v1::EventEnvelope;
use domain::frame::frame_id;
use jiff::{SignedDuration, Timestamp};
use store::lease::{self, Lease, Published};
use store::{Database, outbox};
use uuid::Uuid;

use crate::pages::{append_each, envelope, number, writing};
use crate::{backends, prune};

const TERM: Duration = Duration::from_secs(60);
const ONE: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

async fn acquire(database: &Database, holder: Uuid, term: Duration) -> Option<Lease> {
    lease::acquire(database, holder, term, Timestamp::now()).await.expect("the lease is asked for")
}

async fn unpublished(database: &Database) -> Vec<u128> {
    let rows = outbox::unpublished(database.reader(), 100).await.expect("rows");
    rows.iter().map(|row| number(row.event_id)).collect()
}

/// Marks the oldest unpublished events with sequences from `first`.
async fn mark(database: &Database, epoch: i64, first: u64, count: u64) -> bool {
    let rows = outbox::unpublished(database.reader(), count).await.expect("rows");
    let events = rows.iter().zip(first..).map(|(row, sequence)| Published {
        position: row.position,
        event_id: row.event_id,
        sequence,
    });
    lease::mark(database, epoch, "s1", &events.collect::<Vec<_>>()).await.expect("marked")
}

#[tokio::test]
async fn one_holds_the_lease_until_its_term_is_over() {
    for backend in backends().await {
        let database = &backend.database;
        let first = acquire(database, ONE, TERM).await.expect("free");
        assert_eq!(acquire(database, OTHER, TERM).await, None, "{}", backend.name);
        assert_eq!(acquire(database, ONE, Duration::ZERO).await.expect("renewed").epoch, first.epoch);
        let second = acquire(database, OTHER, TERM).await.expect("its term is over");
        assert_eq!(second.epoch, first.epoch + 1);
        assert_eq!(acquire(database, ONE, TERM).await, None);
        lease::release(database, first.epoch).await.expect("nothing happens");
        assert_eq!(acquire(database, ONE, TERM).await, None);
        lease::release(database, second.epoch).await.expect("given back");
        assert_eq!(acquire(database, ONE, TERM).await.expect("free again").epoch, second.epoch + 1);
    }
}

#[tokio::test]
async fn among_many_at_once_one_gets_it() {
    for backend in backends().await {
        let asked = (1..=20).map(|holder| acquire(&backend.database, Uuid::from_u128(holder), TERM));
        let granted = futures::future::join_all(asked).await.into_iter().flatten().count();
        assert_eq!(granted, 1, "{}", backend.name);
    }
}

/// A process with a wrong clock must neither take a lease that has not expired nor keep one that has.
#[tokio::test]
async fn a_shared_database_judges_terms_by_its_own_clock() {
    let Some(backend) = crate::postgres().await else { return };
    let ahead = Timestamp::now() + SignedDuration::from_mins(5);
    let granted = lease::acquire(&backend.database, ONE, TERM, ahead).await.expect("asked");
    assert!(granted.is_some());
    let stolen = lease::acquire(&backend.database, OTHER, TERM, ahead + SignedDuration::from_mins(5)).await;
    assert_eq!(stolen.expect("asked"), None);
    assert!(acquire(&backend.database, ONE, Duration::ZERO).await.is_some());
    assert!(acquire(&backend.database, OTHER, TERM).await.is_some());
}

#[tokio::test]
async fn what_was_acknowledged_is_marked_and_the_rest_stays() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        append_each(&connection, (1..=5).map(envelope)).await;
        let database = &backend.database;
        let lease = acquire(database, ONE, TERM).await.expect("free");
        assert_eq!((lease.stream.as_str(), lease.newest), ("", None));
        assert!(mark(database, lease.epoch, 10, 3).await);
        assert_eq!(unpublished(database).await, [4, 5], "{}", backend.name);
        let renewed = acquire(database, ONE, TERM).await.expect("its own");
        assert_eq!((renewed.stream.as_str(), renewed.newest), ("s1", Some((12, frame_id(Uuid::from_u128(3))))));
        let (waiting, oldest) = outbox::backlog(database.reader()).await.expect("a backlog");
        assert_eq!((waiting, oldest.is_some()), (2, true));
    }
}

/// The mutant: marks that are not bound to the epoch.
#[tokio::test]
async fn who_lost_the_lease_can_mark_nothing() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        append_each(&connection, (1..=5).map(envelope)).await;
        let database = &backend.database;
        let slept = acquire(database, ONE, Duration::ZERO).await.expect("free");
        assert!(mark(database, slept.epoch, 1, 5).await);
        let successor = acquire(database, OTHER, TERM).await.expect("its term is over");
        assert!(lease::publish_again(database, successor.epoch, "s2").await.expect("unmarked"));
        assert_eq!(unpublished(database).await, [1, 2, 3, 4, 5], "{}", backend.name);
        assert!(!mark(database, slept.epoch, 6, 5).await);
        assert!(!lease::publish_again(database, slept.epoch, "s3").await.expect("refused"));
        assert_eq!(unpublished(database).await, [1, 2, 3, 4, 5]);
        let lease = acquire(database, OTHER, TERM).await.expect("its own");
        assert_eq!((lease.stream.as_str(), lease.newest), ("s2", None));
    }
}

#[tokio::test]
async fn only_old_events_are_due_and_with_a_broker_only_published_ones() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        let at = |number: u128| {
            let time = domain::civil::encode_time(Timestamp::from_second(i64::try_from(number).unwrap()).unwrap());
            EventEnvelope { occur_time: Some(time), ..envelope(number) }
        };
        append_each(&connection, (1..=5).map(at)).await;
        let database = &backend.database;
        let lease = acquire(database, ONE, TERM).await.expect("free");
        assert!(mark(database, lease.epoch, 1, 3).await);
        let limit = Timestamp::from_second(5).unwrap();
        let due = async |published| {
            let due = outbox::due(database.reader(), limit, published).await.expect("rows");
            due.iter().map(|row| number(row.event_id)).collect::<Vec<_>>()
        };
        assert_eq!((due(true).await, due(false).await), (vec![1, 2, 3], vec![1, 2, 3, 4]), "{}", backend.name);
        assert_eq!(outbox::oldest(database.reader()).await.expect("a time"), Some(1_000_000));
        prune(database, limit).await;
        assert_eq!(due(false).await, [4]);
    }
}

/// Two replicas may take the same frames at once.
#[tokio::test]
async fn frames_that_another_process_has_removed_are_not_repeated() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        append_each(&connection, (1..=3).map(envelope)).await;
        let database = &backend.database;
        let repeated = domain::frame::frames(&[envelope(9)]).expect("a frame");
        assert!(outbox::replace(database, &[2], &[], Timestamp::MAX).await.expect("removed"));
        assert!(!outbox::replace(database, &[1, 2], &repeated, Timestamp::MAX).await.expect("refused"));
        let left = outbox::read_after(database.reader(), 0, 9).await.expect("rows");
        assert_eq!(left.iter().map(|row| row.position).collect::<Vec<_>>(), [1, 3], "{}", backend.name);
        assert!(outbox::replace(database, &[1], &repeated, Timestamp::MAX).await.expect("removed"));
        let left = outbox::read_after(database.reader(), 0, 9).await.expect("rows");
        assert_eq!(left.iter().map(|row| number(row.event_id)).collect::<Vec<_>>(), [3, 9], "{}", backend.name);
    }
}
