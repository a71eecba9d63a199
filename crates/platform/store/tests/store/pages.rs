//! Outbox, inbox, request records, keyset pages and filters.

use domain::filter::{self, Field, Kind};
use domain::frame::Opened;
use domain::page::{Key, KeyKind, MAX_BYTES, Page};
use domain::request::RequestKey;
use fault::Violations;
use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ConnectionTrait, EntityTrait, QueryFilter, Statement, TransactionTrait};
use store::inbox::{self, Ignored, InboxKey, Part};
use store::query::{self, Direction};
use store::request_record::{self, Record};
use store::rows;
use store::statement::Connection;
use store::{Database, outbox};
use uuid::Uuid;

use crate::backends;
use crate::tables::{Migrator, account};

/// A transaction of the test's own, on a second writing connection.
pub(crate) async fn writing(backend: &crate::tables::TestDatabase) -> sea_orm::DatabaseConnection {
    let url = match &backend.location {
        store::Location::Sqlite(path) => format!("sqlite://{}", path.display()),
        store::Location::Postgres(url) => url.clone(),
    };
    sea_orm::Database::connect(url).await.expect("a connection")
}

pub(crate) fn envelope(number: u128) -> contract::event::v1::EventEnvelope {
    use contract::event::v1::event_envelope::Payload;
    contract::event::v1::EventEnvelope {
        event_id: Uuid::from_u128(number).to_string(),
        aggregate: format!("hospitals/h{number}"),
        producer: "hospital".to_owned(),
        payload: Some(Payload::HospitalDeleted(contract::event::v1::HospitalDeleted::default())),
        ..Default::default()
    }
}

/// The number of the first event of the frame with this id.
pub(crate) fn number(frame_id: Uuid) -> u128 {
    frame_id.as_u128() & u128::from(u64::MAX)
}

/// Appends each event as a frame of its own.
pub(crate) async fn append_each(
    connection: &dyn Connection,
    envelopes: impl Iterator<Item = contract::event::v1::EventEnvelope>,
) {
    for envelope in envelopes {
        outbox::append(connection, &[envelope]).await.expect("appended");
    }
}

#[tokio::test]
async fn a_transaction_writes_a_frame_for_each_subject() {
    use contract::event::v1::event_envelope::Payload;
    for backend in backends().await {
        let connection = writing(&backend).await;
        let deleted: Vec<_> = (1..=3).map(envelope).collect();
        let begun = contract::event::v1::HospitalDeletionStarted::default();
        let begun = contract::event::v1::EventEnvelope {
            payload: Some(Payload::HospitalDeletionStarted(begun)),
            ..envelope(4)
        };
        outbox::append(&connection, &[&deleted[..], std::slice::from_ref(&begun)].concat()).await.expect("appended");
        outbox::append(&connection, &[]).await.expect("nothing to append");
        let rows = outbox::read_after(backend.database.reader(), 0, 100).await.expect("read");
        let events: Vec<_> = rows.iter().map(|row| Opened::new(&row.payload).decode().expect("events")).collect();
        assert_eq!(events, [deleted, vec![begun]], "{}", backend.name);
        assert_eq!(
            rows.iter().map(|row| Opened::new(&row.payload).id()).collect::<Vec<_>>(),
            rows.iter().map(|row| Some(row.event_id)).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn the_outbox_is_a_log() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        append_each(&connection, (1..=5).map(envelope)).await;
        let rolled_back = connection.begin().await.expect("begun");
        outbox::append(&rolled_back, &[envelope(6)]).await.expect("appended");
        rolled_back.rollback().await.expect("rolled back");
        outbox::append(&connection, &[envelope(7)]).await.expect("appended");
        let reader = backend.database.reader();
        let all = outbox::read_after(reader, 0, 100).await.expect("read");
        let ids: Vec<_> = all.iter().map(|row| number(row.event_id)).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 7], "{}", backend.name);
        assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
        assert_eq!(all[0].subject, "checkup.v1.hospital.hospital_deleted.hospital");
        let rest = outbox::read_after(reader, all[3].position, 1).await.expect("read");
        assert_eq!(rest, all[4..5]);
        assert_eq!(outbox::head(reader).await.expect("head"), all[5].position);
    }
}

