//! Bookings that a version before wrote.

use domain::screening::State;
use mesh::for_tests;
use screening::{Migrator, recovery};
use sea_orm::ConnectionTrait;
use store::migration::MigratorTrait;
use store::{Database, Location};
use uuid::Uuid;

const COLUMNS: &str = "id, customer, customer_display_name, hospital, slot_date, hospital_display_name, time_zone, \
                       cancellation_close_time, state, state_reason, state_message, given_up, claim_generation, \
                       fenced_generation, version, create_time, update_time";

#[tokio::test(flavor = "multi_thread")]
async fn bookings_of_before_never_waited() {
    let dir = tempfile::tempdir().unwrap();
    never_waited(Location::Sqlite(dir.path().join("screening.db"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_of_before_never_waited_in_postgresql() {
    let Some(server) = for_tests::or_skip("PostgreSQL", for_tests::postgres().await) else { return };
    never_waited(Location::Postgres(server.database("screening").await.unwrap())).await;
}

async fn never_waited(location: Location) {
    let url = match &location {
        Location::Sqlite(file) => format!("sqlite://{}?mode=rwc", file.display()),
        Location::Postgres(url) => url.clone(),
    };
    let of_before = sea_orm::Database::connect(&url).await.unwrap();
    let before = Migrator::migrations().iter().position(|step| step.name() == "screening_0004_waitlist").unwrap();
    Migrator::up(&of_before, Some(u32::try_from(before).unwrap())).await.unwrap();
    // two bookings of one customer and slot that have ended, and one of another date
    for (number, date, state) in [(1, "2027-01-04", 4), (2, "2027-01-04", 5), (3, "2027-01-05", 3)] {
        let id = match location {
            Location::Sqlite(_) => format!("x'{}'", Uuid::from_u128(number).simple()),
            Location::Postgres(_) => format!("'{}'", Uuid::from_u128(number)),
        };
        let values = format!(
            "{id}, 'kim', '', 'seoul', '{date}', 'Seoul', 'Asia/Seoul', NULL, {state}, '', '', '', 1, 0, 2, 1, 1"
        );
        of_before.execute_unprepared(&format!("INSERT INTO screening ({COLUMNS}) VALUES ({values})")).await.unwrap();
    }
    of_before.close().await.unwrap();

    // a file is migrated by whoever opens it
    if let Location::Postgres(_) = location {
        Database::migrate::<Migrator>(&location).await.unwrap();
    }
    let database = Database::open::<Migrator>(&location).await.unwrap();
    let rows = recovery::bookings(&database, None, 10).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.state).collect::<Vec<_>>(),
        [State::Cancelled, State::ForceCancelled, State::Confirmed]
    );
    assert!(rows.iter().all(|row| row.queued.is_none() && !row.joins_waitlist && !row.waited_in_vain()), "{rows:?}");
    let now = sea_orm::Database::connect(&url).await.unwrap();
    // one of them may wait for that slot, and both may not
    now.execute_unprepared("UPDATE screening SET state = 11 WHERE state = 4").await.unwrap();
    now.execute_unprepared("UPDATE screening SET state = 11 WHERE state = 5").await.unwrap_err();
    now.close().await.unwrap();
    database.close().await;
}
