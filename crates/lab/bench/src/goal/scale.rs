//! Scale: bookings on meshes with one to three replicas of each service and one to 64 hot slots, against the model of
//! what a booking costs there. Hot slots are hot dates of as many hospitals.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;
use tonic::Status;

use super::Bench;
use super::turns::Turns;
use crate::caller::Token;
use crate::cost::{Bill, Used};
use crate::hot::{Book, Hot, PLACES};
use crate::load::{Answer, Work};
use crate::model::{FEWER, Ledger, Model, PRESENCE, Point, TOLERANCE, off};
use crate::section::{Bound, Figure, Rows, Section, Side};
use crate::series::figure;
use crate::testbed::{Setup, Testbed};
use crate::{Error, Item, proc};

/// The number of callers, as in P2.
const CALLERS: usize = 256;
const REPLICAS: [u32; 3] = [1, 2, 3];
const SLOTS: [u32; 3] = [1, 4, 64];
/// How long the processes are watched while nobody calls.
const REST_SAMPLE: Duration = Duration::from_secs(5);
const MEBIBYTE: f64 = 1_048_576.0;

/// A measurement of the grid, or the second one of the calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    point: Point,
    callers: usize,
}

impl Load {
    /// The loads of a mesh with so many replicas: every number of slots, and what the model is calibrated with.
    fn all(replicas: u32) -> Vec<Self> {
        let at = |slots| Self { point: Point { replicas, slots }, callers: CALLERS };
        let mut loads: Vec<Self> = SLOTS.into_iter().map(at).collect();
        if replicas == Model::POINT.replicas {
            loads.insert(1, Self { point: Model::POINT, callers: CALLERS / FEWER as usize });
        }
        loads
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { replicas, slots } = self.point;
        let many = |count| if count == 1 { "" } else { "s" };
        write!(f, "{replicas} replica{}, {slots} slot{}", many(replicas), many(slots))?;
        if self.callers == CALLERS { Ok(()) } else { write!(f, ", {} callers", self.callers) }
    }
}

/// What was measured under a load.
#[derive(Debug)]
struct Measurement {
    load: Load,
    ledger: Ledger,
    sides: [Side; 2],
}

/// Bookings on several hot slots by turns.
#[derive(Debug)]
struct Spread {
    books: Vec<Book>,
    next: AtomicUsize,
}

impl Spread {
    /// Makes a hospital for each slot. The callers divide among the replicas of Screening.
    async fn open(bench: &Bench<'_>, testbed: &Testbed, load: Load) -> Result<Arc<Self>, Error> {
        let admin = testbed.caller("hospital", Token::admin(&testbed.signer)?)?;
        let caller = testbed.caller_of_all("screening", Token::admin(&testbed.signer)?)?;
        let mut books = Vec::new();
        for index in 0..load.point.slots {
            let id = format!("bench-{}-{}-{index}", load.callers, load.point.slots);
            books.push(Book::new(caller.clone(), Hot::open(&admin, &id, PLACES, bench.plan.customers()).await?));
        }
        Ok(Arc::new(Self { books, next: AtomicUsize::new(0) }))
    }

    /// Moves to dates without bookings, so that no turn depends on an earlier one.
    fn fresh(&self) {
        self.books.iter().for_each(|book| book.hot.fresh());
    }
}

impl Work for Spread {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.books[next % self.books.len()].call(caller).await
    }
}

/// What the mesh has made up to a moment.
struct Stand {
    bill: Bill,
    /// Messages and bytes of the broker's stream.
    stream: [f64; 2],
}

impl Stand {
    async fn of(testbed: &mut Testbed) -> Result<Self, Error> {
        let bill = Bill::of(testbed).await?;
        let described = testbed.mesh()?.nats().operate("$JS.API.STREAM.INFO.checkup", "").await?;
        Ok(Self { bill, stream: stream_state(&described)? })
    }
}

/// Messages and bytes, of what the broker says of a stream.
fn stream_state(described: &str) -> Result<[f64; 2], Error> {
    let value: Value = serde_json::from_str(described).unwrap_or_default();
    let field = |name: &str| value["state"][name].as_f64();
    let both = field("messages").zip(field("bytes"));
    both.map(Into::into).ok_or_else(|| Error::failed(format!("the broker describes no stream: {described}")))
}

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let mut measurements = Vec::new();
    for replicas in REPLICAS {
        let setup = Setup { each: replicas as usize, ..Setup::default() };
        let mut testbed = bench.testbed(Item::Scale, &setup).await?;
        measurements.extend(on(bench, &mut testbed, replicas).await?);
        testbed.stop().await?;
    }
    section(bench.topology, measurements)
}

