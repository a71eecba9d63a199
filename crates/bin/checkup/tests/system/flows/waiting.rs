//! What a customer sees who waits for a place, in every list and view, and what clients see that know no queues.

use contract::marketing::v1 as marketing;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use fault::Reason;
use marketing::ListDemandSignalsRequest;
use mypage::watch_my_page_response::Event;
use mypage::{GetMyPageRequest, ListMyPageItemsRequest, MyPage, MyPageItem, WatchMyPageRequest};
use reservation::{GetReservationRequest, ListReservationHistoryRequest};
use screening::screening::State;
use screening::{ListScreeningsRequest, Screening};
use testkit::{Desk, Party, eventually, refused};

use crate::launch;

const PAGE: &str = "customers/lee/myPage";

/// The customer's own list, as of this filter.
async fn listed(lee: &Party, filter: &str, show_waitlisted: bool) -> Vec<Screening> {
    let filter = filter.to_owned();
    let request = ListScreeningsRequest { filter, show_waitlisted, ..ListScreeningsRequest::default() };
    lee.screening().list_screenings(request).await.expect("a list").into_inner().screenings
}

/// The customer's page, not older than this booking.
async fn page(lee: &Party, seen: &Screening, show_waitlisted: bool) -> MyPage {
    let (name, min_consistency_token) = (PAGE.to_owned(), seen.consistency_token.clone());
    let request = GetMyPageRequest { name, min_consistency_token, show_waitlisted };
    lee.my_page().get_my_page(request).await.expect("a page").into_inner()
}

async fn items(lee: &Party, show_waitlisted: bool) -> Vec<MyPageItem> {
    let request =
        ListMyPageItemsRequest { parent: PAGE.to_owned(), show_waitlisted, ..ListMyPageItemsRequest::default() };
    lee.my_page().list_my_page_items(request).await.expect("items").into_inner().items
}

/// The first change of the page that a stream tells of from now on, once the test has made one.
async fn next_change(lee: &Party, show_waitlisted: bool) -> tokio::task::JoinHandle<MyPageItem> {
    let request = WatchMyPageRequest { name: PAGE.to_owned(), show_waitlisted, ..WatchMyPageRequest::default() };
    let mut stream = lee.my_page().watch_my_page(request).await.expect("a stream").into_inner();
    let begun = stream.message().await.expect("a stream").and_then(|message| message.event);
    let Some(Event::Snapshot(page)) = begun else { panic!("a stream begins with a snapshot, not {begun:?}") };
    assert_eq!((page.active_count, page.upcoming.len()), (0, 0), "nothing of before: {page:?}");
    tokio::spawn(async move {
        loop {
            let message = stream.message().await.expect("the stream goes on").expect("it does not end");
            if let Some(Event::Changed(item)) = message.event {
                return item;
            }
        }
    })
}

