//! Storage that fails: at every step of a transaction, once, twice and ten times in a row. What was acknowledged is there, what was
//! refused is not half there, and the writer is well again by itself.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fault::{Fault, Reason};
use futures::future::join_all;
use sea_orm::{ConnectionTrait as _, DbErr};
use std::sync::Arc;
use store::dead_letter;
use store::{Database, Nemesis, Stage, Transaction, Unit, Writer, WriterOptions, inbox, lease};
use tokio::time::Instant;
use uuid::Uuid;

use crate::backends;
use crate::tables::{Accountant, Command, Migrator, TestDatabase, amounts};

const STAGES: [Stage; 5] = [Stage::Begin, Stage::Statement, Stage::Commit, Stage::CommitStaysOpen, Stage::Rollback];

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Storage that fails at these stages, in this order, and then no more.
#[derive(Default)]
struct Failing {
    stages: Mutex<VecDeque<Stage>>,
    trusting: AtomicBool,
}

impl Failing {
    fn at(stages: impl IntoIterator<Item = Stage>) -> Arc<Self> {
        Arc::new(Self { stages: Mutex::new(stages.into_iter().collect()), ..Self::default() })
    }

    /// The same with the planted bug that a connection is used again.
    fn trusting(stages: impl IntoIterator<Item = Stage>) -> Arc<Self> {
        let failing = Self::at(stages);
        failing.trusting.store(true, Ordering::Relaxed);
        failing
    }

    fn left(&self) -> usize {
        self.stages.lock().expect("stages").len()
    }
}

impl Nemesis for Failing {
    fn storage_fails(&self, stage: Stage) -> bool {
        let mut stages = self.stages.lock().expect("stages");
        let due = stages.front() == Some(&stage);
        if due {
            stages.pop_front();
        }
        due
    }

    fn trusts_connections(&self) -> bool {
        self.trusting.load(Ordering::Relaxed)
    }
}

fn start(database: &Database) -> Writer<Accountant> {
    let (writer, run) = Writer::new("test", Accountant, database.clone(), WriterOptions::default());
    drop(tokio::spawn(run));
    writer
}

/// Opens the database anew, as a process does that was started again, and says what is in it.
async fn stored(backend: &TestDatabase) -> Vec<(i64, i64)> {
    let again = Database::open::<Migrator>(&backend.location).await.expect("a database");
    let stored = amounts(&again).await;
    again.close().await;
    stored
}

/// Writes one after the other until all faults have struck and two more writes succeeded; says which were acknowledged.
async fn write(writer: &Writer<Accountant>, failing: &Failing) -> Vec<(i64, i64)> {
    let mut acknowledged = Vec::new();
    let mut after = 0;
    for id in 0_i64.. {
        match writer.submit(Command::Put(id, id), soon()).await {
            Ok(answer) => {
                answer.expect("put");
                acknowledged.push((id, id));
                after += usize::from(failing.left() == 0);
            }
            Err(fault) => assert_eq!(fault.reason(), Reason::StorageUnavailable, "{fault:?}"),
        }
        if after > 2 {
            break;
        }
        assert!(id < 100, "the storage is well, and the writer is not");
    }
    acknowledged
}

#[tokio::test]
async fn what_is_acknowledged_is_stored_whatever_failed_and_how_often() {
    let mut cases = Vec::new();
    for times in [1, 2, 10] {
        for stage in STAGES {
            cases.extend(backends().await.into_iter().map(|backend| acknowledged_is_stored(backend, stage, times)));
        }
    }
    join_all(cases).await;
}

async fn acknowledged_is_stored(backend: TestDatabase, stage: Stage, times: usize) {
    let case = format!("{} {stage:?} {times}", backend.name);
    // a ROLLBACK is reached only after something else has failed
    let around = if stage == Stage::Rollback { vec![Stage::Statement, stage] } else { vec![stage] };
    let failing = Failing::at(around.iter().copied().cycle().take(times * around.len()));
    let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
    let acknowledged = write(&start(&database), &failing).await;
    let read = amounts(&database).await;
    assert!(*database.writable().borrow(), "{case}");
    let stored = stored(&backend).await;
    assert_eq!(read, stored, "what is served is what is stored: {case}");
    for row in acknowledged {
        assert!(stored.contains(&row), "{row:?} was acknowledged: {case}");
    }
}

