//! Processes that are killed, paused or replaced.

use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, START_TIMEOUT, Setup};

pub(super) const SERVICES: [&str; 5] = ["hospital", "screening", "reservation", "mypage", "marketing"];

/// Kills one replica of each service in turn and starts it again after a while.
pub(super) async fn kill(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let mut kills = 0;
    for round in 0..plan.rounds {
        for service in SERVICES {
            let count = run.stage.of(service).count();
            let index = round as usize % count;
            run.replica(service, index)?.kill().await?;
            run.strikes();
            kills += 1;
            run.goes_on(plan.fault).await;
            let replica = run.replica(service, index)?;
            replica.start()?;
            replica.ready(START_TIMEOUT).await?;
            run.goes_on(plan.after / 4).await;
        }
    }
    run.goes_on(plan.after).await;
    run.finish(name, format!("kill -9 of a replica of each service, {kills} kills")).await
}

/// Stops PostgreSQL as a crash would, and starts it again at once.
pub(super) async fn postgres(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let mut longest = Duration::ZERO;
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        run.strikes();
        run.stage.postgres().stop_immediate().await?;
        run.stage.postgres().restart().await?;
        longest = longest.max(begun.elapsed());
        run.goes_on(plan.after).await;
    }
    run.notes.push(format!("PostgreSQL away {} ms", longest.as_millis()));
    run.finish(name, format!("PostgreSQL stopped immediate and restarted ×{}", plan.rounds)).await
}

/// Pauses a replica of Hospital while it has a transaction open.
pub(super) async fn freeze(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    const TRIES: usize = 100;
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let mut tries = 1;
    let begun = loop {
        let begun = Instant::now();
        run.replica("hospital", 0)?.pause();
        // Longer than a transaction of the other replica pauses between two statements.
        let open = "DO $$ BEGIN PERFORM pg_sleep(0.25); END $$; SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = 'hospital' AND state = 'idle in transaction' \
                    AND state_change < clock_timestamp() - interval '200 ms'";
        if run.stage.postgres().sql("postgres", open).await? != "0" {
            break begun;
        }
        run.replica("hospital", 0)?.resume();
        if tries == TRIES {
            return Err(Error::failed(format!("{TRIES} stops found no transaction open")));
        }
        tries += 1;
    };
    run.struck(begun);
    run.goes_on(plan.fault).await;
    let replica = run.replica("hospital", 0)?;
    replica.resume();
    replica.ready(START_TIMEOUT).await?;
    run.goes_on(plan.after).await;
    run.notes.push(format!("stopped with a transaction open, at try {tries}"));
    run.finish(name, format!("SIGSTOP of a Hospital replica {} s in mid-transaction", plan.fault.as_secs())).await
}

/// Stops every replica of every service with SIGTERM and starts it again, one after the other.
pub(super) async fn rolling(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let setup = Setup { replicas: SERVICES.map(|service| (service, 2)).into(), ..Setup::default() };
    let mut run = Run::start(plan, setup, |_| {}).await?;
    let mut longest = Duration::ZERO;
    for _ in 0..plan.rounds {
        for service in SERVICES {
            for index in 0..2 {
                run.strikes();
                longest = longest.max(run.restart(service, index).await?);
                run.goes_on(plan.after / 4).await;
            }
        }
    }
    run.goes_on(plan.after).await;
    run.notes.push(format!("a replica away at most {:.1} s", longest.as_secs_f64()));
    let mut row = run.finish(name, "rolling restart of every service, 2 replicas each").await?;
    if row.unknown > 0 {
        row.complaints.push(format!("{} calls without a definite answer, in a rolling restart", row.unknown));
    }
    Ok(row)
}

/// Ends an embedded process with SIGTERM and starts it again, repeatedly.
pub(super) async fn embedded(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::embedded(plan, false).await?;
    let mut longest = Duration::ZERO;
    for _ in 0..plan.rounds {
        run.strikes();
        longest = longest.max(run.start_again(&[]).await?);
        run.goes_on(plan.fault).await;
    }
    run.goes_on(plan.after).await;
    run.notes.push(format!("away at most {:.1} s", longest.as_secs_f64()));
    run.finish(name, format!("embedded: SIGTERM and started again ×{}", plan.rounds)).await
}
