//! P1: reserving places of one hot slot. Three measurements alternate: one row-locking transaction per request by
//! pgbench on the same server, one transaction per request through the service, and the service with its default
//! settings.

use std::sync::Arc;

use super::Bench;
use crate::caller::Token;
use crate::hot::{Hot, PLACES, Reserve};
use crate::load::Measured;
use crate::pgbench::Pgbench;
use crate::section::{Bound, Figure, Section, Side};
use crate::testbed::{Services, Setup, Testbed};
use crate::{Error, Item, Topology};

/// The number of callers.
const CALLERS: usize = 64;
/// The limit that noise cannot explain. Against pgbench, which is always optimised, it applies only in
/// optimised builds.
const FLOOR: f64 = 8.0;
/// The setting for one transaction per request.
const NAIVE: &str = "hospital.batch=1";

/// The service with one transaction per request, and with its default settings.
struct Both {
    naive: Arc<Reserve>,
    shipped: Arc<Reserve>,
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    match bench.topology {
        Topology::Mesh => on_postgres(bench).await,
        Topology::Embedded => on_sqlite(bench).await,
    }
}

/// Measures two replicas on one database, and pgbench on another database of the same server.
async fn on_postgres(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let setup = Setup { only: &["hospital"], replicas: &[("hospital", 2)], ..Setup::default() };
    let mut testbed = bench.testbed(Item::P1, &setup).await?;
    let mesh = testbed.mesh()?;
    let replica = mesh.replica("hospital", 0).ok_or_else(|| Error::failed("there is no hospital"))?;
    replica.stop().await?;
    replica.set(&[NAIVE]);
    replica.start()?;
    replica.ready(crate::testbed::START_TIMEOUT).await?;
    let pgbench = Pgbench::prepare(mesh.postgres()).await?;
    let Services::Mesh(mesh) = &testbed.services else { return Err(Error::failed("this is no mesh")) };
    let addresses: Vec<_> = mesh.of("hospital").map(mesh::Replica::addr).collect();
    let mut works = Vec::new();
    for (addr, id) in addresses.into_iter().zip(["bench-naive", "bench-shipped"]) {
        works.push(reserve(bench, &testbed, addr, id).await?);
    }
    let (Some(shipped), Some(naive)) = (works.pop(), works.pop()) else { return Err(Error::failed("two are needed")) };
    let section = turns(bench, &testbed, &testbed, &Both { naive, shipped }, Some(&pgbench)).await;
    testbed.stop().await?;
    section
}

/// Measures two processes, each with a file of its own.
async fn on_sqlite(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let only = Setup { only: &["hospital"], ..Setup::default() };
    let shipped = bench.testbed(Item::P1, &only).await?;
    let naive = bench.testbed(Item::P1, &Setup { settings: vec![NAIVE.to_owned()], ..only }).await?;
    let both = Both {
        naive: reserve(bench, &naive, naive.addr("hospital")?, "bench-naive").await?,
        shipped: reserve(bench, &shipped, shipped.addr("hospital")?, "bench-shipped").await?,
    };
    let section = turns(bench, &naive, &shipped, &both, None).await;
    naive.stop().await?;
    shipped.stop().await?;
    section
}

async fn reserve(
    bench: &Bench<'_>,
    testbed: &Testbed,
    addr: std::net::SocketAddr,
    id: &str,
) -> Result<Arc<Reserve>, Error> {
    let lines = crate::caller::Lines::to(addr, bench.plan.connections)?;
    let caller = |token| crate::caller::Caller::new(lines.clone(), token);
    let hot = Hot::open(&caller(Token::admin(&testbed.signer)?), id, PLACES, bench.plan.customers()).await?;
    Ok(Arc::new(Reserve { caller: caller(Token::screening(&testbed.signer)?), hot }))
}

async fn turns(
    bench: &Bench<'_>,
    naive_testbed: &Testbed,
    testbed: &Testbed,
    both: &Both,
    pgbench: Option<&Pgbench>,
) -> Result<Section, Error> {
    let load = format!("closed, {CALLERS} callers");
    let mut locking = Side::new("a row-locking transaction a request (pgbench)", &*load);
    let mut naive = Side::new("ReserveCapacity, one transaction a request", &*load);
    let mut shipped = Side::new("ReserveCapacity", &*load);
    let mut open = Side::new("ReserveCapacity", format!("open, {:.0} % of its rate", super::SHARE * 100.0));
    bench.phase(Item::P1, bench.plan.pairs * (3 + u32::from(pgbench.is_some())));
    let reserve = async |work: &Arc<Reserve>, testbed: &Testbed| -> Result<Measured, Error> {
        work.hot.fresh();
        bench.closed(testbed, work, CALLERS).await
    };
    for _ in 0..bench.plan.pairs {
        if let Some(pgbench) = pgbench {
            testbed.rest().await;
            locking.push(&pgbench.run(CALLERS, bench.plan.span).await?);
            bench.done();
        }
        naive.push(&reserve(&both.naive, naive_testbed).await?);
        let measured = reserve(&both.shipped, testbed).await?;
        shipped.push(&measured);
        both.shipped.hot.fresh();
        open.push(&bench.open(testbed, &both.shipped, measured.rate() * super::SHARE).await?);
    }
    Ok(section(bench.topology, pgbench.map(|_| locking), [naive, shipped, open]))
}

fn section(topology: Topology, locking: Option<Side>, sides: [Side; 3]) -> Section {
    let [naive, shipped, _] = &sides;
    let against = |baseline: &Side, what: &str| {
        [
            Figure::new(format!("rate against {what}"), "×", shipped.rate.over(&baseline.rate)),
            Figure::new(format!("p99 against {what}, times lower"), "×", baseline.p99().over(shipped.p99())),
        ]
    };
    let [through, through_p99] = against(naive, "one transaction a request through the service");
    // SQLite's transactions are cheap: in a debug build the rest of a call hides them.
    let held = topology == Topology::Mesh || !cfg!(debug_assertions);
    let mut figures = vec![if held { through.limit(Bound::AtLeast(FLOOR)) } else { through }, through_p99];
    if let Some(locking) = &locking {
        let [rate, p99] = against(locking, "a row-locking transaction a request");
        let rate = rate.goal(Bound::AtLeast(17.0));
        let rate = if cfg!(debug_assertions) { rate } else { rate.limit(Bound::AtLeast(FLOOR)) };
        figures.splice(0..0, [rate, p99.goal(Bound::AtLeast(40.0))]);
    }
    let sides = locking.into_iter().chain(sides).collect();
    Section { figures, sides, ..Section::new(Item::P1, topology) }
}
