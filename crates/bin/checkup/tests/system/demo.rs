//! The tools of the binary: the demo plays, and verify reports what is wrong.

use std::fs;
use std::path::Path;

use contract::screening::v1::screening::State;
use sea_orm::{ConnectionTrait, Database};
use testkit::{DataDir, Desk, eventually};

use crate::{embedded, launch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_plays_all_fifteen_rows_again_and_again() {
    let checkup = launch().start().await;
    let played = checkup.run(&["demo"]).await;
    assert_eq!(played.code, Some(0), "{played:#?}");
    let again = checkup.run(&["demo", "--json"]).await;
    assert_eq!(again.code, Some(0), "{again:#?}");
    let report: serde_json::Value = serde_json::from_str(&again.stdout).expect("one JSON object");
    assert_eq!(report["ok"], true);
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 15);
    assert!(rows.iter().all(|row| row["outcome"] == "ok"), "{report:#}");
    let verified = checkup.run(&["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_says_where_nobody_serves() {
    let checkup = launch().start().await;
    let (addr, launch) = (checkup.addr().to_string(), checkup.stop().await);
    let data = launch.data().path().to_string_lossy().into_owned();
    for tool in ["demo", "verify"] {
        let finished = launch.run(&[tool, "--addr", &addr, "--data-dir", &data]).await;
        assert_eq!(finished.code, Some(1), "{finished:#?}");
        assert!(!finished.stderr.trim().is_empty(), "{finished:#?}");
    }
}

/// Copies the files of one service.
fn copy_store(from: &Path, to: &Path, service: &str) {
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(service) && entry.path().is_file() {
            fs::copy(entry.path(), to.join(name)).expect("a copy");
        }
    }
}

/// Removes the files of one service.
fn remove_store(from: &Path, service: &str) {
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with(service) && entry.path().is_file() {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_what_a_stale_backup_forgot() {
    let checkup = embedded().start().await;
    let slot = Desk::of(&checkup.admin().await).open("backed-up", &[7], 5).await.remove(0);
    Desk::of(&checkup.customer("kim").await).book("kim", &slot, "").await.expect("a place");
    let launch = checkup.stop().await;
    let backup = DataDir::new();
    copy_store(launch.data().path(), backup.path(), "hospital");

    let checkup = launch.start().await;
    let forgotten = Desk::of(&checkup.customer("lee").await).book("lee", &slot, "").await.expect("a place");
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    let launch = checkup.stop().await;
    // An operator puts an older file of Hospital back, so a booking has no claim any more.
    remove_store(launch.data().path(), "hospital");
    copy_store(backup.path(), launch.data().path(), "hospital");

    // the process serves nothing, and verify reads the files
    let checkup = launch.start_refusing().await;
    let uid = forgotten.name.trim_start_matches("screenings/");
    let verified = checkup.run(&["verify", "--settle", "1s"]).await;
    assert_eq!(verified.code, Some(1), "{verified:#?}");
    assert!(format!("{}{}", verified.stdout, verified.stderr).contains(uid), "it names the row: {verified:#?}");
    let verified = checkup.run(&["verify", "--settle", "1s", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).expect("one JSON object");
    assert_eq!((verified.code, &report["ok"]), (Some(1), &serde_json::Value::Bool(false)));
    let wrong = report["disagreements"].as_array().expect("disagreements");
    assert!(wrong.iter().any(|one| one.to_string().contains(uid)), "{report:#}");
    assert!(wrong.iter().all(|one| one["rule"].is_string() && one["subject"].is_string()), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_waits_for_events_and_skips_who_is_not_there() {
    let checkup = embedded().without("reservation,mypage,marketing").start().await;
    let slot = Desk::of(&checkup.admin().await).open("quiet", &[7], 5).await.remove(0);
    let kim = Desk::of(&checkup.customer("kim").await);
    let booked = kim.book("kim", &slot, "").await.expect("a place");
    kim.cancel(&booked.name, "").await.expect("cancelled");
    let verified = checkup.run(&["verify", "--json"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).expect("one JSON object");
    let skipped = report["skipped"].to_string().to_lowercase();
    assert!(skipped.contains("reservation") && skipped.contains("mypage"), "{report:#}");
    eventually("the place to come back", async || {
        let booked = kim.booked(&slot).await?;
        if booked == 0 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_who_waits_beside_a_free_place() {
    let checkup = embedded().start().await;
    let desk = Desk::of(&checkup.admin().await);
    let slot = desk.open("stuck", &[7], 1).await.remove(0);
    desk.book("kim", &slot, "").await.expect("a place");
    let joined = desk.join("lee", &slot, "").await.expect("a ticket");
    let launch = checkup.stop().await;
    // A place that nobody gave to the queue.
    let url = format!("sqlite://{}", launch.data().path().join("hospital.db").display());
    let hospital = Database::connect(url).await.expect("the file opens");
    hospital.execute_unprepared("UPDATE slot SET capacity = 2").await.expect("changed");
    hospital.close().await.expect("closed");

    let checkup = launch.start().await;
    let verified = checkup.run(&["verify", "--settle", "1s", "--json"]).await;
    assert_eq!(verified.code, Some(1), "{verified:#?}");
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).expect("one JSON object");
    let wrong = report["disagreements"].as_array().expect("disagreements");
    let [one] = wrong.as_slice() else { panic!("{report:#}") };
    let uid = joined.name.trim_start_matches("screenings/");
    assert_eq!(one["rule"], "queues-move");
    assert!(one["subject"].to_string().contains(uid), "{report:#}");

    // The next change of the slot that adds a place passes both on.
    let desk = Desk::of(&checkup.admin().await);
    let now = desk.add_places(&slot, 1).await.expect("one more");
    assert_eq!((now.booked_count, now.waitlisted_count, now.remaining_count), (2, 0, 1));
    desk.becomes(&joined.name, State::Confirmed).await;
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}
