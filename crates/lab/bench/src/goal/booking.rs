//! P2 and P3: a whole booking on one hot slot, alternating with a hello-world call and with a read of one row.

use std::sync::Arc;
use std::time::Duration;

use super::{Bench, SHARE, own_cpu};
use crate::caller::Token;
use crate::cost::Bill;
use crate::hot::{Book, Hot, PLACES, ReadOne, RequestIds};
use crate::section::{Bound, Figure, Rows, Section, Side};
use crate::series::figure;
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item, Order};

/// The number of callers.
const CALLERS: usize = 256;
/// The goal of the rate with request_ids of version 4 against version 7: callers cannot be asked to know the difference.
const VERSION_4: f64 = 0.95;

/// The bookings of customers in one order, with request_ids of one version.
struct Kind {
    order: Order,
    request_ids: RequestIds,
    book: Arc<Book>,
    side: Side,
}

impl Kind {
    /// Each kind has a hospital of its own, so that none uses up the dates of another.
    async fn open(
        bench: &Bench<'_>,
        testbed: &Testbed,
        (order, request_ids): (Order, RequestIds),
    ) -> Result<Self, Error> {
        let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
        let version = request_ids.version();
        let id = format!("bench-{order}-{version}");
        let hot = Hot::open(&admin, &id, PLACES, bench.plan.customers_in(order)).await?;
        let caller = testbed.caller("screening", Token::admin(&testbed.signer)?)?;
        let book = Arc::new(Book { caller, hot, request_ids });
        Ok(Self { order, request_ids, book, side: Side::new(named(order, request_ids), closed_load()) })
    }
}

fn named(order: Order, request_ids: RequestIds) -> String {
    let usual = format!("CreateScreening, {order} customers");
    match request_ids {
        RequestIds::Version7 => usual,
        RequestIds::Version4 => format!("{usual}, request_ids of version 4"),
    }
}

/// The kinds to measure: every order, and one with request_ids of version 4. That one has sequential customers if the
/// plan has any: random ones make most pages dirty themselves, and would hide what random ids cost.
fn kinds(orders: &[Order]) -> Vec<(Order, RequestIds)> {
    let mut kinds: Vec<_> = orders.iter().map(|order| (*order, RequestIds::Version7)).collect();
    if let Some(first) = orders.first() {
        kinds.insert(1, (*first, RequestIds::Version4));
    }
    kinds
}

/// The kind with this order and these ids.
fn of(kinds: &[Kind], order: Order, request_ids: RequestIds) -> Option<&Kind> {
    kinds.iter().find(|kind| (kind.order, kind.request_ids) == (order, request_ids))
}

fn closed_load() -> String {
    format!("closed, {CALLERS} callers")
}

pub(super) async fn measure(bench: &mut Bench<'_>, item: Item) -> Result<Section, Error> {
    let mut testbed = bench.testbed(item, &Setup::default()).await?;
    let (_baseline, greeting) = bench.baseline(&testbed).await?;
    let mut kinds = Vec::new();
    for kind in self::kinds(&bench.plan.orders()) {
        kinds.push(Kind::open(bench, &testbed, kind).await?);
    }
    let mut turns: Vec<usize> = (0..kinds.len()).collect();
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
        for turn in &turns {
            let kind = &mut kinds[*turn];
            kind.book.hot.fresh();
            let measured = bench.closed(&testbed, &kind.book, CALLERS).await?;
            kind.side.push(&measured);
            bookings += measured.worked;
            if (kind.order, kind.request_ids) == (usual, RequestIds::Version7) {
                kind.book.hot.fresh();
                let open = bench.open(&testbed, &kind.book, measured.rate() * SHARE).await?;
                unhurried.push(&open);
                bookings += open.worked;
            }
        }
        own += own_cpu().saturating_sub(used);
        // Otherwise the last kind would always meet the fullest tables.
        turns.reverse();
    }
    let caught_up = testbed.rest().await;
    let after = Bill::of(&mut testbed).await?;
    // Measured separately, so that the cost of a booking does not include reads.
    let book = of(&kinds, usual, RequestIds::Version7).map(|kind| Arc::clone(&kind.book));
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
    section.notes.push("request_ids are of version 7 where no other version is named".to_owned());
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
    let mut figures: Vec<Figure> =
        kinds.iter().filter(|kind| kind.request_ids == RequestIds::Version7).map(ratio).collect();
    for random in kinds.iter().filter(|kind| kind.request_ids == RequestIds::Version4) {
        let Some(ordered) = of(kinds, random.order, RequestIds::Version7) else { continue };
        let name = format!("rate with request_ids of version 4 against version 7, {} customers", random.order);
        let ratio = Figure::new(name, "×", random.side.rate.over(&ordered.side.rate));
        figures.push(ratio.goal(Bound::AtLeast(VERSION_4)));
    }
    figures
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
