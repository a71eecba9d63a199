//! The broker goes down, with or without its data.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, START_TIMEOUT, Setup};

/// The services with an outbox in PostgreSQL.
const PRODUCERS: [&str; 3] = ["hospital", "screening", "reservation"];
const POLL_INTERVAL: Duration = Duration::from_millis(200);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// The number of events that the broker has not acknowledged.
async fn backlog(run: &mut Run) -> Result<u64, Error> {
    let mut waiting = 0;
    for service in PRODUCERS {
        let count = "SELECT count(*) FROM outbox WHERE stream_sequence IS NULL";
        let count = run.stage.postgres().sql(service, count).await?;
        waiting += count.parse::<u64>().map_err(|_| Error::failed(format!("{service} has {count} events waiting")))?;
    }
    Ok(waiting)
}

/// Waits until at most a second's load of events is unacknowledged. Returns how long that took.
async fn drained(run: &mut Run) -> Result<Duration, Error> {
    let begun = Instant::now();
    // The events that a second of load leaves behind, at most.
    let few = run.plan.pressure.rate as u64;
    while backlog(run).await? > few {
        if begun.elapsed() > DRAIN_TIMEOUT {
            return Err(Error::failed(format!("{} events wait after {DRAIN_TIMEOUT:?}", backlog(run).await?)));
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(begun.elapsed())
}

/// From this many kills on, some must find a half-stored window of events, whose other half then follows later events.
const BROKER_KILLS: u32 = 20;

/// The number of events that are in the stream behind a later event of their producer.
async fn overtaken(run: &mut Run) -> Result<u64, Error> {
    let mut overtaken = 0;
    for service in PRODUCERS {
        let count = "SELECT count(*) FROM (SELECT stream_sequence AS own, max(stream_sequence) OVER (ORDER BY position) AS newest \
                     FROM outbox WHERE stream_sequence IS NOT NULL) AS published WHERE own < newest";
        let count = run.stage.postgres().sql(service, count).await?;
        overtaken += count.parse::<u64>().map_err(|_| Error::failed(format!("{service} says {count:?}")))?;
    }
    Ok(overtaken)
}

/// Stops the broker for a while.
pub(super) async fn down(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let begun = Instant::now();
    run.stage.nats().stop().await?;
    run.goes_on(plan.fault).await;
    let waiting = backlog(&mut run).await?;
    run.stage.nats().restart().await?;
    run.is_over(begun);
    let drained = drained(&mut run).await?;
    run.goes_on(plan.after).await;
    run.notes.push(format!("{waiting} events published within {:.1} s", drained.as_secs_f64()));
    run.finish(name, format!("NATS down {} s", plan.fault.as_secs())).await
}

/// Kills the broker repeatedly.
pub(super) async fn kill(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let begun = Instant::now();
    for _ in 0..plan.rounds {
        run.stage.nats().kill().await?;
        run.stage.nats().restart().await?;
        let span = plan.fault.mul_f64(run.random.below(1_000) as f64 / 1_000.0);
        run.goes_on(span).await;
    }
    run.is_over(begun);
    run.goes_on(plan.after).await;
    run.stop_load().await;
    drained(&mut run).await?;
    let overtaken = overtaken(&mut run).await?;
    if overtaken == 0 && plan.rounds >= BROKER_KILLS {
        return Err(Error::failed("no event was overtaken by a later one: the kills were not felt"));
    }
    run.notes.push(format!("{overtaken} events came after later ones"));
    run.finish(name, format!("kill -9 of NATS ×{}", plan.rounds)).await
}

/// Kills the broker and removes its data.
pub(super) async fn wipe(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    for _ in 0..plan.rounds {
        let begun = Instant::now();
        run.stage.nats().wipe().await?;
        run.goes_on(plan.fault).await;
        run.stage.nats().restart().await?;
        run.is_over(begun);
        run.goes_on(plan.after).await;
    }
    let events = run.stage.postgres().sql("screening", "SELECT count(*) FROM outbox").await?;
    run.notes.push(format!("{events} events of Screening to publish again"));
    run.finish(name, format!("NATS killed and its volume wiped ×{}", plan.rounds)).await
}

/// The services that fold events.
const VIEWS: [&str; 3] = ["reservation", "mypage", "marketing"];

/// Makes the broker lose events that no view has read, in the middle of a stream that keeps its identity.
pub(super) async fn gap(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let views: Vec<_> =
        VIEWS.into_iter().flat_map(|view| (0..run.stage.of(view).count()).map(move |at| (view, at))).collect();
    let begun = Instant::now();
    for (view, index) in &views {
        run.replica(view, *index)?.kill().await?;
    }
    run.goes_on(plan.fault).await;
    run.stage.nats().thin_out("checkup").await?;
    for (view, index) in &views {
        run.replica(view, *index)?.start()?;
    }
    for (view, index) in &views {
        run.replica(view, *index)?.ready(START_TIMEOUT).await?;
    }
    run.is_over(begun);
    run.goes_on(plan.after).await;
    let seconds = plan.fault.as_secs();
    run.finish(name, format!("NATS loses all but the newest events of {seconds} s that no view has read")).await
}
