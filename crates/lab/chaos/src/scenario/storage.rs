//! The disk under an embedded process, a MyPage replica or PostgreSQL: full, broken, slow, or without power.

use std::time::Duration;

use mesh::State;
use testkit::{Call, Disk, Fault};
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, START_TIMEOUT, Setup};
use crate::stage::{Embedded, IO, Stage};

/// How long a process may run without a call that the fault hits. Later the scenario fails, because it would show
/// nothing.
const FAULT_TIMEOUT: Duration = Duration::from_secs(120);
/// How soon a process that cannot write must report that it is not ready.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);
/// The delay of each sync of a slow disk.
const SLOW_SYNC: Duration = Duration::from_millis(50);
/// The delay of each write to a database file, so that a kill meets a checkpoint.
const SLOW_WRITE: Duration = Duration::from_millis(4);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Makes the disk fail for a while. The process must report that it is not ready, and continue by itself afterwards.
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

/// The disk is full.
pub(super) async fn full(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    fails(name, plan, "the disk full", Fault::full()).await
}

/// Writes, syncs and truncations fail.
pub(super) async fn io(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    fails(name, plan, "I/O errors", Fault::broken(&IO)).await
}

/// Syncs fail.
pub(super) async fn sync(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    fails(name, plan, "syncs failing", Fault::failed_sync()).await
}

/// Every sync takes longer. Nothing fails, and nothing may be reported as failed.
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

/// Pauses the process with SIGSTOP.
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

/// Starts a killed process again and waits until it serves.
async fn again(run: &mut Run<Embedded>) -> Result<(), Error> {
    run.stage.restart().await?;
    run.stage.ready(START_TIMEOUT).await
}

/// A random part of the duration of a fault.
fn part(run: &mut Run<Embedded>) -> Duration {
    run.plan.fault.mul_f64(run.random.below(1_000) as f64 / 1_000.0)
}

/// Kills the process while the disk is full, while it has I/O errors, and while syncs fail.
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

/// Kills the process while a write-ahead log is copied into its database: in turn because the log has grown, and at the
/// end of the process.
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

/// Fails the power repeatedly. What was not synced is lost: in turn all of it, or a random half.
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

/// Fails the power of PostgreSQL repeatedly, with these settings.
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

/// Fails the power of PostgreSQL with the settings of production.
pub(super) async fn postgres_power(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    server_power(name, plan, &[]).await
}

/// Fails the power of PostgreSQL with `fsync=off`, which nobody may use. The row must report lost bookings.
///
/// # Errors
/// If the mesh cannot be started, broken or read.
pub async fn unsynced(plan: &Plan) -> Result<Row, Error> {
    server_power("unsynced", plan, &["fsync=off"]).await
}

/// Fills the disk of one MyPage replica for a while. The replica must report that, and catch up by itself afterwards.
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
