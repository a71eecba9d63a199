//! The disk under one process with everything in it, and under a my-page replica of a mesh: full, broken, slow, and gone with its supply.

use std::time::Duration;

use mesh::State;
use testkit::{Call, Disk, Fault};
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, START_TIMEOUT, Setup};
use crate::stage::{Embedded, IO, Stage};

/// How long a disk may not be felt before the row shows nothing.
const FAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// How soon a store that cannot write has to say so.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);
/// What a sync of a slow disk takes more, and a write while a checkpoint is to be met.
const SLOW_SYNC: Duration = Duration::from_millis(50);
const SLOW_WRITE: Duration = Duration::from_millis(4);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The disk fails for a while, then works again: the process has to say so, and to go on by itself.
async fn fails(name: &'static str, plan: &Plan, what: &str, fault: Fault) -> Result<Row, Error> {
    let mut run = Run::embedded(plan, false).await?;
    let mut wrong = Vec::new();
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        run.stage.disk.arm(std::slice::from_ref(&fault));
        run.goes_on(plan.fault).await;
        run.stage.felt(1, FAULT_TIMEOUT).await?;
        let waited = Instant::now();
        while run.stage.is_ready().await? && waited.elapsed() < REPORT_TIMEOUT {
            sleep(POLL_INTERVAL).await;
        }
        wrong.extend(run.stage.is_ready().await?.then(|| format!("it says that it is ready, with {what}")));
        let hits = run.stage.disk.hits();
        run.stage.disk.heal();
        run.is_over(begun);
        let healed = Instant::now();
        run.stage.ready(START_TIMEOUT).await?;
        run.notes.push(format!("{hits} calls failed; ready {:.1} s after", healed.elapsed().as_secs_f64()));
        run.goes_on(plan.after).await;
    }
    let mut row = run.finish(name, format!("embedded: {what} for {} s", plan.fault.as_secs())).await?;
    row.complaints.extend(wrong);
    Ok(row)
}

/// There is no room.
pub(super) async fn full(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    fails(name, plan, "the disk full", Fault::full()).await
}

/// Nothing can be written.
pub(super) async fn io(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    fails(name, plan, "I/O errors", Fault::broken(&IO)).await
}

/// What is written cannot be synced.
pub(super) async fn sync(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    fails(name, plan, "syncs failing", Fault::failed_sync()).await
}

/// Every sync takes long: nothing fails, and nothing may be said to have failed.
pub(super) async fn slow(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::embedded(plan, false).await?;
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        run.stage.disk.arm(&[Fault::slow(SLOW_SYNC, &[Call::Sync])]);
        run.goes_on(plan.fault).await;
        run.stage.felt(1, FAULT_TIMEOUT).await?;
        run.stage.disk.heal();
        run.is_over(begun);
        run.goes_on(plan.after).await;
    }
    let slower = SLOW_SYNC.as_millis();
    run.finish(name, format!("embedded: syncs {slower} ms slower for {} s", plan.fault.as_secs())).await
}

/// The process stands still.
pub(super) async fn pause(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::embedded(plan, false).await?;
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        run.stage.process()?.pause();
        run.goes_on(plan.fault).await;
        run.stage.process()?.resume();
        run.is_over(begun);
        run.goes_on(plan.after).await;
    }
    run.finish(name, format!("embedded: SIGSTOP for {} s", plan.fault.as_secs())).await
}

/// Starts a process again that was killed, and waits until it serves.
async fn again(run: &mut Run<Embedded>) -> Result<(), Error> {
    run.stage.restart().await?;
    run.stage.ready(START_TIMEOUT).await
}

/// A random part of the time that a fault takes.
fn part(run: &mut Run<Embedded>) -> Duration {
    run.plan.fault.mul_f64(run.random.below(1_000) as f64 / 1_000.0)
}

/// `kill -9` while the disk is full, while it has I/O errors, and while it does not sync.
pub(super) async fn kill(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::embedded(plan, false).await?;
    let faults = [Fault::full(), Fault::broken(&IO), Fault::failed_sync()];
    for round in 0..plan.rounds {
        let fault = &faults[round as usize % faults.len()];
        run.stage.disk.arm(std::slice::from_ref(fault));
        run.stage.felt(1, FAULT_TIMEOUT).await?;
        let span = part(&mut run);
        run.goes_on(span).await;
        run.stage.kill().await;
        run.strikes();
        run.stage.disk.heal();
        again(&mut run).await?;
        run.goes_on(plan.after / 4).await;
    }
    run.goes_on(plan.after).await;
    run.finish(name, format!("embedded: kill -9 while the disk is full, broken, does not sync ×{}", plan.rounds)).await
}

