//! Projections: each event takes effect once per consumer's inbox, whatever fails; dead letters are stored once; rows
//! that no longer count are removed in rounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use contract::event::v1::EventEnvelope;
use domain::ids::Malformed;
use fault::Reason;
use jiff::Timestamp;
use relay::{Admission, Consumer, Incoming, Projection, Projector, Task};
use runtime::clock::Clock;
use sea_orm::{ConnectionTrait, DbErr, Statement};
use store::dead_letter::{self, DeadLetter};
use store::inbox::InboxKey;
use store::{Database, Location, Nemesis, Transaction, Verdict, outbox};
use tempfile::TempDir;
use testkit::{eventually, wait_limit, within};
use uuid::Uuid;

use crate::support::{Migrator, POISON, event, numbers};

/// The aggregate of an event that cannot be read.
const MALFORMED: &str = "malformed";
/// The aggregate of an event that does not concern the projection.
const OTHER: &str = "other";

/// What the test's projection has seen.
#[derive(Default)]
struct Seen {
    /// Whether [`POISON`] has become harmless.
    cured: Mutex<bool>,
    /// How often `fold` was called.
    folds: AtomicUsize,
    /// The number of facts in each call of `after_batch`.
    after: Mutex<Vec<usize>>,
    /// The time of each call of `prune`.
    prunes: Mutex<Vec<Timestamp>>,
}

fn locked<T: Clone>(value: &Mutex<T>) -> T {
    value.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A projection that writes every fact into its outbox.
struct Copies<const ONCE: bool>(Arc<Seen>);

/// How many chunks a round of removal has.
const CHUNKS: usize = 3;

#[async_trait]
impl<const ONCE: bool> Projection for Copies<ONCE> {
    type Fact = EventEnvelope;

    const ADMISSION: Admission = if ONCE { Admission::Once } else { Admission::Repeatable };

    fn decode(event: &Incoming) -> Result<Option<EventEnvelope>, Malformed> {
        match event.envelope.aggregate.as_str() {
            MALFORMED => Err(Malformed("must not be malformed".into())),
            OTHER => Ok(None),
            _ => Ok(Some(event.envelope.clone())),
        }
    }

    async fn fold(&self, transaction: &Transaction, facts: Vec<&EventEnvelope>) -> Result<(), DbErr> {
        self.0.folds.fetch_add(1, Ordering::Relaxed);
        outbox::append(transaction, &facts.iter().copied().cloned().collect::<Vec<_>>()).await?;
        let harms = !locked(&self.0.cured) && facts.iter().any(|fact| fact.aggregate == POISON);
        if harms { Err(DbErr::Custom("poison".into())) } else { Ok(()) }
    }

    /// Fails in its first round; every other round has three chunks.
    async fn prune(&self, _transaction: &Transaction, now: Timestamp) -> Result<bool, DbErr> {
        let mut prunes = self.0.prunes.lock().unwrap_or_else(PoisonError::into_inner);
        if *prunes.first().unwrap_or(&now) == now {
            prunes.push(now);
            return Err(DbErr::Custom("not now".into()));
        }
        prunes.push(now);
        Ok(prunes.iter().filter(|time| **time == now).count() < CHUNKS)
    }

    fn after_batch(&self, facts: &[&EventEnvelope]) {
        self.0.after.lock().unwrap_or_else(PoisonError::into_inner).push(facts.len());
    }
}

/// A projection with two consumers.
struct Bench {
    projector: Projector,
    consumers: [Consumer; 2],
    database: Database,
    seen: Arc<Seen>,
    writing: tokio::task::JoinHandle<()>,
    _folder: TempDir,
}

async fn start<const ONCE: bool>() -> Bench {
    start_under::<ONCE>(None).await
}

async fn start_under<const ONCE: bool>(nemesis: Option<Arc<dyn Nemesis>>) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let location = Location::Sqlite(folder.path().join("projection.db"));
    let mut database = Database::open::<Migrator>(&location).await.expect("opened");
    if let Some(nemesis) = nemesis {
        database = database.with_nemesis(nemesis);
    }
    let seen = Arc::new(Seen::default());
    let copies = Copies::<ONCE>(Arc::clone(&seen));
    let (projector, writing) = Projector::new("test", copies, database.clone(), Clock::system());
    let writing = tokio::spawn(writing);
    let consumers = ["copies-one", "copies-other"].map(|name| projector.consumer(name, Vec::new(), None));
    Bench { projector, consumers, database, seen, writing, _folder: folder }
}