#[tokio::test]
async fn every_order_of_faults_is_survived() {
    use proptest::prelude::*;
    let orders = proptest::collection::vec(proptest::sample::select(STAGES.to_vec()), 1..12);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() });
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        runner
            .run(&orders, |order| {
                handle.block_on(async {
                    let backend = crate::sqlite().await;
                    let failing = Failing::at(order.clone());
                    let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
                    let writer = start(&database);
                    let mut acknowledged = Vec::new();
                    for id in 0..12 {
                        let puts = (0..3).map(|part| writer.submit(Command::Put(id * 3 + part, id), soon()));
                        for (part, answer) in join_all(puts).await.into_iter().enumerate() {
                            if answer.is_ok() {
                                acknowledged.push((id * 3 + part as i64, id));
                            }
                        }
                    }
                    let stored = stored(&backend).await;
                    for row in acknowledged {
                        prop_assert!(stored.contains(&row), "{row:?} was acknowledged");
                    }
                    Ok(())
                })
            })
            .expect("nothing acknowledged is lost");
    })
    .await
    .expect("joined");
}

#[tokio::test]
async fn a_connection_that_is_trusted_loses_what_was_acknowledged() {
    // the planted bug; PostgreSQL forgives it: its ROLLBACK outside of a transaction is a warning
    let backend = crate::sqlite().await;
    let failing = Failing::trusting([Stage::Commit, Stage::CommitStaysOpen]);
    let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
    let writer = start(&database);
    let answers = join_all((0..3).map(|id| writer.submit(Command::Put(id, id), soon()))).await;
    assert!(answers.iter().all(Result::is_ok), "it acknowledges: {answers:?}");
    drop(writer);
    assert!(amounts(&database).await.is_empty(), "and has stored nothing that another connection sees");
}

#[tokio::test]
async fn unwritable_storage_is_said_once_refused_quickly_and_healed_without_a_command() {
    for backend in backends().await {
        let failing = Failing::at(std::iter::repeat_n(Stage::Commit, 9));
        let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
        let writer = start(&database);
        let mut writable = database.writable();
        let refused = writer.submit(Command::Put(1, 1), soon()).await.expect_err("seven runs fail");
        assert_eq!(refused.reason(), Reason::StorageUnavailable, "{}", backend.name);
        assert!(refused.retry_delay().is_some() && refused.message().contains("unknown"), "{refused:?}");
        assert!(!*writable.borrow_and_update());
        // one run each from now on: the eighth commit fails here, the ninth in the probe
        let begin = Instant::now();
        writer.submit(Command::Put(2, 2), soon()).await.expect_err("one run fails");
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        tokio::time::timeout(Duration::from_secs(20), writable.wait_for(|writable| *writable))
            .await
            .expect("healed")
            .expect("there");
        writer.submit(Command::Put(3, 3), soon()).await.expect("stored").expect("put");
        assert_eq!(stored(&backend).await.last(), Some(&(3, 3)), "{}", backend.name);
    }
}

/// A unit that takes no notice of a statement that failed.
struct Careless;

#[async_trait::async_trait]
impl Unit for Careless {
    type Command = i64;
    type Answer = ();

    async fn execute(&self, transaction: &Transaction, batch: &[&i64]) -> Result<Vec<()>, DbErr> {
        for id in batch {
            let sql = format!("INSERT INTO account (id, amount, label) VALUES ({id}, 1, '')");
            drop(transaction.execute_unprepared(&sql).await);
        }
        Ok(vec![(); batch.len()])
    }
}

/// Storage that fails at the first statement of every transaction, and at no other.
#[derive(Default)]
struct FirstStatement(AtomicBool);

impl Nemesis for FirstStatement {
    fn storage_fails(&self, stage: Stage) -> bool {
        match stage {
            Stage::Begin => {
                self.0.store(true, Ordering::Relaxed);
                false
            }
            Stage::Statement => self.0.swap(false, Ordering::Relaxed),
            Stage::Commit | Stage::CommitStaysOpen | Stage::Rollback => false,
        }
    }
}

#[tokio::test]
async fn nothing_is_committed_after_a_statement_that_failed() {
    for backend in backends().await {
        let database = backend.database.clone().with_nemesis(Arc::new(FirstStatement::default()));
        let (writer, run) = Writer::new("test", Careless, database, WriterOptions::default());
        drop(tokio::spawn(run));
        let answers: Vec<Result<(), Fault>> = join_all((0..3).map(|id| writer.submit(id, soon()))).await;
        assert!(answers.iter().all(Result::is_err), "{} {answers:?}", backend.name);
        drop(writer);
        assert!(stored(&backend).await.is_empty(), "{}", backend.name);
    }
}

/// Every write beside the writer: each leaves connections behind it that the writer can use.
#[tokio::test]
async fn writes_beside_the_writer_leave_no_bad_connection_behind() {
    for stage in STAGES {
        for backend in backends().await {
            let failing = Failing::at([]);
            let database = backend.database.clone().with_nemesis(Arc::clone(&failing) as Arc<dyn Nemesis>);
            let writer = start(&database);
            for beside in 0..5 {
                failing.stages.lock().expect("stages").push_back(stage);
                drop(beside_the_writer(&database, beside).await);
                failing.stages.lock().expect("stages").clear();
                writer.submit(Command::Put(beside, 1), soon()).await.expect("stored").expect("put");
            }
            assert_eq!(stored(&backend).await.len(), 5, "{} {stage:?}", backend.name);
        }
    }
}

