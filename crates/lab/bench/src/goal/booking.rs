//! P2 and P3: a whole booking on one hot slot, alternating with a hello-world call and with a read of one row; then
//! what it costs to wait for a place.
//!
//! Closed loops come first, because the bill is theirs alone: an open loop has smaller batches, so each of its bookings
//! costs more.

use std::sync::Arc;
use std::time::Duration;

use super::turns::Turns;
use super::{Bench, SHARE, queue};
use crate::caller::Token;
use crate::cost::Bill;
use crate::hot::{Book, Hot, PLACES, ReadOne, RequestIds};
use crate::section::{Bound, Figure, Section, Side};
use crate::series::figure;
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item, Order};

/// The number of callers.
const CALLERS: usize = 256;
/// The goal of the rate with request_ids of version 4 against version 7: a caller cannot be asked to know the
/// difference.
const VERSION_4: f64 = 0.95;

/// A kind of booking: the order of the customers, and the version of the request_ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    order: Order,
    request_ids: RequestIds,
}

impl Kind {
    const fn usual(order: Order) -> Self {
        Self { order, request_ids: RequestIds::Version7 }
    }

    /// The kinds to measure: every order, and one with request_ids of version 4. That one has sequential customers if
    /// the plan has any, so that nothing but the ids is in random order.
    fn all(orders: &[Order]) -> Vec<Self> {
        let mut kinds: Vec<Self> = orders.iter().map(|order| Self::usual(*order)).collect();
        if let Some(first) = kinds.first().copied() {
            kinds.insert(1, Self { request_ids: RequestIds::Version4, ..first });
        }
        kinds
    }

    fn name(self) -> String {
        let customers = format!("{} customers", self.order);
        match self.request_ids {
            RequestIds::Version7 => customers,
            RequestIds::Version4 => format!("{customers}, request_ids of version 4"),
        }
    }

    /// The goal of the rate against hello-world. The goal of P2 names no order; it follows from measurements with
    /// sequential customers and holds for them.
    fn rate_goal(self, item: Item) -> Option<Bound> {
        let bound = match (item, self.order) {
            (Item::P3, Order::Sequential) => 0.28,
            (Item::P3, Order::Random) => 0.22,
            (Item::P2, Order::Sequential) => 0.17,
            _ => return None,
        };
        (self.request_ids == RequestIds::Version7).then_some(Bound::AtLeast(bound))
    }

    /// The goal of the services' CPU time of a booking, in H. It, too, follows from sequential customers.
    fn cpu_goal(self, item: Item) -> Option<Bound> {
        let bound = if item == Item::P2 { 6.5 } else { 2.5 };
        (self == Self::usual(Order::Sequential)).then_some(Bound::AtMost(bound))
    }
}

/// The bookings of one kind.
struct Booked {
    kind: Kind,
    turns: Turns,
}

impl Booked {
    fn new(kind: Kind) -> Self {
        Self { kind, turns: Turns::new(format!("CreateScreening, {}", kind.name()), CALLERS) }
    }
}

/// Each kind has a hospital of its own, so that none uses up the dates of another.
async fn open_hospital(bench: &Bench<'_>, testbed: &Testbed, kind: Kind) -> Result<Arc<Book>, Error> {
    let Kind { order, request_ids } = kind;
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let id = format!("bench-{order}-{}", request_ids.version());
    let hot = Hot::open(&admin, &id, PLACES, bench.plan.customers_in(order)).await?;
    Ok(Arc::new(Book { caller: testbed.caller("screening", Token::admin(&testbed.signer)?)?, hot, request_ids }))
}

pub(super) async fn measure(bench: &mut Bench<'_>, item: Item) -> Result<Section, Error> {
    let mut testbed = bench.testbed(item, &Setup::default()).await?;
    let kinds = Kind::all(&bench.plan.orders());
    let mut books = Vec::new();
    for kind in &kinds {
        books.push(open_hospital(bench, &testbed, *kind).await?);
    }
    testbed.rest().await;
    let before = Bill::of(&mut testbed).await?;
    bench.phase(item, bench.plan.pairs * (4 + queue::TURNS + kinds.len() as u32));
    let (hello, booked, caught_up) = against_hello(bench, &testbed, &kinds, &books).await?;
    let after = Bill::of(&mut testbed).await?;

    let order = bench.plan.customers().order;
    let usual = kinds.iter().position(|kind| *kind == Kind::usual(order));
    let usual = usual.ok_or_else(|| Error::failed(format!("no {order} customers have booked")))?;
    let unhurried = unhurried(bench, &testbed, &books[usual], &booked[usual]).await?;
    let [reading, beside] = against_a_read(bench, &testbed, &books[usual], order).await?;

    let mut section = Section::new(item, bench.topology);
    section.figures = figures(item, &hello, &booked);
    section.figures.extend([
        Figure::new("rate against a read of one row", "×", beside.rate.over(&reading.rate)),
        Figure::new("p50, open loop", "ms", unhurried.latency[0].clone()),
        Figure::new("p99, open loop", "ms", unhurried.latency[1].clone()),
    ]);
    let h = hello.spent.mean();
    section.rows = booked.iter().map(|booked| booked.turns.spent.rows(&booked.turns.side.name, h)).collect();
    let bookings = booked.iter().map(|booked| booked.turns.spent.calls()).sum();
    section.rows.push(after.durable_since(&before, bookings, "a booking of the closed loops"));
    section.sides = vec![hello.side];
    section.sides.extend(booked.into_iter().map(|booked| booked.turns.side));
    section.sides.extend([unhurried, reading, beside]);
    section.notes = notes(h, caught_up);
    queue::measure(bench, &testbed, &mut section, CALLERS).await?;
    testbed.stop().await?;
    Ok(section)
}

