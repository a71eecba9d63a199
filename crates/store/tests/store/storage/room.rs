//! No room: files that may not grow, and a small disk that is full for a while.

use std::time::Duration;

use fault::Reason;
use store::Database;

use super::{soon, start, stored};
use crate::tables::{Command, Migrator, amounts};

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
