//! Random schedules of tasks: callers of a writer, and relays that compete for a lease.
//!
//! A runtime polls tasks in the order in which they were woken. Here any woken task may be next, and a task may be
//! cancelled between any two steps of the others. So schedules occur that a runtime would choose very rarely. The seed
//! repeats the choices, but not the timing of SQLite's threads.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use fault::Reason;
use futures::future::{Either, select};
use futures::task::AtomicWaker;
use jiff::Timestamp;
use store::lease::{self, Published};
use store::{Nemesis, Verdict, Writer, WriterOptions, outbox};
use testkit::{Random, seed};
use tokio::time::Instant;
use uuid::Uuid;

use crate::pages::{envelope, writing};
use crate::sqlite;
use crate::tables::{Accountant, Command, amounts};

const ROUNDS: i64 = 40;

type Task<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Whether a task was woken since its last poll.
struct Woken {
    woken: AtomicBool,
    schedule: Arc<AtomicWaker>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.schedule.wake();
    }
}

/// Polls tasks until all have ended; always picks a random one of those that were woken.
async fn in_any_order(random: &mut Random, tasks: Vec<Task<'_>>) {
    let schedule = Arc::new(AtomicWaker::new());
    let woken = || Arc::new(Woken { woken: AtomicBool::new(true), schedule: Arc::clone(&schedule) });
    let mut tasks: Vec<_> = tasks.into_iter().map(|task| (task, woken())).collect();
    poll_fn(|context| {
        schedule.register(context.waker());
        let ready: Vec<usize> = (0..tasks.len()).filter(|index| tasks[*index].1.woken.load(Ordering::SeqCst)).collect();
        if !ready.is_empty() {
            let index = *random.pick(&ready);
            let (task, woken) = &mut tasks[index];
            woken.woken.store(false, Ordering::SeqCst);
            let waker = Waker::from(Arc::clone(woken));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                drop(tasks.swap_remove(index));
            }
            // Yields to the runtime after each step, for its timers and its own budget per task.
            context.waker().wake_by_ref();
        }
        if tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn steps(count: u64) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Some commits are lost, and some succeed but are reported as lost.
struct Unreliable(Mutex<Random>);

impl Nemesis for Unreliable {
    fn at_commit(&self) -> Verdict {
        match self.0.lock().expect("a number").below(16) {
            0 => Verdict::Lose,
            1 => Verdict::CommitAndFail,
            _ => Verdict::Commit,
        }
    }
}

/// What a caller knows about an account: the last acknowledged amount, and later amounts with unknown outcomes.
#[derive(Debug, Default)]
struct Known {
    acknowledged: Option<i64>,
    unknown: Vec<i64>,
}

/// Sets an account to 1, 2, 3 …, and sometimes does not wait for the answer.
async fn pay(writer: Writer<Accountant>, account: i64, mut random: Random) -> (i64, Known) {
    let mut known = Known::default();
    for amount in 1..=6 {
        steps(random.below(4)).await;
        let deadline = Instant::now() + Duration::from_secs(30);
        let submitted = Box::pin(writer.submit(Command::Put(account, amount), deadline));
        let answer = if random.chance(30) {
            match select(submitted, Box::pin(steps(random.below(12)))).await {
                Either::Left((answer, _)) => Some(answer),
                Either::Right(_) => None,
            }
        } else {
            Some(submitted.await)
        };
        match answer {
            Some(Ok(answer)) => {
                answer.expect("put");
                known = Known { acknowledged: Some(amount), unknown: Vec::new() };
            }
            Some(Err(fault)) if fault.reason() == Reason::Overloaded => {}
            Some(Err(_)) | None => known.unknown.push(amount),
        }
    }
    (account, known)
}

/// The mutant: a writer that takes every commit for successful.
#[tokio::test]
async fn whatever_the_order_what_a_writer_acknowledges_stays() {
    let mut random = seed("whatever_the_order_what_a_writer_acknowledges_stays");
    let backend = sqlite().await;
    for round in 0..ROUNDS {
        let nemesis = Unreliable(Mutex::new(random.fork()));
        let database = backend.database.clone().with_nemesis(Arc::new(nemesis));
        let sizes = WriterOptions { queue: 1 + random.below(8) as usize, batch: 1 + random.below(6) as usize };
        let (writer, run) = Writer::new("test", Accountant, database, sizes);
        let answers = Mutex::new(BTreeMap::new());
        let mut tasks: Vec<Task<'_>> = vec![Box::pin(run)];
        for asker in 0..8 {
            let paying = pay(writer.clone(), round * 100 + asker, random.fork());
            tasks.push(Box::pin(async {
                let (account, known) = paying.await;
                answers.lock().expect("what was told").insert(account, known);
            }));
        }
        drop(writer);
        in_any_order(&mut random, tasks).await;
        let there: BTreeMap<i64, i64> = amounts(&backend.database).await.into_iter().collect();
        for (account, known) in answers.into_inner().expect("what was told") {
            let amount = there.get(&account).copied();
            let possible = amount == known.acknowledged || amount.is_some_and(|amount| known.unknown.contains(&amount));
            assert!(possible, "account {account} has {amount:?}, and its asker was told {known:?}");
        }
    }
}

/// The mutant: marks that are not bound to the epoch.
#[tokio::test]
async fn whatever_the_order_only_the_newest_lease_marks() {
    let mut random = seed("whatever_the_order_only_the_newest_lease_marks");
    let backend = sqlite().await;
    let connection = writing(&backend).await;
    outbox::append(&connection, &[envelope(1)]).await.expect("appended");
    drop(connection);
    let database = &backend.database;
    let event = outbox::unpublished(database.reader(), 1).await.expect("rows").remove(0);
    let newest = AtomicI64::new(0);
    let [marks, refusals] = [AtomicU64::new(0), AtomicU64::new(0)];
    for round in 0..ROUNDS {
        let relays = (0..4_u128).map(|relay| {
            let (mut random, newest, marks, refusals) = (random.fork(), &newest, &marks, &refusals);
            let holder = Uuid::from_u128(round as u128 * 10 + relay + 1);
            let published = Published { position: event.position, event_id: event.event_id, sequence: 1 };
            let task: Task<'_> = Box::pin(async move {
                for _ in 0..3 {
                    steps(random.below(6)).await;
                    let lease =
                        lease::acquire(database, holder, Duration::ZERO, Timestamp::now()).await.expect("asked");
                    let Some(lease) = lease else { continue };
                    newest.fetch_max(lease.epoch, Ordering::SeqCst);
                    steps(random.below(20)).await;
                    let granted = newest.load(Ordering::SeqCst);
                    let marked = lease::mark(database, lease.epoch, "s", &[published]).await.expect("asked");
                    assert!(
                        !marked || granted == lease.epoch,
                        "epoch {} marks after {granted} was granted",
                        lease.epoch
                    );
                    let count = if marked { marks } else { refusals };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            task
        });
        let relays: Vec<_> = relays.collect();
        in_any_order(&mut random, relays).await;
    }
    let [marks, refusals] = [marks, refusals].map(AtomicU64::into_inner);
    assert!(marks > 0 && refusals > 0, "{marks} marks, {refusals} refused: nothing was contended for");
}
