//! The whole system from outside: the real binary as a child process, driven over gRPC, signals and files.
//!
//! One module a promise of the contract; the races R1 to R18 are tests `r01_…` to `r18_…` in [`races`]. Nothing here looks
//! into a service: what a service does inside is tested in its own crate.
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks, and stands on the machine's own clock")]

mod consistency;
mod crash;
mod deadlines;
mod demo;
mod errors;
mod flows;
mod fuzz;
mod hostile;
mod identity;
mod observability;
mod paging;
mod races;
mod streams;
mod topology;
mod validation;

use testkit::Launch;

/// The binary under test, on a new data directory.
fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_checkup"))
}
