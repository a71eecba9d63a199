//! Counts refusals of full slots in memory and reports them periodically, so that a rush causes few writes.
//!
//! If the process dies, the counts since the last successful report are lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::access::Caller;
use domain::ids::SlotId;
use domain::request::Request;
use runtime::entropy::uuid_v7;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::COMMIT_TIMEOUT;
use crate::NAME;
use crate::batch::{Command, RefusalReport, ScreeningWriter};

type Counts = Arc<Mutex<HashMap<SlotId, i64>>>;

/// Counts refusals per slot. When the last handle is dropped, the reporter reports once more and ends.
#[derive(Debug, Clone)]
pub(crate) struct Refusals {
    counts: Counts,
    _alive: mpsc::Sender<()>,
}

impl Refusals {
    /// The counter, and the task that reports its counts every `interval`.
    pub(crate) fn new(
        writer: ScreeningWriter,
        interval: Duration,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let counts = Counts::default();
        let (alive, ended) = mpsc::channel(1);
        let reporter = report(Arc::clone(&counts), ended, writer, interval);
        (Self { counts, _alive: alive }, reporter)
    }

    pub(crate) fn count(&self, slot: &SlotId) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(slot.clone()).or_insert(0) += 1;
    }
}

async fn report(counts: Counts, mut ended: mpsc::Receiver<()>, writer: ScreeningWriter, interval: Duration) {
    let mut open = true;
    while open {
        open = timeout(interval, ended.recv()).await.is_err();
        let taken = std::mem::take(&mut *counts.lock().unwrap_or_else(PoisonError::into_inner));
        if taken.is_empty() {
            continue;
        }
        let mut taken: Vec<_> = taken.into_iter().collect();
        taken.sort();
        let request = Request::of_own_work(&Caller::Service(NAME.to_owned()), "ReportRefusals", uuid_v7());
        let report = Command::Report(RefusalReport { request, counts: taken.clone() });
        if let Err(fault) = writer.done(report, Instant::now() + COMMIT_TIMEOUT).await {
            tracing::warn!(?fault, "refusals are reported later");
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            for (slot, count) in taken {
                *counts.entry(slot).or_insert(0) += count;
            }
        }
    }
}
