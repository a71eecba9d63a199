//! One service's database comes back older than the others': the start notices and reports the loss, a command
//! recovers.

mod queue;

use std::fs;
use std::path::{Path, PathBuf};

use contract::event::v1::EventEnvelope;
use contract::screening::v1::Screening;
use contract::screening::v1::screening::State;
use domain::frame::Opened;
use fault::Reason;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use store::{inbox, outbox};
use testkit::{Checkup, Desk, Finished, Launch, eventually, get, refused};

use crate::embedded;
use crate::races::{all_screenings, claims};

const CAPACITY: i32 = 50;
/// The number of the request_id that cancels the first booking.
const CANCELLING: u128 = 1_000_000;
/// The number of the request_id that moves the second one.
const MOVING: u128 = 2_000_000;

/// The data directory with the older file, and what happened before and after the copy.
struct Story {
    launch: Launch,
    slot: String,
    /// Another slot of the same hospital.
    other: String,
    /// The bookings before and after the copy. After it the first one before it was cancelled, and the second one was
    /// moved to the other slot.
    early: Vec<Screening>,
    late: Vec<Screening>,
}

fn path(launch: &Launch, service: &str) -> PathBuf {
    launch.data().path().join(format!("{service}.db"))
}

async fn verified(checkup: &Checkup) {
    let verified = checkup.run(&["verify", "--settle", "20s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

async fn book(checkup: &Checkup, slot: &str, customers: std::ops::Range<usize>) -> Vec<Screening> {
    let desk = Desk::of(&checkup.admin().await);
    let mut booked = Vec::new();
    for customer in customers {
        let request_id = request_id(customer as u128);
        booked.push(desk.book(&format!("k{customer}"), slot, &request_id).await.expect("a place"));
    }
    booked
}

fn request_id(number: u128) -> String {
    uuid::Uuid::from_u128(number + 1).to_string()
}

/// Twenty bookings, a copy of one service's file, twenty more bookings, a cancellation, a move, and the copy put back.
async fn older(service: &str) -> Story {
    let checkup = embedded().start().await;
    let mut slots = Desk::of(&checkup.admin().await).open("full", &[30, 31], CAPACITY).await;
    let (other, slot) = (slots.remove(1), slots.remove(0));
    let mut early = book(&checkup, &slot, 0..20).await;
    verified(&checkup).await;
    let launch = checkup.stop().await;
    let copy = launch.data().path().join("copy");
    fs::copy(path(&launch, service), &copy).expect("a copy");
    let checkup = launch.start().await;
    let late = book(&checkup, &slot, 20..40).await;
    let desk = Desk::of(&checkup.admin().await);
    desk.cancel(&early[0].name, &request_id(CANCELLING)).await.expect("cancelled");
    early[1] = desk.reschedule(&early[1].name, &other, &request_id(MOVING)).await.expect("moved");
    verified(&checkup).await;
    let launch = checkup.stop().await;
    put_back(&launch, service, &copy);
    Story { launch, slot, other, early, late }
}

fn put_back(launch: &Launch, service: &str, copy: &Path) {
    let file = path(launch, service);
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{beside}", file.display()));
    }
    fs::rename(copy, file).expect("put back");
}

/// Opens one service's file beside the tests' process, which nothing else uses.
async fn opened(launch: &Launch, service: &str) -> DatabaseConnection {
    let url = format!("sqlite://{}", path(launch, service).display());
    Database::connect(url).await.expect("the file opens")
}

/// The story in which Reservation came back older, and the position in the middle of Screening's log at which it stands
/// now.
async fn reader_in_the_middle() -> (Story, i64) {
    let story = older("reservation").await;
    let reservation = opened(&story.launch, "reservation").await;
    let read = inbox::read_of(&reservation, "screening").await.expect("its cursors");
    reservation.close().await.unwrap();
    let [cursor] = read.as_slice() else { panic!("one cursor: {read:?}") };
    let screening = opened(&story.launch, "screening").await;
    let head = outbox::head(&screening).await.expect("the log's end");
    screening.close().await.unwrap();
    assert!(1 < cursor.position && cursor.position < head, "{} of {head}", cursor.position);
    (story, cursor.position)
}

async fn recover(launch: &Launch, arguments: &[&str]) -> Finished {
    let data = launch.data().path().to_string_lossy().into_owned();
    let mut all = vec!["recover", "--data-dir", data.as_str()];
    all.extend(arguments);
    launch.run(&all).await
}

async fn verify_stopped(launch: &Launch) -> Finished {
    let data = launch.data().path().to_string_lossy().into_owned();
    launch.run(&["verify", "--data-dir", data.as_str()]).await
}

/// Asserts that the process reports the lost past everywhere and serves nothing. Returns what `/ready` says.
async fn refuses(story: &Story, service: &str) -> String {
    refuses_to_serve(&story.launch, &story.slot, service).await
}

async fn refuses_to_serve(launch: &Launch, slot: &str, service: &str) -> String {
    let checkup = launch.start_refusing().await;
    let lost = format!("{service} has lost its own past");
    let ready = get(checkup.admin_addr(), "/ready").await.expect("the admin port answers");
    assert!(ready.body.contains(&lost) && ready.body.contains("checkup recover"), "{ready:?}");
    assert_eq!(ready.status, 503);
    let booked = Desk::of(&checkup.admin().await).book("late", slot, "").await;
    let refusal = refused(booked, Reason::NotReady);
    assert!(refusal.message.contains(&lost), "{refusal:?}");
    let verified = checkup.run(&["verify"]).await;
    assert!(verified.code == Some(1) && verified.stdout.contains(&format!("past-is-whole {service}")), "{verified:?}");
    let held = recover(launch, &[]).await;
    assert!(held.code == Some(1) && held.stderr.contains("in use"), "{held:?}");
    assert!(checkup.stderr().find(|line| line.contains(&lost).then_some(())).is_some());
    drop(checkup.stop().await);
    ready.body
}

/// Asserts that every booking is as its customer was answered, no slot is overbooked, and all services agree.
async fn whole(story: &Story) {
    let checkup = story.launch.start().await;
    verified(&checkup).await;
    let auditor = checkup.auditor().await;
    let shown = all_screenings(&auditor, "").await;
    let state = |name: &str| shown.iter().find(|row| row.name == name).map(Screening::state);
    assert_eq!(state(&story.early[0].name), Some(State::Cancelled));
    for booked in story.early[1..].iter().chain(&story.late) {
        let row = shown.iter().find(|row| row.name == booked.name).unwrap_or_else(|| panic!("{} is gone", booked.name));
        assert_eq!(row.state(), State::Confirmed, "{row:?}");
        assert_eq!((&row.customer, &row.slot), (&booked.customer, &booked.slot));
        assert_eq!((&row.etag, &row.hospital_display_name), (&booked.etag, &booked.hospital_display_name));
    }
    let desk = Desk::of(&checkup.admin().await);
    let mut sold = 0;
    for customer in 40..60 {
        sold += usize::from(desk.book(&format!("k{customer}"), &story.slot, "").await.is_ok());
    }
    assert_eq!(sold, 12, "of {CAPACITY} places 38 were taken");
    assert_eq!(claims(&auditor, &story.slot, "ACTIVE").await.len(), 50);
    assert_eq!(claims(&auditor, &story.other, "ACTIVE").await.len(), 1);
    verified(&checkup).await;
    drop(checkup.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hospital_that_forgot_sells_no_place_twice() {
    let story = older("hospital").await;
    refuses(&story, "hospital").await;
    let dry = recover(&story.launch, &["--dry-run"]).await;
    assert!(dry.code == Some(1) && dry.stdout.contains("would be mended"), "{dry:?}");
    let said = verify_stopped(&story.launch).await;
    assert!(
        said.code == Some(1) && said.stdout.contains("past-is-whole hospital"),
        "a dry run mends nothing: {said:?}"
    );
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert!(recovered.stdout.contains("claims hold a place again: 21"), "{recovered:?}");
    assert!(recovered.stdout.contains("claims are ended again: 2"), "{recovered:?}");
    let again = recover(&story.launch, &[]).await;
    assert!(again.code == Some(0) && again.stdout.contains("no service has lost its own past"), "{again:?}");
    whole(&story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screening_that_forgot_gives_no_booked_place_away() {
    let story = older("screening").await;
    refuses(&story, "screening").await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert!(recovered.stdout.contains("as the others know them: 22"), "{recovered:?}");
    let again = recover(&story.launch, &[]).await;
    assert!(again.code == Some(0) && again.stdout.contains("no service has lost its own past"), "{again:?}");
    whole(&story).await;
}

/// A customer who missed the first answer repeats the call with the same request_id, and gets the answer as if nothing
/// had been lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_repeated_is_answered_as_before() {
    let Story { launch, slot, other, early, late } = older("screening").await;
    let recovered = recover(&launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert!(recovered.stdout.contains("calls are answered as before when they are repeated: 22"), "{recovered:?}");
    let checkup = launch.start().await;
    let desk = Desk::of(&checkup.admin().await);
    let cancelled = desk.cancel(&early[0].name, &request_id(CANCELLING)).await.expect("it was cancelled by this call");
    assert_eq!((cancelled.state(), &cancelled.name), (State::Cancelled, &early[0].name));
    let another = desk.cancel(&early[0].name, &request_id(CANCELLING + 1)).await;
    refused(another, Reason::ScreeningStateInvalid);
    refused(desk.cancel(&early[1].name, &request_id(CANCELLING)).await, Reason::RequestIdReused);
    let moved = desk.reschedule(&early[1].name, &other, &request_id(MOVING)).await.expect("it was moved by this call");
    assert_eq!((&moved.slot, &moved.etag), (&other, &early[1].etag));
    refused(desk.reschedule(&early[2].name, &other, &request_id(MOVING)).await, Reason::RequestIdReused);
    let made = desk.book("k1", &slot, &request_id(1)).await.expect("it was booked by this call, and has moved since");
    assert_eq!(made, moved);
    let booked = desk.book("k25", &slot, &request_id(25)).await.expect("it was booked by this call");
    assert_eq!((booked.state(), &booked.name), (State::Confirmed, &late[5].name));
    refused(desk.book("k25", &other, &request_id(25)).await, Reason::RequestIdReused);
    verified(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_every_booking_that_was_forgotten() {
    let story = older("screening").await;
    let said = verify_stopped(&story.launch).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    for booked in story.late.iter().chain(&story.early[..2]) {
        assert!(said.stdout.contains(&booked.name), "{} is not named: {}", booked.name, said.stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_that_forgot_are_mended_together() {
    let story = older("screening").await;
    // Hospital's file as before any booking, except for its slots: all claims are gone
    let hospital = opened(&story.launch, "hospital").await;
    for forget in [
        "DELETE FROM outbox WHERE position > 5",
        "UPDATE sqlite_sequence SET seq = 5 WHERE name = 'outbox'",
        "DELETE FROM claim",
        "UPDATE slot SET booked_count = 0, capacity = 30, version = 1",
        "DELETE FROM cursor",
    ] {
        hospital.execute_unprepared(forget).await.expect("forgotten");
    }
    hospital.close().await.unwrap();
    refuses(&story, "screening").await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    whole(&story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_forgot_heals_by_itself() {
    for service in ["reservation", "mypage", "marketing"] {
        let story = older(service).await;
        assert_eq!(recover(&story.launch, &[]).await.code, Some(0));
        whole(&story).await;
    }
}

/// The log that lost its end has grown as long as what others had read of it, so positions alone would show nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_went_on_with_other_events_is_recognised_by_their_ids() {
    let story = older("hospital").await;
    let hospital = opened(&story.launch, "hospital").await;
    let entries = outbox::read_after(&hospital, 0, 1_000).await.expect("its log");
    for _ in 0..5 {
        let events = entries.iter().flat_map(|row| Opened::new(&row.payload).decode().expect("events"));
        let others = events.map(|event| EventEnvelope { event_id: uuid::Uuid::now_v7().to_string(), ..event });
        outbox::append(&hospital, &others.collect::<Vec<_>>()).await.expect("it goes on");
    }
    hospital.close().await.unwrap();
    refuses(&story, "hospital").await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    whole(&story).await;
}

/// Events that were removed by age are not lost, although the oldest one, which was never published, is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_at_a_pruned_event_reads_on() {
    let (story, stands) = reader_in_the_middle().await;
    let log = opened(&story.launch, "screening").await;
    let published = format!("UPDATE outbox SET stream_sequence = position WHERE position BETWEEN 2 AND {stands}");
    log.execute_unprepared(&published).await.expect("marked");
    log.close().await.unwrap();
    let file = store::Location::Sqlite(path(&story.launch, "screening"));
    let log = store::Database::open::<screening::Migrator>(&file).await.expect("the log opens");
    crate::remove_published(&log, jiff::Timestamp::MAX).await;
    let left: Vec<i64> =
        outbox::read_after(log.reader(), 0, 2).await.expect("the log").iter().map(|row| row.position).collect();
    assert_eq!(left, [1, stands + 1]);
    log.close().await;
    whole(&story).await;
}

/// An event that was not removed by age is missing, and the log goes on after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_at_a_hole_is_believed() {
    let (story, stands) = reader_in_the_middle().await;
    let log = opened(&story.launch, "screening").await;
    log.execute_unprepared(&format!("DELETE FROM outbox WHERE position = {stands}")).await.expect("removed");
    log.close().await.unwrap();
    let said = refuses(&story, "screening").await;
    let lacks = format!(
        "its log does not have the event at position {stands} that reservation has read; a database was put back to an earlier time"
    );
    assert!(said.contains(&lacks), "{said}");
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    whole(&story).await;
}

/// Files of the previous version have cursors without ids and no table of gaps. They can be opened and compared by
/// positions alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_version_before_are_opened_and_held_against_each_other() {
    let story = older("hospital").await;
    for service in ["hospital", "screening", "reservation", "mypage", "marketing"] {
        let database = opened(&story.launch, service).await;
        for before in [
            "ALTER TABLE cursor DROP COLUMN event_id",
            "DROP TABLE log_gap",
            "DELETE FROM seaql_migrations WHERE version = 'common_0003_cursor_event_log_gap'",
        ] {
            database.execute_unprepared(before).await.expect("as it was");
        }
        database.close().await.unwrap();
    }
    refuses(&story, "hospital").await;
    assert_eq!(recover(&story.launch, &[]).await.code, Some(0));
    whole(&story).await;
}

/// Removes a booking from the files of the views.
async fn views_forget(launch: &Launch, name: &str) {
    let forgotten = name.strip_prefix("screenings/").expect("a name").replace('-', "");
    for (service, table) in [("reservation", "reservation"), ("reservation", "history"), ("mypage", "item_version")] {
        let database = opened(launch, service).await;
        let forget = format!("DELETE FROM {table} WHERE screening = x'{forgotten}'");
        database.execute_unprepared(&forget).await.expect("forgotten");
        database.close().await.unwrap();
    }
}

/// Hospital has given the first place of a booking back, and holds another one for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_only_hospital_knows_of_is_no_cancellation() {
    let story = older("screening").await;
    views_forget(&story.launch, &story.early[1].name).await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    assert!(recovered.stdout.contains("where Hospital keeps a place for them: 1"), "{recovered:?}");
    whole(&story).await;
}

/// Only Hospital knows that there was a booking. The command names it, and its place is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_any_more_is_listed() {
    let story = older("screening").await;
    views_forget(&story.launch, &story.late[0].name).await;
    let recovered = recover(&story.launch, &[]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    let line =
        recovered.stdout.lines().find(|line| line.starts_with("nobody knows: who booked")).expect("it is listed");
    assert!(line.contains(&story.late[0].name), "{line}");
    let checkup = story.launch.start().await;
    eventually("its place to be free", async || {
        let active = claims(&checkup.auditor().await, &story.slot, "ACTIVE").await.len();
        if active == 37 { Ok(()) } else { Err(format!("{active} claims")) }
    })
    .await;
    verified(&checkup).await;
}
