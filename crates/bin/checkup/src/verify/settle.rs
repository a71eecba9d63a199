//! Separates disagreements from events under way: reads again until everything agrees or the time is over.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use contract::capacity::v1 as capacity;
use contract::hospital::v1 as hospital;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use domain::ids::{ClaimId, CustomerId, ScreeningId, SlotId};
use domain::invariants::{self, Disagreement, Rule, ServiceRows, Subject};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::backoff::Backoff;

use super::reader::{CONCURRENCY, Reader, claims_of, find, items_of, read, screenings_of};
use super::report::{Counts, Report};
use super::rows::Names;
use super::stored;
use crate::exit::Failure;
use crate::party::Party;

/// The first and the longest pause between two readings.
const POLL_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// A new reading of one subject.
enum Reading {
    /// The rows to compare. The subject did not change while they were read.
    Still(Box<Fresh>),
    /// The subject changed while it was read.
    Moving,
}

/// The answers about one subject. `None` for a service that does not run.
#[derive(Default)]
struct Fresh {
    slots: Option<Vec<hospital::Slot>>,
    claims: Option<Vec<capacity::CapacityClaim>>,
    screenings: Option<Vec<screening::Screening>>,
    reservations: Option<Vec<reservation::Reservation>>,
    items: Option<(String, Vec<mypage::MyPageItem>)>,
}

/// Up to so many disagreeing rows are read one by one, however few bookings there are.
const MAX_SINGLE_ROWS: usize = 1_000;
/// Reading one booking costs so many times its share of reading everything, because it takes a call to each service.
const SINGLE_ROW_COST: usize = 10;
/// The pause before everything is read again.
const REREAD_PAUSE: Duration = Duration::from_secs(2);

