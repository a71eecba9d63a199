//! P4: a flash sale. Many customers, each with a token of their own, request few places, alternating with a hello-world
//! call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fault::Reason;
use runtime::status::reason_of;
use tonic::Status;

use super::{Bench, SHARE};
use crate::caller::{Caller, Token};
use crate::hot::{Hot, booking};
use crate::load::{Answer, Work, all, closed, open};
use crate::section::{Bound, Figure, Section, Side};
use crate::series::Series;
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item};

/// The number of callers.
const CALLERS: usize = 256;

/// The requests for one slot. A refusal because the slot is full is the measured answer; a confirmed booking is counted
/// apart.
struct Sale {
    caller: Caller,
    slot: String,
    askers: Vec<(String, Token)>,
    next: AtomicUsize,
    confirmed: AtomicU64,
    put_off: AtomicU64,
}

impl Work for Sale {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let (customer, token) = &self.askers[self.next.fetch_add(1, Ordering::Relaxed) % self.askers.len()];
        let request = self.caller.request_as(token, booking(customer.clone(), self.slot.clone()));
        match self.caller.screening(caller).create_screening(request).await {
            Ok(_) => {
                self.confirmed.fetch_add(1, Ordering::Relaxed);
                Ok(Answer::Refused)
            }
            Err(status) => match reason_of(&status) {
                Some(Reason::SlotFull) => Ok(Answer::Done),
                // A customer who has a place asks again, in the loops after the sale.
                Some(Reason::CustomerDateConflict) => Ok(Answer::Refused),
                Some(
                    Reason::Overloaded | Reason::RateLimited | Reason::HospitalUnavailable | Reason::DeadlineExceeded,
                ) => {
                    self.put_off.fetch_add(1, Ordering::Relaxed);
                    Ok(Answer::Refused)
                }
                _ => Err(status),
            },
        }
    }
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let testbed = bench.testbed(Item::P4, &Setup::default()).await?;
    let (_baseline, greeting) = bench.baseline(&testbed).await?;
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let places = i32::try_from(bench.plan.sizes.places).unwrap_or(i32::MAX);
    let hot = Hot::open(&admin, "bench-flash", places, bench.plan.customers()).await?;
    let load = format!("closed, {CALLERS} callers");
    let mut hello = Side::new("hello-world", &*load);
    let mut rush = Side::new("the sale: refused for want of places", &*load);
    let mut refused = Side::new("CreateScreening on the full slot", &*load);
    let mut unhurried =
        Side::new("CreateScreening on the full slot", format!("open, {:.0} % of its rate", SHARE * 100.0));
    let (mut confirmed, mut put_off) = (Series::default(), 0);
    bench.phase(Item::P4, bench.plan.pairs * 4);
    for _ in 0..bench.plan.pairs {
        hello.push(&bench.closed(&testbed, &greeting, CALLERS).await?);
        hot.fresh();
        let sale = Arc::new(prepare(bench, &testbed, &hot)?);
        testbed.rest().await;
        rush.push(&all(&sale, CALLERS, sale.askers.len()).await?);
        bench.done();
        let measured = closed(&sale, CALLERS, bench.plan.warm_up, bench.plan.span).await?;
        refused.push(&measured);
        bench.done();
        unhurried.push(&open(&sale, measured.rate() * SHARE, bench.plan.warm_up, bench.plan.span).await?);
        bench.done();
        put_off += sale.put_off.load(Ordering::Relaxed);
        // Includes those of the loops after the sale.
        confirmed.push(sale.confirmed.load(Ordering::Relaxed) as f64);
    }
    let mut section = Section::new(Item::P4, bench.topology);
    section.figures = figures([&hello, &rush, &refused, &unhurried], &confirmed, bench.plan.sizes.places);
    section.sides = vec![hello, rush, refused, unhurried];
    section.notes.push(format!(
        "{} places, {} askers a round, each with a token of their own; {put_off} calls were put off for want of room",
        bench.plan.sizes.places, bench.plan.sizes.askers
    ));
    testbed.stop().await?;
    Ok(section)
}

fn figures([hello, rush, refused, unhurried]: [&Side; 4], confirmed: &Series, places: u32) -> Vec<Figure> {
    let exactly = f64::from(places);
    let [fewest, most] = [confirmed.min(), confirmed.max()].map(|value| [value].into_iter().collect::<Series>());
    vec![
        Figure::new("rate of refusals against hello-world", "×", refused.rate.over(&hello.rate))
            .goal(Bound::AtLeast(0.3)),
        Figure::new("p99 of refusals, open loop", "ms", unhurried.p99().clone()).goal(Bound::AtMost(50.0)),
        Figure::new("p99 of the sale itself, closed loop", "ms", rush.p99().clone()).goal(Bound::AtMost(50.0)),
        Figure::new("confirmed, most", "", most).goal(Bound::AtMost(exactly)).limit(Bound::AtMost(exactly)),
        Figure::new("confirmed, fewest", "", fewest).goal(Bound::AtLeast(exactly)),
    ]
}

/// Prepares a sale. Tokens are signed before it, as customers have theirs before a sale.
fn prepare(bench: &Bench<'_>, testbed: &Testbed, hot: &Hot) -> Result<Sale, Error> {
    let slot = hot.slot().map_err(Error::call("the next slot"))?.to_owned();
    let asker = |_| {
        let customer = hot.customer();
        let token = Token::customer(&testbed.signer, customer.trim_start_matches("customers/"))?;
        Ok((customer, token))
    };
    let askers = (0..bench.plan.sizes.askers).map(asker).collect::<Result<Vec<_>, Error>>()?;
    let caller = testbed.caller("screening", Token::admin(&testbed.signer)?)?;
    let (next, confirmed, put_off) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    Ok(Sale { caller, slot, askers, next, confirmed, put_off })
}
