//! Measures running services. Where possible a figure is a ratio to a baseline that alternates with it in the same run.
//!
//! The services are real processes of the given program with its default settings. The callers are in this process, so
//! that their CPU time is separate from that of the services. The crate checks only its own bounds; the tests check
//! whether answers are right.

mod caller;
mod cost;
mod customers;
mod document;
mod error;
mod fsync;
mod goal;
pub mod hello;
mod hot;
mod load;
mod machine;
mod model;
mod pgbench;
mod plan;
mod plot;
mod proc;
mod report;
mod section;
mod series;
mod testbed;

pub use customers::Order;
pub use error::Error;
pub use machine::{Machine, Withheld};
pub use plan::{Item, Plan, Sizes, Topology};
pub use report::Report;
pub use section::{Bound, Curve, Figure, Rows, Section, Side};
pub use series::Series;

/// The progress of a run.
#[derive(Debug, Clone)]
pub enum Step {
    /// A phase begins, with its number of steps if it is known.
    Phase(String, Option<u64>),
    /// A step of the phase is done.
    Done,
}

/// Measures every item of the plan, one after the other. The report names what could not be measured. Such a failure
/// does not lose the other results, which may have taken an hour.
///
/// # Errors
/// [`Error::Usage`] if the plan makes no sense.
pub async fn run(plan: &Plan, say: &(dyn Fn(Step) + Sync)) -> Result<Report, Error> {
    let stations = plan.stations()?;
    let mut machine = Machine::inspect();
    let (mut sections, mut failed) = (Vec::new(), Vec::new());
    for (item, topology) in stations {
        let mut bench = goal::Bench { plan, topology, say, servers: machine.servers.take() };
        // Boxed, because the future of a measurement is large.
        let section = Box::pin(bench.measure(item)).await;
        machine.servers = bench.servers;
        match section {
            Ok(section) => sections.push(section),
            Err(Error::Usage(what)) => return Err(Error::Usage(format!("{}: {what}", item.name()))),
            Err(error) => failed.push(format!("{} {topology}: {error}", item.name())),
        }
    }
    Ok(Report::new(plan, machine, sections, failed))
}
