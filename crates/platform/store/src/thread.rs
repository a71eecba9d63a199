//! Threads on which a statement of a file may run, although it blocks.

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::thread::Builder;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::simulation;

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
    /// Where those who ask this thread's loop run.
    static ASKERS: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// Whether this thread may block. In a simulation every thread may, because time stands still meanwhile.
pub(crate) fn may_block() -> bool {
    MAY_BLOCK.get() || simulation::is_on()
}

/// Lets the tasks run that are ready and may be about to ask this loop.
pub(crate) async fn let_others_run() {
    let askers = ASKERS.with_borrow(Clone::clone);
    match askers {
        // A task that yields runs again after all that are ready. If it cannot run, nobody is about to ask.
        Some(askers) => drop(askers.spawn(yield_now()).await),
        None => yield_now().await,
    }
}

/// Runs a loop over a database. For a file (`blocks`) it gets a thread of its own, whose statements need no other one;
/// a server's answers are awaited where everything else is.
///
/// If it is dropped, the loop goes on until its queue is closed.
pub(crate) async fn run(name: &'static str, blocks: bool, work: impl Future<Output = ()> + Send + 'static) {
    if !blocks || simulation::is_on() {
        return work.await;
    }
    let (done, ended) = oneshot::channel::<()>();
    let askers = Handle::current();
    let worker = move || {
        MAY_BLOCK.set(true);
        ASKERS.set(Some(askers));
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(work),
            Err(error) => panic!("no runtime for a thread: {error}"),
        }
        drop(done);
    };
    let spawned = Builder::new().name(name.to_owned()).spawn(worker);
    let thread = match spawned {
        Ok(thread) => thread,
        Err(error) => panic!("no thread for {name}: {error}"),
    };
    // The sender is dropped at the end, or by a panic.
    drop(ended.await);
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}
