//! A flash sale: many customers request the same slot.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use hdrhistogram::Histogram;
use testkit::{Booking, Outcome};
use tokio::time::Instant;

use crate::Error;
use crate::desk::Desk;
use crate::observed::Observed;
use crate::pool::RetryPolicy;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};
use crate::stage::Stage;

/// How many requests run at the same time.
const CONCURRENCY: usize = 256;
/// The number of requests per place.
const REQUESTS_PER_PLACE: usize = 50;

/// Runs the sale in a mesh.
pub(super) async fn flash(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    sale(Run::start(plan, Setup { idle: true, ..Setup::default() }, |_| {}).await?, name, "").await
}

/// Runs the sale in an embedded process.
pub(super) async fn embedded(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    sale(Run::embedded_idle(plan).await?, name, "embedded: ").await
}

/// Opens one slot and sends one booking per customer.
async fn sale<S: Stage>(mut run: Run<S>, name: &'static str, stage: &str) -> Result<Row, Error> {
    let plan = run.plan.clone();
    let capacity = plan.bookings.div_ceil(REQUESTS_PER_PLACE);
    let places = i32::try_from(capacity).unwrap_or(i32::MAX);
    let slots = crate::run::open(&run.hospital, &run.desk.tokens, "flash", &[places]).await?;
    run.sell(slots);
    let (observed, slot) = (Arc::clone(&run.observed), run.observed.slots()[0].name.clone());
    let bookings: Vec<Booking> = (0..plan.bookings)
        .map(|index| Booking {
            customer: format!("f{index}"),
            slot: slot.clone(),
            request_id: run.random.uuid_v7().to_string(),
            outcome: Outcome::Unknown,
            moves: Vec::new(),
            cancelling: None,
        })
        .collect();
    // Signed before the sale, as a customer's token would be.
    let tokens: Vec<String> = bookings.iter().map(|booking| run.desk.tokens.customer(&booking.customer)).collect();
    let mut spans = Histogram::<u64>::new_with_max(600_000_000, 3).map_err(|error| Error::failed(error.to_string()))?;
    let begun = Instant::now();
    let asked = bookings.into_iter().zip(tokens).map(|(booking, token)| {
        let (observed, desk) = (Arc::clone(&observed), run.desk.clone());
        async move { tokio::spawn(async move { ask(&desk, &observed, &token, booking).await }).await }
    });
    let mut answers = stream::iter(asked).buffer_unordered(CONCURRENCY);
    while let Some(span) = answers.next().await {
        let span = span.map_err(|error| Error::failed(format!("a caller failed: {error}")))?;
        spans.saturating_record(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }
    drop(answers);
    let took = begun.elapsed();
    let confirmed = observed.history.counts().0;
    run.notes.push(format!(
        "{confirmed} of {capacity} places confirmed; {:.0} answers/s, p50 {:.0} ms, p99 {:.0} ms",
        plan.bookings as f64 / took.as_secs_f64(),
        spans.value_at_quantile(0.5) as f64 / 1_000.0,
        spans.value_at_quantile(0.99) as f64 / 1_000.0
    ));
    let mut row = run.finish(name, format!("{stage}flash sale: {capacity} places, {} requests", plan.bookings)).await?;
    let confirmed = usize::try_from(row.effects[0]).unwrap_or(usize::MAX);
    if confirmed != capacity {
        row.complaints.push(format!("{confirmed} bookings were confirmed for {capacity} places"));
    }
    Ok(row)
}

async fn ask(desk: &Desk, observed: &Observed, token: &str, mut booking: Booking) -> Duration {
    let begun = Instant::now();
    desk.book(observed, token, &mut booking, RetryPolicy::CUSTOMER).await;
    observed.history.note(booking);
    begun.elapsed()
}
