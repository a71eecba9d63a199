//! P2 and P3: a whole booking on one hot slot, alternating with a hello-world call and with a read of one row.

use std::sync::Arc;
use std::time::Duration;

use super::{Bench, SHARE, own_cpu};
use crate::caller::Token;
use crate::cost::Bill;
use crate::hot::{Book, Hot, PLACES, ReadOne};
use crate::section::{Bound, Figure, Rows, Section, Side};
use crate::series::figure;
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item};

/// The number of callers.
const CALLERS: usize = 256;

pub(super) async fn measure(bench: &mut Bench<'_>, item: Item) -> Result<Section, Error> {
    let mut testbed = bench.testbed(item, &Setup::default()).await?;
    let (_baseline, greeting) = bench.baseline(&testbed).await?;
    let hot = Hot::open(&testbed.caller("hospital", Token::admin(&testbed.signer)?)?, "bench-hot", PLACES).await?;
    let caller = testbed.caller("screening", Token::admin(&testbed.signer)?)?;
    let book = Arc::new(Book { caller, hot });

    let load = format!("closed, {CALLERS} callers");
    let mut hello = Side::new("hello-world", &*load);
    let mut booking = Side::new("CreateScreening", &*load);
    let mut unhurried = Side::new("CreateScreening", format!("open, {:.0} % of its rate", SHARE * 100.0));
    let (mut bookings, mut own) = (0, Duration::ZERO);
    testbed.rest().await;
    let before = Bill::of(&mut testbed).await?;
    bench.phase(item, bench.plan.pairs * 5);
    for _ in 0..bench.plan.pairs {
        hello.push(&bench.closed(&testbed, &greeting, CALLERS).await?);
        book.hot.fresh();
        let used = own_cpu();
        let measured = bench.closed(&testbed, &book, CALLERS).await?;
        booking.push(&measured);
        book.hot.fresh();
        let open = bench.open(&testbed, &book, measured.rate() * SHARE).await?;
        unhurried.push(&open);
        own += own_cpu().saturating_sub(used);
        bookings += measured.worked + open.worked;
    }
    let caught_up = testbed.rest().await;
    let after = Bill::of(&mut testbed).await?;
    // Measured separately, so that the cost of a booking does not include reads.
    let [reading, beside] = against_a_read(bench, &testbed, &book).await?;

    let mut section = Section::new(item, bench.topology);
    let ratio = Figure::new("rate against hello-world", "×", booking.rate.over(&hello.rate));
    section.figures = vec![
        ratio.goal(Bound::AtLeast(0.25)),
        Figure::new("rate against a read of one row", "×", beside.rate.over(&reading.rate)),
        Figure::new("p50, open loop", "ms", unhurried.latency[0].clone()),
        Figure::new("p99, open loop", "ms", unhurried.latency[1].clone()),
    ];
    section.sides = vec![hello, booking, unhurried, reading, beside];
    section.rows.push(cost(&before, &after, bookings, own));
    section.notes.push(
        "commits: PostgreSQL's own count of all services, or what the writers of the embedded services count"
            .to_owned(),
    );
    section.notes.push(format!(
        "after the last turn the processes rested within {:.1} s: that long the views needed to catch up",
        caught_up.as_secs_f64()
    ));
    testbed.stop().await?;
    Ok(section)
}

/// Measures a read of one row and a booking, pair by pair.
async fn against_a_read(bench: &Bench<'_>, testbed: &Testbed, book: &Arc<Book>) -> Result<[Side; 2], Error> {
    let load = format!("closed, {CALLERS} callers");
    let reads = ReadOne::of(book).await?;
    let mut reading = Side::new("GetScreening, a read of one row", &*load);
    let mut booking = Side::new("CreateScreening, beside it", &*load);
    for _ in 0..bench.plan.pairs {
        reading.push(&bench.closed(testbed, &reads, CALLERS).await?);
        book.hot.fresh();
        booking.push(&bench.closed(testbed, book, CALLERS).await?);
    }
    Ok([reading, booking])
}

/// The cost of the services, and below it that of the callers.
fn cost(before: &Bill, after: &Bill, bookings: u64, own: Duration) -> Rows {
    let mut cost = after.since(before, bookings, "one booking");
    cost.rows.push(vec!["the callers".to_owned(), figure(own.as_secs_f64() * 1e6 / bookings.max(1) as f64)]);
    cost
}
