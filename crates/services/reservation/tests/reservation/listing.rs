//! Lists: scopes, filters, orders, and pages while rows are added.

use std::collections::BTreeSet;

use contract::reservation::v1::reservation::State;
use contract::reservation::v1::{ListReservationsRequest, Reservation};
use fault::Reason;
use testkit::{Party, refused};
use tonic::Status;

use crate::support::{Booking, House, get, history, states};

async fn list(party: &Party, filter: &str, order_by: &str) -> Result<Vec<Reservation>, Status> {
    let mut request = ListReservationsRequest {
        filter: filter.into(),
        order_by: order_by.into(),
        page_size: 7,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = party.reservation().list_reservations(request.clone()).await?.into_inner();
        found.extend(page.reservations);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        assert_eq!(found.len() % 7, 0);
        request.page_token = page.next_page_token;
    }
}

fn names(found: &[Reservation]) -> Vec<&str> {
    found.iter().map(|reservation| reservation.name.as_str()).collect()
}

/// 24 bookings of two customers at two hospitals on twelve dates. A later booking has an earlier date.
async fn populate(house: &House) -> Vec<Booking> {
    let mut bookings = Vec::new();
    for uid in 1..=24_u128 {
        let customer = if uid % 2 == 0 { "kim" } else { "lee" };
        let hospital = if uid % 3 == 0 { "busan" } else { "seoul" };
        let slot = format!("hospitals/{hospital}/slots/2027-03-{:02}", 25 - uid.div_ceil(2));
        let booking = Booking::new(uid, customer, &slot);
        let states: &[&str] = if uid % 4 == 0 { &["CONFIRMED", "CANCELLED"] } else { &["CONFIRMED"] };
        house.feed(&booking.life(states)).await;
        bookings.push(booking);
    }
    house.feed(&Booking::new(90, "kim", "hospitals/seoul/slots/2027-03-01").life(&["PENDING"])).await;
    bookings
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_lists_their_own() {
    let (house, _dir) = House::start().await;
    let bookings = populate(&house).await;
    let kim = house.served.customer("kim").await;
    let own: Vec<String> =
        bookings.iter().rev().filter(|one| one.customer == "customers/kim").map(Booking::name).collect();
    assert_eq!(names(&list(&kim, "", "").await.unwrap()), own);
    assert_eq!(names(&list(&kim, r#"customer="customers/kim""#, "").await.unwrap()), own);
    refused(list(&kim, r#"customer="customers/lee""#, "").await, Reason::NotOwner);

    let busan = house.served.party(Some(house.served.tokens().admin("park", "busan"))).await;
    let found = list(&busan, "", "").await.unwrap();
    assert_eq!(found.len(), 8);
    assert!(found.iter().all(|one| one.slot.starts_with("hospitals/busan/")));
    assert_eq!(list(&busan, r#"customer="customers/kim""#, "").await.unwrap().len(), 4);
    refused(list(&busan, r#"hospital="hospitals/seoul""#, "").await, Reason::NotOwner);
    refused(list(&busan, r#"slot="hospitals/seoul/slots/2027-03-24""#, "").await, Reason::NotOwner);

    let both = house.served.party(Some(house.served.tokens().admin("cho", "busan,seoul"))).await;
    let auditor = house.served.auditor().await;
    for order_by in ["", "create_time", "date", "date desc"] {
        let all = list(&auditor, "", order_by).await.unwrap();
        assert_eq!(all.len(), 24);
        for party in [&both, &house.served.admin().await] {
            assert_eq!(list(party, "", order_by).await.unwrap(), all, "{order_by}");
        }
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_orders_mean_what_they_say() {
    let (house, _dir) = House::start().await;
    let bookings = populate(&house).await;
    let auditor = house.served.auditor().await;
    // the 20th is cancelled, a second after it was booked
    let booked = jiff::Timestamp::from_second(bookings[19].begin + 1).unwrap();
    let changed = format!("update_time>\"{booked}\"");
    for (filter, count) in [
        ("state=CANCELLED", 6),
        ("state!=CANCELLED", 18),
        (r#"hospital="hospitals/busan""#, 8),
        (r#"hospital!="hospitals/busan" AND customer="customers/kim""#, 8),
        (r#"slot="hospitals/seoul/slots/2027-03-24""#, 2),
        (r#"date>="2027-03-20" AND date<"2027-03-22""#, 4),
        (r#"date="2030-01-01""#, 0),
        (changed.as_str(), 5),
    ] {
        assert_eq!(list(&auditor, filter, "").await.unwrap().len(), count, "{filter}");
    }
    let mut newest: Vec<String> = bookings.iter().rev().map(Booking::name).collect();
    assert_eq!(names(&list(&auditor, "", "create_time desc").await.unwrap()), newest);
    newest.reverse();
    assert_eq!(names(&list(&auditor, "", "create_time").await.unwrap()), newest);

    let key = |one: &Reservation| (one.slot.rsplit('/').next().unwrap().to_owned(), one.name.clone());
    let by_date = list(&auditor, "", "date").await.unwrap();
    assert!(by_date.is_sorted_by_key(key));
    let mut descending = list(&auditor, "", "date desc").await.unwrap();
    descending.reverse();
    assert_eq!(names(&descending), names(&by_date));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_in_neither_repeat_nor_hide_others() {
    let (house, _dir) = House::start().await;
    let bookings = populate(&house).await;
    let auditor = house.served.auditor().await;
    for (order_by, pace) in [("create_time desc", 100), ("create_time", 200), ("date", 300), ("date desc", 400)] {
        let mut request =
            ListReservationsRequest { order_by: order_by.into(), page_size: 5, ..ListReservationsRequest::default() };
        let mut seen = Vec::new();
        for number in 0.. {
            let page = auditor.reservation().list_reservations(request.clone()).await.unwrap().into_inner();
            seen.extend(page.reservations.into_iter().map(|one| one.name));
            if page.next_page_token.is_empty() || number > 50 {
                break;
            }
            request.page_token = page.next_page_token;
            // one new row sorts before the position of the page token, the other one after it
            for (uid, day) in [(pace + 2 * number, 1), (pace + 2 * number + 1, 28)] {
                let slot = format!("hospitals/daegu/slots/2027-03-{day:02}");
                house.feed(&[Booking::new(uid, "cho", &slot).event(1, "CONFIRMED")]).await;
            }
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "{order_by}: a row came twice");
        assert!(bookings.iter().all(|one| distinct.contains(&one.name())), "{order_by}: a row is missing");
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_continues_only_its_own_list() {
    let (house, _dir) = House::start().await;
    let bookings = populate(&house).await;
    let auditor = house.served.auditor().await;
    let request = ListReservationsRequest { page_size: 2, ..ListReservationsRequest::default() };
    let page = auditor.reservation().list_reservations(request.clone()).await.unwrap().into_inner();
    let next = ListReservationsRequest { page_token: page.next_page_token, ..request };
    assert_eq!(auditor.reservation().list_reservations(next.clone()).await.unwrap().get_ref().reservations.len(), 2);
    let resized = ListReservationsRequest { page_size: 9, ..next.clone() };
    assert_eq!(auditor.reservation().list_reservations(resized).await.unwrap().get_ref().reservations.len(), 9);
    for other in [
        ListReservationsRequest { filter: "state=REGISTERED".into(), ..next.clone() },
        ListReservationsRequest { order_by: "create_time".into(), ..next.clone() },
        ListReservationsRequest { page_token: format!("{}A", next.page_token), ..next.clone() },
    ] {
        refused(auditor.reservation().list_reservations(other).await, Reason::PageTokenInvalid);
    }

    let cancelled = &bookings[3];
    assert_eq!(history(&auditor, &cancelled.name(), 1).await.unwrap().len(), 2);
    let mut request = contract::reservation::v1::ListReservationHistoryRequest {
        parent: cancelled.name(),
        page_size: 1,
        page_token: String::new(),
    };
    let page = auditor.reservation().list_reservation_history(request.clone()).await.unwrap().into_inner();
    request.parent = bookings[7].name();
    request.page_token = page.next_page_token;
    refused(auditor.reservation().list_reservation_history(request).await, Reason::PageTokenInvalid);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_that_moved_is_listed_where_it_is_now_and_its_history_says_why() {
    let (house, _dir) = House::start().await;
    let tokens = house.served.tokens();
    let (from, to) = ("hospitals/seoul/slots/2027-03-01", "hospitals/busan/slots/2027-03-09");
    let (booking, moved) = (Booking::new(1, "kim", from), Booking::new(1, "kim", to));
    house.feed(&booking.life(&["CONFIRMED"])).await;
    // the second fact of the move comes first
    house.feed(&[moved.event(3, "MOVED")]).await;
    house.feed(&[moved.event(2, "RESCHEDULED")]).await;

    let kim = house.served.customer("kim").await;
    let shown = get(&kim, &booking.name(), &booking.token(3)).await.unwrap();
    assert_eq!((shown.slot.as_str(), shown.state(), shown.screening_version), (to, State::Registered, 3));
    assert_eq!(shown.date, Some(contract::google::r#type::Date { year: 2027, month: 3, day: 9 }));
    assert_eq!(names(&list(&kim, &format!("slot=\"{to}\""), "date").await.unwrap()), [booking.name()]);
    assert_eq!(list(&kim, &format!("slot=\"{from}\""), "date").await.unwrap(), []);
    let there = house.served.party(Some(tokens.admin("park", "busan"))).await;
    let left = house.served.party(Some(tokens.admin("lee", "seoul"))).await;
    assert_eq!(list(&there, "", "").await.unwrap(), std::slice::from_ref(&shown));
    assert_eq!(list(&left, "", "").await.unwrap(), []);

    let entries = history(&kim, &booking.name(), 0).await.unwrap();
    assert_eq!(states(&entries), [(1, State::Registered), (2, State::Registered), (3, State::Registered)]);
    let said = |entry: usize| (entries[entry].state_reason.as_str(), entries[entry].state_message.as_str());
    assert_eq!([said(0), said(1), said(2)], [("", ""), ("REASON_2", "message 2"), ("REASON_3", "message 3")]);
    house.stop().await;
}
