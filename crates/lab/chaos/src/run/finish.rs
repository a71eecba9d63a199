//! The end of a run: the audit of the whole system, and the row of what was measured and found.

use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tokio::time::Instant;

use super::{Run, START_TIMEOUT};
use crate::Error;
use crate::audit::Audit;
use crate::row::{Back, Row};
use crate::stage::Stage;

impl<S: Stage> Run<S> {
    /// Ends the load, audits the system and makes the row.
    ///
    /// # Errors
    /// If the system does not become whole again, or cannot be read.
    pub(crate) async fn finish(mut self, scenario: &'static str, fault: impl Into<String>) -> Result<Row, Error> {
        self.stop_load().await;
        let end = self.ended.unwrap_or_else(Instant::now);
        let load = end - self.begun;
        let withheld = self.withheld.percent();
        let (rate, back) = self.throughput(end);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (calls, unknown) = (count(&self.observed.calls), count(&self.observed.unknown));
        let audit = match self.audit().await {
            Ok(audit) => audit,
            Err(error) => {
                let kept = self.directory.keep();
                return Err(Error::failed(format!("{error}; logs and data are in {}", kept.display())));
            }
        };
        let effects = self.observed.effects.each_ref().map(count);
        let oversold = count(&self.observed.oversold) + audit.oversold;
        let mut complaints = [self.observed.complaints(), audit.complaints].concat();
        let looks = self.sampler.looks();
        drop(self.sampler);
        if let Err(error) = self.stage.stop().await {
            complaints.push(format!("it does not stop: {error}"));
        }
        let Audit { lost, doubled, settled, .. } = audit;
        let (fault, notes) = (fault.into(), self.notes);
        let row = Row {
            scenario,
            fault,
            load,
            calls,
            rate,
            effects,
            unknown,
            back,
            lost,
            doubled,
            oversold,
            complaints,
            looks,
            settled,
            withheld,
            notes,
        };
        Ok(if row.is_clean() || !self.plan.keep { row } else { keep(row, self.directory, self.plan.seed) })
    }

    async fn audit(&mut self) -> Result<Audit, Error> {
        self.stage.ready(START_TIMEOUT).await?;
        let settle = self.plan.settle;
        Audit::of(&self.stage, &self.plan.binary, &self.desk, &self.observed, settle).await
    }

    /// The rate before the faults, and the longest recovery from one. Notes the lowest rate during lasting faults.
    fn throughput(&mut self, end: Instant) -> (f64, Back) {
        let answers = &self.observed.answers;
        let rate = answers.rate(self.steady.0, self.steady.1);
        let mut back = Back::NotMeasured;
        let mut lowest: Option<f64> = None;
        for (index, mark) in self.marks.iter().enumerate() {
            let next = self.marks.get(index + 1).map(|next| next.lasted_from.unwrap_or(next.from));
            let felt = answers.back_after(rate, mark.from, next.unwrap_or(end));
            back = back.worst(felt.map_or(Back::NotSeen, Back::After));
            if let Some(begun) = mark.lasted_from {
                let during = answers.rate(begun, mark.from) / rate.max(1.0) * 100.0;
                lowest = Some(lowest.map_or(during, |lowest| lowest.min(during)));
            }
        }
        self.notes.extend(lowest.map(|percent| format!("{percent:.0} % of the rate meanwhile")));
        (rate, back)
    }
}

/// Keeps the logs and the data of a run, and names their directory and the seed in the row.
fn keep(mut row: Row, directory: TempDir, seed: u64) -> Row {
    let kept = directory.keep();
    row.complaints.push(format!("seed {seed}; logs and data are in {}", kept.display()));
    row
}