#[tokio::test]
async fn the_inbox_admits_an_event_once() {
    let ordered = |source: &str, position| InboxKey::at(source.into(), position, Uuid::nil());
    let unordered = |number| InboxKey::alone(Uuid::from_u128(number));
    for backend in backends().await {
        let connection = writing(&backend).await;
        let inbox_keys =
            [ordered("a", 1), ordered("a", 2), ordered("b", 1), ordered("a", 2), unordered(1), unordered(1)];
        let fresh = inbox::admit(&connection, "c", &inbox_keys.iter().collect::<Vec<_>>()).await.expect("admitted");
        assert_eq!(fresh, [true, true, true, false, true, false], "{}", backend.name);
        let inbox_keys = [ordered("a", 1), ordered("a", 3), unordered(1), unordered(2)];
        let inbox_keys: Vec<_> = inbox_keys.iter().collect();
        let lost = connection.begin().await.expect("begun");
        assert_eq!(inbox::admit(&lost, "c", &inbox_keys).await.expect("admitted"), [false, true, false, true]);
        lost.rollback().await.expect("rolled back");
        assert_eq!(inbox::admit(&connection, "c", &inbox_keys).await.expect("admitted"), [false, true, false, true]);
        assert_eq!(inbox::admit(&connection, "other", &inbox_keys).await.expect("admitted"), [true; 4]);
        let cursors = inbox::cursors(&connection, "c").await.expect("cursors");
        assert_eq!((cursors["a"], cursors["b"]), (3, 1));
    }
}

/// If an event of a frame fails, the events before it are applied and remembered, and the rest follows later.
#[tokio::test]
async fn a_frame_is_remembered_in_parts() {
    let frame_id = Uuid::from_u128(7);
    let parts = |range: std::ops::Range<u32>| range.map(|index| Part { index, is_last: index == 4 });
    let unordered = |part| InboxKey::Unordered { frame_id, part };
    let ordered = |part| InboxKey::Ordered { source: "a".into(), position: 3, frame_id, part };
    let key_of: [&dyn Fn(Part) -> InboxKey; 2] = [&unordered, &ordered];
    for backend in backends().await {
        for (kind, key_of) in ["unordered", "ordered"].into_iter().zip(key_of) {
            let connection = writing(&backend).await;
            let admit = async |range: std::ops::Range<u32>| {
                let keys: Vec<InboxKey> = parts(range).map(key_of).collect();
                inbox::admit(&connection, kind, &keys.iter().collect::<Vec<_>>()).await.expect("admitted")
            };
            let cursor = async || inbox::cursors(&connection, kind).await.expect("cursors").get("a").copied();
            assert_eq!(admit(0..2).await, [true; 2], "{}, {kind}", backend.name);
            assert_eq!(admit(0..3).await, [false, false, true], "{}, {kind}", backend.name);
            // The whole frame is read again.
            assert_eq!(cursor().await, (kind == "ordered").then_some(2), "{}, {kind}", backend.name);
            let lost = connection.begin().await.expect("begun");
            let keys: Vec<InboxKey> = parts(0..5).map(key_of).collect();
            let fresh = inbox::admit(&lost, kind, &keys.iter().collect::<Vec<_>>()).await.expect("admitted");
            assert_eq!(fresh, [false, false, false, true, true], "{}, {kind}", backend.name);
            lost.rollback().await.expect("rolled back");
            assert_eq!(admit(3..5).await, [true; 2], "{}, {kind}", backend.name);
            assert_eq!(admit(0..5).await, [false; 5], "{}, {kind}", backend.name);
            assert_eq!(admit(1..2).await, [false], "{}, {kind}", backend.name);
            assert_eq!(cursor().await, (kind == "ordered").then_some(3), "{}, {kind}", backend.name);
        }
        // A broker that lost its end gives the position of a frame that was read in part to another one.
        let connection = writing(&backend).await;
        let at = |frame_id, index| InboxKey::Ordered {
            source: "a".into(),
            position: 3,
            frame_id: Uuid::from_u128(frame_id),
            part: Part { index, is_last: false },
        };
        let admit = async |keys: [InboxKey; 2]| {
            inbox::admit(&connection, "lost", &keys.iter().collect::<Vec<_>>()).await.expect("admitted")
        };
        assert_eq!(admit([at(7, 0), at(7, 1)]).await, [true; 2], "{}", backend.name);
        assert_eq!(admit([at(8, 0), at(8, 1)]).await, [true; 2], "{}", backend.name);
        assert_eq!(admit([at(8, 0), at(8, 2)]).await, [false, true], "{}", backend.name);
    }
}

