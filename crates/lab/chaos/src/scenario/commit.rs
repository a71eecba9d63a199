//! Commits whose answers are lost.

use std::time::Duration;

use testkit::{Direction, FaultProxy};
use tokio::time::Instant;

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};

/// How long PostgreSQL works before its connections are reset.
const UNHEARD_WORK: Duration = Duration::from_millis(40);

/// Holds back PostgreSQL's answers to Hospital and Screening for a moment, then resets the connections. What was
/// committed in that moment stays committed, but its caller gets an error.
pub(super) async fn commit(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let link = FaultProxy::start().await;
    let database = |service: &str| format!("{service}.database=postgres://postgres@{}/{service}", link.addr());
    let setup = Setup { settings: vec![database("hospital"), database("screening")], ..Setup::default() };
    let wire = |mesh: &mut mesh::Mesh| link.forward_to(([127, 0, 0, 1], mesh.postgres().port()).into());
    let mut run = Run::start(plan, setup, wire).await?;
    let begun = Instant::now();
    for _ in 0..plan.rounds {
        link.blackhole(Direction::ToClient);
        run.goes_on(UNHEARD_WORK).await;
        link.reset();
        link.heal();
        let pause = plan.fault.mul_f64(0.5 + run.random.below(1_000) as f64 / 1_000.0);
        run.goes_on(pause).await;
    }
    run.is_over(begun);
    run.goes_on(plan.after).await;
    run.finish(name, format!("commits applied, their answers cut off ×{}", plan.rounds)).await
}
