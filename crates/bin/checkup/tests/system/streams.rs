//! WatchMyPage: a snapshot, then every change; resuming, and the refusal when that is no longer possible.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::mypage::v1 as mypage;
use fault::Reason;
use mypage::watch_my_page_response::Event;
use mypage::{MyPage, MyPageItem, WatchMyPageRequest, WatchMyPageResponse};
use testkit::{Desk, Party, eventually, refused, wait_limit, within};
use tonic::{Request, Status, Streaming};

use crate::launch;

/// Opens a stream with a long deadline.
pub(crate) async fn watch(
    party: &Party,
    customer: &str,
    resume_token: &str,
) -> Result<Streaming<WatchMyPageResponse>, Status> {
    let mut request = Request::new(WatchMyPageRequest {
        name: format!("customers/{customer}/myPage"),
        resume_token: resume_token.to_owned(),
        ..WatchMyPageRequest::default()
    });
    request.set_timeout(Duration::from_secs(600));
    party.my_page().watch_my_page(request).await.map(tonic::Response::into_inner)
}

/// The next message of any kind.
async fn next(stream: &mut Streaming<WatchMyPageResponse>) -> WatchMyPageResponse {
    let message = within(wait_limit(), "the next message", stream.message()).await;
    message.expect("the stream goes on").expect("the stream does not end")
}

/// The next change, and the token to resume after it.
async fn next_change(stream: &mut Streaming<WatchMyPageResponse>) -> (MyPageItem, String) {
    loop {
        let message = next(stream).await;
        assert!(!message.resume_token.is_empty(), "every message says where to resume");
        match message.event.expect("a message has an event") {
            Event::Changed(item) => return (item, message.resume_token),
            Event::Heartbeat(_) => {}
            Event::Snapshot(page) => panic!("a second snapshot: {page:?}"),
        }
    }
}

/// The snapshot that a stream begins with, and the token to resume after it.
async fn snapshot(stream: &mut Streaming<WatchMyPageResponse>) -> (MyPage, String) {
    let message = next(stream).await;
    match message.event {
        Some(Event::Snapshot(page)) => (page, message.resume_token),
        other => panic!("a stream begins with a snapshot, not {other:?}"),
    }
}

