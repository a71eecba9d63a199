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
use crate::{Error, Item, Order};

/// The number of callers.
const CALLERS: usize = 256;

/// The bookings of customers in one order.
struct Kind {
    order: Order,
    book: Arc<Book>,
    side: Side,
}

impl Kind {
    /// Each order has a hospital of its own, so that neither uses up the dates of the other.
    async fn open(bench: &Bench<'_>, testbed: &Testbed, order: Order) -> Result<Self, Error> {
        let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
        let hot = Hot::open(&admin, &format!("bench-{order}"), PLACES, bench.plan.customers_in(order)).await?;
        let caller = testbed.caller("screening", Token::admin(&testbed.signer)?)?;
        let side = Side::new(format!("CreateScreening, {order} customers"), closed_load());
        Ok(Self { order, book: Arc::new(Book { caller, hot }), side })
    }
}

fn closed_load() -> String {
    format!("closed, {CALLERS} callers")
}

pub(super) async fn measure(bench: &mut Bench<'_>, item: Item) -> Result<Section, Error> {
    let mut testbed = bench.testbed(item, &Setup::default()).await?;
    let (_baseline, greeting) = bench.baseline(&testbed).await?;
    let mut kinds = Vec::new();
    for order in bench.plan.orders() {
        kinds.push(Kind::open(bench, &testbed, order).await?);
    }
    let usual = bench.plan.customers().order;
    let mut hello = Side::new("hello-world", closed_load());
    let share = SHARE * 100.0;
    let mut unhurried =
        Side::new(format!("CreateScreening, {usual} customers"), format!("open, {share:.0} % of its rate"));
    let (mut bookings, mut own) = (0, Duration::ZERO);
    testbed.rest().await;
    let before = Bill::of(&mut testbed).await?;
    bench.phase(item, bench.plan.pairs * (4 + kinds.len() as u32));
    for _ in 0..bench.plan.pairs {
        hello.push(&bench.closed(&testbed, &greeting, CALLERS).await?);
        let used = own_cpu();
        for kind in &mut kinds {
            kind.book.hot.fresh();
            let measured = bench.closed(&testbed, &kind.book, CALLERS).await?;
            kind.side.push(&measured);
            bookings += measured.worked;
            if kind.order == usual {
                kind.book.hot.fresh();
                let open = bench.open(&testbed, &kind.book, measured.rate() * SHARE).await?;
                unhurried.push(&open);
                bookings += open.worked;
            }
        }
        own += own_cpu().saturating_sub(used);
    }
    let caught_up = testbed.rest().await;
    let after = Bill::of(&mut testbed).await?;
    // Measured separately, so that the cost of a booking does not include reads.
    let book = kinds.iter().find(|kind| kind.order == usual).map(|kind| Arc::clone(&kind.book));
    let book = book.ok_or_else(|| Error::failed("nobody books"))?;
    let [reading, beside] = against_a_read(bench, &testbed, &book, usual).await?;

    let mut section = Section::new(item, bench.topology);
    section.figures = figures(item, &hello, &kinds);
    section.figures.extend([
        Figure::new("rate against a read of one row", "×", beside.rate.over(&reading.rate)),
        Figure::new("p50, open loop", "ms", unhurried.latency[0].clone()),
        Figure::new("p99, open loop", "ms", unhurried.latency[1].clone()),
    ]);
    section.sides = vec![hello];
    section.sides.extend(kinds.into_iter().map(|kind| kind.side));
    section.sides.extend([unhurried, reading, beside]);
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

/// The goal of the rate against hello-world. P2's is about sequential customers, as the measurements that it follows
/// from.
fn goal(item: Item, order: Order) -> Option<Bound> {
    match (item, order) {
        (Item::P3, Order::Sequential) => Some(Bound::AtLeast(0.28)),
        (Item::P3, Order::Random) => Some(Bound::AtLeast(0.22)),
        (Item::P2, Order::Sequential) => Some(Bound::AtLeast(0.17)),
        _ => None,
    }
}

fn figures(item: Item, hello: &Side, kinds: &[Kind]) -> Vec<Figure> {
    let ratio = |kind: &Kind| {
        let name = format!("rate against hello-world, {} customers", kind.order);
        Figure { goal: goal(item, kind.order), ..Figure::new(name, "×", kind.side.rate.over(&hello.rate)) }
    };
    kinds.iter().map(ratio).collect()
}

/// Measures a read of one row and a booking, pair by pair.
async fn against_a_read(
    bench: &Bench<'_>,
    testbed: &Testbed,
    book: &Arc<Book>,
    order: Order,
) -> Result<[Side; 2], Error> {
    let reads = ReadOne::of(book).await?;
    let mut reading = Side::new("GetScreening, a read of one row", closed_load());
    let mut booking = Side::new(format!("CreateScreening, {order} customers, beside it"), closed_load());
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
