//! Ends WAITLISTED bookings that get no place any more.
//!
//! Only Hospital knows whether such a booking got a place at the last moment, so it is asked first. A booking about
//! which it does not answer is looked at again by the next pass.

use std::sync::Arc;

use fault::Fault;
use futures::future::join_all;
use runtime::deadline::Deadline;
use runtime::entropy::jittered;
use runtime::trace::TraceContext;
use store::read::failed;

use super::App;
use super::settle::Settled;
use crate::tables;

/// The most bookings that Hospital is asked about at the same time.
const BOOKINGS_AT_ONCE: u64 = 32;

/// Runs until the task is aborted.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        if let Err(fault) = pass(&app).await {
            tracing::warn!(?fault, "bookings that get no place any more are looked at again later");
        }
        tokio::time::sleep(jittered(app.options.resolve_pause)).await;
    }
}

/// Looks at all that are due, those that are due longest first. If Hospital answers about none of a part, it is not
/// asked on.
async fn pass(app: &App) -> Result<(), Fault> {
    let waiting = tables::count_waiting(app.database.reader()).await.map_err(failed)?;
    metrics::gauge!("checkup_screenings_waitlisted").set(waiting as f64);
    let (now, mut after) = (app.clock.now(), None);
    loop {
        let rows = tables::over(app.database.reader(), now, after, BOOKINGS_AT_ONCE).await.map_err(failed)?;
        // the position, so that bookings which stay do not hide those behind them
        after = rows.last().and_then(|row| Some((row.queued?.closes_at, row.id)));
        if after.is_none() {
            return Ok(());
        }
        let settled = join_all(rows.iter().map(|row| async {
            let trace = TraceContext::background();
            app.settle_waiting(row, &trace, Deadline::within(app.options.hospital_timeout)).await
        }));
        let mut reached = false;
        for settled in settled.await {
            match settled {
                Ok(Settled { reached: answered, .. }) => reached |= answered,
                Err(fault) => tracing::warn!(?fault, "a booking that waits is looked at again later"),
            }
        }
        if !reached {
            return Ok(());
        }
    }
}
