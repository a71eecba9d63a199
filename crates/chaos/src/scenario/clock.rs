//! A process that does not know what time it is.

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};

/// One replica after the other is five minutes ahead, then behind; the others are right.
pub(super) async fn clock(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    for _ in 0..plan.rounds {
        for service in ["hospital", "screening", "reservation", "mypage"] {
            for setting in ["clock.offset=5m", "clock.offset=-5m"] {
                set(&mut run, service, &[setting]).await?;
                run.goes_on(plan.fault / 2).await;
            }
            set(&mut run, service, &[]).await?;
        }
    }
    run.goes_on(plan.after).await;
    run.finish(name, "the clock of one process 5 min ahead, then behind").await
}

async fn set(run: &mut Run, service: &str, settings: &[&str]) -> Result<(), Error> {
    run.strikes();
    run.replica(service, 0)?.set(settings);
    run.restart(service, 0).await.map(drop)
}
