//! The auditor: checks during the run that no slot is oversold, and at the end that all services agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use contract::capacity::v1 as capacity;
use contract::capacity::v1::capacity_claim::State as ClaimState;
use contract::capacity::v1::capacity_service_client::CapacityServiceClient;
use contract::hospital::v1 as hospital;
use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use contract::mypage::v1 as mypage;
use contract::mypage::v1::my_page_service_client::MyPageServiceClient;
use contract::reservation::v1 as reservation;
use contract::reservation::v1::reservation_service_client::ReservationServiceClient;
use contract::screening::v1 as screening;
use contract::screening::v1::screening::State;
use contract::screening::v1::screening_service_client::ScreeningServiceClient;
use domain::civil::decode_time;
use domain::ids::{ClaimId, CustomerId, ScreeningId, SlotId};
use domain::invariants::{ClaimRow, ItemRow, ReservationRow, ScreeningRow, ServiceRows, SlotRow, check, emptied};
use runtime::client::Replicas;
use tokio::time::{Instant, sleep};

use crate::caller::{Answer, Caller};
use crate::clock;
use crate::net::replicas;
use crate::plan::{HOSPITALS, PAGES, RESERVATION, SCREENINGS};

/// The longest pause between two reads of the slots during the run.
const MAX_CHECK_PAUSE: Duration = Duration::from_millis(500);
/// How often the auditor checks whether the services agree.
const SETTLE_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long the services may take to agree after the last disruption.
pub(crate) const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The page size of lists: more rows than a run makes.
const PAGE_SIZE: i32 = 1_000;

/// The result of a read. An error is a service that did not answer, or a value that cannot be.
type Inspected<T> = Result<T, String>;

/// Reads one list of a service.
macro_rules! inspect {
    ($caller:expr, $replicas:expr, $client:ident, $method:ident, $message:expr) => {{
        let answer = $caller
            .ask($replicas, concat!("reads ", stringify!($method)), $message, 2, |channel, request| async move {
                $client::new(channel).$method(request).await
            })
            .await;
        match answer {
            Answer::Is(answer) => Ok(answer),
            Answer::Refused(reason) => Err(format!("{}: {}", stringify!($method), reason.name())),
            Answer::Unknown => Err(format!("{} came to nothing", stringify!($method))),
        }
    }};
}

/// Runs the auditor until the services agree, or for too long.
pub(crate) async fn run(mut caller: Caller) -> turmoil::Result {
    let hospitals = replicas(&HOSPITALS);
    while !caller.stage.is_healed() {
        let pause = caller.chance.between(Duration::from_millis(50), MAX_CHECK_PAUSE);
        sleep(pause).await;
        // A service that does not answer now is asked again soon.
        let _ = slots(&mut caller, &hospitals).await;
    }
    let begun = Instant::now();
    loop {
        sleep(SETTLE_POLL_INTERVAL).await;
        let quiet = caller.site.broker.is_quiet();
        if !quiet && begun.elapsed() < SETTLE_TIMEOUT {
            // An audit now would miss events that are on their way.
            continue;
        }
        let wrong = inspect(&mut caller, &hospitals).await;
        if wrong.is_empty() && quiet {
            caller.site.trace.note("auditor", "finds", "nothing wrong");
            return Ok(());
        }
        let broken = caller.history.seen_broken();
        if begun.elapsed() > SETTLE_TIMEOUT || !broken.is_empty() {
            let quiet = if quiet { "" } else { "; events are still on their way" };
            return Err(format!("{}{quiet}", wrong.join("; ")).into());
        }
    }
}

