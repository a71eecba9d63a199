//! What every process needs: configuration, telemetry, tasks, lifecycle, identity, the gRPC server and client, and the
//! one mapping from faults to statuses.
//!
//! It holds no rule of the product: of the domain it knows only [`domain::access::Caller`], which it makes from tokens.
//! It opens no database and publishes no event.

pub mod admin;
pub mod backoff;
pub mod call;
pub mod client;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod entropy;
pub mod identity;
mod language;
pub mod lifecycle;
pub mod metrics;
mod process;
mod scope;
pub mod server;
#[cfg(feature = "testing")]
pub mod simulation;
pub mod spans;
pub mod status;
pub mod tasks;
pub mod telemetry;
pub mod trace;

pub use process::Process;
