//! The coalescing writer: every caller gets its own answer, exactly once, whatever happens to the batch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fault::{Fault, Reason};
use futures::future::join_all;
use store::{Nemesis, Verdict, Writer, WriterOptions};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backends;
use crate::tables::{Accountant, Command, Gate, MAX_AMOUNT, TestDatabase, amounts};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn start(backend: &TestDatabase, options: WriterOptions) -> Writer<Accountant> {
    let (writer, run) = Writer::new("test", Accountant, backend.database.clone(), options);
    drop(tokio::spawn(run));
    writer
}

/// Keeps the writer busy until the gate opens; returns once the writer is held.
async fn hold(writer: &Writer<Accountant>, gate: &'static Gate) -> JoinHandle<Result<Result<usize, Fault>, Fault>> {
    let writer = writer.clone();
    let held = tokio::spawn(async move { writer.submit(Command::Wait(gate), soon()).await });
    gate.arrived.acquire().await.expect("a gate").forget();
    held
}

/// The outcomes of the next commits, in order; later commits succeed.
struct Fates(Mutex<VecDeque<Verdict>>);

impl Nemesis for Fates {
    fn at_commit(&self) -> Verdict {
        self.0.lock().expect("fates").pop_front().unwrap_or(Verdict::Commit)
    }
}

#[tokio::test]
async fn waiting_commands_share_a_commit() {
    static GATE: Gate = Gate::new();
    for backend in backends().await {
        let writer = start(&backend, WriterOptions::default());
        let held = writer.submit(Command::Wait(&GATE), soon());
        let puts = (0..1_000).map(|id| writer.submit(Command::Put(id, 1), soon()));
        let before = *backend.database.commits().borrow();
        let open = async { GATE.open.add_permits(1) };
        let (_, answers, ()) = tokio::join!(held, join_all(puts), open);
        let largest = answers.into_iter().map(|answer| answer.expect("stored").expect("put")).max();
        assert_eq!(largest, Some(256), "{}", backend.name);
        assert!(*backend.database.commits().borrow() - before <= 6, "{}", backend.name);
        assert_eq!(amounts(&backend.database).await.len(), 1_000);
    }
}

/// Also if the writer has a thread of its own, which could take the first command alone.
#[tokio::test]
async fn those_about_to_submit_are_in_the_first_batch() {
    for backend in backends().await {
        let writer = start(&backend, WriterOptions::default());
        let own_thread = backend.name == "sqlite";
        if own_thread {
            // From here on the thread runs.
            writer.submit(Command::Put(60, 1), soon()).await.expect("stored").expect("put");
        }
        let before = *backend.database.commits().borrow();
        let puts = (0..60).map(|id| {
            let writer = writer.clone();
            tokio::spawn(async move {
                // A writer on a thread of its own has nothing else to do meanwhile.
                let begun = std::time::Instant::now();
                while own_thread && begun.elapsed() < Duration::from_millis(1) {
                    std::hint::spin_loop();
                }
                // Some tasks have more to do before they submit than others.
                for _ in 0..id % 3 {
                    tokio::task::yield_now().await;
                }
                writer.submit(Command::Put(id, 1), soon()).await
            })
        });
        for put in join_all(puts).await {
            put.expect("a task").expect("stored").expect("put");
        }
        // A busy machine may stop the tasks' thread in their middle, and the writer's own thread then goes on without
        // them. One that never waits needs dozens of commits.
        let most = if own_thread { 3 } else { 1 };
        let commits = *backend.database.commits().borrow() - before;
        assert!((1..=most).contains(&commits), "{}: {commits} commits", backend.name);
    }
}

