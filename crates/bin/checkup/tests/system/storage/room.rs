//! No room: the disk is full, or a file may not grow, and later there is room again.

use std::time::Duration;

use testkit::{Checkup, DataDir, Fault, SmallDisk, eventually_within, seed};

use super::{book, check_refusal, disk_under, every_answer_is_true, goes_on, on_a_disk, open, or_skip, says_so};
use super::{under_load, works_again};
use crate::crash::check_screenings;
use crate::embedded;

const MIB: u64 = 1 << 20;

/// Sixty bookings one after another, as a person at a terminal makes them. A third of them fits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_may_not_grow_lose_no_booking() {
    const BOOKINGS: usize = 60;
    let mut random = seed("files that may not grow");
    let checkup = embedded().largest_file(Some(MIB)).start().await;
    let run = open(&checkup).await;
    let mut confirmed = 0;
    for _ in 0..BOOKINGS {
        match book(&checkup, &run, &mut random).await {
            Ok(_) => confirmed += 1,
            Err(status) => check_refusal(&status).unwrap_or_else(|wrong| panic!("{wrong}")),
        }
    }
    check_screenings(&checkup, &run, "with files at their limit").await;
    assert!(confirmed > 0 && confirmed < BOOKINGS, "{confirmed} of {BOOKINGS} were confirmed: the limit was not felt");
    says_so(&checkup, &run, &mut random).await;
    checkup.limit_files(None);
    works_again(&checkup, &run, &mut random).await;
    let checkup = every_answer_is_true(checkup, &run, "after files could grow again").await;
    // the restarted process has the limit too
    checkup.limit_files(None);
    works_again(&checkup, &run, &mut random).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_load_loses_nothing_and_heals() {
    let mut random = seed("full disk");
    let data = DataDir::new();
    let Some(disk) = disk_under(&data) else { return };
    let checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    for round in 0..2 {
        let mut own = random.fork();
        under_load(&checkup, &run, &mut random, async {
            goes_on(300).await;
            disk.arm(&[Fault::full()]);
            goes_on(500).await;
            says_so(&checkup, &run, &mut own).await;
            assert!(disk.hits() > 1, "the disk was not felt");
            disk.heal();
            works_again(&checkup, &run, &mut own).await;
            goes_on(300).await;
        })
        .await;
        check_screenings(&checkup, &run, &format!("after round {round}")).await;
    }
    every_answer_is_true(checkup, &run, "after a full disk").await;
}

/// How many bytes the process has written, nearly all of them to its write-ahead logs and database files.
fn written(checkup: &Checkup) -> u64 {
    let counted = std::fs::read_to_string(format!("/proc/{}/io", checkup.pid())).expect("the process's counters");
    let bytes = counted.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok());
    bytes.expect("the number of bytes written")
}

/// Without a library in between: a file system that really has no room, and later has more than the logs alone need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_without_room_loses_nothing_and_heals() {
    // in MiB; less than all write-ahead logs together would take on a large disk
    const SIZE: usize = 24;
    const FILLED: Duration = Duration::from_secs(60);
    let mut random = seed("file system without room");
    let Some(disk) = or_skip("a small file system", SmallDisk::mount(SIZE)) else { return };
    let checkup = embedded().on(&DataDir::at(disk.path().join("data"))).start().await;
    let run = open(&checkup).await;
    let mut own = random.fork();
    under_load(&checkup, &run, &mut random, async {
        goes_on(300).await;
        disk.fill().expect("the small disk can be filled");
        goes_on(500).await;
        says_so(&checkup, &run, &mut own).await;
        disk.empty().expect("the small disk can be emptied");
        works_again(&checkup, &run, &mut own).await;
        let before = written(&checkup);
        eventually_within(FILLED, "twice as much as the disk has to be written", async || {
            let mib = (written(&checkup) - before) >> 20;
            if mib >= 2 * SIZE as u64 { Ok(()) } else { Err(format!("{mib} MiB of {SIZE}")) }
        })
        .await;
        works_again(&checkup, &run, &mut own).await;
    })
    .await;
    let checkup = every_answer_is_true(checkup, &run, "after a file system without room").await;
    checkup.stop().await;
}

/// A stopped process leaves only its databases, and SQLite cannot open them without room for the files beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_room_says_so_and_loses_nothing() {
    let mut random = seed("start without room");
    let Some(disk) = or_skip("a small file system", SmallDisk::mount(24)) else { return };
    let checkup = embedded().on(&DataDir::at(disk.path().join("data"))).start().await;
    let run = open(&checkup).await;
    under_load(&checkup, &run, &mut random, goes_on(300)).await;
    let launch = checkup.stop().await;
    for _ in 0..2 {
        disk.fill().expect("the small disk can be filled");
        let refused = launch.try_start().await.map(drop).expect_err("there is no room to start");
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        let said: Vec<&str> = refused.stderr.lines().filter(|line| line.starts_with("checkup: ")).collect();
        let (database, help) = (disk.path().join("data"), "make room there and start again, nothing is lost");
        assert!(
            matches!(said[..], [line] if line.contains("there is no room on the disk to open the database ")
                && line.contains(&*database.to_string_lossy()) && line.ends_with(help)),
            "{refused:#?}"
        );
        disk.empty().expect("the small disk can be emptied");
    }
    let checkup = launch.start().await;
    works_again(&checkup, &run, &mut random).await;
    every_answer_is_true(checkup, &run, "after starts without room").await;
}

/// A killed process leaves its write-ahead logs and their indexes, so everything can be read without more room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_room_after_a_kill_serves_reads_and_writes_once_there_is_room() {
    let mut random = seed("start without room after a kill");
    let Some(disk) = or_skip("a small file system", SmallDisk::mount(24)) else { return };
    let checkup = embedded().on(&DataDir::at(disk.path().join("data"))).start().await;
    let run = open(&checkup).await;
    under_load(&checkup, &run, &mut random, async {
        goes_on(300).await;
        checkup.kill_now();
    })
    .await;
    let launch = checkup.kill().await;
    disk.fill().expect("the small disk can be filled");
    let checkup = launch.start().await;
    check_screenings(&checkup, &run, "started on a full disk").await;
    says_so(&checkup, &run, &mut random).await;
    check_screenings(&checkup, &run, "on a full disk").await;
    disk.empty().expect("the small disk can be emptied");
    works_again(&checkup, &run, &mut random).await;
    every_answer_is_true(checkup, &run, "after a start on a full disk").await;
}
