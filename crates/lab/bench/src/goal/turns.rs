//! Turns of one kind: closed loops that alternate with those of other kinds, how fast they were and what they cost.

use std::sync::Arc;
use std::time::Duration;

use super::{Bench, own_cpu};
use crate::Error;
use crate::cost::{Spent, Used};
use crate::load::{Measured, Work, closed};
use crate::section::Side;
use crate::testbed::Testbed;

/// The turns of one call: how fast it was, and what it cost.
pub(super) struct Turns {
    pub(super) side: Side,
    pub(super) spent: Spent,
    callers: usize,
}

impl Turns {
    pub(super) fn new(name: impl Into<String>, callers: usize) -> Self {
        Self { side: Side::new(name, format!("closed, {callers} callers")), spent: Spent::default(), callers }
    }

    /// Adds a turn: what the processes had used before and after it, and the CPU time of its callers.
    pub(super) fn push(&mut self, measured: &Measured, before: &[Used], after: &[Used], callers: Duration) {
        self.side.push(measured);
        self.spent.add(before, after, callers, measured.worked);
    }

    /// Runs a closed loop on services at rest. The callers' part of the cost ends with the loop; that of the processes
    /// ends when the services are at rest again, because views catch up after the answers. Returns how long that took.
    pub(super) async fn run<W: Work>(
        &mut self,
        bench: &Bench<'_>,
        testbed: &Testbed,
        work: &Arc<W>,
        processes: &(dyn Fn() -> Vec<(String, Vec<u32>)> + Sync),
    ) -> Result<Duration, Error> {
        let load = closed(work, self.callers, bench.plan.warm_up, bench.plan.span);
        self.take(bench, testbed, processes, load).await
    }

    /// Adds a turn of the services' own processes with this load.
    pub(super) async fn add(
        &mut self,
        bench: &Bench<'_>,
        testbed: &Testbed,
        load: impl Future<Output = Result<Measured, Error>>,
    ) -> Result<(), Error> {
        self.take(bench, testbed, &|| testbed.processes(), load).await.map(drop)
    }

    async fn take(
        &mut self,
        bench: &Bench<'_>,
        testbed: &Testbed,
        processes: &(dyn Fn() -> Vec<(String, Vec<u32>)> + Sync),
        load: impl Future<Output = Result<Measured, Error>>,
    ) -> Result<Duration, Error> {
        let (before, own) = (Used::of(processes()), own_cpu());
        let measured = load.await?;
        let callers = own_cpu().saturating_sub(own);
        let rested = testbed.rest().await;
        self.push(&measured, &before, &Used::of(processes()), callers);
        bench.done();
        Ok(rested)
    }
}
