//! `checkup rebuild mypage`: a view is built again beside the one that answers and replaces it without a failed call,
//! even if something stops in the middle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::mypage::v1::GetMyPageRequest;
use contract::mypage::v1::watch_my_page_response::Event;
use fault::Reason;
use store::migration::prelude::{ConnectionTrait, sea_orm};
use testkit::{Checkup, Desk, Finished, Party, Topology, eventually, refused, rush, wait_limit, within};
use tokio::task::JoinHandle;

use crate::streams::watch;
use crate::{embedded, launch};

/// The key that, set to 1, gives every event a transaction of its own, so that a rebuild takes long enough to be
/// interrupted.
const SLOWLY: &str = "relay.batch";

/// The directories with a view: one per replica.
fn views(checkup: &Checkup) -> Vec<PathBuf> {
    let data = checkup.launch().data().path();
    match Topology::asked_for() {
        Topology::Embedded => vec![data.to_owned()],
        Topology::Mesh => vec![data.join("mypage-0"), data.join("mypage-1")],
    }
}

/// The files of views in a directory.
fn files(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("mypage") && name.ends_with(".db")).collect();
    names.sort();
    names
}

async fn rebuild(checkup: &Checkup, directory: &Path) -> Finished {
    checkup.launch().run(&["rebuild", "mypage", "--data-dir", &directory.to_string_lossy()]).await
}

/// Runs the command in the background.
fn asking(checkup: &Checkup, directory: &Path) -> JoinHandle<Finished> {
    let (launch, directory) = (checkup.launch().clone(), directory.to_string_lossy().into_owned());
    tokio::spawn(async move { launch.run(&["rebuild", "mypage", "--data-dir", &directory]).await })
}

async fn rebuild_all(checkup: &Checkup) {
    for directory in views(checkup) {
        let rebuilt = rebuild(checkup, &directory).await;
        assert_eq!(rebuilt.code, Some(0), "{rebuilt:#?}");
        assert!(rebuilt.stdout.starts_with("mypage was built anew from "), "{rebuilt:#?}");
    }
}

async fn verify(checkup: &Checkup, expected: i32, when: &str) {
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(expected), "{when}: {verified:#?}");
}

/// Books once for each of `count` customers, and cancels every second booking.
async fn book(checkup: &Checkup, slots: &[String], count: usize) {
    let customers = checkup.served().customers("early", count, 4).await;
    rush(count, |i| {
        let (desk, slot) = (Desk::of(&customers[i]), slots[i % slots.len()].clone());
        async move {
            let booked = desk.book(&format!("early-{i}"), &slot, "").await.expect("a place");
            if i % 2 == 0 {
                desk.cancel(&booked.name, "").await.expect("cancelled");
            }
        }
    })
    .await;
}

/// Removes rows from a view that no process uses.
async fn damage(file: &Path) {
    let url = format!("sqlite://{}", file.display());
    let connection = sea_orm::Database::connect(url).await.expect("the view opens");
    let lost = connection
        .execute_unprepared("DELETE FROM item_version WHERE unicode(hex(substr(screening, 16))) % 3 = 0")
        .await
        .expect("rows are lost");
    assert!(lost.rows_affected() > 0);
    connection.close().await.expect("the view closes");
}