/// Reads every service and returns what is wrong.
async fn inspect(caller: &mut Caller, hospitals: &Replicas) -> Vec<String> {
    let mut wrong = Vec::new();
    for page in PAGES {
        match service_rows(caller, hospitals, page).await {
            Ok(service_rows) => {
                let found = check(&service_rows);
                wrong.extend(found.iter().map(|found| format!("{}: {}", found.subject, found.detail)));
                wrong.extend(waiting_in_vain(&service_rows));
                wrong.extend(above_limit(&service_rows, caller.site.plan.limit));
                wrong.extend(caller.history.check(service_rows.screenings.as_deref().unwrap_or_default()));
            }
            Err(why) => wrong.push(why),
        }
    }
    wrong
}

/// The claims that wait although the time in which they may get a place is over.
fn waiting_in_vain(rows: &ServiceRows) -> impl Iterator<Item = String> {
    let is_over = |row: &&ClaimRow| {
        let close = row.promotion_close.zip(rows.read_at);
        row.state == ClaimState::Waiting && close.is_some_and(|(close, now)| close <= now)
    };
    rows.claims.iter().flatten().filter(is_over).map(|row| format!("{} waits although it is too late", row.claim))
}

/// The customers who have more bookings at a hospital than it allows.
fn above_limit(rows: &ServiceRows, limit: Option<i32>) -> Vec<String> {
    let Some(limit) = limit else { return Vec::new() };
    let mut counts: BTreeMap<_, i32> = BTreeMap::new();
    // a PENDING one is judged later
    let counts_now = |row: &&ScreeningRow| matches!(row.state, State::Confirmed | State::Waitlisted);
    for row in rows.screenings.iter().flatten().filter(counts_now) {
        *counts.entry((&row.customer, &row.slot.hospital)).or_default() += 1;
    }
    let above = counts.into_iter().filter(|(_, count)| *count > limit);
    above.map(|((customer, hospital), count)| format!("{customer} has {count} bookings at {hospital}")).collect()
}

async fn slots(caller: &mut Caller, hospitals: &Replicas) -> Inspected<(Vec<hospital::Hospital>, Vec<SlotRow>)> {
    let request = hospital::ListHospitalsRequest { page_size: PAGE_SIZE, show_deleted: true, ..Default::default() };
    let listed = inspect!(caller, hospitals, HospitalServiceClient, list_hospitals, request)?.hospitals;
    let mut rows = Vec::new();
    for one in &listed {
        let request =
            hospital::ListSlotsRequest { parent: one.name.clone(), page_size: PAGE_SIZE, ..Default::default() };
        for slot in inspect!(caller, hospitals, HospitalServiceClient, list_slots, request)?.slots {
            let open = slot.state() == hospital::slot::State::Open;
            let hospital::Slot { capacity, booked_count, remaining_count, waitlisted_count, .. } = slot;
            if booked_count > capacity || remaining_count != capacity - booked_count {
                let counts = format!("{booked_count} booked, {remaining_count} left of {capacity}");
                caller.history.broken(format!("{} is oversold: {counts}", slot.name));
            }
            // Nobody gets those places where the time of promotion is over.
            if open && remaining_count > 0 && waitlisted_count > 0 && caller.site.plan.closing.is_none() {
                let counts = format!("{remaining_count} places, for which {waitlisted_count} wait");
                caller.history.broken(format!("{} shows {counts}", slot.name));
            }
            let slot = slot_id(&slot.name)?;
            rows.push(SlotRow { slot, capacity, booked_count, remaining_count, waitlisted_count, open });
        }
    }
    Ok((listed, rows))
}