/// Measures a hello-world call and every kind of booking, by turns. Returns also the longest time that the views needed
/// to catch up after a turn. The services must be at rest.
async fn against_hello(
    bench: &Bench<'_>,
    testbed: &Testbed,
    kinds: &[Kind],
    books: &[Arc<Book>],
) -> Result<(Turns, Vec<Booked>, Duration), Error> {
    let (baseline, greeting) = bench.baseline(testbed).await?;
    let mut hello = Turns::new("hello-world", CALLERS);
    let mut booked: Vec<Booked> = kinds.iter().map(|kind| Booked::new(*kind)).collect();
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    let mut caught_up = Duration::ZERO;
    let server = || vec![("the server".to_owned(), vec![baseline.pid()])];
    for _ in 0..bench.plan.pairs {
        hello.run(bench, testbed, &greeting, &server).await?;
        for index in &order {
            books[*index].hot.fresh();
            let turns = &mut booked[*index].turns;
            let rested = turns.run(bench, testbed, &books[*index], &|| testbed.processes()).await?;
            caught_up = caught_up.max(rested);
        }
        // Otherwise the last kind would always meet the fullest tables.
        order.reverse();
    }
    Ok((hello, booked, caught_up))
}

/// Measures latencies in open loops, each at a share of the rate that a closed loop had.
async fn unhurried(bench: &Bench<'_>, testbed: &Testbed, book: &Arc<Book>, booked: &Booked) -> Result<Side, Error> {
    let closed = &booked.turns.side;
    let mut side = Side::new(closed.name.clone(), format!("open, {:.0} % of its rate", SHARE * 100.0));
    for rate in closed.rate.values() {
        book.hot.fresh();
        side.push(&bench.open(testbed, book, rate * SHARE).await?);
    }
    Ok(side)
}

/// Measures a read of one row and a booking, pair by pair.
async fn against_a_read(
    bench: &Bench<'_>,
    testbed: &Testbed,
    book: &Arc<Book>,
    order: Order,
) -> Result<[Side; 2], Error> {
    let load = format!("closed, {CALLERS} callers");
    let reads = ReadOne::of(book).await?;
    let mut reading = Side::new("GetScreening, a read of one row", &*load);
    let mut booking = Side::new(format!("CreateScreening, {order} customers, beside it"), &*load);
    for _ in 0..bench.plan.pairs {
        reading.push(&bench.closed(testbed, &reads, CALLERS).await?);
        book.hot.fresh();
        booking.push(&bench.closed(testbed, book, CALLERS).await?);
    }
    Ok([reading, booking])
}

/// The figures of the closed loops: rates, then CPU time.
fn figures(item: Item, hello: &Turns, booked: &[Booked]) -> Vec<Figure> {
    let rate = |Booked { kind, turns }: &Booked| {
        let name = format!("rate against hello-world, {}", kind.name());
        let ratio = Figure::new(name, "×", turns.side.rate.over(&hello.side.rate));
        (kind.request_ids == RequestIds::Version7).then_some(Figure { goal: kind.rate_goal(item), ..ratio })
    };
    let version = |Booked { kind, turns }: &Booked| {
        let usual = booked.iter().find(|other| other.kind == Kind::usual(kind.order))?;
        let name = format!("rate with request_ids of version 4 against version 7, {} customers", kind.order);
        let ratio = Figure::new(name, "×", turns.side.rate.over(&usual.turns.side.rate));
        (kind.request_ids == RequestIds::Version4).then_some(ratio.goal(Bound::AtLeast(VERSION_4)))
    };
    let cpu = |Booked { kind, turns }: &Booked| {
        let name = format!("CPU of the services a booking, {}", kind.name());
        let in_h = Figure::new(name, "H", turns.spent.processes.over(&hello.spent.whole));
        Figure { goal: kind.cpu_goal(item), ..in_h }
    };
    let mut figures: Vec<Figure> = booked.iter().filter_map(rate).collect();
    figures.extend(booked.iter().filter_map(version));
    figures.extend(booked.iter().map(cpu));
    figures.push(Figure::new("H: CPU of a hello-world call, server and caller", "µs", hello.spent.whole.clone()));
    figures
}

