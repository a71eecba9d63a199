//! Breaks a running system under load in every way it promises to survive, and checks every answer it gave.
//!
//! A [`Scenario`] starts a mesh of its own (PostgreSQL, nats-server, replicas of the real binary), or one embedded
//! process on a disk that can be made to fail. Customers book, move and cancel all the time while the scenario breaks
//! something. It ends with a [`Row`]: how long fewer calls were answered, how many had no definite answer, and whether
//! anything is lost, doubled or oversold. Clients use the contract alone.
#![allow(clippy::disallowed_methods, reason = "a test tool owns its tasks")]

mod audit;
mod desk;
mod error;
mod load;
mod observed;
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