/// Waits until Marketing counts so many who wait for the slot.
async fn demand(marketing: &Party, slot: &str, waitlisted_count: i32) {
    eventually("the demand to be counted", async || {
        let list = ListDemandSignalsRequest::default();
        let page = marketing.marketing().list_demand_signals(list).await.map_err(|status| status.to_string())?;
        let signals = page.into_inner().signals;
        let is_there = signals.iter().any(|one| one.slot == slot && one.waitlisted_count == waitlisted_count);
        if is_there { Ok(()) } else { Err(format!("{signals:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_shown_to_those_who_ask_for_it_and_who_is_promoted_to_all() {
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("longed-for", &[7], 1).await.remove(0);
    let kim = Desk::of(&checkup.customer("kim").await);
    let held = kim.book("kim", &slot, "").await.expect("a place");
    let (lee, auditor) = (checkup.customer("lee").await, checkup.auditor().await);
    let marketing = checkup.service("marketing").await;
    let (plain, knowing) = (next_change(&lee, false).await, next_change(&lee, true).await);

    let joined = Desk::of(&lee).join("lee", &slot, "").await.expect("a ticket");
    assert_eq!((joined.state(), joined.waitlist_position), (State::Waitlisted, 1));
    assert_eq!(Desk::of(&lee).screening(&joined.name).await.expect("its own booking"), joined);
    for (filter, show, shown) in [
        ("", false, false),
        ("", true, true),
        ("state=WAITLISTED", false, true),
        ("state!=CONFIRMED", false, false),
        ("state!=CONFIRMED", true, true),
        ("state=CONFIRMED", true, false),
    ] {
        let expected: &[Screening] = if shown { std::slice::from_ref(&joined) } else { &[] };
        assert_eq!(listed(&lee, filter, show).await, expected, "{filter:?}, asked for: {show}");
    }
    let (now, asked) = (page(&lee, &joined, false).await, page(&lee, &joined, true).await);
    assert_eq!((now.active_count, now.upcoming.len()), (0, 0), "{now:?}");
    let [item] = asked.upcoming.as_slice() else { panic!("{asked:?}") };
    assert_eq!((asked.active_count, item.state.as_str(), item.waitlist_position), (0, "WAITLISTED", 1));
    assert_eq!((items(&lee, false).await.len(), items(&lee, true).await.len()), (0, 1));
    let told = knowing.await.expect("a change");
    assert_eq!((told.state.as_str(), told.waitlist_position, told.screening_version), ("WAITLISTED", 1, 1));
    // The ledger has read of it, and registers nothing before there is a place.
    let name = joined.name.replace("screenings/", "reservations/");
    let read = |seen: &Screening| GetReservationRequest {
        name: name.clone(),
        min_consistency_token: seen.consistency_token.clone(),
    };
    let nothing = auditor.reservation().get_reservation(read(&joined)).await;
    refused(nothing, Reason::ReservationNotFound);
    demand(&marketing, &slot, 1).await;

    kim.cancel(&held.name, "").await.expect("cancelled");
    let promoted = Desk::of(&lee).becomes(&joined.name, State::Confirmed).await;
    assert_eq!((promoted.version, promoted.waitlist_position, promoted.promotion_close_time), (2, 0, None));
    assert_eq!((promoted.state_reason.as_str(), promoted.claim_generation), ("", 1));
    assert_eq!(listed(&lee, "", false).await, std::slice::from_ref(&promoted));
    let now = page(&lee, &promoted, false).await;
    assert_eq!(
        (now.active_count, now.upcoming[0].state.as_str(), now.upcoming[0].waitlist_position),
        (1, "CONFIRMED", 0)
    );
    let told = plain.await.expect("a change");
    assert_eq!((told.state.as_str(), told.screening_version), ("CONFIRMED", 2), "the first that it hears of it");
    let row = auditor.reservation().get_reservation(read(&promoted)).await.expect("registered").into_inner();
    assert_eq!((row.state(), row.screening_version), (reservation::reservation::State::Registered, 2));
    let request = ListReservationHistoryRequest { parent: name.clone(), ..ListReservationHistoryRequest::default() };
    let history = lee.reservation().list_reservation_history(request).await.expect("its own history").into_inner();
    let versions: Vec<i64> = history.entries.iter().map(|entry| entry.screening_version).collect();
    assert_eq!(versions, [2]);
    demand(&marketing, &slot, 0).await;
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_in_vain_is_no_reservation_and_ends_for_all_to_see() {
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("given-up", &[7], 0).await.remove(0);
    let (lee, auditor) = (checkup.customer("lee").await, checkup.auditor().await);
    let joined = Desk::of(&lee).join("lee", &slot, "").await.expect("a ticket");
    let left = Desk::of(&lee).cancel(&joined.name, "").await.expect("left");
    assert_eq!((left.state(), left.state_reason.as_str(), left.version), (State::Cancelled, "CUSTOMER_REQUEST", 2));
    assert_eq!((left.waitlist_position, left.promotion_close_time), (0, None));
    refused(Desk::of(&lee).cancel(&joined.name, "").await, Reason::ScreeningStateInvalid);
    let now = page(&lee, &left, true).await;
    assert_eq!((now.active_count, now.upcoming.len()), (0, 0));
    let [item] = items(&lee, true).await.try_into().expect("one item");
    assert_eq!((item.state.as_str(), item.state_reason.as_str()), ("CANCELLED", "CUSTOMER_REQUEST"));
    let read = GetReservationRequest {
        name: joined.name.replace("screenings/", "reservations/"),
        min_consistency_token: left.consistency_token.clone(),
    };
    refused(auditor.reservation().get_reservation(read).await, Reason::ReservationNotFound);
    eventually("the ticket to be given back", async || {
        let now = Desk::of(&auditor).slot(&slot).await.map_err(|status| status.to_string())?;
        if now.waitlisted_count == 0 { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}