impl Bench {
    async fn feed(&self, consumer: usize, events: &[Incoming]) -> Result<(), fault::Fault> {
        self.consumers[consumer].handler.handle(events).await
    }

    async fn store_dead_letter(&self, consumer: usize, inbox_key: InboxKey) {
        let dead_letter = DeadLetter {
            consumer: self.consumers[consumer].name.into(),
            event_id: String::new(),
            subject: "checkup.v1.slot".into(),
            payload: vec![0xff],
            error: "not an envelope".into(),
            attempts: 1,
            time: Timestamp::UNIX_EPOCH,
        };
        self.consumers[consumer].handler.store_dead_letter(dead_letter, inbox_key).await.expect("kept");
    }

    /// The numbers of the events that took effect, in that order.
    async fn effects(&self) -> Vec<u128> {
        let rows = outbox::read_after(self.database.reader(), 0, 100).await.expect("rows");
        numbers(&rows)
    }

    async fn count(&self, table: &str) -> i64 {
        let connection = self.database.reader();
        let sql = format!("SELECT COUNT(*) AS count FROM {table}");
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let row = connection.query_one_raw(statement).await.expect("counted").expect("a row");
        row.try_get("", "count").expect("a number")
    }
}

fn about(number: u128, aggregate: &str) -> Incoming {
    let envelope = EventEnvelope { aggregate: aggregate.into(), ..event(number) };
    let event_id = Uuid::from_u128(number);
    Incoming { envelope, event_id, inbox_key: InboxKey::alone(event_id) }
}

/// An event as it arrives by a transport without order.
fn unordered(number: u128) -> Incoming {
    about(number, "hospitals/h")
}

/// An event at a position of a log.
fn ordered(position: i64) -> Incoming {
    let event_id = Uuid::from_u128(position.unsigned_abs().into());
    let inbox_key = InboxKey::at("screening".into(), position, event_id);
    Incoming { inbox_key, ..unordered(event_id.as_u128()) }
}

#[tokio::test]
async fn an_event_is_folded_once_for_each_consumer_however_often_it_comes() {
    let bench = start::<true>().await;
    for _ in 0..2 {
        bench.feed(0, &[unordered(1), unordered(2), unordered(1)]).await.expect("applied");
        bench.feed(0, &[ordered(11), ordered(12)]).await.expect("applied");
    }
    assert_eq!(bench.effects().await, [1, 2, 11, 12]);
    bench.feed(1, &[unordered(2), ordered(11)]).await.expect("applied");
    assert_eq!(bench.effects().await, [1, 2, 11, 12, 2, 11], "the other consumer has an inbox of its own");
}

#[tokio::test]
async fn facts_that_may_come_again_are_not_remembered_one_by_one_but_logs_are_followed() {
    let bench = start::<false>().await;
    for _ in 0..2 {
        bench.feed(0, &[unordered(1)]).await.expect("applied");
        bench.feed(0, &[ordered(11), ordered(12)]).await.expect("applied");
    }
    assert_eq!(bench.effects().await, [1, 11, 12, 1]);
    assert_eq!((bench.count("inbox").await, bench.count("cursor").await), (0, 1));
}

#[tokio::test]
async fn a_malformed_event_fails_its_batch_and_nothing_of_its_batch_is_admitted() {
    let bench = start::<true>().await;
    let fault = bench.feed(0, &[unordered(1), about(2, MALFORMED)]).await.expect_err("blamed");
    assert_eq!(fault.reason(), Reason::Internal);
    assert_eq!(bench.effects().await, []);
    bench.feed(0, &[unordered(1)]).await.expect("applied");
    assert_eq!(bench.effects().await, [1]);
    assert_eq!(locked(&bench.seen.after), [1], "the malformed batch was never handed to the writer");
}

