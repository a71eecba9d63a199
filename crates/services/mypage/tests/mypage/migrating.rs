//! Views that a version before wrote.

use std::path::Path;

use domain::ids::CustomerId;
use domain::mypage::ResumeToken;
use domain::screening::State;
use fault::Reason;
use mesh::for_tests;
use mypage::Migrator;
use sea_orm::{ConnectionTrait, Statement};
use store::migration::MigratorTrait;
use store::{Database, Location};
use testkit::{in_days, refused};
use uuid::Uuid;

use crate::support::{Booking, House, Plan, ZONE, get, list, page_of, watch};

/// Makes a view as it was before a change was one row, with these bookings of their customers. Returns its epoch.
async fn of_before(location: &Location, bookings: &[(&Booking, i64)]) -> Uuid {
    let (url, greatest) = match location {
        Location::Sqlite(file) => (format!("sqlite://{}?mode=rwc", file.display()), "max"),
        Location::Postgres(url) => (url.clone(), "greatest"),
    };
    let database = sea_orm::Database::connect(url).await.unwrap();
    let before = Migrator::migrations().iter().position(|step| step.name() == "mypage_0003_item_versions").unwrap();
    Migrator::up(&database, Some(u32::try_from(before).unwrap())).await.unwrap();
    for (booking, days) in bookings {
        let id = match location {
            Location::Sqlite(_) => format!("x'{}'", booking.screening.0.simple()),
            Location::Postgres(_) => format!("'{}'", booking.screening.0),
        };
        let Booking { customer, slot, begin, .. } = booking;
        let (time, date) = ((begin + 1) * 1_000_000, in_days(ZONE, i32::try_from(*days).unwrap()));
        let state = State::Confirmed.number();
        let shown = format!("'Seoul', '{slot}', '{date}', '{ZONE}', {state}, '', '', {time}");
        let columns = "hospital_display_name, slot, date, time_zone, state, reason, message, update_time";
        for text in [
            format!(
                "INSERT INTO item (screening, customer, version, {columns}) VALUES ({id}, '{customer}', 1, {shown})"
            ),
            format!(
                "INSERT INTO page VALUES ('{customer}', 1, {time}) ON CONFLICT (customer) DO UPDATE SET \
                 position = page.position + 1, update_time = {greatest}(page.update_time, excluded.update_time)"
            ),
            format!(
                "INSERT INTO change (customer, position, time, screening, version, {columns}) SELECT \
                 '{customer}', position, 1, {id}, 1, {shown} FROM page WHERE customer = '{customer}'"
            ),
        ] {
            database.execute_unprepared(&text).await.unwrap();
        }
    }
    let epoch = Statement::from_string(database.get_database_backend(), "SELECT epoch FROM life");
    let epoch = database.query_one_raw(epoch).await.unwrap().unwrap().try_get("", "epoch").unwrap();
    database.close().await.unwrap();
    epoch
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_of_before_are_taken_over_and_streams_of_before_start_again() {
    let dir = tempfile::tempdir().unwrap();
    are_taken_over(Location::Sqlite(dir.path().join("mypage.db")), dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_of_before_are_taken_over_in_postgresql() {
    let Some(server) = for_tests::or_skip("PostgreSQL", for_tests::postgres().await) else { return };
    let dir = tempfile::tempdir().unwrap();
    are_taken_over(Location::Postgres(server.database("mypage").await.unwrap()), dir.path()).await;
}

async fn are_taken_over(location: Location, dir: &Path) {
    let (first, second, other) = (Booking::new(1, "kim", 5), Booking::new(2, "kim", 3), Booking::new(3, "lee", 4));
    // In another order than that of their times.
    let epoch = of_before(&location, &[(&second, 3), (&other, 4), (&first, 5)]).await;

    // A file is migrated by whoever opens it.
    if let Location::Postgres(_) = location {
        Database::migrate::<Migrator>(&location).await.unwrap();
    }
    let house = House::on(location, dir, Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let page = get(&kim, &page_of("kim"), &first.token(1)).await.unwrap();
    let shown: Vec<_> = page.upcoming.iter().map(|item| (item.screening.clone(), item.slot.clone())).collect();
    assert_eq!(shown, [(second.name(), second.slot.clone()), (first.name(), first.slot.clone())]);
    assert_eq!(page.update_time.unwrap().seconds, second.begin + 1);
    let listed = list(&kim, &page_of("kim"), 1).await.unwrap();
    assert_eq!(listed.iter().map(|item| &item.screening).collect::<Vec<_>>(), [&first.name(), &second.name()]);

    let token = ResumeToken { epoch, position: 1 }.encode(&CustomerId::from_segment("kim").unwrap());
    refused(watch(&kim, &page_of("kim"), &token).await, Reason::CursorExpired);
    let mut stream = watch(&kim, &page_of("kim"), &page.applied_token).await.unwrap();
    house.feed(&[first.event(2, "CANCELLED")]).await;
    house.feed(&[Booking::new(4, "kim", 9).event(1, "CONFIRMED")]).await;
    assert_eq!(stream.change().await.unwrap(), (first.name(), 2));
    assert_eq!(stream.change().await.unwrap(), (Booking::new(4, "kim", 9).name(), 1));
    assert_eq!(list(&kim, &page_of("kim"), 0).await.unwrap().len(), 3);
    assert_eq!(list(&house.served.customer("lee").await, &page_of("lee"), 0).await.unwrap().len(), 1);
    drop(stream);
    house.stop().await;
}