/// Measures every load of one mesh.
async fn on(bench: &Bench<'_>, testbed: &mut Testbed, replicas: u32) -> Result<Vec<Measurement>, Error> {
    let loads = Load::all(replicas);
    bench.phase(Item::Scale, bench.plan.pairs * 2 * loads.len() as u32);
    testbed.rest().await;
    let at_rest = at_rest(testbed).await;
    let mut measurements = Vec::new();
    for load in loads {
        measurements.push(under(bench, testbed, load, at_rest).await?);
    }
    Ok(measurements)
}

/// Measures a booking under one load, by turns with a hello-world call.
async fn under(bench: &Bench<'_>, testbed: &mut Testbed, load: Load, at_rest: f64) -> Result<Measurement, Error> {
    let (baseline, greeting) = bench.baseline(testbed).await?;
    let spread = Spread::open(bench, testbed, load).await?;
    testbed.rest().await;
    // After a checkpoint, the log gets a copy of each page that changes for the first time. With one before each load,
    // none pays for another.
    testbed.mesh()?.postgres().sql("postgres", "CHECKPOINT").await?;
    let before = Stand::of(testbed).await?;
    let mut hello = Turns::new(format!("hello-world, beside {load}"), load.callers);
    let mut booked = Turns::new(format!("CreateScreening, {load}"), load.callers);
    let (bed, server) = (&*testbed, || vec![("the server".to_owned(), vec![baseline.pid()])]);
    for _ in 0..bench.plan.pairs {
        hello.run(bench, bed, &greeting, &server).await?;
        spread.fresh();
        booked.run(bench, bed, &spread, &|| bed.processes()).await?;
    }
    let after = Stand::of(testbed).await?;
    let ledger = Ledger { at_rest, ..ledger(&hello, &booked, [&before, &after])? };
    let ledger = present(testbed, ledger).await?;
    Ok(Measurement { load, ledger, sides: [hello.side, booked.side] })
}

/// What a booking cost.
fn ledger(hello: &Turns, booked: &Turns, [before, after]: [&Stand; 2]) -> Result<Ledger, Error> {
    let bookings = booked.spent.calls() as f64;
    let made = after.bill.made_since(&before.bill).ok_or_else(|| Error::failed("PostgreSQL tells no log"))?;
    let h = hello.spent.mean();
    let [messages, stream] = std::array::from_fn(|index| (after.stream[index] - before.stream[index]) / bookings);
    Ok(Ledger {
        cpu: booked.spent.by_service().into_iter().map(|(name, micros)| (name, micros / h)).collect(),
        callers: booked.spent.of_callers() / h,
        rate: booked.side.rate.over(&hello.side.rate).median(),
        per_second: booked.side.rate.median(),
        h,
        wal: made.bytes / bookings,
        commits: made.commits / bookings,
        messages,
        stream,
        ..Ledger::default()
    })
}

/// Adds what the processes hold: connections to PostgreSQL, and memory.
async fn present(testbed: &mut Testbed, ledger: Ledger) -> Result<Ledger, Error> {
    let mesh = testbed.mesh()?;
    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'checkup'";
    let text = mesh.postgres().sql("postgres", query).await?;
    let connections = text.trim().parse().map_err(|_| Error::failed(format!("{text} is no number of connections")))?;
    let resident: u64 = mesh.replicas().iter().filter_map(mesh::Replica::pid).map(proc::resident).sum();
    let own: u64 = mesh.postgres_pid().map(proc::family).unwrap_or_default().into_iter().map(proc::anonymous).sum();
    Ok(Ledger { connections, memory: resident as f64 / MEBIBYTE, own_memory: own as f64 / MEBIBYTE, ..ledger })
}

/// The CPU time that the processes use while nobody calls, in cores.
async fn at_rest(testbed: &Testbed) -> f64 {
    let used = || Used::of(testbed.processes()).iter().map(|used| used.cpu).sum::<Duration>();
    let before = used();
    sleep(REST_SAMPLE).await;
    used().saturating_sub(before).as_secs_f64() / REST_SAMPLE.as_secs_f64()
}

