//! A process whose clock is wrong.

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};

/// Sets the clock of one replica of each service five minutes ahead, then behind. All other clocks are right.
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

/// Sets the clock of an embedded process five minutes ahead, then behind. Its customers' clocks are right.
pub(super) async fn embedded(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::embedded(plan, false).await?;
    for _ in 0..plan.rounds {
        for offset in ["5m", "-5m"] {
            run.strikes();
            run.start_again(&[("clock.offset", offset)]).await?;
            run.goes_on(plan.fault).await;
        }
        run.strikes();
        run.start_again(&[]).await?;
        run.goes_on(plan.after).await;
    }
    run.finish(name, "embedded: the clock 5 min ahead, then behind").await
}

async fn set(run: &mut Run, service: &str, settings: &[&str]) -> Result<(), Error> {
    run.strikes();
    run.replica(service, 0)?.set(settings);
    run.restart(service, 0).await.map(drop)
}
