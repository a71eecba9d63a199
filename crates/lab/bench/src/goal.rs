//! One module per goal: what is started, what is measured against which baseline, and the result.

mod booking;
mod curves;
mod deletion;
mod flash;
mod growth;
mod hot_slot;
mod idle;
mod lag;
mod pages;
mod queue;
mod scale;
mod single;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use crate::hello::{Baseline, Greeting};
use crate::load::{Measured, Work, closed, open};
use crate::machine::Servers;
use crate::section::Section;
use crate::testbed::{Services, Setup, Testbed};
use crate::{Error, Item, Plan, Step, Topology};

/// The share of a closed loop's rate that an open loop asks for: the services are busy, but no queue builds up.
const SHARE: f64 = 0.6;

/// The state that every measurement needs.
pub(crate) struct Bench<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) topology: Topology,
    pub(crate) say: &'a (dyn Fn(Step) + Sync),
    /// The versions of a mesh's servers, once a mesh has run.
    pub(crate) servers: Option<Servers>,
}

impl Bench<'_> {
    /// Measures one item.
    pub(crate) async fn measure(&mut self, item: Item) -> Result<Section, Error> {
        match item {
            Item::P1 => hot_slot::measure(self).await,
            Item::P2 | Item::P3 => booking::measure(self, item).await,
            Item::P4 => flash::measure(self).await,
            Item::P5 => lag::measure(self).await,
            Item::P6 => deletion::measure(self).await,
            Item::P7 => pages::measure(self).await,
            Item::P8 => idle::measure(self).await,
            Item::P9 => single::measure(self).await,
            Item::Growth => growth::measure(self).await,
            Item::Curves => curves::measure(self).await,
            Item::Scale => scale::measure(self).await,
        }
    }

    /// Announces the start of the services, and starts them.
    async fn testbed(&mut self, item: Item, setup: &Setup) -> Result<Testbed, Error> {
        (self.say)(Step::Phase(format!("{} {}: starting", item.name(), self.topology), None));
        let mut testbed = Testbed::start(self.plan, self.topology, setup).await?;
        if self.servers.is_none()
            && let Services::Mesh(mesh) = &mut testbed.services
        {
            self.servers = Some(Servers::ask(mesh).await?);
        }
        Ok(testbed)
    }

    /// Starts the baseline's server and checks that it answers.
    async fn baseline(&self, testbed: &Testbed) -> Result<(Baseline, Arc<Greeting>), Error> {
        let (baseline, greeting) = Baseline::start(self.plan, &testbed.signer).await?;
        baseline.check().await?;
        Ok((baseline, Arc::new(greeting)))
    }

    /// Announces a measurement with this many steps.
    fn phase(&self, item: Item, steps: u32) {
        (self.say)(Step::Phase(format!("{} {}", item.name(), self.topology), Some(u64::from(steps))));
    }

    fn done(&self) {
        (self.say)(Step::Done);
    }

    /// Runs a closed loop once the services are at rest.
    async fn closed<W: Work>(&self, testbed: &Testbed, work: &Arc<W>, callers: usize) -> Result<Measured, Error> {
        testbed.rest().await;
        let measured = closed(work, callers, self.plan.warm_up, self.plan.span).await?;
        self.done();
        Ok(measured)
    }

    /// Runs an open loop once the services are at rest.
    async fn open<W: Work>(&self, testbed: &Testbed, work: &Arc<W>, rate: f64) -> Result<Measured, Error> {
        testbed.rest().await;
        let measured = open(work, rate, self.plan.warm_up, self.plan.span).await?;
        self.done();
        Ok(measured)
    }
}

/// The CPU time of this process, which has the callers.
pub(crate) fn own_cpu() -> Duration {
    crate::proc::cpu(std::process::id())
}
