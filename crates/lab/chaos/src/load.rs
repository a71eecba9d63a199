//! Customers who book, move and cancel until they are stopped, and record every answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::{Booking, Cancelling, Moving, Outcome, Random};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::desk::Desk;
use crate::observed::{Observed, Slot, lock};
use crate::pool::RetryPolicy;

/// After this many bookings a caller continues as another customer.
const BOOKINGS_PER_CUSTOMER: u32 = 16;
/// The share of bookings of the first slot, in per cent. The slot is small, so it is nearly always full.
const HOT_SLOT_PERCENT: u64 = 20;
/// The share of bookings that are never moved or cancelled, in per cent.
const KEPT_PERCENT: u64 = 8;
/// The share of cancellations among the calls of a caller who holds bookings, in per cent.
const CANCELLED_PERCENT: u64 = 50;
/// How far calls may fall behind the rate and still catch up.
const MAX_DELAY: Duration = Duration::from_millis(20);

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
    /// The share of moves among the calls of a caller who holds bookings and does not cancel one, in per cent.
    pub moved_percent: u64,
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
                moved_percent: pressure.moved_percent,
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
    moved_percent: u64,
    observed: Arc<Observed>,
    random: Random,
    index: usize,
    customer: String,
    token: String,
    begun: u32,
    /// Bookings that may still be moved or cancelled, with their customers' tokens.
    held: Vec<(Booking, String)>,
}

impl Caller {
    async fn work(mut self, pace: Arc<Pace>, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            pace.turn().await;
            let holds = !self.held.is_empty();
            if holds && self.random.chance(CANCELLED_PERCENT) {
                self.cancel().await;
            } else if holds && self.random.chance(self.moved_percent) {
                self.reschedule().await;
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
            moves: Vec::new(),
            cancelling: None,
        };
        self.desk.book(&self.observed, &self.token, &mut booking, RetryPolicy::CUSTOMER).await;
        if matches!(booking.outcome, Outcome::Done(_)) && !self.random.chance(KEPT_PERCENT) {
            self.held.push((booking, self.token.clone()));
        } else {
            self.observed.history.note(booking);
        }
    }

    /// One of the bookings that it holds, and the token of its customer. All answers about it are known.
    fn any_held(&mut self) -> (Booking, String) {
        let any = self.random.below(self.held.len() as u64) as usize;
        self.held.swap_remove(any)
    }

    async fn reschedule(&mut self) {
        let (mut booking, token) = self.any_held();
        let from = booking.slots()[0].to_owned();
        let others: Vec<&Slot> = self.observed.slots().iter().filter(|slot| slot.name != from).collect();
        if !others.is_empty() {
            let slot = self.random.pick(&others).name.clone();
            let request_id = self.random.uuid_v7().to_string();
            booking.moves.push(Moving { slot, request_id, outcome: Outcome::Unknown });
            self.observed.gives_back(&from);
            self.desk.reschedule(&self.observed, &token, &mut booking, RetryPolicy::CUSTOMER).await;
        }
        if booking.is_open() {
            self.observed.history.note(booking);
        } else {
            self.held.push((booking, token));
        }
    }

    async fn cancel(&mut self) {
        let (mut booking, token) = self.any_held();
        let request_id = self.random.uuid_v7().to_string();
        booking.cancelling = Some(Cancelling { request_id, outcome: Outcome::Unknown });
        self.observed.gives_back(booking.slots()[0]);
        self.desk.cancel(&self.observed, &token, &mut booking, RetryPolicy::CUSTOMER).await;
        self.observed.history.note(booking);
    }
}
