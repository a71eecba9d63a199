//! The mesh as child processes on loopback: PostgreSQL, nats-server and replicas of services, for `checkup mesh`, for tests and
//! for chaos.
//!
//! It starts, stops, kills, pauses and wipes; what the servers are for it does not know. It speaks neither SQL nor gRPC nor
//! the broker's protocol. Every process ends with its handle, and with this process, however that ends.

pub mod child;
mod error;
pub mod for_tests;
mod home;
pub mod nats;
mod output;
pub mod port;
pub mod postgres;
mod programs;
mod replica;
mod topology;

pub use error::Error;
pub use nats::Nats;
pub use output::Output;
pub use postgres::Postgres;
pub use replica::{Replica, State};
pub use rustix::process::Signal;
pub use topology::{Layout, Mesh, without_settings};