async fn service_rows(caller: &mut Caller, hospitals: &Replicas, page: &'static str) -> Inspected<ServiceRows> {
    let (listed, slots) = slots(caller, hospitals).await?;
    let gone = listed.iter().filter_map(|one| emptied(one).map_err(|malformed| malformed.0).transpose());
    let mut claims = Vec::new();
    for row in &slots {
        let slot = row.slot.to_string();
        let filter = "state!=RELEASED".to_owned();
        let request = capacity::ListCapacityClaimsRequest { slot, filter, page_size: PAGE_SIZE, ..Default::default() };
        for claim in inspect!(caller, hospitals, CapacityServiceClient, list_capacity_claims, request)?.claims {
            let id = ClaimId::parse(&claim.claim_id).map_err(|malformed| malformed.0)?;
            let promotion_close = claim.promotion_close_time.as_ref().and_then(decode_time);
            claims.push(ClaimRow { claim: id, slot: row.slot.clone(), state: claim.state(), promotion_close });
        }
    }
    let request =
        screening::ListScreeningsRequest { page_size: PAGE_SIZE, show_waitlisted: true, ..Default::default() };
    let found = inspect!(caller, &replicas(&SCREENINGS), ScreeningServiceClient, list_screenings, request)?;
    let screenings: Vec<ScreeningRow> = found.screenings.iter().map(screening_row).collect::<Inspected<_>>()?;
    let request = reservation::ListReservationsRequest { page_size: PAGE_SIZE, ..Default::default() };
    let found = inspect!(caller, &replicas(&[RESERVATION]), ReservationServiceClient, list_reservations, request)?;
    let reservations: Inspected<Vec<_>> = found.reservations.iter().map(reservation_row).collect();
    let customers: BTreeSet<_> = screenings.iter().map(|row| row.customer.clone()).collect();
    let mut items = Vec::new();
    for customer in customers {
        let parent = format!("{customer}/myPage");
        let request = mypage::ListMyPageItemsRequest {
            parent,
            page_size: PAGE_SIZE,
            show_waitlisted: true,
            ..Default::default()
        };
        let found = inspect!(caller, &replicas(&[page]), MyPageServiceClient, list_my_page_items, request)?;
        let rows: Inspected<Vec<_>> = found.items.iter().map(|item| item_row(&customer, item)).collect();
        items.extend(rows?);
    }
    Ok(ServiceRows {
        read_at: Some(clock::now()),
        slots: Some(slots),
        claims: Some(claims),
        deleted: gone.collect::<Inspected<_>>()?,
        screenings: Some(screenings),
        reservations: Some(reservations?),
        items: Some(items),
    })
}

fn slot_id(name: &str) -> Inspected<Arc<SlotId>> {
    SlotId::parse(name).map(Arc::new).map_err(|malformed| malformed.0)
}

fn customer_id(name: &str) -> Inspected<Arc<CustomerId>> {
    CustomerId::parse(name).map(Arc::new).map_err(|malformed| malformed.0)
}

fn screening_id(name: &str) -> Inspected<ScreeningId> {
    ScreeningId::parse(name).map_err(|malformed| malformed.0)
}

fn screening_row(row: &screening::Screening) -> Inspected<ScreeningRow> {
    Ok(ScreeningRow {
        screening: screening_id(&row.name)?,
        customer: customer_id(&row.customer)?,
        slot: slot_id(&row.slot)?,
        state: row.state(),
        claim_generation: row.claim_generation,
        version: row.version,
    })
}

fn reservation_row(row: &reservation::Reservation) -> Inspected<ReservationRow> {
    Ok(ReservationRow {
        screening: screening_id(&row.screening)?,
        customer: customer_id(&row.customer)?,
        slot: slot_id(&row.slot)?,
        state: row.state(),
        version: row.screening_version,
    })
}

fn item_row(customer: &Arc<CustomerId>, row: &mypage::MyPageItem) -> Inspected<ItemRow> {
    let date = row.date.as_ref().and_then(|date| {
        jiff::civil::Date::new(date.year.try_into().ok()?, date.month.try_into().ok()?, date.day.try_into().ok()?).ok()
    });
    Ok(ItemRow {
        screening: screening_id(&row.screening)?,
        customer: Arc::clone(customer),
        date: date.ok_or_else(|| format!("{} has no date", row.screening))?,
        state: State::from_str_name(&row.state).unwrap_or(State::Unspecified),
        version: row.screening_version,
    })
}
