//! The part of P2 and P3 about places that pass on: what a join and a promotion cost against a booking of the same
//! round.
//!
//! A slot is booked until it is full, as many customers join its queue, the booked ones cancel, so that all who wait
//! are promoted, and those cancel, too. A promotion costs what the first cancellations cost more than the last ones.

use std::sync::{Arc, Mutex, PoisonError};

use contract::screening::v1::{CancelScreeningRequest, CreateScreeningRequest};
use domain::window::MAX_WAITLIST;
use tonic::Status;

use super::Bench;
use super::turns::Turns;
use crate::Error;
use crate::caller::{Caller, Token};
use crate::hot::{Hot, booking};
use crate::load::{Answer, Work, all};
use crate::section::{Bound, Figure, Section};
use crate::series::Series;
use crate::testbed::Testbed;

/// The goals of a join and of a promotion, in bookings.
const JOIN: f64 = 1.2;
const PROMOTION: f64 = 1.5;
/// The number of calls of a turn for each place of P4's sale.
const CALLS_PER_PLACE: u32 = 4;

/// Bookings of one slot, for which the customers wait where no place is left.
struct Joining {
    caller: Caller,
    hot: Arc<Hot>,
    names: Mutex<Vec<String>>,
}

impl Work for Joining {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let request = booking(self.hot.customer(), self.hot.slot()?.to_owned());
        let request = self.caller.request(CreateScreeningRequest { join_waitlist: true, ..request });
        match self.caller.screening(caller).create_screening(request).await {
            Ok(made) => {
                self.names.lock().unwrap_or_else(PoisonError::into_inner).push(made.into_inner().name);
                Ok(Answer::Done)
            }
            Err(status) => self.hot.judge(usize::MAX, status),
        }
    }
}

/// Cancellations of the bookings that a [`Joining`] made.
struct Cancelling(Arc<Joining>);

impl Work for Cancelling {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let Joining { caller: lines, hot, names } = &*self.0;
        let Some(name) = names.lock().unwrap_or_else(PoisonError::into_inner).pop() else { return Ok(Answer::Refused) };
        let request = lines.request(CancelScreeningRequest { name, ..Default::default() });
        let cancelled = lines.screening(caller).cancel_screening(request).await;
        cancelled.map(|_| Answer::Done).or_else(|status| hot.judge(usize::MAX, status))
    }
}

/// How many turns a pair has.
pub(super) const TURNS: u32 = 4;

/// Measures joins and promotions by turns, and adds them to the section.
pub(super) async fn measure(
    bench: &Bench<'_>,
    testbed: &Testbed,
    section: &mut Section,
    callers: usize,
) -> Result<(), Error> {
    // No more than may wait
    let places = i32::try_from(bench.plan.sizes.places * CALLS_PER_PLACE).unwrap_or(MAX_WAITLIST).min(MAX_WAITLIST);
    let calls = usize::try_from(places).unwrap_or_default();
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let hot = Hot::open(&admin, "bench-queue", places, bench.plan.customers()).await?;
    let work = || -> Result<Arc<Joining>, Error> {
        let caller = testbed.caller("screening", Token::admin(&testbed.signer)?)?;
        Ok(Arc::new(Joining { caller, hot: Arc::clone(&hot), names: Mutex::default() }))
    };
    let names = ["a booking", "a join", "a cancellation and a promotion", "a cancellation"];
    let mut turns = names.map(|name| Turns::new(name, callers));
    let [booking, joining, promoting, cancelling] = &mut turns;
    for _ in 0..bench.plan.pairs {
        hot.fresh();
        let (booked, waiting) = (work()?, work()?);
        booking.add(bench, testbed, all(&booked, callers, calls)).await?;
        joining.add(bench, testbed, all(&waiting, callers, calls)).await?;
        promoting.add(bench, testbed, all(&Arc::new(Cancelling(booked)), callers, calls)).await?;
        cancelling.add(bench, testbed, all(&Arc::new(Cancelling(waiting)), callers, calls)).await?;
    }
    section.figures.extend(figures(turns.each_ref().map(|turns| &turns.spent.processes)));
    section.sides.extend(turns.map(|turns| turns.side));
    section.notes.push(format!(
        "a promotion costs what a cancellation costs more while somebody waits; {calls} calls a turn on one slot"
    ));
    Ok(())
}

fn figures([booking, joining, promoting, cancelling]: [&Series; 4]) -> [Figure; 2] {
    let more = promoting.values().iter().zip(cancelling.values()).map(|(with, without)| with - without);
    let promotion = more.collect::<Series>().over(booking);
    let name = |what| format!("CPU of the services {what} against a booking");
    [
        Figure::new(name("a join"), "×", joining.over(booking)).goal(Bound::AtMost(JOIN)),
        Figure::new(name("a promotion"), "×", promotion).goal(Bound::AtMost(PROMOTION)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_costs_what_its_cancellation_does_not() {
        let series = |values: [f64; 2]| values.into_iter().collect::<Series>();
        let [booking, cancelling] = [[200.0, 100.0], [80.0, 60.0]].map(series);
        let [joining, promoting] = [[150.0, 90.0], [280.0, 260.0]].map(series);
        let [join, promotion] = figures([&booking, &joining, &promoting, &cancelling]);
        assert_eq!(join.values.values(), [0.75, 0.9]);
        assert_eq!((promotion.values.values(), promotion.met()), (&[1.0, 2.0][..], Some(true)));
    }
}