async fn beside_the_writer(database: &Database, which: i64) -> Result<(), DbErr> {
    let now = jiff::Timestamp::from_second(1_800_000_000).expect("a time");
    match which {
        0 => lease::acquire(database, Uuid::from_u128(1), Duration::from_secs(1), now).await.map(drop),
        1 => dead_letter::ask_for_replay(database, 1, now).await.map(drop),
        2 => dead_letter::keep(database, 1, "again").await,
        3 => dead_letter::remove(database, 1).await.map(drop),
        _ => {
            inbox::prune(database, "nobody", now).await?;
            lease::release(database, 1).await
        }
    }
}

/// Says that the soft limit on the size of files that this process writes is as many bytes as this, or none.
fn limit_files(bytes: Option<u64>) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).expect("a limit");
}

/// Real files that may not grow: a write up to the limit is short, and the next one fails. The limit is the process's, and so is what
/// its signal does, so the test runs in a process of its own, started by a shell that ignores the signal.
#[tokio::test]
async fn files_that_may_not_grow_lose_nothing_that_was_acknowledged() {
    const ALONE: &str = "CHECKUP_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "storage::files_that_may_not_grow_lose_nothing_that_was_acknowledged";
        let script = r#"trap '' XFSZ; exec "$0" --exact "$1" --nocapture"#;
        let output = tokio::process::Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().expect("a path"))
            .arg(name)
            .env(ALONE, "1")
            .kill_on_drop(true)
            .output()
            .await
            .expect("a process");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let backend = crate::sqlite().await;
    let writer = start(&backend.database);
    let log = backend._folder.as_ref().expect("a folder").path().join("test.db-wal");
    let mut acknowledged = Vec::new();
    for round in 0..6_i64 {
        let full = round % 2 == 1;
        let length = std::fs::metadata(&log).expect("a log").len();
        // in the middle of a page, so that the last write is a short one
        limit_files(full.then_some(length + 10_000));
        let mut refused = 0;
        for put in 0..30 {
            let id = round * 1_000 + put;
            match writer.submit(Command::Put(id, round), soon()).await {
                Ok(_) => acknowledged.push((id, round)),
                Err(fault) => {
                    assert_eq!(fault.reason(), Reason::StorageUnavailable, "{fault:?}");
                    refused += 1;
                }
            }
        }
        assert_eq!(refused > 0, full, "round {round} refused {refused}");
        if full {
            limit_files(None);
            let mut writable = backend.database.writable();
            let healed = tokio::time::timeout(Duration::from_secs(20), writable.wait_for(|writable| *writable));
            healed.await.expect("healed").expect("there");
        }
    }
    let stored = stored(&backend).await;
    assert!(
        acknowledged.iter().all(|row| stored.contains(row)),
        "{acknowledged:?} were acknowledged, {stored:?} stored"
    );
}

/// A small file system in memory at a new folder, taken away again on drop; none where mounting is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={bytes}");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: a small disk (mounting is not allowed)");
        None
    }

    /// Takes all the room that is left.
    fn fill(&self) -> std::path::PathBuf {
        use std::io::Write as _;
        let ballast = self.0.path().join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("a file");
        for size in [1 << 16, 1 << 12] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status());
    }
}

#[tokio::test]
async fn a_disk_that_is_full_and_has_room_again_loses_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::mount(8 << 20) else { return };
    let location = store::Location::Sqlite(disk.0.path().join("test.db"));
    let database = Database::open::<Migrator>(&location).await.expect("a database");
    let writer = start(&database);
    let mut acknowledged = Vec::new();
    for round in 0..3_i64 {
        let ballast = disk.fill();
        let mut refused = 0;
        for put in 0..40 {
            let id = round * 1_000 + put;
            match writer.submit(Command::Put(id, round), soon()).await {
                Ok(_) => acknowledged.push((id, round)),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "round {round}: the disk was full");
        std::fs::remove_file(ballast).expect("removed");
        let mut writable = database.writable();
        let healed = tokio::time::timeout(Duration::from_secs(20), writable.wait_for(|writable| *writable));
        healed.await.expect("healed").expect("there");
        writer.submit(Command::Put(round * 1_000 + 999, round), soon()).await.expect("stored").expect("put");
        acknowledged.push((round * 1_000 + 999, round));
    }
    database.close().await;
    let again = Database::open::<Migrator>(&location).await.expect("a database");
    let stored = amounts(&again).await;
    assert!(
        acknowledged.iter().all(|row| stored.contains(row)),
        "{acknowledged:?} were acknowledged, {stored:?} stored"
    );
    again.close().await;
}
