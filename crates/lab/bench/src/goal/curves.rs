//! The curves: rate against callers in closed loops, latency against rate in open loops, for a booking and a
//! hello-world call.

use std::sync::Arc;
use std::time::Duration;

use super::Bench;
use crate::caller::Token;
use crate::hot::{Book, Hot, PLACES};
use crate::load::{Work, closed, open};
use crate::section::{Curve, Rows, Section};
use crate::series::figure;
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item};

/// The rates of the open loops, as shares of the highest rate of the closed loops.
const SHARES: [f64; 7] = [0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0];

/// The measurements of one call.
struct Shape {
    name: &'static str,
    /// Per closed loop: callers, rate, p50 and p99.
    closed: Vec<[f64; 4]>,
    /// Per open loop: requested rate, rate, p50 and p99.
    open: Vec<[f64; 4]>,
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let testbed = bench.testbed(Item::Curves, &Setup::default()).await?;
    let (_baseline, greeting) = bench.baseline(&testbed).await?;
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let hot = Hot::open(&admin, "bench-curve", PLACES, bench.plan.customers()).await?;
    let book = Arc::new(Book::new(testbed.caller("screening", Token::admin(&testbed.signer)?)?, hot));
    let counts: Vec<usize> =
        (0..).map(|power| 1 << power).take_while(|callers| *callers <= bench.plan.sizes.callers).collect();
    bench.phase(Item::Curves, 2 * (counts.len() + SHARES.len()) as u32);
    let hello = shape(bench, &testbed, "hello-world", &greeting, &counts, &|| {}).await?;
    let booking = shape(bench, &testbed, "CreateScreening", &book, &counts, &|| book.hot.fresh()).await?;
    let mut section = Section::new(Item::Curves, bench.topology);
    for Shape { name, closed, open } in [hello, booking] {
        let named = |points: Vec<(f64, f64)>, what: &str| Curve { name: format!("{name}{what}"), points };
        section.curves[0].push(named(closed.iter().map(|[callers, rate, ..]| (*callers, *rate)).collect(), ""));
        for (index, what) in [(2, ", p50"), (3, ", p99")] {
            section.curves[1].push(named(open.iter().map(|row| (row[1], row[index])).collect(), what));
        }
        section.rows.push(table(format!("{name}, closed loops"), "callers", &closed));
        section.rows.push(table(format!("{name}, open loops"), "asked for a second", &open));
    }
    section.notes.push("one turn a point; the ratios are those of the other sections".to_owned());
    testbed.stop().await?;
    Ok(section)
}

async fn shape<W: Work>(
    bench: &Bench<'_>,
    testbed: &Testbed,
    name: &'static str,
    work: &Arc<W>,
    counts: &[usize],
    before: &(dyn Fn() + Sync),
) -> Result<Shape, Error> {
    let (mut shape, mut highest) = (Shape { name, closed: Vec::new(), open: Vec::new() }, 0.0_f64);
    let (warm_up, span): (Duration, Duration) = (bench.plan.warm_up, bench.plan.span);
    for callers in counts {
        testbed.rest().await;
        before();
        let measured = closed(work, *callers, warm_up, span).await?;
        highest = highest.max(measured.rate());
        shape.closed.push([*callers as f64, measured.rate(), measured.at(0.5), measured.at(0.99)]);
        bench.done();
    }
    for share in SHARES {
        testbed.rest().await;
        before();
        let measured = open(work, highest * share, warm_up, span).await?;
        shape.open.push([highest * share, measured.rate(), measured.at(0.5), measured.at(0.99)]);
        bench.done();
    }
    Ok(shape)
}

fn table(title: String, first: &str, rows: &[[f64; 4]]) -> Rows {
    let header = [first, "a second", "p50 ms", "p99 ms"].map(str::to_owned).into();
    Rows { title, header, rows: rows.iter().map(|row| row.map(figure).into()).collect() }
}