/// `kill -9` while the log is copied into the file: the first time when it has grown so far, then at the end of the process.
pub(super) async fn checkpoint(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::embedded(plan, false).await?;
    for round in 0..plan.rounds {
        run.stage.disk.arm(&[Fault::slow(SLOW_WRITE, &[Call::Write]).on("data/*.db")]);
        if round % 2 == 1 {
            run.stage.process()?.terminate();
        }
        run.stage.felt(1, FAULT_TIMEOUT).await?;
        let span = part(&mut run);
        sleep(span.min(SLOW_WRITE * 50)).await;
        run.stage.kill().await;
        run.strikes();
        run.stage.disk.heal();
        again(&mut run).await?;
        run.goes_on(plan.after / 4).await;
    }
    run.goes_on(plan.after).await;
    run.finish(name, format!("embedded: kill -9 while a log is copied into its file ×{}", plan.rounds)).await
}

/// The power fails again and again. By turns nothing that was not synced is left, or a random half of it.
pub(super) async fn power(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::embedded(plan, true).await?;
    for round in 0..plan.rounds {
        let span = part(&mut run);
        run.goes_on(span).await;
        run.stage.kill().await;
        run.strikes();
        run.stage.disk.lose_power((round % 2 == 1).then_some(&mut run.random)).map_err(Error::failed)?;
        again(&mut run).await?;
    }
    run.goes_on(plan.after).await;
    run.finish(name, format!("embedded: the power fails ×{}", plan.rounds)).await
}

/// The power of the database server fails: once it works as it does in production, once it syncs nothing.
async fn server_power(name: &'static str, plan: &Plan, settings: &[&str]) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let disk = Disk::under(&run.stage.postgres().data_dir()).and_then(Disk::with_power).map_err(Error::Skipped)?;
    run.stage.postgres().set(disk.environment(), settings);
    run.stage.postgres().restart().await?;
    run.goes_on(plan.after).await;
    for round in 0..plan.rounds {
        let span = plan.fault.mul_f64(run.random.below(1_000) as f64 / 1_000.0);
        run.goes_on(span).await;
        run.stage.postgres().kill().await?;
        run.strikes();
        disk.lose_power((round % 2 == 1).then_some(&mut run.random)).map_err(Error::failed)?;
        run.stage.postgres().restart().await?;
        run.goes_on(plan.after / 4).await;
    }
    run.goes_on(plan.after).await;
    run.finish(name, format!("the power of PostgreSQL fails ×{}", plan.rounds)).await
}

/// The power of the database server fails.
pub(super) async fn postgres_power(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    server_power(name, plan, &[]).await
}

/// The same with `fsync=off`, which nobody may run. The row has to say that bookings are lost.
///
/// # Errors
/// Where the mesh cannot be started, broken or read.
pub async fn unsynced(plan: &Plan) -> Result<Row, Error> {
    server_power("unsynced", plan, &["fsync=off"]).await
}

/// The disk of one my-page replica is full for a while. It has to say so, and to catch up by itself when there is room again.
pub(super) async fn my_page(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let replica = run.replica("mypage", 0)?;
    let disk = Disk::under(replica.directory()).map_err(Error::Skipped)?;
    replica.set_environment(disk.environment());
    run.restart("mypage", 0).await?;
    let pid = run.replica("mypage", 0)?.pid();
    let mut wrong = Vec::new();
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        disk.arm(&[Fault::full()]);
        run.goes_on(plan.fault).await;
        let waited = Instant::now();
        while run.replica("mypage", 0)?.state().await == State::Serving && waited.elapsed() < REPORT_TIMEOUT {
            sleep(POLL_INTERVAL).await;
        }
        let serves = run.replica("mypage", 0)?.state().await == State::Serving;
        wrong.extend(serves.then(|| "mypage-0 says that it serves, with its disk full".to_owned()));
        if disk.hits() == 0 {
            return Err(Error::failed("the disk was not felt"));
        }
        disk.heal();
        run.is_over(begun);
        let healed = Instant::now();
        run.replica("mypage", 0)?.ready(START_TIMEOUT).await?;
        run.notes.push(format!("ready {:.1} s after", healed.elapsed().as_secs_f64()));
        run.goes_on(plan.after).await;
    }
    let same = run.replica("mypage", 0)?.pid() == pid;
    wrong.extend((!same).then(|| "mypage-0 is another process".to_owned()));
    let mut row = run.finish(name, format!("the disk of a MyPage replica full for {} s", plan.fault.as_secs())).await?;
    row.complaints.extend(wrong);
    Ok(row)
}
