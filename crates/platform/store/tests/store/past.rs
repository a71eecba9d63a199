//! Logs that lost their end, and readers whose positions contradict them.

use domain::frame::frame_id;
use jiff::Timestamp;
use sea_orm::ConnectionTrait;
use store::inbox::{self, InboxKey, ReadPosition};
use store::outbox::{self, Returned};
use store::past::{self, Contradiction, Gap};
use uuid::Uuid;

use crate::pages::{append_each, envelope, writing};
use crate::{backends, prune};

/// The id of the frame of this event alone.
fn id(event: u128) -> Uuid {
    frame_id(Uuid::from_u128(event))
}

fn read_position(position: i64, event: u128) -> ReadPosition {
    ReadPosition { consumer: "c".into(), position, event_id: Some(id(event)) }
}

#[tokio::test]
async fn a_cursor_names_the_event_it_stands_at() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        let ordered = |position, frame_id| InboxKey::at("a".into(), position, frame_id);
        let inbox_keys = [ordered(1, id(1)), ordered(2, id(2)), ordered(1, id(9))];
        inbox::admit(&connection, "c", &inbox_keys.iter().collect::<Vec<_>>()).await.expect("admitted");
        assert_eq!(inbox::read_of(&connection, "a").await.expect("read"), [read_position(2, 2)], "{}", backend.name);
        // An event whose bytes cannot be read has no id.
        inbox::admit(&connection, "c", &[&ordered(3, Uuid::nil())]).await.expect("admitted");
        let unknown = ReadPosition { event_id: None, ..read_position(3, 0) };
        assert_eq!(inbox::read_of(&connection, "a").await.expect("read"), [unknown]);
        inbox::read_again(&backend.database, "a").await.expect("forgotten");
        assert_eq!(inbox::read_of(&connection, "a").await.expect("read"), []);
    }
}

#[tokio::test]
async fn a_log_is_held_against_what_was_read_of_it() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        append_each(&connection, (1..=5).map(envelope)).await;
        let said = async |position, event| {
            past::contradiction(backend.database.reader(), &read_position(position, event)).await.expect("an answer")
        };
        assert_eq!(said(5, 5).await, None, "{}", backend.name);
        assert_eq!(said(5, 6).await, Some(Contradiction::Other));
        assert_eq!(said(8, 8).await, Some(Contradiction::Shorter { head: 5 }));
        let unknown = ReadPosition { event_id: None, ..read_position(5, 0) };
        assert_eq!(past::contradiction(&connection, &unknown).await.expect("an answer"), None);

        // The lost events are restored: the log continues after them, and only then is the gap closed.
        past::advance_log(&connection, 8).await.expect("leapt");
        outbox::append(&connection, &[envelope(20)]).await.expect("appended");
        assert_eq!(outbox::head(&connection).await.expect("head"), 9);
        assert_eq!(said(8, 8).await, Some(Contradiction::Other), "not before it is closed");
        for _ in 0..2 {
            past::close(&connection, Gap { after: 5, last: 8 }, Timestamp::UNIX_EPOCH).await.expect("closed");
        }
        assert_eq!((said(8, 8).await, said(6, 6).await), (None, None));
        assert_eq!(said(5, 6).await, Some(Contradiction::Other), "the gap is behind it");
        assert_eq!(said(10, 10).await, Some(Contradiction::Shorter { head: 9 }));

        // Events published long ago may be removed.
        connection.execute_unprepared("DELETE FROM outbox WHERE position < 4").await.expect("removed");
        assert_eq!(said(2, 2).await, None);
    }
}

