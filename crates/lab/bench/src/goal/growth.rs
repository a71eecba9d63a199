//! Growth: the speed, memory and disk use of the services with a hundred times as many hospitals and bookings.
//!
//! Everything is made through the services, so that `checkup verify` can check all of it. Making it is a long run in
//! itself: the rate of the last bookings and the memory after them show whether something grows that must not.

mod population;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mesh::Signal;
use mesh::child::Child;
use tokio::time::Instant;

use super::pages::lists::{Subjects, lists};
use super::{Bench, deletion, pages};
use crate::caller::{Caller, Token};
use crate::load::{Measured, all};
use crate::section::{Bound, Figure, Rows, Section};
use crate::series::{Series, figure};
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item, proc};

use population::{Population, customer_name, hospital_name};

/// The share of the whole that exists at each stage.
const STAGES: [f64; 3] = [0.01, 0.1, 1.0];
/// The number of callers that book.
const CALLERS: usize = 256;
/// The number of callers that make hospitals. Each call makes many slots.
const ADMINS: usize = 8;
/// The share of a stage's bookings that its rate is measured on: the last ones.
const RATE_SHARE: f64 = 0.2;
/// How long a command of the program may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60 * 60);
const MEBIBYTE: f64 = 1_048_576.0;

/// The measurements of one stage.
struct StageMeasurement {
    hospitals: usize,
    slots: usize,
    bookings: usize,
    /// Bookings per second and their p99 in milliseconds, of the last bookings.
    rate: f64,
    p99: f64,
    /// Resident memory in MiB at the end of the stage, and its maximum.
    resident: [f64; 2],
    /// The size of the data files in MiB.
    stored: f64,
    /// The median time of a first page in milliseconds, per list.
    pages: Vec<(&'static str, f64)>,
    verify: Duration,
    rebuild: Duration,
    deletion: Duration,
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let mut testbed = bench.testbed(Item::Growth, &Setup::default()).await?;
    let mut population = Population::new(&testbed, bench.plan)?;
    let mut measurements = Vec::new();
    for share in STAGES {
        match measurement(bench, &testbed, &mut population, share).await {
            Ok(found) => measurements.push(found),
            Err(error) => {
                let ended = testbed.last_words().map(|words| format!("; the services have ended: {words}"));
                let (share, ended) = (share * 100.0, ended.unwrap_or_default());
                return Err(Error::failed(format!("at {share:.0} % of the whole: {error}{ended}")));
            }
        }
    }
    let mut section = Section::new(Item::Growth, bench.topology);
    section.figures = figures(&measurements);
    section.rows = vec![table(&measurements), page_table(&measurements)];
    section.notes.push(format!(
        "one run, no pairs: everything was made through the services and `checkup verify` found at every stage that all of it \
         agrees; the rate is that of the last {:.0} % of a stage's bookings by {CALLERS} callers, views not waited for; deleted is \
         a hospital with {} bookings",
        RATE_SHARE * 100.0,
        bench.plan.sizes.doomed
    ));
    testbed.stop().await?;
    Ok(section)
}

async fn measurement(
    bench: &Bench<'_>,
    testbed: &Testbed,
    population: &mut Population,
    share: f64,
) -> Result<StageMeasurement, Error> {
    let of = |whole: usize| ((whole as f64 * share).round() as usize).max(1);
    let sizes = bench.plan.sizes;
    let (hospitals, bookings) = (of(sizes.hospitals), of(sizes.screenings));
    let stage = format!("growth {:.0} %", share * 100.0);
    (bench.say)(crate::Step::Phase(format!("{stage}: hospitals"), None));
    let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
    let opening = population.hospitals(&admin, hospitals);
    expect(all(&opening.work, ADMINS, opening.calls).await?, opening.calls)?;
    testbed.settle().await?;
    (bench.say)(crate::Step::Phase(format!("{stage}: bookings"), None));
    let last = book(population, bookings).await?;
    testbed.settle().await?;

    (bench.say)(crate::Step::Phase(format!("{stage}: pages"), None));
    let subjects = Subjects { hospital: hospital_name(0), customer: customer_name(0), date: population.begin() };
    let mut times = Vec::new();
    for list in lists(testbed, &subjects)? {
        times.push((list.name, pages::page(&list, "").await?));
    }
    (bench.say)(crate::Step::Phase(format!("{stage}: verify"), None));
    let addr = testbed.addr("screening")?.to_string();
    let verify = run(bench, testbed.directory(), &["verify", "--addr", &addr, "--settle", "60s"]).await?;
    (bench.say)(crate::Step::Phase(format!("{stage}: rebuild"), None));
    let rebuild = run(bench, testbed.directory(), &["rebuild", "mypage", "--wait", "1h"]).await?;
    (bench.say)(crate::Step::Phase(format!("{stage}: deletion"), None));
    let deletion = delete(testbed, population, &admin).await?;
    testbed.settle().await?;
    let pids = || testbed.processes().into_iter().flat_map(|(_, pids)| pids);
    let resident = [proc::resident, proc::most_resident].map(|of| pids().map(of).sum::<u64>() as f64 / MEBIBYTE);
    Ok(StageMeasurement {
        hospitals,
        slots: hospitals * sizes.dates,
        bookings,
        rate: last.rate(),
        p99: last.at(0.99),
        resident,
        stored: stored(testbed.directory())? as f64 / MEBIBYTE,
        pages: times,
        verify,
        rebuild,
        deletion,
    })
}

/// Books until there are `until` bookings, and measures the last ones.
async fn book(population: &mut Population, until: usize) -> Result<Measured, Error> {
    let missing = until.saturating_sub(population.booked);
    let last = ((missing as f64 * RATE_SHARE) as usize).max(1);
    let mut so_many = async |count| expect(all(&population.bookings(count), CALLERS, count).await?, count);
    so_many(missing.saturating_sub(last)).await?;
    so_many(last).await
}

/// Deletes a fully booked hospital. Returns the time until none of its bookings is CONFIRMED.
async fn delete(testbed: &Testbed, population: &mut Population, admin: &Caller) -> Result<Duration, Error> {
    let (doomed, filling) = population.doomed(admin).await?;
    expect(all(&filling.work, CALLERS, filling.calls).await?, filling.calls)?;
    testbed.settle().await?;
    deletion::delete(testbed, admin, &doomed).await.map(|(_, cancelled)| cancelled)
}

fn expect(measured: Measured, calls: usize) -> Result<Measured, Error> {
    if measured.done == calls as u64 {
        return Ok(measured);
    }
    Err(Error::failed(format!("only {} of {calls} calls did what they were to do", measured.done)))
}

/// Runs a command of the program on the services' directory, which must succeed. Returns how long it took.
async fn run(bench: &Bench<'_>, directory: &Path, arguments: &[&str]) -> Result<Duration, Error> {
    let mut command = Command::new(&bench.plan.binary);
    command.args(arguments).arg("--data-dir").arg(directory);
    mesh::without_settings(&mut command);
    let begun = Instant::now();
    let mut child = Child::spawn(format!("checkup {}", arguments[0]), command, Signal::TERM, None)?;
    let status = child.ended(COMMAND_TIMEOUT).await?;
    let took = begun.elapsed();
    if status.success() { Ok(took) } else { Err(Error::failed(format!("{status}:\n{}", child.output().tail(20)))) }
}

/// The number of bytes in the files of a directory.
fn stored(directory: &Path) -> Result<u64, Error> {
    let entries = std::fs::read_dir(directory).map_err(Error::system("read the data directory"))?;
    Ok(entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum())
}

fn figures(measurements: &[StageMeasurement]) -> Vec<Figure> {
    let (Some(few), Some(many)) = (measurements.first(), measurements.last()) else { return Vec::new() };
    let one = |value: f64| [value].into_iter().collect::<Series>();
    let each = |took: Duration, measurement: &StageMeasurement| took.as_secs_f64() / measurement.bookings as f64;
    let mut figures = vec![
        Figure::new("resident, against the first stage", "×", one(many.resident[0] / few.resident[0]))
            .goal(Bound::AtMost(1.5)),
        Figure::new("rate of bookings, against the first stage", "×", one(many.rate / few.rate)),
        Figure::new(
            "verify, a booking, against the first stage",
            "×",
            one(each(many.verify, many) / each(few.verify, few)),
        ),
        Figure::new(
            "rebuild, a booking, against the first stage",
            "×",
            one(each(many.rebuild, many) / each(few.rebuild, few)),
        ),
        Figure::new(
            "deletion, against the first stage",
            "×",
            one(many.deletion.as_secs_f64() / few.deletion.as_secs_f64()),
        ),
    ];
    for ((name, long), (_, short)) in many.pages.iter().zip(&few.pages) {
        figures.push(Figure::new(format!("{name}, first page"), "×", one(long / short)).goal(Bound::AtMost(1.5)));
    }
    figures
}

fn table(measurements: &[StageMeasurement]) -> Rows {
    let row = |measurement: &StageMeasurement| {
        let counts = [measurement.hospitals, measurement.slots, measurement.bookings].map(|count| count as f64);
        let spans = [measurement.verify, measurement.rebuild, measurement.deletion].map(|span| span.as_secs_f64());
        let [resident, most] = measurement.resident;
        let values = counts
            .into_iter()
            .chain([measurement.rate, measurement.p99, resident, most, measurement.stored])
            .chain(spans);
        values.map(figure).collect()
    };
    let header = [
        "hospitals",
        "slots",
        "bookings",
        "bookings a second",
        "p99 ms",
        "resident MiB",
        "most MiB",
        "files MiB",
        "verify s",
        "rebuild s",
        "deletion s",
    ];
    Rows {
        title: "at every stage".to_owned(),
        header: header.map(str::to_owned).into(),
        rows: measurements.iter().map(row).collect(),
    }
}

fn page_table(measurements: &[StageMeasurement]) -> Rows {
    let lists = measurements.first().into_iter().flat_map(|measurement| measurement.pages.iter().enumerate());
    let row = |(index, (name, _)): (usize, &(&'static str, f64))| {
        let mut row = vec![(*name).to_owned()];
        row.extend(
            measurements
                .iter()
                .map(|measurement| measurement.pages.get(index).map_or_else(String::new, |(_, time)| figure(*time))),
        );
        row
    };
    let mut header = vec!["first page, median ms".to_owned()];
    header.extend(measurements.iter().map(|measurement| format!("{} bookings", figure(measurement.bookings as f64))));
    Rows { title: String::new(), header, rows: lists.map(row).collect() }
}
