//! P5: under a steady load of bookings, the time until my page shows a booking and until a cancelled place is free.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::capacity::v1::{GetCapacityClaimRequest, capacity_claim};
use contract::mypage::v1::GetMyPageRequest;
use contract::screening::v1::{CancelScreeningRequest, Screening};
use hdrhistogram::Histogram;
use runtime::entropy;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{Bench, SHARE};
use crate::caller::{Caller, Token};
use crate::hot::{Hot, PLACES, booking};
use crate::load::{Answer, Work, histogram, milliseconds, open, record};
use crate::section::{Bound, Figure, Section, Side};
use crate::series::Series;
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item, Topology};

/// The number of callers that measure the highest rate.
const CALLERS: usize = 256;
/// One booking in this many is followed, because following is load as well.
const FOLLOWED_ONE_IN: usize = 20;
/// How often a claim is read until it is released. Each read is load as well.
const FREE_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a place may take to become free before the measurement fails.
const FREE_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the bookings, some of which are followed and cancelled.
struct Followed {
    customers: Caller,
    views: Caller,
    places: Caller,
    hot: Arc<Hot>,
    count: AtomicUsize,
    /// Microseconds from the answer to a booking until my page shows it, and from the answer to a cancellation until
    /// the place is free.
    lags: Mutex<[Histogram<u64>; 2]>,
}

impl Work for Followed {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let request = self.customers.request(booking(self.hot.customer(), self.hot.slot()?.to_owned()));
        let made = self.customers.screening(caller).create_screening(request).await?.into_inner();
        Ok(if made.state() == contract::screening::v1::screening::State::Confirmed {
            Answer::Done
        } else {
            Answer::Refused
        })
    }
}

/// Bookings, of which one in [`FOLLOWED_ONE_IN`] is followed and cancelled.
struct Following(Arc<Followed>);

impl Work for Following {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        if !self.0.count.fetch_add(1, Ordering::Relaxed).is_multiple_of(FOLLOWED_ONE_IN) {
            return self.0.call(caller).await;
        }
        let Followed { customers, views, places, hot, lags, .. } = &*self.0;
        let request = customers.request(booking(hot.customer(), hot.slot()?.to_owned()));
        let made = customers.screening(caller).create_screening(request).await?.into_inner();
        let shown = shown(views, caller, &made).await?;
        let name = made.name.clone();
        let request = customers.request(CancelScreeningRequest {
            name,
            reason: "measured".to_owned(),
            request_id: entropy::uuid_v7().to_string(),
            ..Default::default()
        });
        customers.screening(caller).cancel_screening(request).await?;
        let back = back(places, caller, &made).await?;
        let mut lags = lags.lock().unwrap_or_else(PoisonError::into_inner);
        for (histogram, lag) in lags.iter_mut().zip([shown, back]) {
            record(histogram, lag);
        }
        // Counted as refused: the call took much longer than a booking, and its time is not the latency of one.
        Ok(Answer::Refused)
    }
}

/// The time until my page shows the booking.
async fn shown(views: &Caller, caller: usize, made: &Screening) -> Result<Duration, Status> {
    let since = Instant::now();
    let request = views.request(GetMyPageRequest {
        name: format!("{}/myPage", made.customer),
        min_consistency_token: made.consistency_token.clone(),
        ..GetMyPageRequest::default()
    });
    let page = views.my_page(caller).get_my_page(request).await?.into_inner();
    let there = page.upcoming.iter().any(|item| item.screening == made.name);
    if there { Ok(since.elapsed()) } else { Err(Status::data_loss("my page does not show the booking")) }
}

/// The time until the claim is released.
async fn back(places: &Caller, caller: usize, made: &Screening) -> Result<Duration, Status> {
    let since = Instant::now();
    let claim_id = format!("{}.1", made.name.trim_start_matches("screenings/"));
    loop {
        let request = places.request(GetCapacityClaimRequest { slot: made.slot.clone(), claim_id: claim_id.clone() });
        let claim = places.capacity(caller).get_capacity_claim(request).await?.into_inner();
        if claim.state() == capacity_claim::State::Released {
            return Ok(since.elapsed());
        }
        if since.elapsed() > FREE_TIMEOUT {
            return Err(Status::deadline_exceeded("the place of a cancelled booking does not become free"));
        }
        sleep(FREE_POLL_INTERVAL).await;
    }
}

