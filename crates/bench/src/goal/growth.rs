//! Growth: what the services do, keep in memory and on disk when there is a hundred times as much of everything.
//!
//! Everything is made through the services, so that `verify` can be asked whether all of it agrees, and so that filling is a
//! long run by itself: the rate of the last bookings and the memory after them tell whether anything grows that must not.

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
use crate::stand::{Setup, Stand};
use crate::{Error, Item, proc};

use population::{Population, customer_name, hospital_name};

/// What of the whole there is when it is looked at.
const STAGES: [f64; 3] = [0.01, 0.1, 1.0];
/// Callers that book.
const CALLERS: usize = 256;
/// Callers that make hospitals: each makes many slots at once.
const ADMINS: usize = 8;
/// What of a stage's bookings its rate is taken of: the last ones.
const LAST: f64 = 0.2;
/// How long a command of the program may take.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
const MEBIBYTE: f64 = 1_048_576.0;

/// What was found at a stage.
struct Look {
    hospitals: usize,
    slots: usize,
    bookings: usize,
    /// Bookings a second and their p99, of the last ones.
    rate: f64,
    p99: f64,
    /// MiB after everything else was done, and the most there were.
    resident: [f64; 2],
    /// MiB of files.
    stored: f64,
    /// Median milliseconds of a first page, by list.
    pages: Vec<(&'static str, f64)>,
    verify: Duration,
    rebuild: Duration,
    deletion: Duration,
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let mut stand = bench.stand(Item::Growth, &Setup::default()).await?;
    let mut population = Population::new(&stand, bench.plan.sizes)?;
    let mut looks = Vec::new();
    for share in STAGES {
        match look(bench, &stand, &mut population, share).await {
            Ok(found) => looks.push(found),
            Err(error) => {
                let ended = stand.last_words().map(|words| format!("; the services have ended: {words}"));
                let (share, ended) = (share * 100.0, ended.unwrap_or_default());
                return Err(Error::failed(format!("at {share:.0} % of the whole: {error}{ended}")));
            }
        }
    }
    let mut section = Section::new(Item::Growth, bench.topology);
    section.figures = figures(&looks);
    section.rows = vec![table(&looks), page_table(&looks)];
    section.notes.push(format!(
        "one run, no pairs: everything was made through the services and `checkup verify` found at every stage that all of it \
         agrees; the rate is that of the last {:.0} % of a stage's bookings by {CALLERS} callers, views not waited for; deleted is \
         a hospital with {} bookings",
        LAST * 100.0,
        bench.plan.sizes.doomed
    ));
    stand.stop().await?;
    Ok(section)
}

async fn look(bench: &Bench<'_>, stand: &Stand, population: &mut Population, share: f64) -> Result<Look, Error> {
    let of = |whole: usize| ((whole as f64 * share).round() as usize).max(1);
    let sizes = bench.plan.sizes;
    let (hospitals, bookings) = (of(sizes.hospitals), of(sizes.screenings));
    let stage = format!("growth {:.0} %", share * 100.0);
    (bench.say)(crate::Step::Phase(format!("{stage}: hospitals"), None));
    let admin = stand.caller("hospital", Token::admin(&stand.signer)?)?;
    let opening = population.hospitals(&admin, hospitals);
    expect(all(&opening.work, ADMINS, opening.calls).await?, opening.calls)?;
    stand.settle().await?;
    (bench.say)(crate::Step::Phase(format!("{stage}: bookings"), None));
    let last = book(population, bookings).await?;
    stand.settle().await?;

    (bench.say)(crate::Step::Phase(format!("{stage}: pages"), None));
    let subjects = Subjects { hospital: hospital_name(0), customer: customer_name(0), date: population.begin() };
    let mut times = Vec::new();
    for list in lists(stand, &subjects)? {
        times.push((list.name, pages::page(&list, "").await?));
    }
    (bench.say)(crate::Step::Phase(format!("{stage}: verify"), None));
    let addr = stand.addr("screening")?.to_string();
    let verify = run(bench, stand.directory(), &["verify", "--addr", &addr, "--settle", "60s"]).await?;
    (bench.say)(crate::Step::Phase(format!("{stage}: rebuild"), None));
    let rebuild = run(bench, stand.directory(), &["rebuild", "mypage", "--wait", "1h"]).await?;
    (bench.say)(crate::Step::Phase(format!("{stage}: deletion"), None));
    let deletion = delete(stand, population, &admin).await?;
    stand.settle().await?;
    let pids = || stand.processes().into_iter().flat_map(|(_, pids)| pids);
    let resident = [proc::resident, proc::most_resident].map(|of| pids().map(of).sum::<u64>() as f64 / MEBIBYTE);
    Ok(Look {
        hospitals,
        slots: hospitals * sizes.dates,
        bookings,
        rate: last.rate(),
        p99: last.at(0.99),
        resident,
        stored: stored(stand.directory())? as f64 / MEBIBYTE,
        pages: times,
        verify,
        rebuild,
        deletion,
    })
}

/// Books until there are so many, and measures the last of them.
async fn book(population: &mut Population, until: usize) -> Result<Measured, Error> {
    let missing = until.saturating_sub(population.booked);
    let last = ((missing as f64 * LAST) as usize).max(1);
    let mut so_many = async |count| expect(all(&population.bookings(count), CALLERS, count).await?, count);
    so_many(missing.saturating_sub(last)).await?;
    so_many(last).await
}

/// A hospital whose places are all booked is deleted; how long until none of its bookings stands.
async fn delete(stand: &Stand, population: &mut Population, admin: &Caller) -> Result<Duration, Error> {
    let (doomed, filling) = population.doomed(admin).await?;
    expect(all(&filling.work, CALLERS, filling.calls).await?, filling.calls)?;
    stand.settle().await?;
    deletion::delete(stand, admin, &doomed).await.map(|(_, cancelled)| cancelled)
}

fn expect(measured: Measured, calls: usize) -> Result<Measured, Error> {
    if measured.done == calls as u64 {
        return Ok(measured);
    }
    Err(Error::failed(format!("only {} of {calls} calls did what they were to do", measured.done)))
}

/// Runs a command of the program on the services' directory; how long it took. It must find nothing wrong.
async fn run(bench: &Bench<'_>, directory: &Path, arguments: &[&str]) -> Result<Duration, Error> {
    let mut command = Command::new(&bench.plan.binary);
    command.args(arguments).arg("--data-dir").arg(directory);
    mesh::without_settings(&mut command);
    let begun = Instant::now();
    let mut child = Child::spawn(format!("checkup {}", arguments[0]), command, Signal::TERM, None)?;
    let status = child.ended(PATIENCE).await?;
    let took = begun.elapsed();
    if status.success() { Ok(took) } else { Err(Error::failed(format!("{status}:\n{}", child.output().tail(20)))) }
}

/// Bytes of the files of a directory.
fn stored(directory: &Path) -> Result<u64, Error> {
    let entries = std::fs::read_dir(directory).map_err(Error::system("read the data directory"))?;
    Ok(entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum())
}

fn figures(looks: &[Look]) -> Vec<Figure> {
    let (Some(few), Some(many)) = (looks.first(), looks.last()) else { return Vec::new() };
    let one = |value: f64| [value].into_iter().collect::<Series>();
    let each = |took: Duration, look: &Look| took.as_secs_f64() / look.bookings as f64;
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

fn table(looks: &[Look]) -> Rows {
    let row = |look: &Look| {
        let counts = [look.hospitals, look.slots, look.bookings].map(|count| count as f64);
        let spans = [look.verify, look.rebuild, look.deletion].map(|span| span.as_secs_f64());
        let [resident, most] = look.resident;
        let values = counts.into_iter().chain([look.rate, look.p99, resident, most, look.stored]).chain(spans);
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
        rows: looks.iter().map(row).collect(),
    }
}

fn page_table(looks: &[Look]) -> Rows {
    let lists = looks.first().into_iter().flat_map(|look| look.pages.iter().enumerate());
    let row = |(index, (name, _)): (usize, &(&'static str, f64))| {
        let mut row = vec![(*name).to_owned()];
        row.extend(looks.iter().map(|look| look.pages.get(index).map_or_else(String::new, |(_, time)| figure(*time))));
        row
    };
    let mut header = vec!["first page, median ms".to_owned()];
    header.extend(looks.iter().map(|look| format!("{} bookings", figure(look.bookings as f64))));
    Rows { title: String::new(), header, rows: lists.map(row).collect() }
}
