//! Bookings that are restored: who waits for one slot twice, and who got a place after another booking was made.

use domain::ids::{CustomerId, ScreeningId, SlotId};
use domain::screening::{FIRST_GENERATION, Queued, Screening, State, Terms};
use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use screening::{Migrator, recovery};
use sea_orm::{ConnectionTrait, Statement};
use store::{Database, Location};
use uuid::Uuid;

use crate::world::slot;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + minute * 60).unwrap()
}

/// A booking of kim that was made and that changed last at these minutes.
fn booking(number: u128, slot: &SlotId, state: State, version: i64, (made, changed): (i64, i64)) -> Screening {
    let waits = state == State::Waitlisted;
    Screening {
        id: ScreeningId(Uuid::from_u128(number)),
        customer: Some(CustomerId::from_segment("kim").unwrap()),
        customer_display_name: String::new(),
        slot: slot.clone(),
        terms: Terms { time_zone: "Asia/Seoul".into(), ..Terms::default() },
        state,
        state_reason: String::new(),
        state_message: String::new(),
        given_up: None,
        joins_waitlist: waits,
        queued: waits.then(|| Queued { position: 2, closes_at: at(0) + SignedDuration::from_hours(24) }),
        generation: FIRST_GENERATION,
        fenced_generation: 0,
        reschedule_count: 0,
        version,
        create_time: at(made),
        update_time: at(changed),
    }
}

async fn recovered(database: &Database, bookings: Vec<Screening>) -> (Vec<ScreeningId>, Vec<(u128, State)>) {
    let known = recovery::Known { bookings, ..recovery::Known::default() };
    let recovered = recovery::recover(database, known, Clock::system()).await.unwrap();
    let rows = recovery::bookings(database, None, 10).await.unwrap();
    (recovered.ended, rows.into_iter().map(|row| (row.id.0.as_u128(), row.state)).collect())
}

#[tokio::test]
async fn who_waits_for_one_slot_twice_joined_last() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open::<Migrator>(&Location::Sqlite(dir.path().join("screening.db"))).await.unwrap();
    let (queue, other) = (slot("seoul", 7), slot("busan", 7));
    let held = booking(1, &queue, State::Waitlisted, 1, (1, 1));
    assert_eq!(recovered(&database, vec![held]).await, (vec![], vec![(1, State::Waitlisted)]));
    let later = booking(2, &queue, State::Waitlisted, 1, (3, 3));
    let elsewhere = booking(3, &other, State::Waitlisted, 1, (2, 2));
    let (ended, rows) = recovered(&database, vec![later, elsewhere]).await;
    assert_eq!(ended, [ScreeningId(Uuid::from_u128(1))]);
    assert_eq!(rows, [(1, State::Cancelled), (2, State::Waitlisted), (3, State::Waitlisted)]);
    // Hospital is asked about those who wait once the service runs
    let reader = database.reader();
    let sql = "SELECT count(*) FROM orphan_watch WHERE seen_time = 0";
    let statement = Statement::from_string(reader.get_database_backend(), sql);
    let due: i64 = reader.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    assert_eq!(due, 2);
    database.close().await;
}

#[tokio::test]
async fn a_booking_comes_to_its_date_when_it_gets_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open::<Migrator>(&Location::Sqlite(dir.path().join("screening.db"))).await.unwrap();
    // it waited first, and got its place after the other one must have ended
    let promoted = booking(1, &slot("seoul", 7), State::Confirmed, 2, (1, 9));
    let between = booking(2, &slot("busan", 7), State::Confirmed, 1, (5, 5));
    let (ended, rows) = recovered(&database, vec![promoted, between]).await;
    assert_eq!(ended, [ScreeningId(Uuid::from_u128(2))]);
    assert_eq!(rows, [(1, State::Confirmed), (2, State::Cancelled)]);
    database.close().await;
}
