//! Ledgers that a version before wrote, and entries that come again.

use contract::reservation::v1::reservation::State;
use relay::Incoming;
use reservation::Migrator;
use reservation::recovery::answered;
use sea_orm::ConnectionTrait;
use store::inbox::InboxKey;
use store::migration::MigratorTrait;
use uuid::Uuid;

use crate::support::{Booking, House, get, history, states};

const SLOT: &str = "hospitals/seoul/slots/2027-03-01";

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_before_is_kept_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("reservation.db").display());
    let file = sea_orm::Database::connect(url).await.unwrap();
    let before =
        Migrator::migrations().iter().position(|step| step.name() == "reservation_0004_registrations").unwrap();
    Migrator::up(&file, Some(u32::try_from(before).unwrap())).await.unwrap();
    let booking = Booking::new(1, "kim", SLOT);
    let (id, event_id) = (booking.screening.0.simple(), booking.event(1, "CONFIRMED").event_id.replace('-', ""));
    let time = (booking.begin + 1) * 1_000_000;
    for text in [
        format!(
            "INSERT INTO reservation (screening, customer, hospital, slot, date, state, screening_version, version, \
             create_time, update_time) VALUES (x'{id}', 'customers/kim', 'hospitals/seoul', '{SLOT}', '2027-03-01', 1, \
             1, 1, {time}, {time})"
        ),
        format!(
            "INSERT INTO history (screening, version, state, reason, message, actor, event_id, occur_time) \
             VALUES (x'{id}', 1, 1, '', '', 'customer:kim', x'{event_id}', {time})"
        ),
    ] {
        file.execute_unprepared(&text).await.unwrap();
    }
    file.close().await.unwrap();

    let house = House::open(dir.path()).await;
    let kim = house.served.customer("kim").await;
    assert_eq!(states(&history(&kim, &booking.name(), 0).await.unwrap()), [(1, State::Registered)]);
    house.feed(&booking.life(&["CONFIRMED", "CANCELLED"])).await;
    assert_eq!(get(&kim, &booking.name(), "").await.unwrap().state(), State::Cancelled);
    for page_size in [0, 1] {
        let entries = history(&kim, &booking.name(), page_size).await.unwrap();
        assert_eq!(states(&entries), [(1, State::Registered), (2, State::Cancelled)]);
        assert_eq!(entries[0].actor, "customer:kim");
    }
    house.stop().await;
}

/// Retention repeats events in frames of their own, which no inbox knows.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_repeated_adds_no_second_entry() {
    let (house, _dir) = House::start().await;
    let booking = Booking::new(1, "kim", SLOT);
    // The last event comes first, so that its entry is the one that no row of the reservation can hold.
    let late = Booking::new(2, "kim", "hospitals/seoul/slots/2027-03-02");
    let events = [
        booking.event(1, "CONFIRMED"),
        late.event(2, "CANCELLED"),
        late.event(1, "CONFIRMED"),
        booking.event(2, "CANCELLED"),
    ];
    for round in 0..2_u128 {
        for (envelope, number) in events.iter().zip(1..) {
            let event_id: Uuid = envelope.event_id.parse().unwrap();
            let inbox_key = InboxKey::alone(Uuid::from_u128(round * 100 + number));
            let incoming = Incoming { envelope: envelope.clone(), event_id, inbox_key };
            house.handler().handle(&[incoming]).await.unwrap();
        }
    }
    let kim = house.served.customer("kim").await;
    for booking in [&booking, &late] {
        for page_size in [0, 1] {
            let entries = history(&kim, &booking.name(), page_size).await.unwrap();
            assert_eq!(states(&entries), [(1, State::Registered), (2, State::Cancelled)]);
            assert_eq!(entries[0].event_id, booking.event(1, "CONFIRMED").event_id);
            assert_eq!(entries[0].occur_time, booking.event(1, "CONFIRMED").occur_time);
        }
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_two_entries_of_a_version_stays() {
    let (house, _dir) = House::start().await;
    let booking = Booking::new(1, "kim", SLOT);
    let mut again = booking.event(1, "CONFIRMED");
    again.event_id = Uuid::from_u128(77).to_string();
    house.feed(&[booking.event(1, "CONFIRMED"), again]).await;
    let entries = history(&house.served.customer("kim").await, &booking.name(), 0).await.unwrap();
    assert_eq!(states(&entries), [(1, State::Registered)]);
    assert_eq!(entries[0].event_id, booking.event(1, "CONFIRMED").event_id);
    house.stop().await;
}

/// Registrations are in the rows of reservations and later changes in the history. A reader of both sees one order.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_recovery_reads_comes_in_order_in_parts_of_any_size() {
    let (house, _dir) = House::start().await;
    let request = |booking: &Booking, version: i64| booking.screening.0.as_u128() * 10 + version.unsigned_abs() as u128;
    let bookings: Vec<Booking> = (1..=6).map(|uid| Booking::new(uid, "kim", SLOT)).collect();
    let mut expected = Vec::new();
    for booking in &bookings {
        for (version, state) in [(1, "CONFIRMED"), (2, "CANCELLED")] {
            let mut event = booking.event(version, state);
            event.request_id = Uuid::from_u128(request(booking, version)).to_string();
            house.feed(&[event]).await;
            expected.push((booking.screening, version));
        }
    }
    for limit in [1, 2, 3, 100] {
        let (mut after, mut read) = (None, Vec::new());
        while let Some(part) =
            answered(&house.service.database, jiff::Timestamp::UNIX_EPOCH, after, limit).await.unwrap()
        {
            assert!(part.calls.len() <= usize::try_from(limit).unwrap());
            read.extend(part.calls.iter().map(|call| call.screening));
            assert!(after.is_none_or(|before| before < part.last), "{limit}: {after:?}");
            after = Some(part.last);
        }
        assert_eq!(read, expected.iter().map(|(screening, _)| *screening).collect::<Vec<_>>(), "{limit}");
        assert_eq!(after, expected.last().copied());
    }
    house.stop().await;
}
