//! Measures running services: every figure is a ratio against a baseline of the same run, taken by turns.
//!
//! What is measured are real processes of the program it is told, with the settings they are shipped with; the callers are in
//! this process, so their time and the services' can be told apart. It judges nothing but its own bounds: whether the answers
//! are right is for the tests.

mod caller;
mod cost;
mod document;
mod error;
mod fsync;
mod goal;
pub mod hello;
mod hot;
mod load;
mod machine;
mod pgbench;
mod plan;
mod plot;
mod proc;
mod report;
mod section;
mod series;
mod testbed;

pub use error::Error;
pub use machine::{Machine, Withheld};
pub use plan::{Item, Plan, Sizes, Topology};
pub use report::Report;
pub use section::{Bound, Curve, Figure, Rows, Section, Side};
pub use series::Series;

/// How far it is.
#[derive(Debug, Clone)]
pub enum Step {
    /// Something begins, of so many steps where that is known.
    Phase(String, Option<u64>),
    /// One of them is done.
    Done,
}

/// Measures everything the plan names, one thing after the other. What cannot be measured is named in the report; the rest,
/// which may have taken an hour, is not lost for it.
///
/// # Errors
/// [`Error::Usage`] where what was asked for makes no sense.
pub async fn run(plan: &Plan, say: &(dyn Fn(Step) + Sync)) -> Result<Report, Error> {
    let stations = plan.stations()?;
    let mut machine = Machine::inspect();
    let (mut sections, mut failed) = (Vec::new(), Vec::new());
    for (item, topology) in stations {
        let mut bench = goal::Bench { plan, topology, say, servers: machine.servers.take() };
        // each measurement holds the state of many
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