#[tokio::test]
async fn a_bad_row_fails_alone() {
    for backend in backends().await {
        let writer = start(&backend, WriterOptions::default());
        let puts =
            (0..100).map(|id| writer.submit(Command::Put(id, if id == 37 { MAX_AMOUNT + 1 } else { id }), soon()));
        let answers = join_all(puts).await;
        for (id, answer) in answers.iter().enumerate() {
            match answer {
                Ok(_) => assert_ne!(id, 37, "{}", backend.name),
                Err(fault) => {
                    assert_eq!((id, fault.reason()), (37, Reason::Internal), "{}", backend.name);
                }
            }
        }
        assert_eq!(amounts(&backend.database).await.len(), 99);
    }
}

#[tokio::test]
async fn a_panic_fails_alone_and_the_writer_lives() {
    for backend in backends().await {
        let writer = start(&backend, WriterOptions::default());
        let (panicked, stored) =
            tokio::join!(writer.submit(Command::Panic, soon()), writer.submit(Command::Put(1, 1), soon()));
        assert_eq!(panicked.expect_err("a panic").reason(), Reason::Internal);
        assert!(stored.is_ok());
        assert_eq!(amounts(&backend.database).await, [(1, 1)]);
    }
}

#[tokio::test]
async fn an_unknown_commit_is_run_again() {
    for fate in [Verdict::Lose, Verdict::CommitAndFail] {
        for backend in backends().await {
            let fates = Fates(Mutex::new([fate, fate].into()));
            let backend = TestDatabase { database: backend.database.with_nemesis(Arc::new(fates)), ..backend };
            let writer = start(&backend, WriterOptions::default());
            let answer = writer.submit(Command::Put(7, 70), soon()).await;
            assert!(answer.is_ok(), "{fate:?} {}", backend.name);
            assert_eq!(amounts(&backend.database).await, [(7, 70)], "{fate:?} {}", backend.name);
        }
    }
}

#[tokio::test]
async fn a_store_that_never_commits_is_said_to_be_unavailable() {
    for backend in backends().await {
        let fates = Fates(Mutex::new([Verdict::Lose; 7].into()));
        let backend = TestDatabase { database: backend.database.with_nemesis(Arc::new(fates)), ..backend };
        let writer = start(&backend, WriterOptions::default());
        let refused = writer.submit(Command::Put(7, 70), soon()).await.expect_err("as many lost commits as tries");
        assert_eq!(refused.reason(), Reason::StorageUnavailable);
        assert!(writer.submit(Command::Put(7, 71), soon()).await.is_ok());
        assert_eq!(amounts(&backend.database).await, [(7, 71)]);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    static GATE: Gate = Gate::new();
    for backend in backends().await {
        let writer = start(&backend, WriterOptions { queue: 2, batch: 1 });
        let held = hold(&writer, &GATE).await;
        let puts = (0..10).map(|id| writer.submit(Command::Put(id, 1), soon()));
        // Polled last, after all ten have tried the queue of two.
        let open = async { GATE.open.add_permits(1) };
        let (answers, ()) = tokio::join!(join_all(puts), open);
        let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert!(!refused.is_empty(), "{}", backend.name);
        assert!(refused.iter().all(|fault| fault.reason() == Reason::Overloaded && fault.retry_delay().is_some()));
        held.await.expect("joined").expect("stored").expect("waited");
    }
}

#[tokio::test]
async fn what_is_past_its_deadline_is_not_run() {
    static GATE: Gate = Gate::new();
    for backend in backends().await {
        let writer = start(&backend, WriterOptions { queue: 16, batch: 1 });
        let held = hold(&writer, &GATE).await;
        let late = writer.submit(Command::Put(1, 1), Instant::now() + Duration::from_millis(20)).await;
        assert_eq!(late.expect_err("late").reason(), Reason::DeadlineExceeded, "{}", backend.name);
        GATE.open.add_permits(1);
        held.await.expect("joined").expect("stored").expect("waited");
        writer.submit(Command::Put(2, 2), soon()).await.expect("stored").expect("put");
        assert_eq!(amounts(&backend.database).await, [(2, 2)], "{}", backend.name);
    }
}
