//! Steps of the database inside a deterministic simulation.
//!
//! A simulation runs a whole mesh in one thread, on a clock that stands still while anything computes. The database's
//! drivers work in threads of their own and in real time; awaited as usual they would finish in an order nobody can repeat.
//! [`block_on`] makes every later step of a database of this process run to its end while the simulated thread is blocked:
//! for the simulation a step is then one indivisible moment.

use std::sync::OnceLock;

use tokio::runtime::Handle;

static SIDE: OnceLock<Handle> = OnceLock::new();

/// From now on every step of a database in this process blocks its thread; the drivers' own tasks and timers run on this
/// runtime, which must have threads of its own. For simulations only.
pub fn block_on(side: Handle) {
    // a second simulation in the same process would mean the same
    drop(SIDE.set(side));
}

/// One step: awaited as usual, or, in a simulation, run to its end on the spot. A step within a step is part of it.
pub(crate) async fn step<F: Future>(step: F) -> F::Output {
    match SIDE.get().filter(|_| futures::executor::enter().is_ok()) {
        None => step.await,
        Some(side) => {
            let _entered = side.enter();
            futures::executor::block_on(step)
        }
    }
}
