//! A hospital is deleted with all its bookings and those that wait.

use std::sync::Arc;
use std::time::Duration;

use contract::hospital::v1::{DeleteHospitalRequest, ListSlotsRequest};
use contract::screening::v1::ListScreeningsRequest;
use futures::{StreamExt, stream};
use testkit::{Booking, Outcome, Party};
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::observed::Observed;
use crate::pool::RetryPolicy;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};
use crate::stage::Stage;

/// The most dates of the hospital. Each customer books every date.
const DATES: usize = 100;
/// How many customers book a date for each one who waits for it.
const BOOKED_PER_WAITING: usize = 10;
const CONCURRENCY: usize = 128;
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const DELETION_TIMEOUT: Duration = Duration::from_secs(180);
const DOOMED_HOSPITAL: &str = "hospitals/doomed";

/// Deletes a hospital of a mesh.
pub(super) async fn deletion(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    delete(Run::start(plan, Setup::default(), |_| {}).await?, name, "").await
}

/// Deletes a hospital of an embedded process.
pub(super) async fn embedded(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    delete(Run::embedded(plan, false).await?, name, "embedded: ").await
}

/// Makes bookings, then deletes the hospital while other customers book elsewhere.
async fn delete<S: Stage>(mut run: Run<S>, name: &'static str, stage: &str) -> Result<Row, Error> {
    let plan = run.plan.clone();
    let dates = DATES.min(plan.bookings / 20).max(1);
    let customers = plan.bookings.div_ceil(dates);
    let places = vec![i32::try_from(customers).unwrap_or(i32::MAX); dates];
    let slots = crate::run::open(&run.hospital, &run.desk.tokens, "doomed", &places).await?;
    let observed = Arc::new(Observed::new(slots));
    let (begun, waiting) = (Instant::now(), customers.div_ceil(BOOKED_PER_WAITING));
    fill(&mut run, &observed, customers, false).await?;
    run.notes.push(format!("{} bookings made in {:.0} s", customers * dates, begun.elapsed().as_secs_f64()));
    fill(&mut run, &observed, waiting, true).await?;
    run.notes.push(format!("{} more wait", waiting * dates));
    run.measure_steady().await;

    let (admin, begun) = (run.admin(), Instant::now());
    let request = DeleteHospitalRequest {
        name: DOOMED_HOSPITAL.to_owned(),
        force: true,
        reason: "closed".to_owned(),
        ..DeleteHospitalRequest::default()
    };
    admin.hospital().delete_hospital(request).await.map_err(Error::call("DeleteHospital"))?;
    let revoked = until(begun, async || Ok(claims(&admin).await? == 0)).await?;
    let auditor = Party::new(run.desk.screening.next(), Some(&run.desk.tokens.auditor()));
    let cancelled = until(begun, async || Ok(!is_held(&auditor).await?)).await?;
    run.is_over(begun);
    run.goes_on(plan.after).await;
    run.notes.push(format!(
        "places given back after {:.1} s, bookings cancelled after {:.1} s",
        revoked.as_secs_f64(),
        cancelled.as_secs_f64()
    ));
    run.finish(name, format!("{stage}a hospital with {} bookings deleted", customers * dates)).await
}

/// Books every date for every customer, or has them wait for it.
async fn fill<S: Stage>(
    run: &mut Run<S>,
    observed: &Arc<Observed>,
    customers: usize,
    joins: bool,
) -> Result<(), Error> {
    let (desk, before) = (run.desk.clone(), observed.history.counts().0);
    let slots: Vec<String> = observed.slots().iter().map(|slot| slot.name.clone()).collect();
    let seeds: Vec<_> = (0..customers).map(|_| run.random.fork()).collect();
    let filled = seeds.into_iter().enumerate().map(|(index, mut random)| {
        let (desk, observed, slots) = (desk.clone(), Arc::clone(observed), slots.clone());
        let each = async move {
            let customer = format!("{}{index}", if joins { "w" } else { "d" });
            let token = desk.tokens.customer(&customer);
            for slot in slots {
                let mut booking = Booking {
                    customer: customer.clone(),
                    slot,
                    request_id: random.uuid_v7().to_string(),
                    outcome: Outcome::Unknown,
                    moves: Vec::new(),
                    cancelling: None,
                };
                if joins {
                    observed.history.joins(&booking.request_id);
                }
                desk.book(&observed, &token, &mut booking, RetryPolicy::until_known(DELETION_TIMEOUT)).await;
                observed.history.note(booking);
            }
        };
        async move { tokio::spawn(each).await }
    });
    let mut filling = stream::iter(filled).buffer_unordered(CONCURRENCY);
    while let Some(filled) = filling.next().await {
        filled.map_err(|error| Error::failed(format!("a caller failed: {error}")))?;
    }
    drop(filling);
    let (made, wanted) = (observed.history.counts().0 - before, customers * observed.slots().len());
    if made != wanted {
        return Err(Error::failed(format!("{made} of {wanted} bookings were made: {:?}", observed.refusals())));
    }
    Ok(())
}

/// Polls until `is_done`. Returns the time since `begun`.
async fn until(begun: Instant, mut is_done: impl AsyncFnMut() -> Result<bool, Error>) -> Result<Duration, Error> {
    while !is_done().await? {
        if begun.elapsed() > DELETION_TIMEOUT {
            return Err(Error::failed(format!("bookings of a deleted hospital are left after {DELETION_TIMEOUT:?}")));
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(begun.elapsed())
}

/// How many places of the hospital are taken, and how many wait for one.
async fn claims(admin: &Party) -> Result<i64, Error> {
    let request =
        ListSlotsRequest { parent: DOOMED_HOSPITAL.to_owned(), page_size: 1_000, ..ListSlotsRequest::default() };
    let page = admin.hospital().list_slots(request).await.map_err(Error::call("ListSlots"))?;
    Ok(page.into_inner().slots.iter().map(|slot| i64::from(slot.booked_count + slot.waitlisted_count)).sum())
}

/// Whether the hospital has a booking that holds a place or waits for one.
async fn is_held(auditor: &Party) -> Result<bool, Error> {
    for state in ["CONFIRMED", "WAITLISTED"] {
        let filter = format!("hospital=\"{DOOMED_HOSPITAL}\" AND state={state}");
        let request = ListScreeningsRequest { page_size: 1, filter, ..ListScreeningsRequest::default() };
        let page = auditor.screening().list_screenings(request).await.map_err(Error::call("ListScreenings"))?;
        if !page.into_inner().screenings.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
