//! Views that are rebuilt beside the one in use and then replace it.

use std::time::Duration;

use contract::event::v1::EventEnvelope;
use fault::Reason;
use mypage::View;
use store::Location;
use testkit::{refused, wait_limit, within};

use crate::support::{Booking, House, POSITION, Plan, get, get_all, incoming, list, page_of, watch};

/// Opens another view at this location and feeds it these events.
async fn another(house: &House, location: Location, events: &[EventEnvelope]) -> View {
    let view = house.service.views.open(&location).await.unwrap();
    view.consumer().handler.handle(&events.iter().map(incoming).collect::<Vec<_>>()).await.unwrap();
    view
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_the_new_view_once_it_is_in_place_and_the_old_one_can_be_closed() {
    let (house, dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let bookings: Vec<Booking> = (1..=5).map(|uid| Booking::new(uid, "kim", uid as i32)).collect();
    let events: Vec<EventEnvelope> = bookings.iter().flat_map(|booking| booking.life(&["CONFIRMED"])).collect();
    // the view in use misses four of the events
    house.feed(&events[..1]).await;
    let next = another(&house, Location::Sqlite(dir.path().join("mypage-2.db")), &events).await;
    assert_eq!(get(&kim, &page_of("kim"), "").await.unwrap().active_count, 1, "nobody reads it yet");

    let old = house.service.views.replace(next);
    assert_eq!(get(&kim, &page_of("kim"), "").await.unwrap().active_count, 5);
    assert_eq!(list(&kim, &page_of("kim"), 2).await.unwrap().len(), 5);
    // the test still holds the consumer of the old view, like a transport that has not stopped
    old.close(Duration::from_millis(10)).await;
    assert_eq!(get(&kim, &page_of("kim"), "").await.unwrap().active_count, 5);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_view_is_closed_at_once_and_leaves_no_work_behind() {
    let (house, dir) = House::start(Plan::default()).await;
    let booking = Booking::new(1, "kim", 3);
    let view = another(&house, Location::Sqlite(dir.path().join("mypage-2.db")), &booking.life(&["CONFIRMED"])).await;
    within(wait_limit(), "the view to close", view.close(Duration::from_secs(600))).await;
    // the view's tasks have ended, and the process keeps running
    let kim = house.served.customer("kim").await;
    house.feed(&booking.life(&["CONFIRMED"])).await;
    assert_eq!(get(&kim, &page_of("kim"), "").await.unwrap().active_count, 1);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_the_old_view_ends_and_its_token_is_not_mistaken_for_one_of_the_new() {
    let (house, dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let booking = Booking::new(1, "kim", 4);
    house.feed(&booking.life(&["PENDING"])).await;
    let mut stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    stream.snapshot().await;
    let events = booking.life(&["PENDING", "CONFIRMED"]);
    let next = another(&house, Location::Sqlite(dir.path().join("mypage-2.db")), &events).await;
    let handler = next.consumer().handler;

    drop(house.service.views.replace(next));
    refused(stream.next().await, Reason::CursorExpired);
    refused(watch(&kim, &page_of("kim"), &stream.token).await.map(drop), Reason::CursorExpired);
    let mut again = watch(&kim, &page_of("kim"), "").await.unwrap();
    assert_eq!(again.snapshot().await.upcoming[0].screening_version, 2);
    handler.handle(&[incoming(&booking.event(3, "CANCELLED"))]).await.unwrap();
    assert_eq!(again.change().await.unwrap(), (booking.name(), 3));
    drop((stream, again, handler));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_in_the_new_view_as_it_was_in_the_old() {
    let (house, dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let (waiting, confirmed) = (Booking::new(1, "kim", 3), Booking::new(2, "kim", 4));
    let mut events = waiting.life(&["PENDING", "WAITLISTED"]);
    events.extend(confirmed.life(&["WAITLISTED", "CONFIRMED"]));
    house.feed(&events).await;
    let pages = async || {
        let [some, all] = [get(&kim, &page_of("kim"), "").await, get_all(&kim, &page_of("kim"), "").await];
        [some.unwrap().upcoming, all.unwrap().upcoming]
    };
    let before = pages().await;
    // in another order
    events.reverse();
    let next = another(&house, Location::Sqlite(dir.path().join("mypage-2.db")), &events).await;
    drop(house.service.views.replace(next));
    assert_eq!(pages().await, before);
    let [some, all] = &before;
    assert_eq!(some.iter().map(|item| &item.screening).collect::<Vec<_>>(), [&confirmed.name()]);
    let positions = all.iter().map(|item| (item.state.as_str(), item.waitlist_position)).collect::<Vec<_>>();
    assert_eq!(positions, [("WAITLISTED", POSITION), ("CONFIRMED", 0)]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_an_event_goes_on_waiting_on_the_new_view() {
    let (house, dir) = House::start(Plan::default()).await;
    let booking = Booking::new(1, "kim", 4);
    let next = another(&house, Location::Sqlite(dir.path().join("mypage-2.db")), &[]).await;
    let handler = next.consumer().handler;
    let kim = house.served.customer("kim").await;
    let (page, token) = (page_of("kim"), booking.token(1));
    let reading = get(&kim, &page, &token);
    let replacing = async {
        // this read is sent after the other one on the same connection, so the other one waits already when it is
        // answered
        get(&kim, &page, "").await.unwrap();
        drop(house.service.views.replace(next));
        // only the new view gets this event
        handler.handle(&booking.life(&["CONFIRMED"]).iter().map(incoming).collect::<Vec<_>>()).await.unwrap();
    };
    let (read, ()) = within(wait_limit(), "the read", async { tokio::join!(reading, replacing) }).await;
    assert_eq!(read.unwrap().active_count, 1);
    drop(handler);
    house.stop().await;
}