/// The measurements at one rate.
struct Lags {
    side: Side,
    /// The answered rate divided by the requested rate.
    answered: Series,
    /// Median and p99 until my page shows the booking, then until the place is free.
    shown: [Series; 2],
    back: [Series; 2],
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let testbed = bench.testbed(Item::P5, &Setup::default()).await?;
    let followed = followed(bench, &testbed).await?;
    bench.phase(Item::P5, 1 + 2 * bench.plan.pairs);
    let promised = bench.plan.sizes.lag_rate;
    let most = bench.closed(&testbed, &followed, CALLERS).await?.rate();
    let bound = Bound::AtMost(if bench.topology == Topology::Mesh { 150.0 } else { 50.0 });
    let mut section = Section::new(Item::P5, bench.topology);
    let at_promised = at(bench, &testbed, &followed, promised).await?;
    add(&mut section, at_promised, promised, Some(bound));
    // If the machine cannot reach the promised rate, the lag is that of a queue and shows nothing about the views.
    if most * SHARE < promised {
        let possible = (most * SHARE).floor().max(1.0);
        let at_possible = at(bench, &testbed, &followed, possible).await?;
        add(&mut section, at_possible, possible, None);
    }
    section.notes.push(format!(
        "{most:.0} bookings a second are what {CALLERS} callers get here in a closed loop; lags count from the answer to the caller; \
         one of {FOLLOWED_ONE_IN} bookings is followed and cancelled, and those are the refused ones of the table; my page is asked with \
         the booking's consistency token, the place every ten milliseconds"
    ));
    testbed.stop().await?;
    Ok(section)
}

/// Adds the figures of one rate to the section.
fn add(section: &mut Section, lags: Lags, rate: f64, bound: Option<Bound>) {
    let Lags { side, answered, shown, back } = lags;
    let named = |what: &str, unit, values| Figure::new(format!("{what}, at {rate} a second"), unit, values);
    for (what, [half, late]) in [("confirmed → my page shows it", shown), ("cancelled → the place is free", back)] {
        let late = named(&format!("{what}, p99"), "ms", late);
        section.figures.push(match bound {
            Some(bound) => late.goal(bound),
            None => late,
        });
        section.figures.push(named(&format!("{what}, p50"), "ms", half));
    }
    section.figures.push(named("answered of what was asked for", "×", answered));
    section.sides.push(side);
}

async fn at(bench: &Bench<'_>, testbed: &Testbed, followed: &Arc<Followed>, rate: f64) -> Result<Lags, Error> {
    let mut lags = Lags {
        side: Side::new("CreateScreening", format!("open, {rate} a second")),
        answered: Series::default(),
        shown: Default::default(),
        back: Default::default(),
    };
    for _ in 0..bench.plan.pairs {
        testbed.rest().await;
        followed.hot.fresh();
        let fresh = [histogram(), histogram()];
        *followed.lags.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        let work = Arc::new(Following(Arc::clone(followed)));
        let measured = open(&work, rate, bench.plan.warm_up, bench.plan.span).await?;
        lags.answered.push((measured.done + measured.refused) as f64 / measured.took.as_secs_f64() / rate);
        lags.side.push(&measured);
        let taken = followed.lags.lock().unwrap_or_else(PoisonError::into_inner);
        for (series, histogram) in [&mut lags.shown, &mut lags.back].into_iter().zip(taken.iter()) {
            series[0].push(milliseconds(histogram, 0.5));
            series[1].push(milliseconds(histogram, 0.99));
        }
        bench.done();
    }
    Ok(lags)
}

async fn followed(bench: &Bench<'_>, testbed: &Testbed) -> Result<Arc<Followed>, Error> {
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let hot = Hot::open(&admin, "bench-lag", PLACES, bench.plan.customers()).await?;
    Ok(Arc::new(Followed {
        customers: testbed.caller("screening", Token::admin(&testbed.signer)?)?,
        views: testbed.caller("mypage", Token::auditor(&testbed.signer)?)?,
        places: testbed.caller("hospital", Token::screening(&testbed.signer)?)?,
        hot,
        count: AtomicUsize::new(0),
        lags: Mutex::new([histogram(), histogram()]),
    }))
}
