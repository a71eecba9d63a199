//! Background work with a name, an owner and an end. Nothing else in the system spawns tasks, except that the store
//! blocks on files in threads whose ends it awaits.
//!
//! A task's [`Kind`] says what its failure means to the process and how a drain ends it. Failed tasks are not
//! restarted: a loop that can continue handles its own errors, and one that cannot should stop the process.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::lifecycle::{Drain, lock};
use crate::scope::{self, Scope};

/// The importance of a task to its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process needs it, and a drain waits until it finishes its work: writers, servers.
    Essential,
    /// The process needs it, and a drain may cut it off at any await: relays, reconcilers.
    Loop,
    /// Its failure is only logged, and a drain waits for it: work that outlives the call that began it.
    Job,
    /// Its failure is only logged, and a drain may cut it off at any await: gauges, caches.
    Helper,
}

impl Kind {
    /// Whether the process stops when the task ends outside a drain.
    #[must_use]
    pub fn stops_the_process(self) -> bool {
        match self {
            Self::Essential | Self::Loop => true,
            Self::Job | Self::Helper => false,
        }
    }

    /// Whether a drain waits for the task to finish.
    #[must_use]
    pub fn finishes(self) -> bool {
        match self {
            Self::Essential | Self::Job => true,
            Self::Loop | Self::Helper => false,
        }
    }
}

/// What a task may return: nothing, or a result whose error is logged.
pub trait Outcome {
    /// The error, for the log; `None` for success.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Debug> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| format!("{error:?}"))
    }
}

struct Running {
    name: &'static str,
    kind: Kind,
    abort: Option<AbortHandle>,
}

struct Shared {
    drain: Drain,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Running>>,
    count: watch::Sender<usize>,
    failed: watch::Sender<Option<String>>,
}

/// The tasks of a process; a cheap handle.
#[derive(Clone)]
pub struct Tasks(Arc<Shared>);

impl Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tasks").field(&self.names()).finish()
    }
}

/// Removes a task from the list however it ends, also when it is aborted.
struct Listed {
    tasks: Tasks,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut running = lock(&self.tasks.0.running);
        running.remove(&self.id);
        self.tasks.0.count.send_replace(running.len());
    }
}

impl Tasks {
    /// An empty set of tasks. After `drain`, the end of a task is no failure.
    #[must_use]
    pub fn new(drain: Drain) -> Self {
        Self(Arc::new(Shared {
            drain,
            next: AtomicU64::new(0),
            running: Mutex::new(BTreeMap::new()),
            count: watch::Sender::new(0),
            failed: watch::Sender::new(None),
        }))
    }

    /// Starts a task. Its scope is the current one, so that work begun by a call is logged as part of that call.
    pub fn spawn<F>(&self, kind: Kind, name: &'static str, future: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.spawn_boxed(kind, name, scope::current(), Box::pin(async move { future.await.failure() }));
    }

    /// Starts a task that works for many calls, whichever of them begins it. It has no scope.
    pub fn spawn_shared<F>(&self, kind: Kind, name: &'static str, future: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.spawn_boxed(kind, name, None, Box::pin(async move { future.await.failure() }));
    }

    /// Takes every task as one boxed type, so that the code around a task is compiled only once.
    fn spawn_boxed(
        &self,
        kind: Kind,
        name: &'static str,
        scope: Option<Arc<Scope>>,
        future: BoxFuture<'static, Option<String>>,
    ) {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        // Listed before it runs, so that it can remove itself however quickly it ends.
        let mut running = lock(&self.0.running);
        running.insert(id, Running { name, kind, abort: None });
        self.0.count.send_replace(running.len());
        drop(running);

        let listed = Listed { tasks: self.clone(), id };
        let work = async move {
            let outcome = AssertUnwindSafe(future).catch_unwind().await;
            let failure = match outcome {
                Ok(failure) => failure,
                Err(panic) => Some(panic_text(panic.as_ref())),
            };
            listed.tasks.ended(kind, name, failure);
        };
        let work = async move {
            match scope {
                Some(scope) => scope::within(scope, work).await,
                None => work.await,
            }
        };
        #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
        let handle = tokio::spawn(work);
        if let Some(entry) = lock(&self.0.running).get_mut(&id) {
            entry.abort = Some(handle.abort_handle());
        }
    }

