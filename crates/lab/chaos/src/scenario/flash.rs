//! A flash sale: many customers request the same slot. Then others wait for its places, some of which are given back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use contract::capacity::v1::{CapacityClaim, ListCapacityClaimsRequest};
use futures::{StreamExt, stream};
use hdrhistogram::Histogram;
use testkit::{Booking, Cancelling, Outcome, Party};
use tokio::time::{Instant, sleep};

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
/// The numbers of customers per place who wait for one, and who ask for one while some are given back.
const WAITING_PER_PLACE: usize = 5;
const NEWCOMERS_PER_PLACE: usize = 2;
/// How many places there are for each one that is given back.
const PLACES_PER_CANCELLATION: usize = 2;
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const PROMOTION_TIMEOUT: Duration = Duration::from_secs(60);

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
    let bookings = bookings(&mut run, 'f', plan.bookings);
    let mut spans = Histogram::<u64>::new_with_max(600_000_000, 3).map_err(|error| Error::failed(error.to_string()))?;
    let (answers, took) = all(&run, bookings, RetryPolicy::CUSTOMER).await?;
    for (_, span) in &answers {
        spans.saturating_record(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }
    let is_sold = |booking: &Booking| matches!(booking.outcome, Outcome::Done(_));
    let (sold, others): (Vec<_>, Vec<_>) = answers.into_iter().map(|(booking, _)| booking).partition(is_sold);
    others.into_iter().for_each(|booking| run.observed.history.note(booking));
    run.notes.push(format!(
        "{} of {capacity} places confirmed; {:.0} answers/s, p50 {:.0} ms, p99 {:.0} ms",
        sold.len(),
        plan.bookings as f64 / took.as_secs_f64(),
        spans.value_at_quantile(0.5) as f64 / 1_000.0,
        spans.value_at_quantile(0.99) as f64 / 1_000.0
    ));
    pass_on(&mut run, sold, capacity).await?;
    let mut row = run.finish(name, format!("{stage}flash sale: {capacity} places, {} requests", plan.bookings)).await?;
    let confirmed = usize::try_from(row.effects[0]).unwrap_or(usize::MAX);
    if confirmed != capacity {
        row.complaints.push(format!("{confirmed} bookings were confirmed for {capacity} places"));
    }
    Ok(row)
}

/// Lets customers wait for the sold places, and cancels some of those while newcomers ask for them.
async fn pass_on<S: Stage>(run: &mut Run<S>, mut sold: Vec<Booking>, capacity: usize) -> Result<(), Error> {
    let observed = Arc::clone(&run.observed);
    let patience = RetryPolicy::until_known(PROMOTION_TIMEOUT);
    let joining = bookings(run, 'w', capacity * WAITING_PER_PLACE);
    joining.iter().for_each(|booking| observed.history.joins(&booking.request_id));
    let wanted = joining.len();
    let (joined, joining) = all(run, joining, patience).await?;
    joined.into_iter().for_each(|(booking, _)| observed.history.note(booking));
    let queue = queue(run).await?;

    let kept = sold.split_off(capacity.div_ceil(PLACES_PER_CANCELLATION).min(sold.len()));
    kept.into_iter().for_each(|booking| observed.history.note(booking));
    for booking in &mut sold {
        let request_id = run.random.uuid_v7().to_string();
        booking.cancelling = Some(Cancelling { request_id, outcome: Outcome::Unknown });
    }
    let (freed, begun) = (sold.len(), Instant::now());
    let newcomers = bookings(run, 'n', capacity * NEWCOMERS_PER_PLACE);
    let mut rush = [sold, newcomers].concat();
    rush.sort_by_cached_key(|_| run.random.number());
    all(run, rush, patience).await?.0.into_iter().for_each(|(booking, _)| observed.history.note(booking));
    let rest = loop {
        let rest = self::queue(run).await?;
        if rest.len() + freed <= queue.len() || begun.elapsed() > PROMOTION_TIMEOUT {
            break rest;
        }
        sleep(POLL_INTERVAL).await;
    };
    let (waited, span) = (queue.len(), begun.elapsed().as_secs_f64());
    let promoted = waited.saturating_sub(rest.len());
    let joining = joining.as_secs_f64();
    run.notes.push(format!(
        "{waited} waited after {joining:.1} s, {promoted} got the {freed} places given back after {span:.1} s"
    ));
    if queue.len() != wanted {
        observed.complain(format!("{} claims wait for {wanted} bookings", queue.len()));
    }
    judge(run, &queue, &rest, freed).await
}

