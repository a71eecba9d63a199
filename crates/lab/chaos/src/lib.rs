//! Breaks what runs in every way it promises to survive, under load, and holds it to every answer it gave.
//!
//! A [`Scenario`] starts a mesh of its own (PostgreSQL, nats-server, replicas of the real binary), or one process with everything in it on
//! a disk that can be made to fail, lets customers book and cancel all the time, breaks something, and ends with a [`Row`]: how long calls were answered less often, how many had no
//! definite answer, and whether anything is lost, doubled or oversold. Clients know the mesh by its contract alone.
#![allow(clippy::disallowed_methods, reason = "a test tool owns its tasks")]

mod audit;
mod error;
mod load;
mod pool;
mod row;
mod run;
mod sampler;
mod scenario;
mod series;
mod stage;

pub use error::Error;
pub use load::Pressure;
pub use row::{Back, Row};
pub use run::Plan;
pub use scenario::{Form, Scenario, damage, unsynced};
