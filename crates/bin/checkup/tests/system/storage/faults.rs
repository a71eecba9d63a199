//! Writes and syncs that fail: once, twice, ten times in a row, for a while, and while the process is killed.

use testkit::{Call, Checkup, DataDir, Disk, Fault, Random, eventually, seed};

use super::{disk_under, every_answer_is_true, goes_on, is_ready, on_a_disk, open, says_so, under_load, works_again};
use crate::crash::{Run, check_screenings, settle, verify};
use crate::embedded;

/// Every kind of failure that a store can get for a write.
fn faults() -> [(&'static str, Fault); 4] {
    [
        ("full", Fault::full()),
        ("I/O error", Fault::broken(&[Call::Write])),
        ("failed sync", Fault::failed_sync()),
        ("short write", Fault::short_write()),
    ]
}

/// Makes the disk fail `times` times under load, and waits until the process works again.
async fn struck(
    checkup: &Checkup,
    run: &std::sync::Arc<Run>,
    random: &mut Random,
    disk: &Disk,
    fault: Fault,
    times: u32,
) {
    under_load(checkup, run, random, async {
        disk.arm(&[fault.times(times)]);
        eventually("the disk to fail as often as it is to", async || {
            let hits = disk.hits();
            if hits >= u64::from(times) { Ok(()) } else { Err(format!("{hits} times")) }
        })
        .await;
        is_ready(checkup, true).await;
        goes_on(60).await;
    })
    .await;
}

async fn once_twice_ten_times(service: &str) {
    let mut random = seed(service);
    let data = DataDir::new();
    let Some(disk) = disk_under(&data) else { return };
    let checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    for (what, fault) in faults() {
        for times in [1, 2, 10] {
            let fault = fault.clone().on(&format!("{service}.db*"));
            struck(&checkup, &run, &mut random, &disk, fault, times).await;
            check_screenings(&checkup, &run, &format!("after {times} × {what} of {service}")).await;
        }
    }
    every_answer_is_true(checkup, &run, &format!("after all faults of {service}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hospital_fails_once_twice_ten_times() {
    once_twice_ten_times("hospital").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn screening_fails_once_twice_ten_times() {
    once_twice_ten_times("screening").await;
}

/// Views own no truth, but a view that acknowledged events without storing them would never read them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_fail_once_twice_ten_times() {
    let mut random = seed("views");
    let data = DataDir::new();
    let Some(disk) = disk_under(&data) else { return };
    let checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    for service in ["reservation", "mypage", "marketing"] {
        for (_, fault) in faults() {
            for times in [2, 10] {
                struck(&checkup, &run, &mut random, &disk, fault.clone().on(&format!("{service}.db*")), times).await;
            }
        }
        settle(&checkup, &run).await;
        verify(&checkup, &format!("after all faults of {service}")).await;
    }
    every_answer_is_true(checkup, &run, "after all faults of the views").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_for_a_while_heals_by_itself() {
    let mut random = seed("faults for a while");
    let data = DataDir::new();
    let Some(disk) = disk_under(&data) else { return };
    let checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    for (what, fault) in faults() {
        let mut own = random.fork();
        under_load(&checkup, &run, &mut random, async {
            disk.arm(&[fault]);
            says_so(&checkup, &run, &mut own).await;
            disk.heal();
            works_again(&checkup, &run, &mut own).await;
            goes_on(150).await;
        })
        .await;
        check_screenings(&checkup, &run, &format!("after a while of: {what}")).await;
    }
    every_answer_is_true(checkup, &run, "after every fault for a while").await;
}

/// Random calls fail, and others succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_at_random_lose_nothing() {
    let mut random = seed("faults at random");
    let data = DataDir::new();
    let Some(disk) = disk_under(&data) else { return };
    let checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    let mut own = random.fork();
    under_load(&checkup, &run, &mut random, async {
        for share in [20, 200, 600] {
            let some: Vec<Fault> = faults().into_iter().map(|(_, fault)| fault.per_mille(share, &mut own)).collect();
            disk.arm(&some);
            goes_on(700).await;
            eventually("the disk to fail", async || if disk.hits() > 0 { Ok(()) } else { Err("no call".to_owned()) })
                .await;
            disk.heal();
            works_again(&checkup, &run, &mut own).await;
        }
    })
    .await;
    every_answer_is_true(checkup, &run, "after faults at random").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_the_disk_fails_lose_nothing() {
    let mut random = seed("kills while the disk fails");
    let data = DataDir::new();
    let Some(disk) = disk_under(&data) else { return };
    let mut checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    for (what, fault) in faults() {
        for round in 0..2 {
            let pause = 50 + random.below(250);
            under_load(&checkup, &run, &mut random, async {
                goes_on(100).await;
                disk.arm(std::slice::from_ref(&fault));
                goes_on(pause).await;
                checkup.kill_now();
            })
            .await;
            assert!(disk.hits() > 0, "the disk was not felt");
            disk.heal();
            checkup = checkup.kill().await.start().await;
            let when = format!("after kill {round} while: {what}");
            check_screenings(&checkup, &run, &when).await;
            settle(&checkup, &run).await;
        }
        verify(&checkup, &format!("after kills while: {what}")).await;
    }
    every_answer_is_true(checkup, &run, "after kills while the disk fails").await;
}
