//! A disk that is full.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use mesh::State;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};

/// PostgreSQL's disk, in MiB. A new server with five databases and its first log segments takes about 150.
const SIZE: usize = 1_024;
const CHUNK: usize = 1 << 20;

/// A small disk in memory; gone with its handle.
#[derive(Debug)]
struct SmallDisk(TempDir);

impl SmallDisk {
    async fn mount() -> Result<Self, Error> {
        let directory = crate::run::directory()?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={SIZE}m,mode=0755"), "tmpfs"]).arg(directory.path());
        let skipped = |why: String| Error::Skipped(format!("a small disk needs root and mount: {why}"));
        let output = command.output().await.map_err(|error| skipped(error.to_string()))?;
        if !output.status.success() {
            return Err(skipped(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is.
    fn fill(&self) -> Result<(), Error> {
        let mut file =
            File::create(self.path().join("filler")).map_err(Error::system("make a file on the small disk"))?;
        let chunk = vec![1; CHUNK];
        while file.write_all(&chunk).is_ok() {}
        Ok(())
    }

    fn empty(&self) -> Result<(), Error> {
        std::fs::remove_file(self.path().join("filler")).map_err(Error::system("remove a file on the small disk"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // lazily: whoever still uses it is about to end
        let _ = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// The disk under all databases is full for a while. Where PostgreSQL gives up, it is started again when there is room.
pub(super) async fn disk(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let disk = SmallDisk::mount().await?;
    let setup = Setup { postgres: Some(disk.path().join("postgres")), ..Setup::default() };
    let mut run = Run::start(plan, setup, |_| {}).await?;
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        disk.fill()?;
        run.goes_on(plan.fault).await;
        let full = run.mesh.postgres().log().tail(usize::MAX).matches("No space left on device").count();
        if full == 0 {
            return Err(Error::failed("PostgreSQL did not notice that its disk was full"));
        }
        disk.empty()?;
        let answers = run.mesh.postgres().sql("postgres", "SELECT 1").await.is_ok();
        if !answers {
            run.mesh.postgres().restart().await?;
        }
        run.is_over(begun);
        let gave_up = if answers { "went on" } else { "gave up" };
        run.notes.push(format!("PostgreSQL said {full} times that there was no space, and {gave_up}"));
        for replica in run.mesh.replicas_mut() {
            if let State::Ended(how) = replica.state().await {
                return Err(Error::failed(format!("{} ended by itself: {how}", replica.name())));
            }
        }
        run.goes_on(plan.after).await;
    }
    let row = run.finish(name, format!("the databases' disk full for {} s", plan.fault.as_secs())).await;
    drop(disk);
    row
}
