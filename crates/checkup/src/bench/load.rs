//! The load: callers that each wait for one answer, all on one slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use domain::civil::encode_date;
use domain::ids::{ClaimId, ScreeningId};
use fault::Reason;
use hdrhistogram::Histogram;
use jiff::ToSpan;
use jiff::civil::Date;
use runtime::clock::Clock;
use runtime::entropy;
use runtime::status::reason_of;
use tokio::task::JoinSet;
use tonic::Status;

use crate::exit::Failure;
use crate::party::{Party, Target, Wallet, describe};

/// Places of a slot: the most there can be.
const PLACES: i32 = 100_000;
/// Slots to go on with when one is full.
const SLOTS: i64 = 100;
/// Connections the callers share: one carries fewer calls than a machine can answer.
const CONNECTIONS: usize = 4;
/// Runs before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// ReserveCapacity, one transaction a request.
    Naive,
    /// ReserveCapacity through the coalescing writer.
    Coalesced,
    /// CreateScreening: both services, both commits.
    Booking,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) kind: Kind,
    pub(super) callers: u32,
    pub(super) took: Duration,
    pub(super) refused: u64,
    /// Microseconds of the calls that were answered OK.
    pub(super) latency: Histogram<u64>,
}

impl Measured {
    pub(super) fn none(kind: Kind, callers: u32) -> Self {
        Self { kind, callers, took: Duration::ZERO, refused: 0, latency: histogram() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.took += other.took;
        self.refused += other.refused;
        // both have the same bounds
        let _ = self.latency.add(other.latency);
    }

    /// Calls answered OK, a second.
    pub(super) fn rate(&self) -> f64 {
        self.latency.len() as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Microseconds up to a minute, to one in a hundred.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).unwrap_or_else(|_| unreachable!("the bounds are in order"))
}

/// A hospital of its own in the process that is measured, and who calls it.
#[derive(Debug)]
pub(super) struct Load {
    admin: Party,
    /// The identity that may reserve places directly; only where tokens can be made.
    reserving: Option<Party>,
    target: Target,
    hospital: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    slots: Vec<String>,
    /// The slot all callers are on.
    current: AtomicUsize,
    /// Tells this run's customers from those of others.
    run: String,
    /// Numbers customers: one has one booking a date.
    customers: AtomicUsize,
}

impl Shared {
    /// Somebody who has booked nothing yet.
    fn customer(&self) -> String {
        format!("customers/bench-{}-{}", self.run, self.customers.fetch_add(1, Ordering::Relaxed))
    }
}

impl Load {
    pub(super) async fn prepare(target: &Target, wallet: &Wallet) -> Result<Self, Failure> {
        let admin =
            wallet.admin(target).ok_or_else(|| Failure::usage("bench needs an admin's token: give it with --token"))?;
        let run = entropy::uuid_v4().simple().to_string()[..12].to_owned();
        let begin = Clock::system().now().to_zoned(jiff::tz::TimeZone::UTC).date() + 30.days();
        let dates: Vec<Date> = (0..SLOTS).map(|offset| begin + offset.days()).collect();
        let slot =
            |date: &Date| hospital::Slot { date: Some(encode_date(*date)), capacity: PLACES, ..Default::default() };
        let request = admin.request(hospital::CreateHospitalRequest {
            hospital: Some(hospital::Hospital {
                display_name: "Bench".to_owned(),
                time_zone: "UTC".to_owned(),
                ..Default::default()
            }),
            hospital_id: format!("bench-{run}"),
            initial_slots: dates.iter().map(slot).collect(),
            request_id: String::new(),
        });
        let made = admin.hospital().create_hospital(request).await;
        let made = made.map_err(|status| Failure::failed(format!("CreateHospital failed: {}", describe(&status))))?;
        let name = made.into_inner().name;
        let slots = dates.iter().map(|date| format!("{name}/slots/{date}")).collect();
        let shared = Shared { slots, current: AtomicUsize::new(0), customers: AtomicUsize::new(0), run };
        let (reserving, target) = (wallet.service(target, "screening"), target.clone());
        Ok(Self { admin, reserving, target, hospital: name, shared: Arc::new(shared) })
    }

