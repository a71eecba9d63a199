//! P7: pages of long lists, alternating with the first page of short ones. Two meshes of the same kind run, one with
//! few rows and one with many.
//!
//! One hospital, one booking and their effects are made through the services. SQL then inserts copies of those rows
//! with other ids and times, because a million bookings by calls would take too long.

pub(super) mod lists;
mod rows;

use std::time::Duration;

use jiff::ToSpan;
use tokio::time::Instant;

use super::Bench;
use crate::hot::{AHEAD, today};
use crate::load::{histogram, milliseconds, record};
use crate::section::{Bound, Figure, Rows, Section};
use crate::series::{Series, figure};
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item};

use lists::{List, Subjects, lists};

/// The number of rows of the short lists.
const FEW: u64 = 1_000;
/// The page size of measured pages: the default of the contract.
const PAGE: i32 = 50;
/// The page size on the way to the middle: the largest that is allowed.
const STRIDE: i32 = 1_000;
/// The number of pages that a median is taken of.
const CALLS: u32 = 20;

/// The measurements of one list.
struct Times {
    name: &'static str,
    middle: String,
    passed: u64,
    /// The first page of the short list, measured beside `first` and beside `deep`.
    few: [Series; 2],
    first: Series,
    deep: Series,
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let (short, _) = prepare(bench, FEW).await?;
    let (long, inserted) = prepare(bench, bench.plan.sizes.rows).await?;
    let subjects = Subjects {
        hospital: format!("hospitals/{}", rows::HOSPITAL),
        customer: format!("customers/{}", rows::CUSTOMER),
        date: today() + AHEAD.days(),
    };
    let (short_lists, long_lists) = (lists(&short, &subjects)?, lists(&long, &subjects)?);
    bench.phase(Item::P7, bench.plan.pairs + long_lists.len() as u32);
    let mut times = Vec::new();
    for list in &long_lists {
        let (middle, passed) = walk(list, bench.plan.sizes.rows / 2).await?;
        let (few, first, deep) = Default::default();
        times.push(Times { name: list.name, middle, passed, few, first, deep });
        bench.done();
    }
    long.rest().await;
    for _ in 0..bench.plan.pairs {
        for (times, (short, long)) in times.iter_mut().zip(short_lists.iter().zip(&long_lists)) {
            times.few[0].push(page(short, "").await?);
            times.first.push(page(long, "").await?);
            times.few[1].push(page(short, "").await?);
            times.deep.push(page(long, &times.middle).await?);
        }
        bench.done();
    }
    let mut section = Section::new(Item::P7, bench.topology);
    for times in &times {
        let [beside_first, beside_deep] = &times.few;
        let ratios =
            [("first", times.first.over(beside_first)), ("a page in the middle", times.deep.over(beside_deep))];
        for (what, values) in ratios {
            let figure = Figure::new(format!("{}, {what}", times.name), "×", values);
            section.figures.push(figure.goal(Bound::AtMost(1.5)).limit(Bound::AtMost(3.0)));
        }
    }
    section.rows.push(table(&times));
    let rows = bench.plan.sizes.rows;
    section.notes.push(format!(
        "{} rows against {FEW}; inserted by SQL in {:.0} s as copies of rows that the services made, then VACUUM ANALYZE; {PAGE} \
         rows a page",
        figure(rows as f64),
        inserted.as_secs_f64()
    ));
    short.stop().await?;
    long.stop().await?;
    Ok(section)
}

/// Starts a mesh with every table in PostgreSQL and `count` rows in every list. Returns how long the insertion took.
async fn prepare(bench: &mut Bench<'_>, count: u64) -> Result<(Testbed, Duration), Error> {
    let mut testbed = bench.testbed(Item::P7, &Setup { no_files: true, ..Setup::default() }).await?;
    rows::template(&testbed, bench.plan.customers()).await?;
    testbed.rest().await;
    let begun = Instant::now();
    rows::multiply(&mut testbed, count, &|| bench.done(), &|steps| bench.phase(Item::P7, steps)).await?;
    let took = begun.elapsed();
    testbed.rest().await;
    Ok((testbed, took))
}

/// Reads pages until `rows` rows or the last page. Returns the token of the page there and how many rows precede it.
async fn walk(list: &List, rows: u64) -> Result<(String, u64), Error> {
    let (mut token, mut passed) = (String::new(), 0);
    loop {
        let page = (list.fetch)(token.clone(), STRIDE).await.map_err(Error::call(list.name))?;
        passed += page.rows as u64;
        if page.next.is_empty() {
            // The list is shorter: its last page is the deepest.
            return Ok((token, passed - page.rows as u64));
        }
        token = page.next;
        if passed >= rows {
            return Ok((token, passed));
        }
    }
}

/// The median time of a page in milliseconds.
pub(super) async fn page(list: &List, token: &str) -> Result<f64, Error> {
    let mut taken = histogram();
    for _ in 0..CALLS {
        let since = Instant::now();
        (list.fetch)(token.to_owned(), PAGE).await.map_err(Error::call(list.name))?;
        record(&mut taken, since.elapsed());
    }
    Ok(milliseconds(&taken, 0.5))
}

fn table(times: &[Times]) -> Rows {
    let row = |times: &Times| {
        let mut row = vec![times.name.to_owned()];
        row.extend([&times.few[0], &times.first, &times.deep].map(Series::text));
        row.push(figure(times.passed as f64));
        row
    };
    let header = ["list", "few rows, first: ms", "many rows, first: ms", "in the middle: ms", "rows before it"];
    Rows {
        title: format!("median of {CALLS} pages a turn"),
        header: header.map(str::to_owned).into(),
        rows: times.iter().map(row).collect(),
    }
}