/// Reads everything, and again while a view is far behind. Then reads only what disagrees, the last time after `settle`
/// has passed. `directory` is the data directory of the process, if it is known.
pub(super) async fn verify(reader: &mut Reader, settle: Duration, directory: Option<&Path>) -> Result<Report, Failure> {
    let mut end = None;
    // A slot that was overbooked at one moment is a violation, even if it is not overbooked a moment later.
    let mut disagreements = BTreeSet::new();
    let (there, read, mut open, end) = loop {
        let service_rows = reader.everything().await?;
        let end = *end.get_or_insert_with(|| Instant::now() + settle);
        let read = Counts::of(&service_rows);
        let mut open = invariants::check(&service_rows);
        disagreements.extend(open.extract_if(.., |row| row.rule == Rule::CapacityHolds));
        if let Some(directory) = directory {
            // the files are read after the services, so they must have what the services answered
            disagreements.extend(stored::check(directory, &service_rows).await?);
        }
        if Instant::now() >= end || is_less_to_look_at(open.len(), read.bookings()) {
            break (emptied(service_rows), read, open, end);
        }
        // reading takes time from the machine that has to catch up
        tokio::time::sleep(REREAD_PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
    };
    let mut moving = Vec::new();
    let mut backoff = Backoff::new(POLL_PAUSES.0, POLL_PAUSES.1);
    while !open.is_empty() {
        let is_last = Instant::now() >= end;
        let round = again(reader, &there, &open).await?;
        disagreements.extend(round.final_already);
        (open, moving) = (round.still_open, round.moving);
        if is_last {
            break;
        }
        // what changed while it was read is read again too
        open.append(&mut moving);
        tokio::time::sleep(backoff.pause().min(end.saturating_duration_since(Instant::now()))).await;
    }
    disagreements.extend(open);
    let disagreements = disagreements.into_iter().collect();
    Ok(Report { read, skipped: reader.absent.clone(), disagreements, moving, stream: None })
}

/// Whether reading every disagreeing row by itself costs less than reading everything again.
fn is_less_to_look_at(open: usize, bookings: usize) -> bool {
    open <= MAX_SINGLE_ROWS.max(bookings / SINGLE_ROW_COST)
}

/// The services that run, without their rows.
fn emptied(service_rows: ServiceRows) -> ServiceRows {
    ServiceRows {
        read_at: None,
        slots: service_rows.slots.map(|_| Vec::new()),
        claims: service_rows.claims.map(|_| Vec::new()),
        screenings: service_rows.screenings.map(|_| Vec::new()),
        reservations: service_rows.reservations.map(|_| Vec::new()),
        items: service_rows.items.map(|_| Vec::new()),
        deleted: service_rows.deleted,
    }
}

#[derive(Default)]
struct Round {
    still_open: Vec<Disagreement>,
    final_already: Vec<Disagreement>,
    moving: Vec<Disagreement>,
}

/// Reads every subject that disagrees again.
async fn again(reader: &mut Reader, there: &ServiceRows, open: &[Disagreement]) -> Result<Round, Failure> {
    reader.progress.phase("settling", Some(open.len() as u64));
    let mut subjects: Vec<Subject> = open.iter().map(|row| row.subject.clone()).collect();
    subjects.sort();
    subjects.dedup_by(|left, right| is_same(left, right));
    let mut round = Round::default();
    let readings = subjects.into_iter().map(|subject| {
        let auditor = reader.auditor.clone();
        let waits = open.iter().any(|row| row.rule == Rule::QueuesMove && is_same(&row.subject, &subject));
        async move {
            let reading = match &subject {
                Subject::Claim(claim, slot) if waits => reading_of_waiting(&auditor, *claim, slot).await,
                subject => reading(&auditor, there, subject).await,
            };
            reading.map(|reading| (subject, reading))
        }
    });
    let mut readings = stream::iter(readings).buffer_unordered(CONCURRENCY);
    while let Some((subject, reading)) = readings.try_next().await? {
        reader.progress.done(1);
        match reading {
            Reading::Moving => round.moving.extend(open.iter().filter(|row| is_same(&row.subject, &subject)).cloned()),
            Reading::Still(fresh) => {
                let read_at = reader.clock.now();
                let found = invariants::check(&rows(&mut reader.names, there, &fresh, read_at)?);
                let (at_once, later): (Vec<_>, Vec<_>) = found
                    .into_iter()
                    .filter(|row| is_same(&row.subject, &subject))
                    .partition(|row| row.rule == Rule::CapacityHolds);
                round.final_already.extend(at_once);
                round.still_open.extend(later);
            }
        }
    }
    Ok(round)
}

/// Whether two subjects are the same, even if different services named them.
fn is_same(left: &Subject, right: &Subject) -> bool {
    match (left, right) {
        (Subject::Booking { screening: left, .. }, Subject::Booking { screening: right, .. }) => left == right,
        (left, right) => left == right,
    }
}

/// Converts a new reading of a subject, made until `read_at`, to rows that can be compared.
fn rows(names: &mut Names, there: &ServiceRows, fresh: &Fresh, read_at: Timestamp) -> Result<ServiceRows, Failure> {
    fn each<P, R>(
        rows: &Option<Vec<P>>,
        mut row: impl FnMut(&P) -> Result<R, Failure>,
    ) -> Result<Option<Vec<R>>, Failure> {
        rows.as_ref().map(|rows| rows.iter().map(&mut row).collect()).transpose()
    }
    let items = fresh.items.as_ref().map(|(customer, items)| {
        items.iter().map(|item| names.item_row(customer, item)).collect::<Result<Vec<_>, Failure>>()
    });
    Ok(ServiceRows {
        read_at: Some(read_at),
        items: items.transpose()?,
        slots: each(&fresh.slots, |row| names.slot_row(row))?,
        claims: each(&fresh.claims, |row| names.claim_row(row))?,
        screenings: each(&fresh.screenings, |row| names.screening_row(row))?,
        reservations: each(&fresh.reservations, |row| names.reservation_row(row))?,
        deleted: there.deleted.clone(),
    })
}

async fn reading(auditor: &Party, there: &ServiceRows, subject: &Subject) -> Result<Reading, Failure> {
    match subject {
        Subject::Slot(slot) => reading_of_slot(auditor, slot).await,
        Subject::Claim(claim, slot) => reading_of_claim(auditor, *claim, slot).await,
        Subject::CustomerDate(customer, date) => reading_of_date(auditor, customer, *date).await,
        // files are read once and judged at once
        Subject::Storage(_) => Ok(Reading::Still(Box::default())),
        Subject::Booking { screening, slot, customer } => {
            reading_of_booking(auditor, there, *screening, slot.as_deref(), customer.as_deref()).await
        }
    }
}

async fn get_slot(auditor: &Party, name: &str) -> Result<Option<hospital::Slot>, Failure> {
    read("GetSlot", async || {
        let request = auditor.request(hospital::GetSlotRequest { name: name.to_owned() });
        auditor.hospital().get_slot(request).await
    })
    .await
}

fn version(slot: &Option<hospital::Slot>) -> Option<i64> {
    slot.as_ref().map(|slot| slot.version)
}

async fn reading_of_slot(auditor: &Party, slot: &SlotId) -> Result<Reading, Failure> {
    let name = slot.to_string();
    let before = get_slot(auditor, &name).await?;
    let claims = claims_of(auditor, &name).await?;
    let after = get_slot(auditor, &name).await?;
    if version(&before) != version(&after) {
        return Ok(Reading::Moving);
    }
    let fresh = Fresh { slots: Some(after.into_iter().collect()), claims: Some(claims), ..Fresh::default() };
    Ok(Reading::Still(Box::new(fresh)))
}

/// Reads a claim that waited beside a free place like any other claim, and its slot before and after: every place that
/// becomes free and every claim that ends its waiting is a version of the slot.
async fn reading_of_waiting(auditor: &Party, claim: ClaimId, slot: &SlotId) -> Result<Reading, Failure> {
    let name = slot.to_string();
    let before = get_slot(auditor, &name).await?;
    let reading = reading_of_claim(auditor, claim, slot).await?;
    let after = get_slot(auditor, &name).await?;
    match reading {
        Reading::Still(fresh) if version(&before) == version(&after) => {
            let slots = Some(after.into_iter().collect());
            Ok(Reading::Still(Box::new(Fresh { slots, ..*fresh })))
        }
        Reading::Still(_) | Reading::Moving => Ok(Reading::Moving),
    }
}

async fn reading_of_date(auditor: &Party, customer: &CustomerId, date: Date) -> Result<Reading, Failure> {
    let filter = format!("customer=\"{customer}\" AND date=\"{date}\"");
    let screenings = Some(screenings_of(auditor, filter).await?);
    Ok(Reading::Still(Box::new(Fresh { screenings, ..Fresh::default() })))
}

async fn get_screening(auditor: &Party, id: ScreeningId) -> Result<Option<screening::Screening>, Failure> {
    find("GetScreening", async || {
        let request = auditor.request(screening::GetScreeningRequest { name: id.to_string() });
        auditor.screening().get_screening(request).await
    })
    .await
}

async fn get_claim(auditor: &Party, id: ClaimId, slot: &str) -> Result<Option<capacity::CapacityClaim>, Failure> {
    find("GetCapacityClaim", async || {
        let (slot, claim_id) = (slot.to_owned(), id.to_string());
        let request = auditor.request(capacity::GetCapacityClaimRequest { slot, claim_id });
        auditor.capacity().get_capacity_claim(request).await
    })
    .await
}

/// Reads a claim, the booking it belongs to, and the claim that this booking names.
async fn reading_of_claim(auditor: &Party, claim: ClaimId, slot: &SlotId) -> Result<Reading, Failure> {
    let screening = get_screening(auditor, claim.screening).await?;
    let mut claims = Vec::from_iter(get_claim(auditor, claim, &slot.to_string()).await?);
    if let Some(row) = &screening
        && row.claim_generation != claim.generation
    {
        let own = ClaimId { generation: row.claim_generation, ..claim };
        claims.extend(get_claim(auditor, own, &row.slot).await?);
    }
    let screenings = Some(Vec::from_iter(screening));
    Ok(Reading::Still(Box::new(Fresh { claims: Some(claims), screenings, ..Fresh::default() })))
}

/// Reads a booking in every service. The booking itself is read before and after, to notice a change.
async fn reading_of_booking(
    auditor: &Party,
    there: &ServiceRows,
    id: ScreeningId,
    slot: Option<&SlotId>,
    customer: Option<&CustomerId>,
) -> Result<Reading, Failure> {
    let before = get_screening(auditor, id).await?;
    let slot = before.as_ref().map(|row| row.slot.clone()).or_else(|| slot.map(ToString::to_string));
    let customer = before.as_ref().map(|row| row.customer.clone()).or_else(|| customer.map(ToString::to_string));
    let mut fresh = Fresh::default();
    if let (Some(_), Some(slot)) = (&there.claims, &slot) {
        let generation = before.as_ref().map_or(1, |row| row.claim_generation);
        let claim = get_claim(auditor, ClaimId { screening: id, generation }, slot).await?;
        fresh.claims = Some(Vec::from_iter(claim));
    }
    if there.reservations.is_some() {
        let row = find("GetReservation", async || {
            let request = reservation::GetReservationRequest { name: id.reservation_name(), ..Default::default() };
            auditor.reservation().get_reservation(auditor.request(request)).await
        });
        fresh.reservations = Some(Vec::from_iter(row.await?));
    }
    if let (Some(_), Some(customer)) = (&there.items, customer) {
        let items = items_of(auditor, &customer).await?.unwrap_or_default();
        let own = id.to_string();
        fresh.items = Some((customer, items.into_iter().filter(|item| item.screening == own).collect()));
    }
    let after = get_screening(auditor, id).await?;
    let version = |row: &Option<screening::Screening>| row.as_ref().map(|row| row.version);
    if version(&before) != version(&after) {
        return Ok(Reading::Moving);
    }
    fresh.screenings = Some(Vec::from_iter(after));
    Ok(Reading::Still(Box::new(fresh)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_are_far_behind_are_read_again_as_a_whole() {
        assert!(is_less_to_look_at(1_000, 1_000), "few are looked at, be they all there is");
        assert!(!is_less_to_look_at(1_001, 1_001));
        assert!(is_less_to_look_at(10_000, 100_000));
        assert!(!is_less_to_look_at(10_001, 100_000));
    }
}
