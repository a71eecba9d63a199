//! How many bookings wait for the places of a slot.

use contract::marketing::v1::DemandSignal;
use domain::ids::SlotId;
use marketing::Migrator;
use sea_orm::ConnectionTrait;
use store::migration::MigratorTrait;
use testkit::in_days;

use crate::support::{FACTS, House, Plan, ZONE, deletion, list, places, queue, registered, slot};

async fn only(house: &House) -> DemandSignal {
    let mut signals = list(&house.served.auditor().await, "", "").await.unwrap();
    assert_eq!(signals.len(), 1);
    signals.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fact_about_places_tells_who_waits() {
    let (house, _dir) = House::start(Plan::default()).await;
    let name = slot("seoul", 5);
    house.feed(&[registered("seoul")]).await;
    for word in 0..FACTS {
        let (version, waiting) = (i64::try_from(word).unwrap() * 2 + 2, i32::try_from(word).unwrap() + 1);
        // what is older comes later, and changes nothing; so does what comes again
        let newest = queue(&name, version, [4, 4, waiting], word);
        house.feed(&[newest.clone(), queue(&name, version - 1, [4, 4, 90], word), newest]).await;
        let signal = only(&house).await;
        assert_eq!((signal.waitlisted_count, signal.fill_ratio), (waiting, 1.0), "{word}");
    }
    house.feed(&[places(&name, 100, 4, 3, 4)]).await;
    assert_eq!((only(&house).await.waitlisted_count, only(&house).await.fill_ratio), (0, 0.75));
    house.stop().await;
}

/// Nothing about a slot is shown once its hospital is gone, in whatever order its events come.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_a_hospital_that_is_gone_brings_nothing_back() {
    let (house, _dir) = House::start(Plan::default()).await;
    let name = slot("seoul", 5);
    house.feed(&[registered("seoul"), queue(&name, 1, [4, 4, 2], 6)]).await;
    assert_eq!(only(&house).await.waitlisted_count, 2);
    house.feed(&deletion("seoul")).await;
    house.feed(&[queue(&name, 2, [4, 4, 3], 6), queue(&name, 3, [4, 4, 2], 5)]).await;
    assert_eq!(list(&house.served.auditor().await, "", "").await.unwrap(), []);
    assert_eq!(marketing::recovery::places(&house.service.database, None, 10).await.unwrap(), []);
    house.stop().await;
}

/// A new zone writes the signals of its hospital again.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_kept_when_the_hospital_becomes_known_and_told_to_a_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let name = slot("seoul", 5);
    house.feed(&[queue(&name, 7, [4, 4, 2], 6)]).await;
    house.feed(&[registered("seoul")]).await;
    house.stop().await;
    let house = House::open(dir.path(), Plan::default()).await;
    assert_eq!(only(&house).await.waitlisted_count, 2);
    let known = marketing::recovery::places(&house.service.database, None, 10).await.unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].slot_version, known[0].capacity, known[0].booked, known[0].waiting), (7, 4, 4, 2));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn demand_of_before_waitlists_is_kept_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("marketing.db").display());
    let file = sea_orm::Database::connect(url).await.unwrap();
    let before = Migrator::migrations().iter().position(|step| step.name() == "marketing_0002_waitlists").unwrap();
    Migrator::up(&file, Some(u32::try_from(before).unwrap())).await.unwrap();
    let (name, date) = (slot("seoul", 5), in_days(ZONE, 5));
    let text = format!(
        "INSERT INTO signal (slot, hospital, date, slot_version, capacity, booked, fill_ratio, end_time, update_time) \
         VALUES ('{name}', 'hospitals/seoul', '{date}', 3, 4, 2, 0.5, {}, 1800000000000000)",
        i64::MAX
    );
    file.execute_unprepared(&text).await.unwrap();
    file.close().await.unwrap();

    let house = House::open(dir.path(), Plan::default()).await;
    let signal = only(&house).await;
    assert_eq!((signal.waitlisted_count, signal.fill_ratio), (0, 0.5));
    house.feed(&[queue(&name, 2, [9, 9, 9], 6)]).await;
    assert_eq!(only(&house).await.waitlisted_count, 0, "what is older changes nothing");
    house.feed(&[queue(&name, 4, [4, 4, 3], 6)]).await;
    let known = marketing::recovery::places(&house.service.database, None, 10).await.unwrap();
    assert_eq!((known[0].slot.clone(), known[0].waiting), (SlotId::parse(&name).unwrap(), 3));
    assert_eq!(only(&house).await.waitlisted_count, 3);
    house.stop().await;
}
