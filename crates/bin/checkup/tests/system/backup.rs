//! Backups: made while bookings go on, restored into another directory, and refused if they are damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use testkit::{DataDir, Desk, Finished, Launch, eventually};

use crate::embedded;
use crate::races::all_screenings;

async fn run(launch: &Launch, arguments: &[&str], paths: &[(&str, &std::path::Path)]) -> Finished {
    let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    for (flag, path) in paths {
        all.extend([(*flag).to_owned(), path.to_string_lossy().into_owned()]);
    }
    launch.run(&all.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_of_one_instant() {
    let checkup = embedded().start().await;
    let slots = Desk::of(&checkup.admin().await).open("backed-up", &[7, 8, 9], 5_000).await;
    let before = Desk::of(&checkup.customer("first").await).book("first", &slots[0], "").await.expect("booked");
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let (party, slots, stop) = (checkup.admin().await, slots.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            let desk = Desk::of(&party);
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let slot = &slots[number % slots.len()];
                let booked =
                    desk.book(&format!("c{caller}-{number}"), slot, "").await.expect("no call fails meanwhile");
                if number % 2 == 0 {
                    desk.cancel(&booked.name, "").await.expect("no call fails meanwhile");
                }
            }
            number
        });
    }
    let backups = DataDir::new();
    for round in 0..5 {
        let archive = backups.path().join(format!("{round}.tar"));
        let from = checkup.launch().data().path();
        let taken = run(checkup.launch(), &["backup"], &[("--data-dir", from), ("--to", &archive)]).await;
        assert_eq!(taken.code, Some(0), "{taken:?}");
        assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600, "the key is in it");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = callers.join_next().await {
        assert!(done.expect("a caller") > 0);
    }
    drop(checkup.stop().await);

    for round in 0..5 {
        let archive = backups.path().join(format!("{round}.tar"));
        let launch = embedded();
        let to = launch.data().path();
        let restored = run(&launch, &["restore"], &[("--from", &archive), ("--data-dir", to)]).await;
        assert_eq!(restored.code, Some(0), "{restored:?}");
        let checkup = launch.start().await;
        let verified = checkup.run(&["verify", "--settle", "20s"]).await;
        assert_eq!(verified.code, Some(0), "{verified:?}");
        let auditor = checkup.auditor().await;
        let shown = all_screenings(&auditor, "").await;
        assert!(shown.iter().any(|row| row.name == before.name), "what was booked before is there");
        let desk = Desk::of(&checkup.customer("after").await);
        desk.book("after", &slots[0], "").await.expect("it goes on");
        drop(checkup.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_whole_or_not_free_is_refused_and_leaves_nothing() {
    let checkup = embedded().start().await;
    let slot = Desk::of(&checkup.admin().await).open("stopped", &[7], 5).await.remove(0);
    Desk::of(&checkup.customer("kim").await).book("kim", &slot, "").await.expect("booked");
    let used =
        run(checkup.launch(), &["restore", "--from", "x.tar"], &[("--data-dir", checkup.launch().data().path())]).await;
    assert!(used.code == Some(1) && used.stderr.contains("a process uses"), "{used:?}");
    let launch = checkup.stop().await;
    let (dir, place) = (launch.data().path(), DataDir::new());
    let archive = place.path().join("a.tar");
    let taken = run(&launch, &["backup"], &[("--data-dir", dir), ("--to", &archive)]).await;
    assert_eq!(taken.code, Some(0), "of a directory that nobody uses: {taken:?}");
    let again = run(&launch, &["backup"], &[("--data-dir", dir), ("--to", &archive)]).await;
    assert!(again.code == Some(1) && again.stderr.contains("there already"), "{again:?}");
    let full = run(&launch, &["restore"], &[("--from", &archive), ("--data-dir", dir)]).await;
    assert!(full.code == Some(1) && full.stderr.contains("is not empty"), "{full:?}");

    let bytes = fs::read(&archive).unwrap();
    let mut altered = bytes.clone();
    altered[bytes.len() / 2] ^= 1;
    for (name, bytes) in [("cut.tar", &bytes[..bytes.len() * 2 / 3]), ("altered.tar", &altered), ("text.tar", b"hello")]
    {
        let broken = place.path().join(name);
        fs::write(&broken, bytes).unwrap();
        let to = place.path().join("restored");
        let refused = run(&launch, &["restore"], &[("--from", &broken), ("--data-dir", &to)]).await;
        assert_eq!(refused.code, Some(1), "{name}: {refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "one sentence: {refused:?}");
        assert!(!to.exists(), "{name} leaves nothing");
    }
    let names = |path: &std::path::Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(place.path()), ["a.tar", "altered.tar", "cut.tar", "text.tar"], "and nothing beside it");
}

/// A disk without room for the archive: the command reports one sentence and leaves no file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_leaves_no_half_archive() {
    let checkup = embedded().start().await;
    Desk::of(&checkup.admin().await).open("limited", &[7], 5).await;
    let launch = checkup.stop().await;
    let place = DataDir::new();
    // no file may grow beyond 40 KiB, and a database is larger
    let command = format!(
        "trap '' XFSZ; ulimit -f 40; exec {} backup --data-dir {} --to {}/a.tar",
        env!("CARGO_BIN_EXE_checkup"),
        launch.data().path().display(),
        place.path().display()
    );
    let output = std::process::Command::new("bash").args(["-c", &command]).output().expect("bash runs");
    assert!(!output.status.success(), "{output:?}");
    eventually("nothing to be left", async || {
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