#[tokio::test]
async fn an_event_whose_effect_may_come_again_is_remembered_by_its_cursor_alone() {
    let ordered = |position| InboxKey::at("a".into(), position, Uuid::from_u128(9));
    let unordered = InboxKey::alone(Uuid::from_u128(1));
    for backend in backends().await {
        let connection = writing(&backend).await;
        let inbox_keys = [ordered(1), unordered.clone(), ordered(2), ordered(2)];
        let inbox_keys: Vec<_> = inbox_keys.iter().collect();
        let first = inbox::admit_repeatable(&connection, "c", &inbox_keys).await.expect("admitted");
        assert_eq!(first, [true, true, true, false], "{}", backend.name);
        let again = inbox::admit_repeatable(&connection, "c", &inbox_keys).await.expect("admitted");
        assert_eq!(again, [false, true, false, false], "{}", backend.name);
        // A consumer that must recognise the event finds no trace of it.
        assert_eq!(inbox::admit(&connection, "c", &[&unordered]).await.expect("admitted"), [true]);
        assert_eq!(inbox::cursors(&connection, "c").await.expect("cursors")["a"], 2);
    }
}

/// The reasons for which events about a resource were ignored.
async fn ignored_reasons(connection: &impl ConnectionTrait, aggregate: &str) -> Vec<String> {
    let sql = "SELECT reason FROM ignored_event WHERE aggregate = $1 ORDER BY ignore_time";
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, [aggregate.into()]);
    let rows = connection.query_all_raw(statement).await.expect("ignored events");
    rows.iter().map(|row| row.try_get_by_index(0).expect("a reason")).collect()
}

#[tokio::test]
async fn what_was_ignored_is_kept_once() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        let ignored = Ignored {
            event_id: Uuid::from_u128(1),
            aggregate: "screenings/1".into(),
            reason: "already CANCELLED".into(),
            time: Timestamp::UNIX_EPOCH,
        };
        inbox::record_ignored(&connection, vec![ignored.clone()]).await.expect("kept");
        inbox::record_ignored(&connection, vec![ignored]).await.expect("kept");
        let reasons = ignored_reasons(&connection, "screenings/1").await;
        assert_eq!(reasons, ["already CANCELLED"], "{}", backend.name);
    }
}

#[tokio::test]
async fn request_records_are_scoped_and_forgotten() {
    let key = |caller: &str, method| RequestKey { caller: caller.into(), method, id: Uuid::from_u128(9) };
    for backend in backends().await {
        let connection = writing(&backend).await;
        let (kim, lee, cancel) =
            (key("customer:kim", "Create"), key("customer:lee", "Create"), key("customer:kim", "Cancel"));
        let record =
            Record { key: kim.clone(), fingerprint: vec![1], resource: "r/1".into(), time: Timestamp::UNIX_EPOCH };
        request_record::insert(&connection, vec![record.clone()]).await.expect("kept");
        assert!(request_record::insert(&connection, vec![record.clone()]).await.is_err(), "{}", backend.name);
        let found = request_record::find(&connection, &[&kim, &lee, &cancel]).await.expect("found");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(kim.clone(), record)]);
        assert_eq!(request_record::purge(&connection, Timestamp::UNIX_EPOCH).await.expect("purged"), 0);
        let later = Timestamp::from_second(1).expect("a time");
        assert_eq!(request_record::purge(&connection, later).await.expect("purged"), 1);
        assert!(request_record::find(&connection, &[&kim]).await.expect("found").is_empty());
    }
}

async fn put(connection: &sea_orm::DatabaseConnection, rows: &[(i64, i64)]) {
    let rows = rows.iter().map(|(id, amount)| account::ActiveModel {
        id: Set(*id),
        amount: Set(*amount),
        label: Set(format!("Label {id}%")),
    });
    rows::insert_all(connection, rows.collect()).await.expect("inserted");
}

async fn walk(backend: &crate::tables::TestDatabase, order: &[(account::Column, Direction)]) -> Vec<i64> {
    let connection = writing(backend).await;
    let keys = |row: &account::Model| vec![Key::Int(row.amount), Key::Int(row.id)];
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let mut violations = Violations::new();
        let shape = [KeyKind::Int, KeyKind::Int];
        let page = Page::decode(&mut violations, 7, &token, &["ListAccounts"], &shape);
        violations.finish().expect("a token of this list");
        let rows = query::page(account::Entity::find(), order, &page).all(&connection).await.expect("a page");
        let (rows, next) = page.fill(query::split(rows, &page, keys), |row| row.id);
        seen.extend(rows);
        if next.is_empty() {
            return seen;
        }
        token = next;
        // A row before the position just read must neither be repeated nor displace another.
        let first = if order[0].1 == Direction::Ascending { 0 } else { 999 };
        put(&connection, &[(10_000 + seen.len() as i64, first)]).await;
    }
}

