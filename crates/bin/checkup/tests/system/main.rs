//! The whole system from outside: the real binary as a child process, controlled by gRPC, signals and files.
//!
//! There is one module per promise of the contract. The races R1 to R31 are the tests `r01_…` to `r31_…`
//! in [`races`]. Nothing here depends on the inside of a service, which its own crate tests.
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks, and stands on the machine's own clock")]

mod backup;
mod consistency;
mod crash;
mod dead_letters;
mod deadlines;
mod demo;
mod errors;
mod files;
mod flows;
mod fuzz;
mod hostile;
mod hurry;
mod identity;
mod lists;
mod losses;
mod methods;
mod observability;
mod older;
mod paging;
mod past;
mod protocol;
mod races;
mod rebuild;
mod replaced;
mod retention;
mod rules;
mod shares;
mod small_mesh;
mod spans;
mod storage;
mod stored;
mod streams;
mod topology;
mod validation;

use testkit::{Launch, Topology};

/// Removes what is marked as published and was appended before `limit` from a log that no process uses.
async fn remove_published(log: &store::Database, limit: jiff::Timestamp) {
    loop {
        let due = store::outbox::due(log.reader(), limit, true).await.expect("rows");
        let positions: Vec<i64> = due.iter().map(|row| row.position).collect();
        if positions.is_empty() {
            return;
        }
        assert!(store::outbox::replace(log, &positions, &[], limit).await.expect("removed"));
    }
}

/// The binary as one process on a new data directory, for what only that topology can do, such as leaving services out.
fn embedded() -> Launch {
    launch().topology(Topology::Embedded)
}

/// The binary on a new data directory, in the topology that the suite runs for: `CHECKUP_TEST_TOPOLOGY=mesh` runs the
/// same tests against PostgreSQL, JetStream and replicas.
fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_checkup"))
}