/// Books, and reads each booking on its customer's page, until `stop` is set. No call may fail.
async fn read_and_write(desk: Desk, party: Party, customer: String, slot: String, stop: Arc<AtomicBool>) -> usize {
    let name = format!("customers/{customer}/myPage");
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) {
        let booked = desk.book(&customer, &slot, "").await.expect("a place");
        let mut page = GetMyPageRequest {
            name: name.clone(),
            min_consistency_token: booked.consistency_token,
            ..Default::default()
        };
        let seen = party.my_page().get_my_page(page.clone()).await.expect("not one read fails").into_inner();
        assert_eq!(seen.active_count, 1, "{customer}: {seen:?}");
        page.min_consistency_token = desk.cancel(&booked.name, "").await.expect("cancelled").consistency_token;
        let seen = party.my_page().get_my_page(page).await.expect("not one read fails").into_inner();
        assert_eq!(seen.active_count, 0, "{customer}: {seen:?}");
        calls += 1;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_view_is_repaired_under_load_without_a_failed_call() {
    const CALLERS: usize = 6;
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("damaged", &[7, 8, 9], 1_000).await;
    book(&checkup, &slots, 60).await;
    verify(&checkup, 0, "before").await;
    let directories = views(&checkup);
    let launch = checkup.stop().await;
    for directory in &directories {
        damage(&directory.join("mypage.db")).await;
    }
    let checkup = launch.start().await;
    verify(&checkup, 1, "damaged").await;

    let stop = Arc::new(AtomicBool::new(false));
    let parties = checkup.served().customers("busy", CALLERS, 3).await;
    let load = |i: usize| {
        let (party, slot, stop) = (parties[i].clone(), slots[i % slots.len()].clone(), Arc::clone(&stop));
        tokio::spawn(read_and_write(Desk::of(&party), party, format!("busy-{i}"), slot, stop))
    };
    let load: Vec<JoinHandle<usize>> = (0..CALLERS).map(load).collect();
    rebuild_all(&checkup).await;
    rebuild_all(&checkup).await;
    stop.store(true, Ordering::Relaxed);
    let calls: usize = testkit::gather(load).await.into_iter().sum();
    assert!(calls > CALLERS, "there was load: {calls}");
    verify(&checkup, 0, "built anew, twice").await;
    for directory in &directories {
        assert_eq!(files(directory), ["mypage-3.db"], "the old ones are gone");
    }
    let checkup = checkup.stop().await.start().await;
    verify(&checkup, 0, "started again").await;
}

/// Rebuilds the view of 20 bookings after the events that `gone` selects were removed by age. The rebuild must fail and
/// say `why`, and the process must go on with the old view.
async fn rebuild_without(gone: &str, why: &str) {
    let checkup = embedded().start().await;
    let slots = Desk::of(&checkup.admin().await).open("forgotten", &[7, 8], 1_000).await;
    book(&checkup, &slots, 20).await;
    // the last event of all is a cancellation: without it there are as many bookings, but one too many is active
    let late = Desk::of(&checkup.customer("late").await);
    let booked = late.book("late", &slots[0], "").await.expect("a place");
    late.cancel(&booked.name, "").await.expect("cancelled");
    verify(&checkup, 0, "before").await;
    let launch = checkup.stop().await;
    let directory = launch.data().path().to_owned();
    let file = directory.join("screening.db");
    let log = sea_orm::Database::connect(format!("sqlite://{}", file.display())).await.expect("the log opens");
    // these events look as if they were published through a broker, so they are removed when they are old, wherever the
    // views' cursors are
    let marked = log.execute_unprepared(&format!("UPDATE outbox SET stream_sequence = position WHERE {gone}")).await;
    assert!(marked.expect("marked").rows_affected() > 0, "{gone}");
    log.close().await.expect("the log closes");
    let log =
        store::Database::open::<screening::Migrator>(&store::Location::Sqlite(file)).await.expect("the log opens");
    crate::remove_published(&log, jiff::Timestamp::MAX).await;
    log.close().await;

    let checkup = launch.start().await;
    let refused = rebuild(&checkup, &directory).await;
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains(why), "{refused:#?}");
    assert_eq!(files(&directory), ["mypage.db"]);
    // the process goes on with the old view
    book_one(&checkup, &slots[0]).await;
    verify(&checkup, 0, "refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_of_events_that_are_gone_is_kept() {
    rebuild_without("position < (SELECT max(position) FROM outbox) - 1", "the old view shows 21").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_last_event_is_gone_is_kept() {
    rebuild_without("position = (SELECT max(position) FROM outbox)", "did not come within 5 s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_of_which_all_events_are_gone_is_kept() {
    rebuild_without("true", "the old view shows 21").await;
}

async fn book_one(checkup: &Checkup, slot: &str) {
    let kim = checkup.customer("kim").await;
    let booked = Desk::of(&kim).book("kim", slot, "").await.expect("a place");
    let page = GetMyPageRequest {
        name: "customers/kim/myPage".to_owned(),
        min_consistency_token: booked.consistency_token,
        ..GetMyPageRequest::default()
    };
    let page = kim.my_page().get_my_page(page).await.expect("the view is fed").into_inner();
    assert_eq!(page.active_count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_is_told_to_begin_again_and_misses_nothing() {
    let checkup = launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("watched", &[7, 8], 5).await;
    let kim = checkup.customer("kim").await;
    let first = Desk::of(&kim).book("kim", &slots[0], "").await.expect("a place");
    let mut stream = watch(&kim, "kim", "").await.expect("a stream");
    let mut token = stream.message().await.expect("a message").expect("a snapshot").resume_token;
    rebuild_all(&checkup).await;
    let second = Desk::of(&kim).book("kim", &slots[1], "").await.expect("a place");
    let end = within(wait_limit(), "the stream to end", async {
        loop {
            match stream.message().await {
                Ok(Some(message)) => token = message.resume_token,
                end => return end,
            }
        }
    })
    .await;
    refused(end, Reason::CursorExpired);
    refused(watch(&kim, "kim", &token).await.map(drop), Reason::CursorExpired);
    let known = eventually("a stream that begins again to tell of both bookings", async || {
        let mut again = watch(&kim, "kim", "").await.map_err(|status| status.to_string())?;
        let message = again.message().await.map_err(|status| status.to_string())?;
        match message.and_then(|message| message.event) {
            Some(Event::Snapshot(page)) if page.active_count == 2 => Ok(page),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let mut names: Vec<String> = known.upcoming.into_iter().map(|item| item.screening).collect();
    let mut expected = vec![first.name, second.name];
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_in_the_middle_begins_with_a_whole_view() {
    let checkup = embedded().start().await;
    let slots = Desk::of(&checkup.admin().await).open("killed", &[7, 8, 9, 10], 1_000).await;
    book(&checkup, &slots, 200).await;
    verify(&checkup, 0, "before").await;
    let mut checkup = checkup.stop().await.set(SLOWLY, 1).start().await;
    let directory = checkup.launch().data().path().to_owned();
    // the first kill comes at the very beginning, the others at later moments, perhaps around the replacement
    for delay in [0, 150, 300, 450] {
        let before = files(&directory);
        let asking = asking(&checkup, &directory);
        eventually("the second view to be begun", async || {
            let now = files(&directory);
            if now != before { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        // The nemesis: a kill at some moment of the rebuild.
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let launch = checkup.kill().await;
        let asked = asking.await.expect("the command ends");
        let is_old_in_use = !directory.join("mypage.current").exists();
        if delay == 0 {
            assert!(is_old_in_use, "the kill was in the middle");
            assert_eq!(asked.code, Some(1), "{asked:#?}");
            assert!(asked.stderr.contains("ask again"), "{asked:#?}");
        }
        checkup = launch.start().await;
        assert_eq!(files(&directory).len(), 1, "one view is in use and the other gone: {:?}", files(&directory));
        verify(&checkup, 0, &format!("killed after {delay} ms")).await;
    }
    let rebuilt = rebuild(&checkup, &directory).await;
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:#?}");
    verify(&checkup, 0, "built anew in the end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_while_one_is_under_way_waits_for_that() {
    let checkup = embedded().start().await;
    let slots = Desk::of(&checkup.admin().await).open("asked-twice", &[7, 8], 1_000).await;
    book(&checkup, &slots, 100).await;
    let checkup = checkup.stop().await.set(SLOWLY, 1).start().await;
    let directory = checkup.launch().data().path().to_owned();
    let first = asking(&checkup, &directory);
    eventually("the request", async || {
        if directory.join("mypage.rebuild").exists() { Ok(()) } else { Err("nobody asked".to_owned()) }
    })
    .await;
    let second = rebuild(&checkup, &directory).await;
    assert_eq!(second.code, Some(0), "{second:#?}");
    assert!(second.stderr.contains("under way already"), "{second:#?}");
    let first = first.await.expect("the command ends");
    assert_eq!(first.code, Some(0), "{first:#?}");
    assert_eq!(files(&directory), ["mypage-2.db"], "it was built once");
    verify(&checkup, 0, "built anew").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_built_anew_is_refused_with_a_reason() {
    let refused = |finished: Finished, code: i32, why: &str| {
        assert_eq!(finished.code, Some(code), "{finished:#?}");
        assert!(finished.stderr.contains(why), "{why}: {finished:#?}");
        assert!(finished.stderr.trim_end().lines().count() == 1, "one sentence: {finished:#?}");
    };
    let checkup = embedded().without("mypage").start().await;
    let directory = checkup.launch().data().path().to_owned();
    refused(rebuild(&checkup, &directory).await, 1, "my-page does not run in that process");
    let data = directory.to_string_lossy().into_owned();
    let launch = checkup.stop().await;
    refused(launch.run(&["rebuild", "mypage", "--data-dir", &data]).await, 1, "no process runs on");
    let nowhere = format!("{data}/nowhere");
    refused(launch.run(&["rebuild", "mypage", "--data-dir", &nowhere]).await, 1, "no process runs on");
    refused(launch.run(&["rebuild", "hospital", "--data-dir", &data]).await, 64, "only mypage can");
    let shared = ["rebuild", "mypage", "--data-dir", &data, "--set", "mypage.database=postgres://kim@127.0.0.1/mypage"];
    refused(launch.run(&shared).await, 64, "which its replicas share");
    assert_eq!(files(&directory), Vec::<String>::new(), "nothing was done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_no_event_is_for_is_built_anew_as_well() {
    let checkup = launch().start().await;
    // the view reads these events, and none of them belongs to a page
    Desk::of(&checkup.admin().await).open("unvisited", &[7, 8], 5).await;
    rebuild_all(&checkup).await;
    verify(&checkup, 0, "built anew").await;
}