fn notes(h: f64, caught_up: Duration) -> Vec<String> {
    vec![
        "request_ids are of version 7 where no other version is named".to_owned(),
        format!(
            "H is the CPU time of a hello-world call, its server's and its caller's, in the same pair; {} µs is the mean of all. That \
             of the services includes databases and broker, and counts from the beginning of a closed loop until everything is at \
             rest",
            figure(h)
        ),
        "commits: PostgreSQL's own count of all services, or what the writers of the embedded services count"
            .to_owned(),
        format!(
            "after a turn the processes rested within {:.1} s at most: that long the views needed to catch up; a minute \
             means that they had not, and that the cost is not all of it",
            caught_up.as_secs_f64()
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Used;
    use crate::load::{Measured, histogram};

    /// A turn of a second with so many calls, which cost so many milliseconds of CPU.
    fn push(turns: &mut Turns, calls: u64, processes: u64, callers: u64) {
        let took = Duration::from_secs(1);
        let measured = Measured { took, done: calls, refused: 0, worked: calls, latency: histogram(), unsent: 0 };
        let used = |millis| [Used { name: "all".to_owned(), cpu: Duration::from_millis(millis), written: 0 }];
        turns.push(&measured, &used(7_000), &used(7_000 + processes), Duration::from_millis(callers));
    }

    /// The figures of one turn each: H is 62 µs.
    fn judged(item: Item, orders: &[Order]) -> Vec<(String, f64, Option<bool>)> {
        let mut hello = Turns::new("hello-world", CALLERS);
        push(&mut hello, 10_000, 300, 320);
        let mut booked: Vec<Booked> = Kind::all(orders).into_iter().map(Booked::new).collect();
        for Booked { kind, turns } in &mut booked {
            match (kind.order, kind.request_ids) {
                (Order::Sequential, RequestIds::Version7) => push(turns, 3_000, 372, 100),
                (Order::Sequential, RequestIds::Version4) => push(turns, 2_700, 1_674, 100),
                (Order::Random, RequestIds::Version7) => push(turns, 2_100, 651, 100),
                (Order::Random, RequestIds::Version4) => push(turns, 2_079, 651, 100),
            }
        }
        let round = |value: f64| (value * 1_000.0).round() / 1_000.0;
        let figures = figures(item, &hello, &booked);
        figures.into_iter().map(|figure| (figure.name.clone(), round(figure.values.median()), figure.met())).collect()
    }

    fn expected(rows: &[(&str, f64, Option<bool>)]) -> Vec<(String, f64, Option<bool>)> {
        rows.iter().map(|(name, value, met)| ((*name).to_owned(), *value, *met)).collect()
    }

    #[test]
    fn each_order_has_its_figures_and_goals() {
        let mut rows = [
            ("rate against hello-world, sequential customers", 0.3, Some(true)),
            ("rate against hello-world, random customers", 0.21, Some(false)),
            ("rate with request_ids of version 4 against version 7, sequential customers", 0.9, Some(false)),
            ("CPU of the services a booking, sequential customers", 2.0, Some(true)),
            ("CPU of the services a booking, sequential customers, request_ids of version 4", 10.0, None),
            ("CPU of the services a booking, random customers", 5.0, None),
            ("H: CPU of a hello-world call, server and caller", 62.0, None),
        ];
        assert_eq!(judged(Item::P3, &Order::ALL), expected(&rows));
        rows[1].2 = None;
        assert_eq!(judged(Item::P2, &Order::ALL), expected(&rows), "P2 has no goal for random customers");
    }

    #[test]
    fn one_order_is_measured_alone_with_both_versions() {
        let rows = [
            ("rate against hello-world, random customers", 0.21, Some(false)),
            ("rate with request_ids of version 4 against version 7, random customers", 0.99, Some(true)),
            ("CPU of the services a booking, random customers", 5.0, None),
            ("CPU of the services a booking, random customers, request_ids of version 4", 5.051, None),
            ("H: CPU of a hello-world call, server and caller", 62.0, None),
        ];
        assert_eq!(judged(Item::P3, &[Order::Random]), expected(&rows));
    }

    #[test]
    fn p2_and_p3_have_goals_of_their_own() {
        let sequential = Kind::usual(Order::Sequential);
        let bounds = |item| (sequential.rate_goal(item), sequential.cpu_goal(item));
        assert_eq!(bounds(Item::P3), (Some(Bound::AtLeast(0.28)), Some(Bound::AtMost(2.5))));
        assert_eq!(bounds(Item::P2), (Some(Bound::AtLeast(0.17)), Some(Bound::AtMost(6.5))));
        assert_eq!(Kind::usual(Order::Random).rate_goal(Item::P3), Some(Bound::AtLeast(0.22)));
    }
}