/// The first `freed` of the queue have to have their places, in the order of their tickets.
async fn judge<S: Stage>(
    run: &Run<S>,
    queue: &BTreeMap<i64, String>,
    rest: &BTreeMap<i64, String>,
    freed: usize,
) -> Result<(), Error> {
    let active = claims(run, "ACTIVE").await?.into_iter().map(|claim| (claim.claim_id, claim.slot_version));
    let active: HashMap<String, i64> = active.collect();
    let taken: Vec<Option<i64>> = queue.values().take(freed).map(|claim| active.get(claim).copied()).collect();
    if !taken.is_sorted() || taken.contains(&None) {
        run.observed.complain(format!("the first {freed} of the queue got their places at {taken:?}"));
    }
    let left: Vec<&String> = queue.values().skip(freed).collect();
    if left != rest.values().collect::<Vec<_>>() {
        run.observed.complain(format!("{} wait, and {} should", rest.len(), left.len()));
    }
    Ok(())
}

/// The claims that wait, by their tickets.
async fn queue<S: Stage>(run: &Run<S>) -> Result<BTreeMap<i64, String>, Error> {
    let waiting = claims(run, "WAITING").await?;
    Ok(waiting.into_iter().map(|claim| (claim.waitlist_ticket, claim.claim_id)).collect())
}

/// The claims of the slot in this state.
async fn claims<S: Stage>(run: &Run<S>, state: &str) -> Result<Vec<CapacityClaim>, Error> {
    let auditor = Party::new(run.hospital.next(), Some(&run.desk.tokens.auditor()));
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let (slot, filter) = (run.observed.slots()[0].name.clone(), format!("state={state}"));
        let request = ListCapacityClaimsRequest { slot, filter, page_token, page_size: 1_000 };
        let page = auditor.capacity().list_capacity_claims(request).await;
        let page = page.map_err(Error::call("ListCapacityClaims"))?.into_inner();
        found.extend(page.claims);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}

/// Bookings of the slot to ask for, each of another customer.
fn bookings<S: Stage>(run: &mut Run<S>, prefix: char, count: usize) -> Vec<Booking> {
    let slot = run.observed.slots()[0].name.clone();
    let booking = |index| Booking {
        customer: format!("{prefix}{index}"),
        slot: slot.clone(),
        request_id: run.random.uuid_v7().to_string(),
        outcome: Outcome::Unknown,
        moves: Vec::new(),
        cancelling: None,
    };
    (0..count).map(booking).collect()
}

/// Asks for these bookings or for their cancellations, many at the same time. Returns them with their outcomes, how
/// long each took, and how long all took together.
async fn all<S: Stage>(
    run: &Run<S>,
    bookings: Vec<Booking>,
    retry_policy: RetryPolicy,
) -> Result<(Vec<(Booking, Duration)>, Duration), Error> {
    // Signed before, as a customer's token would be.
    let signed: Vec<_> = bookings.into_iter().map(|one| (run.desk.tokens.customer(&one.customer), one)).collect();
    let begun = Instant::now();
    let asked = signed.into_iter().map(|(token, booking)| {
        let (observed, desk) = (Arc::clone(&run.observed), run.desk.clone());
        async move { tokio::spawn(async move { ask(&desk, &observed, &token, booking, retry_policy).await }).await }
    });
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(CONCURRENCY).collect().await;
    let (took, failed) = (begun.elapsed(), |error| Error::failed(format!("a caller failed: {error}")));
    Ok((answers.into_iter().map(|answer| answer.map_err(failed)).collect::<Result<_, _>>()?, took))
}

async fn ask(
    desk: &Desk,
    observed: &Observed,
    token: &str,
    mut booking: Booking,
    retry_policy: RetryPolicy,
) -> (Booking, Duration) {
    let begun = Instant::now();
    if booking.cancelling.is_some() {
        observed.gives_back(&booking.slot);
        desk.cancel(observed, token, &mut booking, retry_policy).await;
    } else {
        desk.book(observed, token, &mut booking, retry_policy).await;
    }
    (booking, begun.elapsed())
}
