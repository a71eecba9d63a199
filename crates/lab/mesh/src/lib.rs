//! The mesh as child processes on loopback, for `checkup mesh`, tests and chaos: PostgreSQL, nats-server and replicas.
//!
//! The crate starts, stops, kills, pauses and wipes servers and does not know what they are for. Every process ends
//! with its handle, and with this process, even if this process is killed.

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

pub use child::without_settings;
pub use error::Error;
pub use nats::Nats;
pub use output::Output;
pub use postgres::Postgres;
pub use replica::{Replica, State};
pub use rustix::process::Signal;
pub use topology::{Layout, Mesh};
