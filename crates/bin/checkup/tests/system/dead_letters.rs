//! Dead letters: listed, shown, replayed and dropped beside a running process.

use std::path::Path;

use contract::event::v1::EventEnvelope;
use domain::frame::Opened;
use jiff::Timestamp;
use prost::Message as _;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use store::dead_letter::{self, DeadLetter};
use store::outbox;
use testkit::{Checkup, Desk, Finished, eventually};

use crate::embedded;

async fn connect(data: &Path, service: &str) -> DatabaseConnection {
    let path = data.join(format!("{service}.db"));
    Database::connect(format!("sqlite://{}", path.display())).await.expect("the database opens")
}

/// Stores a dead letter in Reservation's database, as its consumer would.
async fn store_dead_letter(data: &Path, event_id: &str, payload: Vec<u8>) {
    let stored = DeadLetter {
        consumer: "reservation-screenings".to_owned(),
        event_id: event_id.to_owned(),
        subject: "checkup.v1.screening.screening_cancelled.x".to_owned(),
        payload,
        error: "it did not fit".to_owned(),
        attempts: 10,
        time: Timestamp::now(),
    };
    let connection = connect(data, "reservation").await;
    dead_letter::put(&connection, &stored).await.expect("kept");
    connection.close().await.expect("closed");
}

/// Runs `checkup dead-letters` on the data of a process.
async fn dead_letters(checkup: &Checkup, arguments: &[&str]) -> Finished {
    let data = checkup.launch().data().path().to_string_lossy().into_owned();
    let mut all = vec!["dead-letters"];
    all.extend(arguments);
    all.extend(["--data-dir", data.as_str()]);
    checkup.launch().run(&all).await
}

/// The state of a reservation.
async fn reservation(checkup: &Checkup, screening: &str) -> Result<String, String> {
    let name = screening.replace("screenings/", "reservations/");
    let request = contract::reservation::v1::GetReservationRequest { name, ..Default::default() };
    let answer = checkup.auditor().await.reservation().get_reservation(request).await;
    answer.map(|answer| answer.get_ref().state().as_str_name().to_owned()).map_err(|status| status.to_string())
}

/// A cancellation that the ledger missed: its event is a dead letter, and so is one that cannot be decoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_listed_shown_applied_and_dropped() {
    let checkup = embedded().start().await;
    let slot = Desk::of(&checkup.admin().await).open("dead-letters", &[7], 5).await.remove(0);
    let kim = Desk::of(&checkup.customer("kim").await);
    let booked = kim.book("kim", &slot, "").await.expect("booked");
    kim.cancel(&booked.name, "").await.expect("cancelled");
    let cancelled = async |checkup: &Checkup| {
        eventually("the ledger to show it cancelled", async || match reservation(checkup, &booked.name).await? {
            state if state == "CANCELLED" => Ok(()),
            state => Err(state),
        })
        .await;
    };
    cancelled(&checkup).await;
    assert_eq!(dead_letters(&checkup, &["list"]).await.stdout, "no dead letters\n");
    let launch = checkup.stop().await;

    let data = launch.data().path().to_owned();
    let events = outbox::read_after(&connect(&data, "screening").await, 0, 100).await.expect("the outbox");
    let event = events.iter().find(|row| row.subject.contains("screening_cancelled")).expect("a cancellation");
    let bytes = Opened::new(&event.payload).events[0].to_vec();
    let event = EventEnvelope::decode(bytes.as_slice()).expect("an event");
    store_dead_letter(&data, &event.event_id, bytes).await;
    store_dead_letter(&data, "", vec![0xff, 0xfe]).await;
    // Puts the ledger back to its state before that event.
    let ledger = connect(&data, "reservation").await;
    for forget in [
        "UPDATE reservation SET state = 1, screening_version = 1, version = 1",
        "DELETE FROM history WHERE version > 1",
    ] {
        ledger.execute_unprepared(forget).await.expect("forgotten");
    }
    ledger.close().await.expect("closed");

    let checkup = launch.start().await;
    assert_eq!(reservation(&checkup, &booked.name).await.as_deref(), Ok("REGISTERED"));
    let listed = dead_letters(&checkup, &["list"]).await;
    assert!(listed.stdout.contains("reservation/1") && listed.stdout.contains("reservation/2"), "{listed:?}");
    let shown = dead_letters(&checkup, &["show", "reservation/1"]).await;
    assert!(shown.stdout.contains("ScreeningCancelled") && shown.stdout.contains("it did not fit"), "{shown:?}");
    assert!(dead_letters(&checkup, &["show", "reservation/2"]).await.stdout.contains("fffe"));

    let applied = dead_letters(&checkup, &["replay", "reservation/1"]).await;
    assert_eq!((applied.code, applied.stdout.as_str()), (Some(0), "reservation/1: applied\n"), "{applied:?}");
    cancelled(&checkup).await;
    let refused = dead_letters(&checkup, &["replay", "--all"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.starts_with("reservation/2: not applied: undecodable envelope"), "{refused:?}");
    assert_eq!(dead_letters(&checkup, &["drop", "reservation/2"]).await.stdout, "reservation/2: dropped\n");
    assert_eq!(dead_letters(&checkup, &["list", "--json"]).await.stdout, "[]\n");
    let verified = checkup.run(&["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_with_what_to_do() {
    let checkup = embedded().start().await;
    let unknown = dead_letters(&checkup, &["show", "hospital/7"]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("no dead letter hospital/7"), "{unknown:?}");
    let malformed = dead_letters(&checkup, &["show", "seven"]).await;
    assert_eq!(malformed.code, Some(64), "{malformed:?}");
    let nowhere = checkup.launch().run(&["dead-letters", "list", "--data-dir", "/nonexistent"]).await;
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("--data-dir") && nowhere.stderr.contains("--config"), "{nowhere:?}");
}
