//! No room: the disk is full, or a file may not grow, and later there is room again.

use testkit::{DataDir, Fault, SmallDisk, seed};

use super::{book, check_refusal, disk_under, every_answer_is_true, goes_on, on_a_disk, open, or_skip, says_so};
use super::{under_load, works_again};
use crate::crash::check_ledger;
use crate::embedded;

const MIB: u64 = 1 << 20;

/// Bookings one after the other, as a person at a terminal makes them: sixty, of which a third fits.
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
    check_ledger(&checkup, &run, "with files at their limit").await;
    assert!(confirmed > 0 && confirmed < BOOKINGS, "{confirmed} of {BOOKINGS} were confirmed: the limit was not felt");
    says_so(&checkup, &run, &mut random).await;
    checkup.limit_files(None);
    works_again(&checkup, &run, &mut random).await;
    let checkup = every_answer_is_true(checkup, &run, "after files could grow again").await;
    // that start had the limit too
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
        check_ledger(&checkup, &run, &format!("after round {round}")).await;
    }
    every_answer_is_true(checkup, &run, "after a full disk").await;
}

/// The same without any library in between: a file system that really has no room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_without_room_loses_nothing_and_heals() {
    // more than all logs together keep before they are copied, so that it is full only while it is filled
    const SIZE: usize = 256;
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
        goes_on(300).await;
    })
    .await;
    let checkup = every_answer_is_true(checkup, &run, "after a file system without room").await;
    checkup.stop().await;
}
