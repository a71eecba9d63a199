//! Settles PENDING bookings once Hospital answers again.

use std::sync::Arc;
use std::time::Duration;

use fault::Fault;
use futures::future::join_all;
use runtime::backoff::Backoff;
use runtime::deadline::Deadline;
use runtime::entropy::jittered;
use runtime::trace::TraceContext;
use store::read::failed;
use tokio::time::timeout;

use super::App;
use super::settle::Settled;
use crate::tables;

/// The most bookings that Hospital is asked about at the same time.
const BOOKINGS_AT_ONCE: u64 = 32;
/// The pause after a pass that reached Hospital. After passes that did not, the pause grows from here.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Runs until the task is aborted.
pub(crate) async fn run(app: Arc<App>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, app.options.resolve_pause);
    loop {
        match pass(&app).await {
            Ok(Pass { reached: true, left: 0 }) => {
                backoff.reset();
                // another replica may have written a PENDING booking and stopped
                drop(timeout(app.options.resolve_pause, app.parked.notified()).await);
            }
            Ok(Pass { reached: true, .. }) => backoff.reset(),
            Ok(Pass { reached: false, .. }) => {}
            Err(fault) => tracing::warn!(?fault, "pending bookings are looked at again later"),
        }
        tokio::time::sleep(jittered(backoff.pause())).await;
    }
}

/// The result of a pass over the PENDING bookings.
struct Pass {
    reached: bool,
    /// How many of the bookings that the pass looked at are still PENDING.
    left: usize,
}

async fn pass(app: &App) -> Result<Pass, Fault> {
    let mut after = None;
    let mut left = 0;
    loop {
        let rows = tables::pending(app.database.reader(), after, BOOKINGS_AT_ONCE).await.map_err(failed)?;
        let Some(last) = rows.last() else { break };
        after = Some(last.id);
        let settled = join_all(rows.iter().map(|row| async {
            let trace = TraceContext::background();
            app.settle(row, &trace, Deadline::within(app.options.hospital_timeout)).await
        }));
        let mut reached = false;
        for settled in settled.await {
            match settled {
                Ok(Settled { row, reached: answered }) => {
                    reached |= answered;
                    left += usize::from(row.state == domain::screening::State::Pending);
                }
                Err(fault) => {
                    tracing::warn!(?fault, "a pending booking is looked at again later");
                    left += 1;
                }
            }
        }
        metrics::gauge!("checkup_screenings_pending").set(left as f64);
        if !reached {
            return Ok(Pass { reached: false, left });
        }
    }
    metrics::gauge!("checkup_screenings_pending").set(left as f64);
    Ok(Pass { reached: true, left })
}
