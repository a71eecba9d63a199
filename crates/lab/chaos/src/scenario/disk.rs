//! The disk of PostgreSQL is full.

use mesh::State;
use testkit::SmallDisk;
use tokio::time::Instant;

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};

/// The size of PostgreSQL's disk in MiB. A new server with five databases and its first log segments takes about 150.
const SIZE: usize = 1_024;
/// Fills the disk of all databases for a while. If PostgreSQL gives up, it is started again once there is room.
pub(super) async fn disk(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let disk = SmallDisk::mount(SIZE).map_err(Error::Skipped)?;
    let setup = Setup { postgres: Some(disk.path().join("postgres")), ..Setup::default() };
    let mut run = Run::start(plan, setup, |_| {}).await?;
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        disk.fill().map_err(Error::system("fill the small disk"))?;
        run.goes_on(plan.fault).await;
        let full = run.stage.postgres().log().tail(usize::MAX).matches("No space left on device").count();
        if full == 0 {
            return Err(Error::failed("PostgreSQL did not notice that its disk was full"));
        }
        disk.empty().map_err(Error::system("empty the small disk"))?;
        let answers = run.stage.postgres().sql("postgres", "SELECT 1").await.is_ok();
        if !answers {
            run.stage.postgres().restart().await?;
        }
        run.is_over(begun);
        let gave_up = if answers { "went on" } else { "gave up" };
        run.notes.push(format!("PostgreSQL said {full} times that there was no space, and {gave_up}"));
        for replica in run.stage.replicas_mut() {
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
