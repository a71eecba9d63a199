//! Database steps inside a deterministic simulation.
//!
//! A simulation runs a whole mesh in one thread, on a clock that stands still while anything computes. The database's
//! drivers work in threads of their own and in real time; awaited as usual they would finish in an order that cannot be
//! repeated. After `block_on`, every step of a database in this process runs to its end while the simulated thread is
//! blocked. For the simulation each step is then one indivisible moment.

#[cfg(feature = "testing")]
static SIDE: std::sync::OnceLock<tokio::runtime::Handle> = std::sync::OnceLock::new();

/// From now on every database step in this process blocks its thread. The drivers' own tasks and timers run on the
/// runtime `side`, which must have threads of its own. For simulations only.
#[cfg(feature = "testing")]
pub fn block_on(side: tokio::runtime::Handle) {
    // A second call has no effect: the first runtime stays.
    drop(SIDE.set(side));
}

/// Whether this process is a simulation.
pub(crate) fn is_on() -> bool {
    #[cfg(feature = "testing")]
    return SIDE.get().is_some();
    #[cfg(not(feature = "testing"))]
    false
}

/// Runs one step: awaits it as usual or, in a simulation, runs it to its end at once. A step inside a step is part of
/// it.
pub(crate) async fn step<F: Future>(step: F) -> F::Output {
    #[cfg(feature = "testing")]
    if let Some(side) = SIDE.get().filter(|_| futures::executor::enter().is_ok()) {
        let _entered = side.enter();
        return futures::executor::block_on(step);
    }
    step.await
}
