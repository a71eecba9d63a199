//! A booking that moves to another slot: the page, the list and the streams follow it.

use contract::mypage::v1::MyPageItem;
use contract::mypage::v1::watch_my_page_response::Event;
use testkit::{day_of, in_days};

use crate::support::{Booking, House, Plan, Watch, ZONE, get, list, page_of, watch};

/// The next message of a stream, which must be a change.
async fn changed(stream: &mut Watch) -> MyPageItem {
    match stream.next().await.unwrap() {
        Event::Changed(item) => item,
        other => panic!("{other:?}"),
    }
}

fn shown(items: &[MyPageItem]) -> Vec<(&str, &str, i64)> {
    items.iter().map(|item| (item.screening.as_str(), item.slot.as_str(), item.screening_version)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_that_moves_is_shown_once_and_on_its_new_date() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let (booking, other) = (Booking::new(1, "kim", 5), Booking::new(2, "kim", 9));
    house.feed(&booking.life(&["CONFIRMED"])).await;
    house.feed(&other.life(&["CONFIRMED"])).await;
    let mut stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    assert_eq!(stream.snapshot().await.active_count, 2);

    // the same booking on another date
    let moved = Booking::new(1, "kim", 12);
    house.feed(&[moved.event(2, "RESCHEDULED"), moved.event(3, "MOVED")]).await;
    for version in [2, 3] {
        let item = changed(&mut stream).await;
        assert_eq!((item.screening, item.screening_version), (moved.name(), version));
        assert_eq!((item.slot, item.date), (moved.slot.clone(), Some(day_of(in_days(ZONE, 12)))));
        assert_eq!((item.state, item.state_reason), ("CONFIRMED".to_owned(), format!("REASON_{version}")));
    }
    let (soon, later) = (other.name(), moved.name());
    let page = get(&kim, &page_of("kim"), &moved.token(3)).await.unwrap();
    let ahead = [(soon.as_str(), other.slot.as_str(), 1), (later.as_str(), moved.slot.as_str(), 3)];
    assert_eq!((shown(&page.upcoming), page.active_count), (ahead.to_vec(), 2));
    let all = list(&kim, &page_of("kim"), 1).await.unwrap();
    assert_eq!(shown(&all), [ahead[1], ahead[0]], "not on the date that it left");

    // the next move, whose second fact comes first: the other one is old news then
    let back = Booking::new(1, "kim", 5);
    house.feed(&[back.event(5, "MOVED")]).await;
    house.feed(&[back.event(4, "RESCHEDULED"), other.event(2, "CANCELLED")]).await;
    assert_eq!(changed(&mut stream).await.screening_version, 5);
    assert_eq!(changed(&mut stream).await.screening, other.name());
    let page = get(&kim, &page_of("kim"), &back.token(5)).await.unwrap();
    assert_eq!(shown(&page.upcoming), [(later.as_str(), back.slot.as_str(), 5)]);
    drop(stream);
    house.stop().await;
}
