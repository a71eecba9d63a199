//! The whole mesh in one thread, repeatable by a seed.
//!
//! The services are the real ones, over the real gRPC server and client, each host with its real SQLite database; the network
//! is turmoil's, the clock and all chance are the simulation's, and events travel by a broker that behaves badly. Callers
//! book, cancel and delete while processes are killed, links break, commits fail and the broker forgets. In the end everything
//! is healed, and within thirty simulated seconds all services have to agree with each other and with what callers were told.
//!
//! A process runs one seed: counters of the libraries live as long as the process, and what they count would differ in a second
//! run. The `simulate` binary starts one process a seed.

mod aim;
mod audit;
mod batch;
mod caller;
mod chance;
mod clock;
mod commits;
mod history;
mod host;
mod mutant;
mod nemesis;
mod net;
mod plan;
mod run;
mod sabotage;
mod schema;
mod stage;
mod trace;
mod transport;
mod watch;
mod watermark;

pub use batch::{Batch, Ended, Summary};
pub use mutant::Mutant;
pub use run::{Outcome, Run, run};
pub use schema::make as schemas;