#[tokio::test]
async fn a_batch_whose_fold_fails_leaves_neither_marks_nor_effects() {
    let bench = start::<true>().await;
    let batch = [unordered(1), about(2, POISON), ordered(11)];
    let fault = bench.feed(0, &batch).await.expect_err("blamed");
    assert_eq!(fault.reason(), Reason::Internal);
    assert_eq!(bench.effects().await, []);
    *bench.seen.cured.lock().expect("a flag") = true;
    bench.feed(0, &batch).await.expect("applied");
    assert_eq!(bench.effects().await, [1, 2, 11]);
    assert_eq!(locked(&bench.seen.after), [3, 3], "what follows a batch follows one that failed, too");
}

#[tokio::test]
async fn an_event_of_no_concern_is_marked_and_not_folded() {
    let bench = start::<true>().await;
    bench.feed(0, &[about(1, OTHER)]).await.expect("passed over");
    assert_eq!((bench.count("inbox").await, bench.seen.folds.load(Ordering::Relaxed)), (1, 0));
}

#[tokio::test]
async fn a_dead_letter_is_kept_once_and_its_event_is_seen_by_its_consumer_alone() {
    let bench = start::<true>().await;
    let inbox_key = unordered(7).inbox_key;
    for _ in 0..2 {
        bench.store_dead_letter(0, inbox_key.clone()).await;
    }
    assert_eq!(dead_letter::count(bench.database.reader()).await.expect("a count"), 1);
    for consumer in [0, 1] {
        bench.feed(consumer, &[unordered(7)]).await.expect("applied");
    }
    assert_eq!(bench.effects().await, [7]);

    // Facts may be folded again, but a dead letter is stored only once.
    let bench = start::<false>().await;
    for _ in 0..2 {
        bench.store_dead_letter(0, inbox_key.clone()).await;
    }
    assert_eq!(dead_letter::count(bench.database.reader()).await.expect("a count"), 1);
}

/// Commits the first transaction but reports that it failed.
struct Doubt(AtomicUsize);

#[async_trait]
impl Nemesis for Doubt {
    fn at_commit(&self) -> Verdict {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 { Verdict::CommitAndFail } else { Verdict::Commit }
    }
}

#[tokio::test]
async fn a_commit_in_doubt_is_run_again_and_takes_no_effect_twice() {
    let doubt = Arc::new(Doubt(AtomicUsize::new(0)));
    let bench = start_under::<true>(Some(doubt.clone())).await;
    let dead_letter = unordered(9).inbox_key;
    let (some, others) = ([unordered(1), ordered(11)], [unordered(1)]);
    let (fed, fed_too, ()) =
        tokio::join!(bench.feed(0, &some), bench.feed(1, &others), bench.store_dead_letter(0, dead_letter));
    fed.and(fed_too).expect("applied");
    assert!(doubt.0.load(Ordering::Relaxed) > 1, "nothing was run again");
    assert_eq!(bench.effects().await, [1, 11, 1]);
    assert_eq!(dead_letter::count(bench.database.reader()).await.expect("a count"), 1);
}

#[tokio::test]
async fn a_round_removes_chunk_after_chunk_at_one_instant_and_one_that_failed_ends_nothing() {
    let bench = start::<true>().await;
    let pruning: Task = bench.projector.clone().prune_every(Duration::from_millis(1), "old copies were not removed");
    let pruning = tokio::spawn(pruning);
    let rounds = eventually("two whole rounds", async || {
        let mut prunes = locked(&bench.seen.prunes);
        let failed = prunes.first().copied();
        // A chunk that fails is run again before its command is blamed.
        prunes.retain(|time| Some(*time) != failed);
        if prunes.len() > 2 * CHUNKS { Ok(prunes) } else { Err(format!("{prunes:?}")) }
    })
    .await;
    pruning.abort();
    for round in rounds[..2 * CHUNKS].chunks(CHUNKS) {
        assert!(round.iter().all(|time| *time == round[0]), "{rounds:?}");
    }
    assert!(rounds[CHUNKS] > rounds[0], "each round has its own time");
}

#[tokio::test]
async fn the_writer_ends_with_the_last_consumer() {
    let Bench { projector, consumers, writing, .. } = start::<true>().await;
    let [one, other] = consumers;
    drop((projector, one));
    assert!(!writing.is_finished());
    other.handler.handle(&[unordered(1)]).await.expect("applied");
    drop(other);
    within(wait_limit(), "the writer", writing).await.expect("ended");
}
