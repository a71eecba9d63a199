//! Fences claims without a booking, so that their places are given back, and deletes old request records.
//!
//! A claim is watched from the moment its event arrives and no booking exists. The grace period then runs on this
//! service's clock. The transaction that writes the fence decides whether there still is no booking.

use std::sync::Arc;
use std::time::Duration;

use domain::request::RETENTION;
use fault::Fault;
use jiff::SignedDuration;
use store::read::failed;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{App, COMMIT_TIMEOUT};
use crate::batch::Command;
use crate::tables::watch;

/// How often due claims are looked for, at most. A shorter grace shortens it.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// The most claims that one transaction fences.
const FENCES_PER_TRANSACTION: u64 = 500;
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
    loop {
        let due = watch::due(app.database.reader(), limit, FENCES_PER_TRANSACTION).await.map_err(failed)?;
        let count = due.len() as u64;
        if count > 0 {
            app.writer.done(Command::Fence(due), Instant::now() + COMMIT_TIMEOUT).await?;
        }
        if count < FENCES_PER_TRANSACTION {
            return Ok(());
        }
    }
}

async fn purge(app: &App) -> Result<(), Fault> {
    let retention = SignedDuration::try_from(RETENTION).unwrap_or(SignedDuration::MAX);
    let limit = app.clock.now().checked_sub(retention).unwrap_or(jiff::Timestamp::MIN);
    app.writer.done(Command::Purge(limit), Instant::now() + COMMIT_TIMEOUT).await
}