/// Calibrates the model with the first point and holds it to the others.
fn section(topology: crate::Topology, measurements: Vec<Measurement>) -> Result<Section, Error> {
    let [crowded, sparse] = [CALLERS, CALLERS / FEWER as usize].map(|callers| {
        let load = Load { point: Model::POINT, callers };
        let found = measurements.iter().find(|measurement| measurement.load == load);
        found.map(|found| found.ledger.clone()).ok_or_else(|| Error::failed(format!("{load} was not measured")))
    });
    let model = Model { crowded: crowded?, sparse: sparse? };
    let grid: Vec<&Measurement> = measurements.iter().filter(|one| one.load.callers == CALLERS).collect();
    let predicted: Vec<Ledger> = grid.iter().map(|one| model.predict(one.load.point)).collect();
    let mut section = Section::new(Item::Scale, topology);
    section.figures = figures(&grid, &predicted);
    section.rows = vec![compared(&grid, &predicted), by_group(&grid, &predicted), calibration(&model)];
    section.notes = vec![
        "replicas of each service; hot slots are one date of as many hospitals, each with as many bookings".to_owned(),
        format!(
            "the model is calibrated by the first point with {CALLERS} and with {} callers, and says the rest; no other point is in it",
            CALLERS / FEWER as usize
        ),
        "the stream is what the broker keeps; PostgreSQL's own memory is what its processes do not share; connections are those of \
         the services"
            .to_owned(),
    ];
    section.sides = measurements.into_iter().flat_map(|measurement| measurement.sides).collect();
    Ok(section)
}

/// For each quantity, the point that is furthest from the model. The point of the calibration does not count.
fn figures(grid: &[&Measurement], predicted: &[Ledger]) -> Vec<Figure> {
    let names = Ledger::default().quantities().map(|(name, _)| name);
    let furthest = |(index, name): (usize, &str)| {
        let others = grid.iter().zip(predicted).filter(|(one, _)| one.load.point != Model::POINT);
        let distance = |(one, predicted): (&&Measurement, &Ledger)| {
            (off(one.ledger.quantities()[index].1, predicted.quantities()[index].1), one.load)
        };
        let (worst, load) = others.map(distance).max_by(|one, other| one.0.total_cmp(&other.0))?;
        let name = format!("{name}: measured against the model, furthest at {load}");
        Some(Figure::new(name, "×", [worst].into_iter().collect()).goal(Bound::AtMost(TOLERANCE)))
    };
    names.into_iter().enumerate().filter_map(furthest).collect()
}

/// Every quantity at every point: measured, and in brackets what the model says.
fn compared(grid: &[&Measurement], predicted: &[Ledger]) -> Rows {
    let names = Ledger::default().quantities().map(|(name, _)| name);
    let row = |(index, name): (usize, &str)| {
        let cell = |(one, predicted): (&&Measurement, &Ledger)| {
            format!("{} ({})", figure(one.ledger.quantities()[index].1), figure(predicted.quantities()[index].1))
        };
        std::iter::once(name.to_owned()).chain(grid.iter().zip(predicted).map(cell)).collect()
    };
    let rows = names.into_iter().enumerate().map(row).collect();
    Rows { title: "measured, and in brackets what the model says".to_owned(), header: header("quantity", grid), rows }
}

/// CPU time of a booking by group of processes: in H, in brackets what the model says, and in µs.
fn by_group(grid: &[&Measurement], predicted: &[Ledger]) -> Rows {
    let mut groups: Vec<String> = grid.first().map(|one| one.ledger.cpu.keys().cloned().collect()).unwrap_or_default();
    groups.push(PRESENCE.to_owned());
    let row = |group: &String| {
        let cell = |(one, predicted): (&&Measurement, &Ledger)| {
            let of = |cpu: &BTreeMap<String, f64>| cpu.get(group).copied().unwrap_or_default();
            let (measured, said) = (of(&one.ledger.cpu), of(&predicted.cpu));
            if group == PRESENCE {
                return format!("({})", figure(said));
            }
            format!("{} ({}) H, {} µs", figure(measured), figure(said), figure(measured * one.ledger.h))
        };
        std::iter::once(group.clone()).chain(grid.iter().zip(predicted).map(cell)).collect()
    };
    let rows = groups.iter().map(row).collect();
    let title = "CPU of a booking: measured, in brackets what the model says, and measured in µs".to_owned();
    Rows { title, header: header("processes", grid), rows }
}

