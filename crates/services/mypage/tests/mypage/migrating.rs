//! Views that a version before wrote.

use std::path::Path;

use domain::ids::CustomerId;
use domain::mypage::ResumeToken;
use domain::screening::State;
use fault::Reason;
use mypage::Migrator;
use sea_orm::{ConnectionTrait, Statement};
use store::migration::MigratorTrait;
use testkit::{in_days, refused};
use uuid::Uuid;

use crate::support::{Booking, House, Plan, ZONE, get, list, page_of, watch};

/// Makes a view as it was before a change was one row, with these bookings of their customers. Returns its epoch.
async fn of_before(dir: &Path, bookings: &[(&Booking, i64)]) -> Uuid {
    let url = format!("sqlite://{}?mode=rwc", dir.join("mypage.db").display());
    let file = sea_orm::Database::connect(url).await.unwrap();
    let before = Migrator::migrations().iter().position(|step| step.name() == "mypage_0003_item_versions").unwrap();
    Migrator::up(&file, Some(u32::try_from(before).unwrap())).await.unwrap();
    for (booking, days) in bookings {
        let id = booking.screening.0.simple();
        let Booking { customer, slot, begin, .. } = booking;
        let (time, date) = ((begin + 1) * 1_000_000, in_days(ZONE, i32::try_from(*days).unwrap()));
        let state = State::Confirmed.number();
        let shown = format!("'Seoul', '{slot}', '{date}', '{ZONE}', {state}, '', '', {time}");
        let columns = "hospital_display_name, slot, date, time_zone, state, reason, message, update_time";
        for text in [
            format!(
                "INSERT INTO item (screening, customer, version, {columns}) VALUES (x'{id}', '{customer}', 1, {shown})"
            ),
            format!(
                "INSERT INTO page VALUES ('{customer}', 1, {time}) ON CONFLICT (customer) DO UPDATE SET \
                 position = position + 1, update_time = max(update_time, excluded.update_time)"
            ),
            format!(
                "INSERT INTO change (customer, position, time, screening, version, {columns}) SELECT \
                 '{customer}', position, 1, x'{id}', 1, {shown} FROM page WHERE customer = '{customer}'"
            ),
        ] {
            file.execute_unprepared(&text).await.unwrap();
        }
    }
    let epoch = Statement::from_string(file.get_database_backend(), "SELECT epoch FROM life");
    let epoch = file.query_one_raw(epoch).await.unwrap().unwrap().try_get("", "epoch").unwrap();
    file.close().await.unwrap();
    epoch
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_of_before_are_taken_over_and_streams_of_before_start_again() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, other) = (Booking::new(1, "kim", 5), Booking::new(2, "kim", 3), Booking::new(3, "lee", 4));
    // In another order than that of their times.
    let epoch = of_before(dir.path(), &[(&second, 3), (&other, 4), (&first, 5)]).await;

    let house = House::open(dir.path(), Plan::default()).await;
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