/// Reads changes until the screening has this version. Returns the changes and the last token.
async fn until(
    stream: &mut Streaming<WatchMyPageResponse>,
    screening: &str,
    version: i64,
) -> (Vec<MyPageItem>, String) {
    let mut changes = Vec::new();
    loop {
        let (item, token) = next_change(stream).await;
        let done = item.screening == screening && item.screening_version >= version;
        changes.push(item);
        if done {
            return (changes, token);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_the_page_and_then_every_change() {
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("watched", &[7, 8, 9], 5).await;
    let kim = checkup.customer("kim").await;
    let desk = Desk::of(&kim);
    let first = desk.book("kim", &slots[0], "").await.expect("a place");
    eventually("the view to show it", async || {
        let mut stream = watch(&kim, "kim", "").await.map_err(|status| status.to_string())?;
        let (page, _) = snapshot(&mut stream).await;
        if page.active_count == 1 { Ok(()) } else { Err(format!("{page:?}")) }
    })
    .await;

    let mut stream = watch(&kim, "kim", "").await.expect("a stream");
    let (page, _) = snapshot(&mut stream).await;
    assert_eq!(page.upcoming.iter().map(|item| &item.screening).collect::<Vec<_>>(), [&first.name]);
    assert_eq!(page.upcoming[0].hospital_display_name, "Hospital watched");
    // Another customer's booking does not appear.
    Desk::of(&checkup.customer("lee").await).book("lee", &slots[1], "").await.expect("a place");
    let second = desk.book("kim", &slots[2], "").await.expect("a place");
    let (change, _) = next_change(&mut stream).await;
    assert_eq!((change.screening, change.state.as_str()), (second.name.clone(), "CONFIRMED"));
    desk.cancel(&first.name, "").await.expect("cancelled");
    let (change, token) = next_change(&mut stream).await;
    assert_eq!((change.screening.as_str(), change.state.as_str()), (first.name.as_str(), "CANCELLED"));
    assert_eq!((change.screening_version, change.state_reason.as_str()), (2, "CUSTOMER_REQUEST"));
    assert_eq!(change.state_message, "changed plans");
    drop(stream);

    // A resumed stream has no snapshot: it shows the changes since then, and none twice.
    desk.cancel(&second.name, "").await.expect("cancelled");
    let mut resumed = watch(&kim, "kim", &token).await.expect("a stream");
    let (change, later) = next_change(&mut resumed).await;
    assert_eq!((change.screening.as_str(), change.state.as_str()), (second.name.as_str(), "CANCELLED"));
    let third = desk.book("kim", &slots[1], "").await.expect("a place");
    assert_eq!(next_change(&mut resumed).await.0.screening, third.name);
    let mut again = watch(&kim, "kim", &later).await.expect("a stream");
    assert_eq!(next_change(&mut again).await.0.screening, third.name, "a token can be used more than once");

    // A token is valid for its own page only.
    let lee = checkup.customer("lee").await;
    refused(watch(&lee, "lee", &later).await, Reason::PageTokenInvalid);
    refused(watch(&lee, "kim", "").await, Reason::NotOwner);
    refused(watch(&kim, "kim", "x").await, Reason::PageTokenInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_stream_loses_nothing_and_repeats_nothing() {
    const ROUNDS: usize = 8;
    let checkup = launch().start().await;
    let days: Vec<i32> = (5..5 + i32::try_from(ROUNDS * 3).unwrap_or(0)).collect();
    let slots = Desk::of(&checkup.admin().await).open("watched", &days, 5).await;
    let kim = checkup.customer("kim").await;
    let desk = Desk::of(&kim);
    let mut stream = watch(&kim, "kim", "").await.expect("a stream");
    let (_, mut token) = snapshot(&mut stream).await;
    let mut seen: Vec<(String, i64)> = Vec::new();
    let mut expected: Vec<(String, i64)> = Vec::new();
    for round in slots.chunks(3) {
        drop(stream);
        let mut last = None;
        for slot in round {
            let booked = desk.book("kim", slot, "").await.expect("a place");
            expected.push((booked.name.clone(), 1));
            last = Some(booked);
        }
        let last = last.expect("a booking");
        desk.cancel(&last.name, "").await.expect("cancelled");
        expected.push((last.name.clone(), 2));
        stream = watch(&kim, "kim", &token).await.expect("resumed");
        let (changes, resume) = until(&mut stream, &last.name, 2).await;
        seen.extend(changes.into_iter().map(|item| (item.screening, item.screening_version)));
        token = resume;
    }
    // A change may be left out if a later one of the same booking follows. None comes twice, or after a later one.
    let unique: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "{seen:?}");
    let latest = |rows: &[(String, i64)]| -> BTreeMap<String, i64> {
        let mut latest = BTreeMap::new();
        for (name, version) in rows {
            let before = latest.insert(name.clone(), *version);
            assert!(before.is_none_or(|before| before < *version), "{name} went back to version {version}");
        }
        latest
    };
    assert_eq!(latest(&seen), latest(&expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_survives_a_restart_by_its_token_and_is_told_when_the_service_goes() {
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("watched", &[7, 8], 5).await;
    let kim = checkup.customer("kim").await;
    let mut stream = watch(&kim, "kim", "").await.expect("a stream");
    let (_, token) = snapshot(&mut stream).await;
    checkup.terminate();
    let end = within(wait_limit(), "the stream to end", async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    })
    .await;
    refused(end, Reason::NotReady);
    drop((stream, kim));
    let (code, launch) = checkup.ended().await;
    assert_eq!(code, Some(0));

    let checkup = launch.start().await;
    let kim = checkup.customer("kim").await;
    let booked = Desk::of(&kim).book("kim", &slots[0], "").await.expect("a place");
    let mut resumed = watch(&kim, "kim", &token).await.expect("the token outlives the process");
    assert_eq!(next_change(&mut resumed).await.0.screening, booked.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_shows_signs_of_life_and_ends_at_its_deadline() {
    let checkup = launch().set("mypage.heartbeat", "300ms").start().await;
    let kim = checkup.customer("kim").await;
    let mut request =
        Request::new(WatchMyPageRequest { name: "customers/kim/myPage".to_owned(), ..Default::default() });
    request.set_timeout(Duration::from_millis(1_500));
    let mut stream = kim.my_page().watch_my_page(request).await.expect("a stream").into_inner();
    snapshot(&mut stream).await;
    let mut beats = 0;
    let end = within(wait_limit(), "the stream to end", async {
        loop {
            match stream.message().await {
                Ok(Some(WatchMyPageResponse { event: Some(Event::Heartbeat(_)), resume_token })) => {
                    assert!(!resume_token.is_empty());
                    beats += 1;
                }
                Ok(Some(other)) => panic!("nothing happened, and still {other:?}"),
                end => return end,
            }
        }
    })
    .await;
    refused(end, Reason::DeadlineExceeded);
    assert!((1..=5).contains(&beats), "{beats} heartbeats in a second and a half");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_too_old_is_told_so() {
    let short = launch().set("mypage.change_count", 5).set("mypage.prune_interval", "100ms");
    let checkup = short.start().await;
    let slot = Desk::of(&checkup.admin().await).open("forgetful", &[7], 50).await.remove(0);
    let kim = checkup.customer("kim").await;
    let mut stream = watch(&kim, "kim", "").await.expect("a stream");
    let (_, old) = snapshot(&mut stream).await;
    drop(stream);
    // These changes push the older ones out of the kept changes.
    for _ in 0..5 {
        let booked = Desk::of(&kim).book("kim", &slot, "").await.expect("a place");
        Desk::of(&kim).cancel(&booked.name, "").await.expect("cancelled");
    }
    let refusal = eventually("the old position to be forgotten", async || match watch(&kim, "kim", &old).await {
        Ok(mut stream) => match tokio::time::timeout(Duration::from_millis(100), stream.message()).await {
            Ok(Err(status)) => Ok(refused(Err::<(), _>(status), Reason::CursorExpired)),
            other => Err(format!("still resumed: {other:?}")),
        },
        refusal => Ok(refused(refusal.map(|_| ()), Reason::CursorExpired)),
    })
    .await;
    assert_eq!(refusal.retry_after, None);
    let mut again = watch(&kim, "kim", "").await.expect("without a token it begins anew");
    snapshot(&mut again).await;
}