/// Events removed by age are not lost events, wherever a cursor stands.
#[tokio::test]
async fn a_cursor_at_an_event_that_was_pruned_says_nothing() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        append_each(&connection, (1..=9).map(envelope)).await;
        let said = async |position, event| {
            past::contradiction(backend.database.reader(), &read_position(position, event)).await.expect("an answer")
        };
        // The first event was never published, so it stays.
        for published in ["position IN (2, 3, 4)", "position IN (5, 6)"] {
            let sql = format!("UPDATE outbox SET stream_sequence = position WHERE {published}");
            connection.execute_unprepared(&sql).await.expect("published");
            prune(&backend.database, Timestamp::MAX).await;
        }
        assert_eq!(outbox::ids(&connection).await.expect("ids").len(), 4, "{}", backend.name);
        for position in 2..=6 {
            assert_eq!(said(position, position as u128).await, None, "{}: {position}", backend.name);
        }
        assert_eq!((said(1, 1).await, said(9, 9).await), (None, None));
        assert_eq!(said(1, 9).await, Some(Contradiction::Other));
        assert_eq!(said(10, 10).await, Some(Contradiction::Shorter { head: 9 }));
        connection.execute_unprepared("DELETE FROM outbox WHERE position = 8").await.expect("removed by hand");
        assert_eq!(said(8, 8).await, Some(Contradiction::Other), "it was not old enough");
    }
}

/// The stream keeps events for longer. A log from which all were removed is not one that forgot them.
#[tokio::test]
async fn a_log_knows_how_far_events_were_removed_by_age() {
    const LIMIT: i64 = 3_600_000_000;
    for backend in backends().await {
        let connection = writing(&backend).await;
        let may_have_had =
            async |occurred| past::may_have_had(backend.database.reader(), occurred).await.expect("an answer");
        append_each(&connection, (1..=3).map(envelope)).await;
        connection.execute_unprepared("UPDATE outbox SET stream_sequence = position").await.expect("published");
        assert!(!may_have_had(LIMIT - 1).await, "{}: nothing was removed", backend.name);
        prune(&backend.database, Timestamp::from_microsecond(LIMIT).expect("a time")).await;
        assert_eq!(outbox::head(&connection).await.expect("head"), 0, "{}", backend.name);
        assert!(may_have_had(LIMIT - 1).await, "it was old enough");
        assert!(!may_have_had(LIMIT).await, "it was not");
    }
}

#[tokio::test]
async fn an_empty_log_goes_on_too() {
    for backend in backends().await {
        past::skip(&backend.database, 7, Some(Gap { after: 0, last: 7 }), Timestamp::UNIX_EPOCH)
            .await
            .expect("skipped");
        let connection = writing(&backend).await;
        outbox::append(&connection, &[envelope(1)]).await.expect("appended");
        assert_eq!(outbox::head(&connection).await.expect("head"), 8, "{}", backend.name);
        past::advance_log(&connection, 3).await.expect("nothing to do");
        outbox::append(&connection, &[envelope(2)]).await.expect("appended");
        assert_eq!(outbox::head(&connection).await.expect("head"), 9);
    }
}

#[tokio::test]
async fn an_event_the_broker_has_is_looked_for_and_taken_back() {
    const HOUR: i64 = 3_600_000_000;
    for backend in backends().await {
        let event = |number: u128, occur_time| Returned {
            frame_id: Uuid::from_u128(number),
            subject: "s".into(),
            payload: vec![],
            occur_time,
            sequence: 40,
        };
        let knows = async |number, occurred| {
            outbox::knows(backend.database.reader(), Uuid::from_u128(number), occurred).await.expect("an answer")
        };
        assert!(!knows(1, HOUR).await, "{}: an empty log knows nothing", backend.name);
        let events = (10..20).map(|number| event(number, 10 * HOUR)).collect();
        outbox::take_back(&backend.database, events).await.expect("taken back");
        assert!(knows(10, 10 * HOUR).await && knows(19, 0).await);
        assert!(!knows(20, 10 * HOUR).await, "it is of the time of the others and not there");
        assert!(!knows(20, 30 * HOUR).await, "it is newer than all there is");
        assert!(!knows(20, 10 * HOUR - 1).await, "a clock was late: it is of the time of the others and not there");
        assert!(knows(20, HOUR).await, "it is older than all there is, so it was removed");
        assert!(outbox::unpublished(backend.database.reader(), 9).await.expect("read").is_empty());
        assert_eq!(outbox::ids(backend.database.reader()).await.expect("ids").len(), 10);
    }
}
