//! Power failures: the process is killed, and its files keep what was synced, with or without a part of the rest.

use std::sync::Arc;

use testkit::{Checkup, DataDir, Disk, Fault, Random, Sighting, eventually, seed};

use super::{goes_on, on_a_disk, open, or_skip, under_load, works_again};
use crate::crash::{Run, check_screenings, settle, verify};
use crate::embedded;
use crate::races::all_screenings;

const FAILURES: usize = 20;

/// Makes the power fail under load. Every answer until then has to be true afterwards.
async fn fails(checkup: Checkup, run: &Arc<Run>, disk: &Disk, random: &mut Random, number: usize) -> testkit::Launch {
    let pause = 40 + random.below(260);
    under_load(&checkup, run, random, async {
        goes_on(pause).await;
        checkup.kill_now();
    })
    .await;
    let launch = checkup.kill().await;
    // in half of the rounds all unsynced data is lost, in the others a random half of it is kept
    disk.lose_power((number % 2 == 1).then_some(random)).expect("the files can be replaced");
    launch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_power_failures_lose_nothing_and_double_nothing() {
    let mut random = seed("power");
    // the directory does not exist yet, because its own name in its parent can be lost like anything in it
    let data = DataDir::missing();
    let Some(disk) = or_skip("power failure", Disk::under(data.parent()).and_then(Disk::with_power)) else { return };
    let mut checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    for number in 0..FAILURES {
        checkup = fails(checkup, &run, &disk, &mut random, number).await.start().await;
        check_screenings(&checkup, &run, &format!("after power failure {number}")).await;
        if number % 5 == 4 {
            settle(&checkup, &run).await;
            verify(&checkup, &format!("after power failure {number}")).await;
        }
    }
    works_again(&checkup, &run, &mut random).await;
    super::every_answer_is_true(checkup, &run, "after all power failures").await;
    let (answered, _) = run.history.counts();
    assert!(answered > FAILURES * 5, "{answered} bookings in {FAILURES} rounds are no load");
}

/// A sync that fails loses the data that it was to write, and the next one succeeds as if nothing were missing. Kernels
/// treat pages that they could not write like this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_syncs_that_drop_what_was_written_lose_nothing_that_was_answered() {
    const ROUNDS: usize = 6;
    const SYNCS: u64 = 6;
    let mut random = seed("dropped syncs");
    let data = DataDir::missing();
    let Some(disk) = or_skip("power failure", Disk::under(data.parent()).and_then(Disk::with_power)) else { return };
    let mut checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    for round in 0..ROUNDS {
        let mut own = random.fork();
        under_load(&checkup, &run, &mut random, async {
            goes_on(50).await;
            disk.arm(&[Fault::dropped_sync().on("*.db*").per_mille(300, &mut own)]);
            eventually("syncs to fail", async || {
                let hits = disk.hits();
                if hits >= SYNCS { Ok(()) } else { Err(format!("{hits}")) }
            })
            .await;
            disk.heal();
            works_again(&checkup, &run, &mut own).await;
            checkup.kill_now();
        })
        .await;
        let launch = checkup.kill().await;
        // in half of the rounds the file is as the process left it, in the others as the disk has it
        if round % 2 == 1 {
            disk.lose_power(None).expect("the files can be replaced");
        }
        checkup = launch.start().await;
        check_screenings(&checkup, &run, &format!("after syncs that failed in round {round}")).await;
    }
    works_again(&checkup, &run, &mut random).await;
    super::every_answer_is_true(checkup, &run, "after syncs that dropped what was written").await;
}

/// Syncs that do nothing, as with `synchronous=OFF`, are found. Otherwise the tests above would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_left_out_are_seen_when_the_power_fails() {
    let mut random = seed("power without syncs");
    let data = DataDir::missing();
    let Some(disk) = or_skip("power failure", Disk::under(data.parent()).and_then(Disk::with_power)) else { return };
    let checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    // a restart syncs what was written before
    let checkup = checkup.stop().await.start().await;
    disk.arm(&[Fault::unsynced().on("*.db*")]);
    under_load(&checkup, &run, &mut random, async {
        eventually("bookings to be answered", async || {
            let (answered, _) = run.history.counts();
            if answered > 0 { Ok(()) } else { Err("none is".to_owned()) }
        })
        .await;
        checkup.kill_now();
    })
    .await;
    let launch = checkup.kill().await;
    disk.lose_power(None).expect("the files can be replaced");
    assert!(disk.hits() > 0, "nothing was to be synced");
    disk.heal();
    let checkup = launch.start().await;
    let seen: Vec<Sighting> =
        all_screenings(&checkup.auditor().await, "").await.into_iter().map(Sighting::from).collect();
    let (answered, _) = run.history.counts();
    let wrong = run.history.disagreements(&seen).len();
    println!("{wrong} of {answered} answered bookings are not as they were answered");
    assert!(answered > 0 && wrong > 0, "{answered} bookings were answered, and {wrong} are missing without a sync");
}
