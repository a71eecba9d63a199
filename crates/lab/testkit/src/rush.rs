//! Concurrent work: tasks that begin together.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinHandle;

/// Runs `count` tasks that start when all of them are ready, and returns their results in order.
///
/// # Panics
/// If one of them panics.
pub async fn rush<T, F>(count: usize, work: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    gather(start_together(count, work)).await
}

/// Starts the tasks as [`rush`] does and returns at once, for tests that do something else meanwhile.
pub fn start_together<T, F>(count: usize, work: impl Fn(usize) -> F) -> Vec<JoinHandle<T>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let start = Arc::new(Barrier::new(count));
    (0..count)
        .map(|i| {
            let (start, work) = (Arc::clone(&start), work(i));
            tokio::spawn(async move {
                start.wait().await;
                work.await
            })
        })
        .collect()
}

/// Waits for tasks and returns their results in order.
///
/// # Panics
/// If one of them panicked.
pub async fn gather<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(result) => results.push(result),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => panic!("a task did not end: {error}"),
        }
    }
    results
}
