//! Customers who book and cancel until they are stopped, and record every answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::screening::v1::screening::State;
use contract::screening::v1::{CancelScreeningRequest, CreateScreeningRequest, Screening};
use testkit::{Booking, BookingHistory, Cancelling, Outcome, Party, Random, Tokens};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::pool::{Ended, Pool, RetryPolicy};
use crate::series::Series;

/// After this many bookings a caller continues as another customer.
const BOOKINGS_PER_CUSTOMER: u32 = 16;
/// The share of bookings of the first slot, in per cent. The slot is small, so it is nearly always full.
const HOT_SLOT_PERCENT: u64 = 20;
/// The share of bookings that are never cancelled, in per cent.
const KEPT_PERCENT: u64 = 8;
/// How far calls may fall behind the rate and still catch up.
const MAX_DELAY: Duration = Duration::from_millis(20);
/// How many complaints are kept.
const KEPT_COMPLAINTS: usize = 20;

/// A slot that customers book.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// The resource name of the slot.
    pub(crate) name: String,
    /// The number of its places.
    pub(crate) capacity: i32,
}

/// What the customers did, and the answers they got.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Every booking.
    pub(crate) history: BookingHistory,
    /// Definite answers, counted by time.
    pub(crate) answers: Series,
    /// Calls, each counted once however many attempts it took.
    pub(crate) calls: AtomicU64,
    /// Calls without a definite answer after all attempts of a well-behaved client.
    pub(crate) unknown: AtomicU64,
    /// Attempts beyond the first.
    pub(crate) retries: AtomicU64,
    /// The numbers of confirmed bookings and of cancellations.
    pub(crate) effects: [AtomicU64; 2],
    /// How often clients together held more places of a slot than it has.
    pub(crate) oversold: AtomicU64,
    slots: Vec<Slot>,
    /// Places per slot that clients hold now: from the confirmation until a client begins to cancel.
    held: Vec<AtomicI64>,
    refusals: Mutex<BTreeMap<String, u64>>,
    complaints: Mutex<Vec<String>>,
}

impl Observed {
    /// Starts with no calls.
    #[must_use]
    pub(crate) fn new(slots: Vec<Slot>) -> Self {
        Self {
            history: BookingHistory::default(),
            answers: Series::default(),
            calls: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            effects: [AtomicU64::new(0), AtomicU64::new(0)],
            oversold: AtomicU64::new(0),
            held: slots.iter().map(|_| AtomicI64::new(0)).collect(),
            slots,
            refusals: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    /// The slots that customers book.
    #[must_use]
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Records a violation. Only the first [`KEPT_COMPLAINTS`] are kept.
    pub(crate) fn complain(&self, what: impl Into<String>) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < KEPT_COMPLAINTS {
            complaints.push(what.into());
        }
    }

    /// The violations that were recorded.
    #[must_use]
    pub(crate) fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }

    /// The number of refusals per reason.
    #[must_use]
    pub(crate) fn refusals(&self) -> BTreeMap<String, u64> {
        lock(&self.refusals).clone()
    }

    /// Counts a call and returns its outcome. A status that no client should see is a violation, and the
    /// outcome is unknown.
    pub(crate) fn note<T>(&self, ended: Result<Ended<T>, String>) -> Outcome<T> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let Ended { outcome, attempts } = ended.unwrap_or_else(|what| {
            self.complain(what);
            Ended { outcome: Outcome::Unknown, attempts: 1 }
        });
        self.retries.fetch_add(u64::from(attempts) - 1, Ordering::Relaxed);
        match &outcome {
            Outcome::Unknown => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Refused(reason) => {
                self.answers.count();
                *lock(&self.refusals).entry(reason.clone()).or_default() += 1;
            }
            Outcome::Done(_) => self.answers.count(),
        }
        outcome
    }

    fn took(&self, slot: &str) {
        self.effects[0].fetch_add(1, Ordering::Relaxed);
        let Some(index) = self.slots.iter().position(|one| one.name == slot) else { return };
        let held = self.held[index].fetch_add(1, Ordering::SeqCst) + 1;
        let Slot { name, capacity } = &self.slots[index];
        if held > i64::from(*capacity) {
            self.oversold.fetch_add(1, Ordering::Relaxed);
            self.complain(format!("clients hold {held} places of {name}, which has {capacity}"));
        }
    }

    /// Called before the cancellation is sent, because another customer may book the place as soon as it is served.
    fn gives_back(&self, slot: &str) {
        if let Some(index) = self.slots.iter().position(|one| one.name == slot) {
            self.held[index].fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The services that customers call, and their tokens.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    /// The replicas of Screening.
    pub(crate) screening: Pool,
    /// Signs the customers' tokens.
    pub(crate) tokens: Tokens,
}

impl Desk {
    /// Sends the booking and records its outcome in it.
    pub(crate) async fn book(
        &self,
        observed: &Observed,
        token: &str,
        booking: &mut Booking,
        retry_policy: RetryPolicy,
    ) {
        let request = CreateScreeningRequest {
            screening: Some(Screening {
                customer: format!("customers/{}", booking.customer),
                slot: booking.slot.clone(),
                ..Screening::default()
            }),
            request_id: booking.request_id.clone(),
            ..CreateScreeningRequest::default()
        };
        let ended = self.screening.call(token, retry_policy, |party| book(party, request.clone())).await;
        booking.outcome = match observed.note(ended) {
            Outcome::Done(screening) if screening.state() == State::Confirmed => {
                observed.took(&booking.slot);
                Outcome::Done(screening.name)
            }
            // The call was unknown, and the booking was fenced before it was repeated.
            Outcome::Done(screening) => Outcome::Refused(screening.state().as_str_name().to_owned()),
            Outcome::Refused(reason) => Outcome::Refused(reason),
            Outcome::Unknown => Outcome::Unknown,
        };
    }

    /// Cancels the booking if it has a name, and records the outcome in it.
    pub(crate) async fn cancel(
        &self,
        observed: &Observed,
        token: &str,
        booking: &mut Booking,
        retry_policy: RetryPolicy,
    ) {
        let Outcome::Done(name) = &booking.outcome else { return };
        let Some(cancelling) = &mut booking.cancelling else { return };
        let request = CancelScreeningRequest {
            name: name.clone(),
            reason: "changed plans".to_owned(),
            etag: String::new(),
            request_id: cancelling.request_id.clone(),
        };
        let ended = self.screening.call(token, retry_policy, |party| cancel(party, request.clone())).await;
        cancelling.outcome = match observed.note(ended) {
            Outcome::Done(_) => {
                observed.effects[1].fetch_add(1, Ordering::Relaxed);
                Outcome::Done(())
            }
            Outcome::Refused(reason) => Outcome::Refused(reason),
            Outcome::Unknown => Outcome::Unknown,
        };
    }
}

async fn book(party: Party, request: CreateScreeningRequest) -> Result<Screening, Status> {
    party.screening().create_screening(request).await.map(tonic::Response::into_inner)
}

async fn cancel(party: Party, request: CancelScreeningRequest) -> Result<Screening, Status> {
    party.screening().cancel_screening(request).await.map(tonic::Response::into_inner)
}

/// Callers that work until they are stopped. Dropping this aborts them.
#[derive(Debug)]
pub(crate) struct Load {
    observed: Arc<Observed>,
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.callers.iter().for_each(JoinHandle::abort);
    }
}

