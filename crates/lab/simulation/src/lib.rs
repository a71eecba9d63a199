//! The whole mesh in one thread, repeatable by a seed.
//!
//! The services are real, over the real gRPC server and client, each with a real SQLite database. The network is
//! turmoil's. The clock and all random numbers come from the simulation, and a simulated broker carries the events and
//! misbehaves. Callers book, wait for places, move, cancel and delete while processes are killed, links break, commits
//! fail and the broker loses events, and while a database comes back as it was earlier. At the end everything is
//! healed. Within thirty simulated seconds all services must agree with each other and with the answers that callers
//! got.
//!
//! A process runs one seed: counters in libraries live as long as the process, so a second run would begin with other
//! values. The `simulate` binary starts one process per seed.

mod aim;
mod audit;
mod batch;
mod caller;
mod chance;
mod clock;
mod commits;
mod draw;
mod history;
mod host;
mod mutant;
mod nemesis;
mod net;
mod older;
mod plan;
mod queues;
mod restore;
mod retention;
mod run;
mod sabotage;
mod schema;
mod site;
mod stage;
mod trace;
mod transport;
mod watch;
mod watermark;

pub use batch::{Batch, Ended, Summary};
pub use mutant::Mutant;
pub use run::{Outcome, Run, run};
pub use schema::make as schemas;
