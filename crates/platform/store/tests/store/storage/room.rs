//! No room: files that may not grow, and a small disk that is full for a while, or because of the database's own log.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use fault::Reason;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use store::{Database, Location, Writer};
use testkit::SmallDisk;
use tokio::time::timeout;

use super::{soon, start, stored};
use crate::tables::{Accountant, Command, MAX_AMOUNT, Migrator, amounts};

/// Sets the soft limit on the size of files that this process writes, in bytes; `None` removes it.
fn limit_files(bytes: Option<u64>) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).expect("a limit");
}

/// Real files that may not grow: a write up to the limit is short, and the next one fails. The limit and its signal
/// affect the whole process, so the test runs in a process of its own, started by a shell that ignores the signal.
#[tokio::test]
async fn files_that_may_not_grow_lose_nothing_that_was_acknowledged() {
    const ALONE: &str = "CHECKUP_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "storage::room::files_that_may_not_grow_lose_nothing_that_was_acknowledged";
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
        // The limit is in the middle of a page, so that the last write is a short one.
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

/// A database on a small disk. If this user may not mount one, the test says so and is skipped.
struct Small {
    // Before the disk, so that it is dropped first.
    writer: Writer<Accountant>,
    database: Database,
    location: Location,
    log: PathBuf,
    disk: SmallDisk,
}

impl Small {
    async fn open(mib: usize) -> Option<Self> {
        let disk = match SmallDisk::mount(mib) {
            Ok(disk) => disk,
            Err(why) => {
                // Without eprintln, because the harness hides its output when the test passes.
                drop(writeln!(std::io::stderr(), "skipped: a small disk: {why}"));
                return None;
            }
        };
        let location = Location::Sqlite(disk.path().join("test.db"));
        let log = disk.path().join("test.db-wal");
        let database = Database::open::<Migrator>(&location).await.expect("a database");
        Some(Self { writer: start(&database), database, location, log, disk })
    }

    /// Sets one of fifty accounts, the same ones again and again.
    async fn put(&self, number: i64) -> Result<(), Reason> {
        let put = self.writer.submit(Command::Put(number % 50, number % MAX_AMOUNT), soon()).await;
        put.map(|answer| assert!(answer.is_ok(), "{answer:?}")).map_err(|fault| fault.reason())
    }

    fn log(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    /// Fills the disk: the file has room for every account, and the disk has no more room than the log has taken.
    async fn fill(self) -> Self {
        for number in 0..50 {
            self.put(number).await.expect("there is room");
        }
        let Self { writer, database, location, log, disk } = self;
        drop(writer);
        // Closing copies the log into the file.
        database.close().await;
        let database = Database::open::<Migrator>(&location).await.expect("a database");
        let small = Self { writer: start(&database), database, location, log, disk };
        for number in 0.. {
            small.put(number).await.expect("there is room");
            if small.log() > 1 << 19 {
                break;
            }
        }
        small.disk.fill().expect("the disk can be filled");
        small
    }

    async fn is_writable(&self) {
        let mut writable = self.database.writable();
        let healed = timeout(Duration::from_secs(20), writable.wait_for(|writable| *writable)).await;
        healed.expect("healed").expect("there");
    }
}

#[tokio::test]
async fn a_disk_that_is_full_and_has_room_again_loses_nothing_that_was_acknowledged() {
    let Some(small) = Small::open(8).await else { return };
    let mut acknowledged = Vec::new();
    for round in 0..3_i64 {
        small.disk.fill().expect("the disk can be filled");
        let mut refused = 0;
        // Each command inserts a row, for which the file must grow.
        for put in 0..300 {
            let id = round * 1_000 + put;
            match small.writer.submit(Command::Put(id, round), soon()).await {
                Ok(_) => acknowledged.push((id, round)),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "round {round}: the disk was full");
        small.disk.empty().expect("the disk can be emptied");
        small.is_writable().await;
        small.writer.submit(Command::Put(round * 1_000 + 999, round), soon()).await.expect("stored").expect("put");
        acknowledged.push((round * 1_000 + 999, round));
    }
    small.database.close().await;
    let again = Database::open::<Migrator>(&small.location).await.expect("a database");
    let stored = amounts(&again).await;
    assert!(
        acknowledged.iter().all(|row| stored.contains(row)),
        "{acknowledged:?} were acknowledged, {stored:?} stored"
    );
    again.close().await;
}

/// Three times the room on the disk goes through the log, and the file stays small until the log is copied.
#[tokio::test]
async fn a_log_does_not_fill_the_disk() {
    let Some(small) = Small::open(8).await else { return };
    let mut longest = 0;
    for number in 0..3_000 {
        small.put(number).await.unwrap_or_else(|refused| panic!("put {number}: {refused:?}, a log of {}", small.log()));
        longest = longest.max(small.log());
    }
    assert!((1 << 20..2 << 20).contains(&longest), "the longest log had {longest} bytes");
}

#[tokio::test]
async fn a_full_disk_gets_the_room_of_its_log_back() {
    let Some(small) = Small::open(8).await else { return };
    let small = small.fill().await;
    for number in 0..1_000 {
        small.put(number).await.unwrap_or_else(|refused| panic!("put {number}: {refused:?}"));
    }
}

/// A log cannot be truncated while somebody reads from it. It is truncated soon after they have read, although commands
/// kept arriving and failing.
#[tokio::test]
async fn the_room_of_a_log_comes_back_when_its_last_reader_has_read() {
    let Some(small) = Small::open(8).await else { return };
    let small = small.fill().await;
    let reading = small.database.snapshot().await.expect("a connection");
    let count = Statement::from_string(DbBackend::Sqlite, "SELECT count(*) FROM account");
    reading.query_one_raw(count).await.expect("read").expect("a row");
    let mut number = 0;
    while small.put(number).await != Err(Reason::StorageUnavailable) {
        number += 1;
        assert!(number < 1_000, "the disk is full, and the log is read from");
    }
    drop(reading);
    // Commands arrive more often than the writer's own probes.
    let healed = timeout(Duration::from_secs(20), async { while small.put(number).await.is_err() {} });
    healed.await.expect("healed");
    for number in 0..500 {
        small.put(number).await.unwrap_or_else(|refused| panic!("put {number}: {refused:?}"));
    }
}
