//! What a process reports about storage that takes no writes: one line when that begins, one when it ends, and a gauge.

use testkit::{Checkup, DataDir, Fault, eventually, get, seed};

use super::{disk_under, every_answer_is_true, goes_on, on_a_disk, open, says_so, under_load, works_again};
use crate::embedded;

const BEGINS: &str = "the storage takes no writes; they are refused until it does";
const ENDS: &str = "the storage takes writes again";
const SERVICES: [&str; 5] = ["hospital", "screening", "reservation", "mypage", "marketing"];

/// How many log lines of a service contain this text.
fn lines(checkup: &Checkup, service: &str, text: &str) -> usize {
    let service = format!("\"service\":\"{service}\"");
    checkup.stderr().lines().iter().filter(|line| line.contains(text) && line.contains(&service)).count()
}

/// The value of a metric whose labels contain `label`.
async fn metric(checkup: &Checkup, name: &str, label: &str) -> Result<f64, String> {
    let page = get(checkup.admin_addr(), "/metrics").await?;
    let sample = page.body.lines().find(|line| line.starts_with(name) && line.contains(label));
    let value = sample.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.ok_or_else(|| format!("no {name} of {label} in\n{}", page.body))
}

async fn shows(checkup: &Checkup, service: &str, expected: f64) {
    let label = format!("service=\"{service}\"");
    eventually(&format!("the gauge of {service} to be {expected}"), async || {
        let value = metric(checkup, "checkup_store_writable", &label).await?;
        // the gauge is 0 or 1
        if (value - expected).abs() < 0.5 { Ok(()) } else { Err(format!("{value}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_once_and_shown_by_a_gauge() {
    const BATCHES: f64 = 50.0;
    let mut random = seed("said once");
    let data = DataDir::new();
    let Some(disk) = disk_under(&data) else { return };
    let checkup = on_a_disk(embedded(), &data, &disk).await;
    let run = open(&checkup).await;
    shows(&checkup, "hospital", 1.0).await;
    let mut own = random.fork();
    under_load(&checkup, &run, &mut random, async {
        goes_on(200).await;
        let failed = async || metric(&checkup, "checkup_writer_batch_seconds_count", "service=\"hospital\"").await;
        disk.arm(&[Fault::full()]);
        says_so(&checkup, &run, &mut own).await;
        shows(&checkup, "hospital", 0.0).await;
        let before = failed().await.expect("batches are counted");
        eventually("many batches to fail", async || {
            let batches = failed().await? - before;
            if batches >= BATCHES { Ok(()) } else { Err(format!("{batches}")) }
        })
        .await;
        assert_eq!((lines(&checkup, "hospital", BEGINS), lines(&checkup, "hospital", ENDS)), (1, 0));
        disk.heal();
        works_again(&checkup, &run, &mut own).await;
        shows(&checkup, "hospital", 1.0).await;
    })
    .await;
    let said = eventually("every service to say that it is over", async || {
        let said = SERVICES.map(|service| (lines(&checkup, service, BEGINS), lines(&checkup, service, ENDS)));
        if said.iter().all(|(begins, ends)| begins == ends) { Ok(said) } else { Err(format!("{said:?}")) }
    })
    .await;
    assert!(said[0] == (1, 1) && said.iter().all(|(begins, _)| *begins <= 1), "{SERVICES:?} {said:?}");
    every_answer_is_true(checkup, &run, "after a full disk that was said once").await;
}
