//! P6: a hospital with many bookings is deleted while others book elsewhere, alternating with the same load alone. At
//! the end one more is deleted without load, which gives the cost of ending a booking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use contract::hospital::v1::{DeleteHospitalRequest, GetHospitalRequest, hospital};
use contract::screening::v1::ListScreeningsRequest;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::Bench;
use crate::caller::{Caller, Token};
use crate::cost::Bill;
use crate::hot::{Hot, PLACES, Reserve, booking};
use crate::load::{Answer, Work, all, open_until};
use crate::section::{Bound, Figure, Rows, Section, Side};
use crate::series::Series;
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item};

/// The number of callers that make the bookings.
const CALLERS: usize = 256;
/// The share of P5's load that continues during the deletion.
const LOAD_SHARE: f64 = 0.25;
/// How often the state of the deletion is read.
const CANCELLED_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long a deletion may take before the measurement fails.
const CANCELLED_TIMEOUT: Duration = Duration::from_secs(300);

/// Bookings of the hospital to delete, spread over all its slots.
pub(super) struct Fill {
    caller: Caller,
    hot: Arc<Hot>,
    count: AtomicUsize,
}

impl Fill {
    pub(super) fn new(caller: Caller, hot: Arc<Hot>) -> Self {
        Self { caller, hot, count: AtomicUsize::new(0) }
    }
}

impl Work for Fill {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let slot = self.hot.any(self.count.fetch_add(1, Ordering::Relaxed)).to_owned();
        let request = booking(self.hot.customer(), slot);
        self.caller.screening(caller).create_screening(self.caller.request(request)).await.map(|_| Answer::Done)
    }
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let mut testbed = bench.testbed(Item::P6, &Setup::default()).await?;
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let reserve = Arc::new(Reserve {
        caller: testbed.caller("hospital", Token::screening(&testbed.signer)?)?,
        hot: Hot::open(&admin, "bench-other", PLACES, bench.plan.customers()).await?,
    });
    let rate = bench.plan.sizes.lag_rate * LOAD_SHARE;
    let load = format!("open, {rate} a second");
    let mut alone = Side::new("ReserveCapacity elsewhere", &*load);
    let mut meanwhile = Side::new("ReserveCapacity elsewhere, during the deletion", &*load);
    let (mut places, mut bookings) = (Series::default(), Series::default());
    bench.phase(Item::P6, bench.plan.pairs * 3 + 2);
    for round in 0..bench.plan.pairs {
        let doomed = fill(bench, &testbed, &admin, round).await?;
        bench.done();
        alone.push(&bench.open(&testbed, &reserve, rate).await?);
        testbed.rest().await;
        let over = AtomicBool::new(false);
        let deleting = async {
            let taken = delete(&testbed, &admin, &doomed.hospital).await;
            over.store(true, Ordering::Relaxed);
            taken
        };
        let (taken, measured) =
            tokio::join!(deleting, open_until(&reserve, rate, Duration::ZERO, CANCELLED_TIMEOUT, &over));
        let (back, cancelled) = taken?;
        places.push(back.as_secs_f64());
        bookings.push(cancelled.as_secs_f64());
        meanwhile.push(&measured?);
        bench.done();
    }
    let doomed = fill(bench, &testbed, &admin, bench.plan.pairs).await?;
    bench.done();
    let (undisturbed, cost) = undisturbed(bench, &mut testbed, &admin, &doomed.hospital).await?;
    bench.done();
    let mut section = Section::new(Item::P6, bench.topology);
    section.figures = vec![
        Figure::new("until every booking is force-cancelled", "s", bookings).goal(Bound::AtMost(5.0)),
        Figure::new("until every place is revoked", "s", places),
        Figure::new("p99 of the others against the same load alone", "×", meanwhile.p99().over(alone.p99()))
            .goal(Bound::AtMost(2.0)),
    ];
    section.sides = vec![alone, meanwhile];
    section.rows.push(cost);
    section.notes.push(format!(
        "{} bookings on 100 dates, made through the services; the cost is of one more deletion beside which nobody books: every booking is \
         force-cancelled in {:.1} s then",
        bench.plan.sizes.bookings,
        undisturbed.as_secs_f64()
    ));
    testbed.stop().await?;
    Ok(section)
}

/// Deletes a hospital without load. Returns how long it took, and the cost per booking until every view has it too.
async fn undisturbed(
    bench: &Bench<'_>,
    testbed: &mut Testbed,
    admin: &Caller,
    hospital: &str,
) -> Result<(Duration, Rows), Error> {
    testbed.settle().await?;
    let before = Bill::of(testbed).await?;
    let (_, cancelled) = delete(testbed, admin, hospital).await?;
    testbed.settle().await?;
    let cost = Bill::of(testbed).await?.since(&before, bench.plan.sizes.bookings.into(), "one force-cancelled booking");
    Ok((cancelled, cost))
}

async fn fill(bench: &Bench<'_>, testbed: &Testbed, admin: &Caller, round: u32) -> Result<Arc<Hot>, Error> {
    let hot = Hot::open(admin, &format!("bench-doomed-{round}"), PLACES, bench.plan.customers()).await?;
    let caller = testbed.caller("screening", Token::admin(&testbed.signer)?)?;
    let work = Arc::new(Fill::new(caller, Arc::clone(&hot)));
    let wanted = bench.plan.sizes.bookings;
    let made = all(&work, CALLERS, wanted as usize).await?;
    if made.done != u64::from(wanted) {
        return Err(Error::failed(format!("only {} bookings were made", made.done)));
    }
    Ok(hot)
}

/// Deletes a hospital. Returns the time until it is DELETED, when no place is taken, and until no booking is CONFIRMED.
pub(super) async fn delete(testbed: &Testbed, admin: &Caller, hospital: &str) -> Result<(Duration, Duration), Error> {
    let auditor = testbed.caller("screening", Token::auditor(&testbed.signer)?)?;
    let since = Instant::now();
    let request = admin.request(DeleteHospitalRequest {
        name: hospital.to_owned(),
        force: true,
        reason: "measured".to_owned(),
        ..Default::default()
    });
    admin.hospital().delete_hospital(request).await.map_err(Error::call("DeleteHospital"))?;
    let mut back = None;
    while since.elapsed() < CANCELLED_TIMEOUT {
        if back.is_none() {
            let request = admin.request(GetHospitalRequest { name: hospital.to_owned() });
            let shown = admin.hospital().get_hospital(request).await.map_err(Error::call("GetHospital"))?;
            if shown.get_ref().state() == hospital::State::Deleted {
                back = Some(since.elapsed());
            }
        }
        if let Some(back) = back
            && !has_confirmed(&auditor, hospital).await?
        {
            return Ok((back, since.elapsed()));
        }
        sleep(CANCELLED_POLL_INTERVAL).await;
    }
    Err(Error::failed(format!("{hospital} is not gone after {} s", CANCELLED_TIMEOUT.as_secs())))
}

async fn has_confirmed(auditor: &Caller, hospital: &str) -> Result<bool, Error> {
    let filter = format!("hospital=\"{hospital}\" AND state=CONFIRMED");
    let request = auditor.request(ListScreeningsRequest { page_size: 1, filter, ..Default::default() });
    let page = auditor.screening(0).list_screenings(request).await.map_err(Error::call("ListScreenings"))?;
    Ok(!page.get_ref().screenings.is_empty())
}