/// What the model is made of.
fn calibration(model: &Model) -> Rows {
    let cells = |((name, crowded), (_, sparse)): ((&str, f64), (&str, f64))| {
        vec![name.to_owned(), figure(crowded), figure(sparse)]
    };
    let rows = model.crowded.quantities().into_iter().zip(model.sparse.quantities()).map(cells).collect();
    let callers = |callers: usize| format!("{callers} callers");
    let header = vec!["quantity".to_owned(), callers(CALLERS), callers(CALLERS / FEWER as usize)];
    Rows { title: "the calibration, 1 replica and 1 slot".to_owned(), header, rows }
}

fn header(first: &str, grid: &[&Measurement]) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(grid.iter().map(|one| one.load.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Topology;
    use crate::model::tests::ledger;

    /// A mesh that is as the model says, whose log is `more` times as long on three replicas.
    fn measured(more: f64) -> Vec<Measurement> {
        let model = Model { crowded: ledger(1.0), sparse: ledger(1.2) };
        let measurement = |load: Load| {
            let mut ledger = if load.callers == CALLERS { model.predict(load.point) } else { model.sparse.clone() };
            ledger.cpu.remove(PRESENCE);
            ledger.wal *= if load.point.replicas == 3 { more } else { 1.0 };
            let sides = [Side::new("hello-world", ""), Side::new("CreateScreening", "")];
            Measurement { load, ledger, sides }
        };
        REPLICAS.into_iter().flat_map(Load::all).map(measurement).collect()
    }

    fn verdicts(more: f64) -> Vec<(String, Option<bool>)> {
        let section = section(Topology::Mesh, measured(more)).unwrap();
        section.figures.into_iter().map(|figure| (figure.name.clone(), figure.met())).collect()
    }

    #[test]
    fn a_mesh_that_is_as_the_model_says_meets_it() {
        let verdicts = verdicts(1.0);
        assert_eq!(verdicts.len(), 10);
        assert!(verdicts.iter().all(|(_, met)| *met == Some(true)), "{verdicts:?}");
    }

    #[test]
    fn one_quantity_at_one_number_of_replicas_is_enough_to_miss_it() {
        let missed: Vec<String> =
            verdicts(1.5).into_iter().filter(|(_, met)| *met != Some(true)).map(|(name, _)| name).collect();
        assert_eq!(missed.len(), 1, "{missed:?}");
        assert!(missed[0].starts_with("PostgreSQL's log a booking, bytes: "), "{missed:?}");
        assert!(missed[0].contains("furthest at 3 replicas, "), "{missed:?}");
    }

    #[test]
    fn every_point_is_shown_beside_what_the_model_says() {
        let section = section(Topology::Mesh, measured(1.0)).unwrap();
        assert_eq!(section.rows[0].header.len(), 1 + REPLICAS.len() * SLOTS.len());
        assert_eq!(section.rows[0].header[1], "1 replica, 1 slot");
        assert_eq!(section.rows[0].rows[0][1], "8.00 (8.00)");
        assert_eq!(section.rows[1].rows[1][1], "2.00 (2.00) H, 80.0 µs");
        assert_eq!(section.rows[2].rows[2], ["PostgreSQL's log a booking, bytes", "4,000", "4,800"]);
        assert_eq!(section.sides.len(), 2 * (REPLICAS.len() * SLOTS.len() + 1));
    }

    #[test]
    fn without_its_calibration_there_is_no_model() {
        let others = measured(1.0).into_iter().filter(|one| one.load.callers == CALLERS).collect();
        let error = section(Topology::Mesh, others).unwrap_err().to_string();
        assert_eq!(error, "1 replica, 1 slot, 85 callers was not measured");
    }

    #[test]
    fn the_broker_tells_messages_and_bytes() {
        let described = r#"{"config":{"name":"checkup"},"state":{"messages":12,"bytes":3456,"first_seq":1}}"#;
        assert_eq!(stream_state(described).unwrap(), [12.0, 3456.0]);
        let refused = r#"{"error":{"code":404}}"#;
        assert!(stream_state(refused).unwrap_err().to_string().contains("404"));
    }
}