    fn ended(&self, kind: Kind, name: &'static str, failure: Option<String>) {
        let draining = self.0.drain.is_requested();
        match &failure {
            Some(error) if kind.stops_the_process() => {
                tracing::error!(task = name, error, "task failed; the process cannot go on")
            }
            Some(error) => tracing::warn!(task = name, error, "task failed"),
            None if kind.stops_the_process() && !draining => {
                tracing::error!(task = name, "task ended; the process cannot go on")
            }
            None => tracing::debug!(task = name, "task ended"),
        }
        if kind.stops_the_process() && (failure.is_some() || !draining) {
            let text = failure.unwrap_or_else(|| "it ended before the process did".to_owned());
            self.0.failed.send_if_modified(|first| {
                let unset = first.is_none();
                first.get_or_insert_with(|| format!("task {name}: {text}"));
                unset
            });
        }
    }

    /// Waits until a task that the process needs has failed or ended early; returns its name and the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.0.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or_default(),
            // The sender lives in self, so the channel cannot be closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// The names of the running tasks.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        lock(&self.0.running).values().map(|task| task.name).collect()
    }

    /// Ends every task. Aborts those that may be cut off, waits for the others until `timeout`, then aborts the rest
    /// and returns their names.
    pub async fn shutdown(&self, timeout: Duration) -> Vec<&'static str> {
        self.abort(|task| !task.kind.finishes());
        let mut count = self.0.count.subscribe();
        if timeout_at(Instant::now() + timeout, count.wait_for(|count| *count == 0)).await.is_ok() {
            return Vec::new();
        }
        let stuck = self.names();
        tracing::warn!(tasks = ?stuck, "tasks did not finish in time");
        self.abort(|_| true);
        stuck
    }

    fn abort(&self, which: impl Fn(&Running) -> bool) {
        for task in lock(&self.0.running).values().filter(|task| which(task)) {
            if let Some(abort) = &task.abort {
                abort.abort();
            }
        }
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &dyn std::any::Any) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::drain_pair;

    #[tokio::test]
    async fn a_critical_task_that_fails_panics_or_ends_is_reported() {
        let (_trigger, drain) = drain_pair();
        let tasks = Tasks::new(drain.clone());
        tasks.spawn(Kind::Helper, "gauge", async { Err::<(), _>("harmless") });
        tasks.spawn(Kind::Essential, "writer", async { Err::<(), _>("disk is gone") });
        assert_eq!(tasks.failed().await, "task writer: \"disk is gone\"");

        let tasks = Tasks::new(drain.clone());
        let broken = || -> () { panic!("bug") };
        tasks.spawn(Kind::Loop, "relay", async move { broken() });
        assert_eq!(tasks.failed().await, "task relay: panic: bug");

        let tasks = Tasks::new(drain);
        tasks.spawn(Kind::Loop, "relay", async {});
        assert_eq!(tasks.failed().await, "task relay: it ended before the process did");
    }

    #[tokio::test]
    async fn a_shutdown_waits_for_those_that_finish_and_cuts_the_others_off() {
        let (trigger, drain) = drain_pair();
        let tasks = Tasks::new(drain.clone());
        let (sender, finished) = tokio::sync::oneshot::channel();
        tasks.spawn(Kind::Loop, "relay", std::future::pending::<()>());
        tasks.spawn(Kind::Essential, "writer", async move {
            drain.requested().await;
            let _ = sender.send(());
        });
        trigger.request();
        assert!(tasks.shutdown(Duration::from_secs(10)).await.is_empty());
        finished.await.unwrap();
        assert!(tasks.0.failed.borrow().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_is_bounded_and_names_what_was_stuck() {
        let (trigger, drain) = drain_pair();
        let tasks = Tasks::new(drain);
        tasks.spawn(Kind::Job, "stuck", std::future::pending::<()>());
        trigger.request();
        assert_eq!(tasks.shutdown(Duration::from_secs(1)).await, ["stuck"]);
        let mut count = tasks.0.count.subscribe();
        count.wait_for(|count| *count == 0).await.unwrap();
    }
}
