//! Views that a version before wrote.

use std::path::Path;

use domain::ids::CustomerId;
use domain::mypage::ResumeToken;
use domain::screening::State;
use fault::Reason;
use mesh::for_tests;
use mypage::Migrator;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use store::migration::MigratorTrait;
use store::{Database, Location};
use testkit::{in_days, refused};
use uuid::Uuid;

use crate::support::{Booking, House, POSITION, Plan, ZONE, get, get_all, list, page_of, watch, watch_all};

/// Makes a database as it was before this migration.
async fn before(location: &Location, migration: &str) -> DatabaseConnection {
    let url = match location {
        Location::Sqlite(file) => format!("sqlite://{}?mode=rwc", file.display()),
        Location::Postgres(url) => url.clone(),
    };
    let database = sea_orm::Database::connect(url).await.unwrap();
    let before = Migrator::migrations().iter().position(|step| step.name() == migration).unwrap();
    Migrator::up(&database, Some(u32::try_from(before).unwrap())).await.unwrap();
    database
}

/// The id of a booking as SQL.
fn id(location: &Location, booking: &Booking) -> String {
    match location {
        Location::Sqlite(_) => format!("x'{}'", booking.screening.0.simple()),
        Location::Postgres(_) => format!("'{}'", booking.screening.0),
    }
}

async fn epoch(database: &DatabaseConnection) -> Uuid {
    let epoch = Statement::from_string(database.get_database_backend(), "SELECT epoch FROM life");
    database.query_one_raw(epoch).await.unwrap().unwrap().try_get("", "epoch").unwrap()
}

/// Makes a view as it was before a change was one row, with these bookings of their customers. Returns its epoch.
async fn of_before(location: &Location, bookings: &[(&Booking, i64)]) -> Uuid {
    let greatest = match location {
        Location::Sqlite(_) => "max",
        Location::Postgres(_) => "greatest",
    };
    let database = before(location, "mypage_0003_item_versions").await;
    for (booking, days) in bookings {
        let id = id(location, booking);
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
    let epoch = epoch(&database).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_before_waitlists_goes_on_with_them() {
    let dir = tempfile::tempdir().unwrap();
    goes_on(Location::Sqlite(dir.path().join("mypage.db")), dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_before_waitlists_goes_on_with_them_in_postgresql() {
    let Some(server) = for_tests::or_skip("PostgreSQL", for_tests::postgres().await) else { return };
    let dir = tempfile::tempdir().unwrap();
    goes_on(Location::Postgres(server.database("mypage").await.unwrap()), dir.path()).await;
}

/// Its positions stay valid. A stream from before the upgrade learns that what was PENDING is not any more.
async fn goes_on(location: Location, dir: &Path) {
    let (parked, left) = (Booking::new(1, "kim", 5), Booking::new(2, "kim", 6));
    let file = before(&location, "mypage_0004_waitlists").await;
    for (position, booking) in (1..).zip([&parked, &left]) {
        let Booking { slot, begin, .. } = booking;
        let (id, time, date) = (id(&location, booking), (begin + 1) * 1_000_000, in_days(ZONE, 4 + position));
        let text = format!(
            "INSERT INTO item_version (screening, version, customer, position, time, page_update_time, \
             hospital_display_name, slot, date, time_zone, state, reason, message, update_time) VALUES \
             ({id}, 1, 'customers/kim', {position}, 1, {time}, '', '{slot}', '{date}', '', {}, '', '', {time})",
            State::Pending.number()
        );
        file.execute_unprepared(&text).await.unwrap();
    }
    let token = ResumeToken { epoch: epoch(&file).await, position: 2 };
    let token = token.encode(&CustomerId::from_segment("kim").unwrap());
    file.close().await.unwrap();

    if let Location::Postgres(_) = location {
        Database::migrate::<Migrator>(&location).await.unwrap();
    }
    let house = House::on(location, dir, Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let page = get_all(&kim, &page_of("kim"), "").await.unwrap();
    assert_eq!((page.upcoming.len(), page.active_count, page.upcoming[0].waitlist_position), (2, 2, 0));
    house.feed(&[left.event(2, "CANCELLED"), parked.event(2, "WAITLISTED")]).await;
    let (mut some, mut all) =
        (watch(&kim, &page_of("kim"), &token).await.unwrap(), watch_all(&kim, &page_of("kim"), &token).await.unwrap());
    for stream in [&mut some, &mut all] {
        assert_eq!(stream.change().await.unwrap(), (left.name(), 2));
    }
    refused(some.change().await, Reason::CursorExpired);
    assert_eq!(all.change().await.unwrap(), (parked.name(), 2));
    assert_eq!(get(&kim, &page_of("kim"), "").await.unwrap().upcoming, []);
    let page = get_all(&kim, &page_of("kim"), &parked.token(2)).await.unwrap();
    assert_eq!((page.upcoming[0].waitlist_position, page.active_count), (POSITION, 0));
    assert_eq!(list(&kim, &page_of("kim"), 0).await.unwrap().len(), 1);
    let known = mypage::recovery::bookings(&house.service.database, None, 10).await.unwrap();
    assert!(known.iter().all(|known| known.queued.is_none()), "{known:?}");
    drop((some, all));
    house.stop().await;
}
