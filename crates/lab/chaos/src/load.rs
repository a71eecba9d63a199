//! Customers who book and cancel for as long as they are let, and remember every answer.

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

/// Bookings of one customer before the caller goes on as the next one.
const BOOKINGS_PER_CUSTOMER: u32 = 16;
/// What of the bookings goes to the first slot, in per cent: it is small, so it is nearly always full.
const HOT_SLOT_PERCENT: u64 = 20;
/// What of the bookings nobody cancels, in per cent.
const KEPT_PERCENT: u64 = 8;
/// How far calls may lag behind their time and still catch up.
const MAX_DELAY: Duration = Duration::from_millis(20);
/// Examples of what went wrong that are kept.
const KEPT_COMPLAINTS: usize = 20;

/// A slot that is booked.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Its name.
    pub(crate) name: String,
    /// Its capacity.
    pub(crate) capacity: i32,
}

/// What the customers did and were told.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Every booking.
    pub(crate) history: BookingHistory,
    /// Definite answers by time.
    pub(crate) answers: Series,
    /// Calls that were made, an attempt not counted as one.
    pub(crate) calls: AtomicU64,
    /// Calls that had no definite answer after the attempts of a well-behaved client.
    pub(crate) unknown: AtomicU64,
    /// Attempts beyond the first.
    pub(crate) retries: AtomicU64,
    /// Bookings that were confirmed, and cancellings.
    pub(crate) effects: [AtomicU64; 2],
    /// Moments at which clients together held more places of a slot than it has.
    pub(crate) oversold: AtomicU64,
    slots: Vec<Slot>,
    /// Places of each slot that a client holds at this moment: it was told so and has not begun to give it back.
    held: Vec<AtomicI64>,
    refusals: Mutex<BTreeMap<String, u64>>,
    complaints: Mutex<Vec<String>>,
}

impl Observed {
    /// Nothing yet.
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

    /// The slots.
    #[must_use]
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Something that must never be seen.
    pub(crate) fn complain(&self, what: impl Into<String>) {
        let mut complaints = lock(&self.complaints);
        if complaints.len() < KEPT_COMPLAINTS {
            complaints.push(what.into());
        }
    }

    /// What must never be seen and was, the first few.
    #[must_use]
    pub(crate) fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }

    /// Refusals by reason.
    #[must_use]
    pub(crate) fn refusals(&self) -> BTreeMap<String, u64> {
        lock(&self.refusals).clone()
    }

    /// What a call led to; unknown where it was a status that no client should ever see, which is complained about.
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

    /// Before the call: the place may be somebody else's from the moment at which it is served.
    fn gives_back(&self, slot: &str) {
        if let Some(index) = self.slots.iter().position(|one| one.name == slot) {
            self.held[index].fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who calls whom.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    /// The replicas of Screening.
    pub(crate) screening: Pool,
    /// Makes the customers' tokens.
    pub(crate) tokens: Tokens,
}

impl Desk {
    /// Books, with whatever the booking says, and notes in it how that ended.
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
            // a booking that was unknown and fenced meanwhile
            Outcome::Done(screening) => Outcome::Refused(screening.state().as_str_name().to_owned()),
            Outcome::Refused(reason) => Outcome::Refused(reason),
            Outcome::Unknown => Outcome::Unknown,
        };
    }

    /// Cancels, where the booking has a name, and notes in it how that ended.
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

/// Callers that work until they are stopped.
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

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Pressure {
    /// Calls a second, of all callers together; fewer where the mesh does not answer that many.
    pub rate: f64,
    /// Callers, each with one call at a time.
    pub callers: usize,
}

impl Load {
    /// Starts the callers.
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

    /// Lets every caller end its call and waits for all of them.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            if let Err(error) = caller.await {
                self.observed.complain(format!("a caller failed: {error}"));
            }
        }
    }
}

/// Gives each call its time.
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
    /// Bookings that may still be cancelled, each with its customer's token.
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
