//! Fences claims that no booking holds, so that their places are given back, and deletes old request records.
//!
//! A claim is watched from the moment its event arrives and no booking holds it. The grace period then runs on this
//! service's clock. The transaction that writes the fence decides whether there still is no booking. Of a first claim
//! the fence's event tells Hospital. A claim of a move has no such event, so it is watched until Hospital has
//! acknowledged its release.
//!
//! A claim may have got its place from the queue before its WAITLISTED booking was written. The event about that found
//! no booking that waits, so Hospital is asked once the grace is over.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::ClaimId;
use domain::request::RETENTION;
use domain::screening::Screening;
use fault::Fault;
use futures::future::join_all;
use jiff::SignedDuration;
use runtime::deadline::Deadline;
use runtime::trace::TraceContext;
use store::read::failed;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::settle::Settled;
use super::{App, COMMIT_TIMEOUT};
use crate::batch::{Command, Unsettled};
use crate::tables::watch::{self, Orphan};

/// How often due claims are looked for, at most. A shorter grace shortens it.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// The most claims that one transaction fences.
const FENCES_PER_TRANSACTION: u64 = 500;
/// The most claims that Hospital is asked about at the same time.
const CLAIMS_AT_ONCE: usize = 32;
/// How often old request records are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Runs until the task is aborted.
pub(crate) async fn run(app: Arc<App>) {
    // a grace shorter than the interval needs a shorter interval
    let mut ticks = interval(SCAN_INTERVAL.min(app.options.reconcile_grace.max(Duration::from_millis(10))));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purged: Option<Instant> = None;
    loop {
        ticks.tick().await;
        if let Err(fault) = fence(&app).await {
            tracing::warn!(?fault, "claims without a booking are looked at again later");
        }
        if purged.is_none_or(|at| at.elapsed() >= PURGE_INTERVAL) {
            purged = Some(Instant::now());
            if let Err(fault) = purge(&app).await {
                tracing::warn!(?fault, "old request records are kept for now");
            }
        }
    }
}

async fn fence(app: &App) -> Result<(), Fault> {
    let grace = SignedDuration::try_from(app.options.reconcile_grace).unwrap_or(SignedDuration::MAX);
    let limit = app.clock.now().checked_sub(grace).unwrap_or(jiff::Timestamp::MIN);
    // all are fenced before Hospital is asked about any, because a Hospital that does not answer takes time
    let (mut after, mut unsettled) = (None, Unsettled::default());
    loop {
        let due = watch::due(app.database.reader(), limit, after.as_ref(), FENCES_PER_TRANSACTION).await;
        let due = due.map_err(failed)?;
        let is_last = (due.len() as u64) < FENCES_PER_TRANSACTION;
        after = due.last().cloned();
        if !due.is_empty() {
            let Unsettled { left, waiting } = app.writer.fence(due, Instant::now() + COMMIT_TIMEOUT).await?;
            unsettled.left.extend(left);
            unsettled.waiting.extend(waiting);
        }
        if is_last {
            release(app, &unsettled.left).await?;
            return ask(app, &unsettled.waiting).await;
        }
    }
}

/// Gives the places of these claims back. If Hospital acknowledges none of a part, it is not asked on; what is left
/// stays watched.
async fn release(app: &App, left: &[Orphan]) -> Result<(), Fault> {
    for orphans in left.chunks(CLAIMS_AT_ONCE) {
        let acknowledged = join_all(orphans.iter().map(|orphan| async {
            let trace = TraceContext::parse_or_new(&orphan.traceparent);
            let deadline = Deadline::within(app.options.hospital_timeout);
            let ended = app.hospital.release(&orphan.slot, orphan.claim, &trace, deadline).await;
            ended.map(|_| orphan.claim)
        }));
        let released: Vec<ClaimId> = acknowledged.await.into_iter().flatten().collect();
        if released.is_empty() {
            return Ok(());
        }
        app.writer.done(Command::Unwatch(released), Instant::now() + COMMIT_TIMEOUT).await?;
    }
    Ok(())
}

/// Asks Hospital what became of the claims of these WAITLISTED bookings. A promotion after its answer finds the booking
/// by its event. If Hospital answers about none of a part, it is not asked on; what is left stays watched.
async fn ask(app: &App, waiting: &[Screening]) -> Result<(), Fault> {
    for rows in waiting.chunks(CLAIMS_AT_ONCE) {
        let settled = join_all(rows.iter().map(|row| async {
            let deadline = Deadline::within(app.options.hospital_timeout);
            app.settle_waiting(row, &TraceContext::background(), deadline).await
        }));
        let mut answered: Vec<ClaimId> = Vec::new();
        for settled in settled.await {
            match settled {
                Ok(Settled { row, reached: true }) => answered.push(row.claim()),
                Ok(Settled { reached: false, .. }) => {}
                Err(fault) => tracing::warn!(?fault, "a booking that waits is looked at again later"),
            }
        }
        if answered.is_empty() {
            return Ok(());
        }
        app.writer.done(Command::Unwatch(answered), Instant::now() + COMMIT_TIMEOUT).await?;
    }
    Ok(())
}

async fn purge(app: &App) -> Result<(), Fault> {
    let retention = SignedDuration::try_from(RETENTION).unwrap_or(SignedDuration::MAX);
    let limit = app.clock.now().checked_sub(retention).unwrap_or(jiff::Timestamp::MIN);
    app.writer.done(Command::Purge(limit), Instant::now() + COMMIT_TIMEOUT).await
}
