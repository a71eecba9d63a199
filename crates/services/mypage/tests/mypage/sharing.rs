//! Two replicas that write one view in PostgreSQL.

use std::collections::BTreeMap;

use contract::event::v1::EventEnvelope;
use contract::mypage::v1::watch_my_page_response::Event;
use mesh::for_tests;
use mypage::Migrator;
use store::{Database, Location};
use testkit::seed;

use crate::support::{Booking, House, Plan, get, list, page_of, watch};

const CUSTOMERS: [&str; 4] = ["kim", "lee", "park", "choi"];

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_number_the_changes_of_a_page_together() {
    let Some(server) = for_tests::or_skip("PostgreSQL", for_tests::postgres().await) else { return };
    let mut random = seed("two_replicas_number_the_changes_of_a_page_together");
    let location = Location::Postgres(server.database("mypage").await.unwrap());
    Database::migrate::<Migrator>(&location).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let first = House::on(location.clone(), dir.path(), Plan::default()).await;
    let second = House::on(location, dir.path(), Plan::default()).await;
    let mut tokens = BTreeMap::new();
    for name in CUSTOMERS {
        let empty = get(&first.served.customer(name).await, &page_of(name), "").await.unwrap();
        tokens.insert(name, empty.applied_token);
    }

    // Each replica gets events of all customers, also of the same bookings, in an order of its own.
    let mut halves: [Vec<EventEnvelope>; 2] = [Vec::new(), Vec::new()];
    let mut bookings = Vec::new();
    for uid in 1..=40 {
        let booking = Booking::new(uid, CUSTOMERS[uid as usize % 4], uid as i32);
        for event in booking.life(&["PENDING", "CONFIRMED", "CANCELLED"]) {
            let half = &mut halves[random.below(2) as usize];
            let place = random.below(half.len() as u64 + 1) as usize;
            half.insert(place, event);
        }
        bookings.push(booking);
    }
    let feed = async |house: &House, events: &[EventEnvelope]| {
        for batch in events.chunks(5) {
            house.feed(batch).await;
        }
    };
    tokio::join!(feed(&first, &halves[0]), feed(&second, &halves[1]));

    for (name, token) in &tokens {
        let party = second.served.customer(name).await;
        let items = list(&party, &page_of(name), 7).await.unwrap();
        assert_eq!(items.len(), 10);
        assert!(
            items.iter().all(|item| (item.state.as_str(), item.screening_version) == ("CANCELLED", 3)),
            "{items:?}"
        );
        // Every booking's last version is heard of, and no version twice or after a newer one.
        let end = get(&party, &page_of(name), "").await.unwrap().applied_token;
        let mut heard: BTreeMap<String, i64> = BTreeMap::new();
        let mut stream = watch(&party, &page_of(name), token).await.unwrap();
        while stream.token != end {
            let Event::Changed(item) = stream.next().await.unwrap() else { panic!("not a change") };
            let before = heard.insert(item.screening.clone(), item.screening_version);
            assert!(before.is_none_or(|before| before < item.screening_version), "{item:?} after {before:?}");
        }
        let own = bookings.iter().filter(|booking| booking.customer == format!("customers/{name}"));
        assert_eq!(heard, own.map(|booking| (booking.name(), 3)).collect());
    }
    first.stop().await;
    second.stop().await;
}