#[tokio::test]
async fn pages_neither_repeat_nor_hide_rows() {
    use Direction::{Ascending, Descending};
    for directions in
        [(Ascending, Ascending), (Descending, Descending), (Ascending, Descending), (Descending, Ascending)]
    {
        for backend in backends().await {
            let rows: Vec<_> = (0..60).map(|id| (id, 100 + id % 5)).collect();
            put(&writing(&backend).await, &rows).await;
            let order = [(account::Column::Amount, directions.0), (account::Column::Id, directions.1)];
            let mut expected = rows.clone();
            expected.sort_by(|left, right| {
                let amount = left.1.cmp(&right.1);
                let id = left.0.cmp(&right.0);
                let flip = |order: std::cmp::Ordering, way| if way == Ascending { order } else { order.reverse() };
                flip(amount, directions.0).then(flip(id, directions.1))
            });
            let expected: Vec<_> = expected.into_iter().map(|(id, _)| id).collect();
            assert_eq!(walk(&backend, &order).await, expected, "{directions:?} {}", backend.name);
        }
    }
}

/// Two disjoint selects are merged, in either direction, with rows so large that a page holds three of them.
#[tokio::test]
async fn pages_of_several_selects_end_by_bytes_and_go_on_behind_the_last_row() {
    let length = MAX_BYTES / 4;
    for direction in [Direction::Ascending, Direction::Descending] {
        for backend in backends().await {
            let connection = writing(&backend).await;
            let rows: Vec<_> = (0..40).map(|id| (id, id / 3)).collect();
            put(&connection, &rows).await;
            let order = [(account::Column::Amount, direction), (account::Column::Id, direction)];
            let keys = |row: &account::Model| vec![Key::Int(row.amount), Key::Int(row.id)];
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let mut violations = Violations::new();
                let page = Page::decode(&mut violations, 10, &token, &["ListAccounts"], &[KeyKind::Int, KeyKind::Int]);
                violations.finish().expect("a token of this list");
                let odd = |odd: i64| account::Entity::find().filter(Expr::col(account::Column::Id).modulo(2).eq(odd));
                let found = query::list(&connection, vec![odd(0), odd(1)], &order, &page, keys).await.expect("a page");
                let (texts, next) = page.fill(found, |row| row.id.to_string() + &" ".repeat(length));
                assert!(texts.len() <= 3, "{} rows of a quarter each", texts.len());
                seen.extend(texts.iter().map(|text| text.trim().parse::<i64>().expect("an id")));
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            let mut expected: Vec<i64> = rows.iter().map(|(id, _)| *id).collect();
            if direction == Direction::Descending {
                expected.reverse();
            }
            assert_eq!(seen, expected, "{direction:?} {}", backend.name);
        }
    }
}

#[tokio::test]
async fn filters_become_conditions() {
    const FIELDS: &[Field] = &[Field { name: "amount", kind: Kind::Number }, Field { name: "label", kind: Kind::Text }];
    for backend in backends().await {
        let connection = writing(&backend).await;
        put(&connection, &(0..30).map(|id| (id, id)).collect::<Vec<_>>()).await;
        for (filter, count) in [
            ("", 30),
            ("amount>=10 AND amount<12", 2),
            ("amount!=3", 29),
            ("label:\"label 1\"", 11),
            ("label:\"1%\"", 3),
            ("label:\"1_\"", 0),
            ("label=\"Label 3%\"", 1),
            ("amount<=0.5", 1),
        ] {
            let mut violations = Violations::new();
            let comparisons = filter::decode(&mut violations, filter, FIELDS);
            violations.finish().expect("a filter");
            let column = |field| if field == "amount" { account::Column::Amount } else { account::Column::Label };
            let condition = query::condition(&comparisons, column, |_, _| None);
            let rows = account::Entity::find().filter(condition).all(&connection).await.expect("rows");
            assert_eq!(rows.len(), count, "{filter} {}", backend.name);
        }
    }
}

#[tokio::test]
async fn a_database_opens_again_with_what_it_had() {
    for backend in backends().await {
        put(&writing(&backend).await, &[(1, 1)]).await;
        backend.database.close().await;
        let again = Database::open::<Migrator>(&backend.location).await.expect("opened again");
        assert_eq!(crate::tables::amounts(&again).await, [(1, 1)], "{}", backend.name);
    }
}