    /// Runs the callers for this long, after a moment to warm up.
    pub(super) async fn measure(&self, kind: Kind, callers: u32, span: Duration) -> Result<Measured, Failure> {
        let party = match kind {
            Kind::Booking => &self.admin,
            Kind::Naive | Kind::Coalesced => self
                .reserving
                .as_ref()
                .ok_or_else(|| Failure::usage("places can be reserved only with the screening service's token"))?,
        };
        // a slot of its own: what an earlier measurement took is not this one's
        self.shared.current.fetch_add(1, Ordering::Relaxed);
        let connections: Vec<Party> = (0..CONNECTIONS).map(|_| party.on(self.target.channel())).collect();
        let begin = Instant::now() + WARM_UP;
        let mut tasks = JoinSet::new();
        for caller in 0..callers as usize {
            let (party, shared) = (connections[caller % CONNECTIONS].clone(), Arc::clone(&self.shared));
            tasks.spawn(call_until(kind, party, shared, begin, begin + span));
        }
        let mut measured = Measured { took: span, ..Measured::none(kind, callers) };
        while let Some(ended) = tasks.join_next().await {
            let (latency, refused) = match ended {
                Ok(outcome) => outcome?,
                Err(error) => return Err(Failure::failed(format!("a caller did not end: {error}"))),
            };
            measured.refused += refused;
            let _ = measured.latency.add(latency);
        }
        Ok(measured)
    }

    /// Deletes what was made for the measurement.
    pub(super) async fn tidy_up(&self) {
        let request = self.admin.request(hospital::DeleteHospitalRequest {
            name: self.hospital.clone(),
            force: true,
            reason: "the measurement is over".to_owned(),
            ..Default::default()
        });
        // it can be deleted by hand too
        let _ = self.admin.hospital().delete_hospital(request).await;
    }
}

/// One caller: calls again as soon as it is answered. Only what begins and ends inside the span counts.
async fn call_until(
    kind: Kind,
    party: Party,
    shared: Arc<Shared>,
    begin: Instant,
    end: Instant,
) -> Result<(Histogram<u64>, u64), Failure> {
    let (mut latency, mut refused) = (histogram(), 0);
    loop {
        let on = shared.current.load(Ordering::Relaxed);
        let Some(slot) = shared.slots.get(on) else {
            return Err(Failure::failed("every slot is full; measure for fewer --seconds"));
        };
        let since = Instant::now();
        if since >= end {
            return Ok((latency, refused));
        }
        let outcome = match kind {
            Kind::Naive | Kind::Coalesced => reserve(&party, slot).await,
            Kind::Booking => book(&party, slot, shared.customer()).await,
        };
        let now = Instant::now();
        let counts = since >= begin && now <= end;
        match outcome {
            Ok(()) if counts => latency.saturating_record(u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX)),
            Ok(()) => {}
            Err(status) => match reason_of(&status) {
                Some(Reason::SlotFull) => {
                    // whoever sees it first moves everybody on
                    let _ = shared.current.compare_exchange(on, on + 1, Ordering::Relaxed, Ordering::Relaxed);
                }
                Some(Reason::Overloaded | Reason::HospitalUnavailable | Reason::DeadlineExceeded) => {
                    refused += u64::from(counts);
                }
                _ => {
                    return Err(Failure::failed(format!("a call failed: {}", describe(&status))));
                }
            },
        }
    }
}

async fn reserve(party: &Party, slot: &str) -> Result<(), Status> {
    let claim = ClaimId { screening: ScreeningId(entropy::uuid_v7()), generation: 1 };
    let request = hospital::ReserveCapacityRequest { slot: slot.to_owned(), claim_id: claim.to_string() };
    party.capacity().reserve_capacity(party.request(request)).await.map(drop)
}

async fn book(admin: &Party, slot: &str, customer: String) -> Result<(), Status> {
    let wanted = screening::Screening { customer, slot: slot.to_owned(), ..Default::default() };
    let request = screening::CreateScreeningRequest {
        screening: Some(wanted),
        request_id: entropy::uuid_v7().to_string(),
        ..Default::default()
    };
    admin.screening().create_screening(admin.request(request)).await.map(drop)
}