/// The load that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Pressure {
    /// Calls per second of all callers together. The load is lower if the system does not answer that many.
    pub rate: f64,
    /// The number of callers. Each has one call at a time.
    pub callers: usize,
}

impl Load {
    /// Starts the callers at this pressure.
    #[must_use]
    pub(crate) fn start(desk: &Desk, observed: &Arc<Observed>, pressure: Pressure, random: &mut Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pace = Arc::new(Pace::new(pressure.rate));
        let callers = (0..pressure.callers).map(|index| {
            let caller = Caller {
                desk: desk.clone(),
                observed: Arc::clone(observed),
                random: random.fork(),
                index,
                customer: String::new(),
                token: String::new(),
                begun: 0,
                held: Vec::new(),
            };
            tokio::spawn(caller.work(Arc::clone(&pace), Arc::clone(&stop)))
        });
        let callers = callers.collect();
        Self { observed: Arc::clone(observed), stop, callers }
    }

    /// Lets every caller finish its call, and waits for all of them.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            if let Err(error) = caller.await {
                self.observed.complain(format!("a caller failed: {error}"));
            }
        }
    }
}

/// Spaces the calls of all callers to a fixed rate.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(rate: f64) -> Self {
        Self { interval: Duration::from_secs_f64(1.0 / rate.max(0.1)), next: Mutex::new(Instant::now()) }
    }

    async fn turn(&self) {
        let at = {
            let mut next = lock(&self.next);
            let earliest = Instant::now().checked_sub(MAX_DELAY).unwrap_or_else(Instant::now);
            let at = (*next).max(earliest);
            *next = at + self.interval;
            at
        };
        sleep_until(at).await;
    }
}

struct Caller {
    desk: Desk,
    observed: Arc<Observed>,
    random: Random,
    index: usize,
    customer: String,
    token: String,
    begun: u32,
    /// Bookings that may still be cancelled, with their customers' tokens.
    held: Vec<(Booking, String)>,
}

impl Caller {
    async fn work(mut self, pace: Arc<Pace>, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            pace.turn().await;
            if !self.held.is_empty() && self.random.chance(50) {
                self.cancel().await;
            } else {
                self.book().await;
            }
        }
        for (booking, _) in self.held.drain(..) {
            self.observed.history.note(booking);
        }
    }

    async fn book(&mut self) {
        if self.begun.is_multiple_of(BOOKINGS_PER_CUSTOMER) {
            self.customer = format!("c{}-{}", self.index, self.begun / BOOKINGS_PER_CUSTOMER);
            self.token = self.desk.tokens.customer(&self.customer);
        }
        self.begun += 1;
        let slots = self.observed.slots();
        let others = slots.len() as u64 - 1;
        let hot = others == 0 || self.random.chance(HOT_SLOT_PERCENT);
        let slot = if hot { &slots[0] } else { &slots[1 + self.random.below(others) as usize] };
        let mut booking = Booking {
            customer: self.customer.clone(),
            slot: slot.name.clone(),
            request_id: self.random.uuid_v7().to_string(),
            outcome: Outcome::Unknown,
            cancelling: None,
        };
        self.desk.book(&self.observed, &self.token, &mut booking, RetryPolicy::CUSTOMER).await;
        if matches!(booking.outcome, Outcome::Done(_)) && !self.random.chance(KEPT_PERCENT) {
            self.held.push((booking, self.token.clone()));
        } else {
            self.observed.history.note(booking);
        }
    }

    async fn cancel(&mut self) {
        let any = self.random.below(self.held.len() as u64) as usize;
        let (mut booking, token) = self.held.swap_remove(any);
        let request_id = self.random.uuid_v7().to_string();
        booking.cancelling = Some(Cancelling { request_id, outcome: Outcome::Unknown });
        self.observed.gives_back(&booking.slot);
        self.desk.cancel(&self.observed, &token, &mut booking, RetryPolicy::CUSTOMER).await;
        self.observed.history.note(booking);
    }
}
