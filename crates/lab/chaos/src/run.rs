//! One run of a scenario: a mesh or an embedded process under load. [`finish`] turns the result into a row.

mod finish;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bench::Withheld;
use contract::hospital::v1 as hospital;
use mesh::{Layout, Mesh, Replica};
use tempfile::TempDir;
use testkit::{Party, Random, Tokens, day_of, in_days};
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::desk::Desk;
use crate::load::{Load, Pressure};
use crate::observed::{Observed, Slot};
use crate::pool::Pool;
use crate::sampler::Sampler;
use crate::stage::{Embedded, Stage};

/// How long the mesh, or a replica, may take to serve.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The log lines of a process that had to end before its work did.
const CUT_OFF_LOGS: [&str; 2] = ["tasks did not finish in time", "cutting the connections that are still open"];
/// The capacities of the slots. The first slot is small and has the most requests.
const CAPACITIES: [i32; 6] = [24, 100_000, 100_000, 100_000, 100_000, 400];
/// The services that yield the processors to those that take bookings: customers do not wait for views.
const VIEWS: [&str; 3] = ["reservation", "mypage", "marketing"];
/// How many times the load before a fault is measured while it is too low. After that the fault happens all the same.
const RATE_SAMPLES: u32 = 24;
const ZONE: &str = "Asia/Seoul";
/// How many may wait for a place on one slot: as many as a policy may allow.
const WAITLIST_LIMIT: i32 = 10_000;
/// How often a customer may move a booking: as often as a policy may allow.
const RESCHEDULE_LIMIT: i32 = 100;

/// How long and how hard a scenario is played.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The binary under test.
    pub binary: PathBuf,
    /// The binary of an earlier version, for the scenario that replaces it.
    pub before: Option<PathBuf>,
    /// The rate and the callers of the load.
    pub pressure: Pressure,
    /// How long the load runs unmeasured, so that connections are made and caches filled.
    pub warm_up: Duration,
    /// How long the load is measured before the first fault.
    pub steady: Duration,
    /// The answers per second that the measured load must reach. Otherwise it is measured again, because a fault under
    /// little load shows little.
    pub least: f64,
    /// How long a lasting fault lasts.
    pub fault: Duration,
    /// How long the load continues after each fault.
    pub after: Duration,
    /// How many times the fault happens.
    pub rounds: u32,
    /// The number of bookings, for scenarios that count them.
    pub bookings: usize,
    /// How long the services may take to agree after the load.
    pub settle: Duration,
    /// Whether logs and data are kept after a violation.
    pub keep: bool,
    /// The seed of all random choices.
    pub seed: u64,
}

/// How a scenario's mesh differs from the mesh of `mesh::Layout::new`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    pub(crate) replicas: Vec<(&'static str, usize)>,
    pub(crate) settings: Vec<String>,
    pub(crate) postgres: Option<PathBuf>,
    /// Whether the run starts without load, because the scenario makes its own.
    pub(crate) idle: bool,
}

#[derive(Debug, Clone, Copy)]
struct FaultMark {
    /// The moment from which the recovery is measured.
    from: Instant,
    /// The start of a lasting fault.
    lasted_from: Option<Instant>,
}

/// A stage under load: a mesh by default.
#[derive(Debug)]
pub(crate) struct Run<S = Mesh> {
    load: Option<Load>,
    sampler: Sampler,
    pub(crate) stage: S,
    pub(crate) desk: Desk,
    pub(crate) hospital: Pool,
    pub(crate) observed: Arc<Observed>,
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) notes: Vec<String>,
    begun: Instant,
    ended: Option<Instant>,
    steady: (Instant, Instant),
    withheld: Withheld,
    marks: Vec<FaultMark>,
    // Dropped last, because everything else lives in it.
    directory: TempDir,
}

impl Run<Mesh> {
    /// Starts a mesh and its load, and runs until the load is measured. Calls `wire` before it waits for the mesh.
    ///
    /// # Errors
    /// If the mesh does not start.
    pub(crate) async fn start(plan: &Plan, setup: Setup, wire: impl FnOnce(&mut Mesh)) -> Result<Self, Error> {
        let directory = directory()?;
        let mut layout = Layout::new(&plan.binary, directory.path());
        for (service, count) in &setup.replicas {
            layout = layout.replicas(service, *count);
        }
        layout.settings = setup.settings;
        layout.postgres = setup.postgres;
        layout.yielding = VIEWS.map(str::to_owned).into();
        let mut mesh = Mesh::start(layout, |_| {}).await?;
        wire(&mut mesh);
        mesh.ready(START_TIMEOUT).await?;
        Self::on(mesh, plan, setup.idle, directory).await
    }

    /// One replica of a service.
    ///
    /// # Errors
    /// If the mesh has no such replica.
    pub(crate) fn replica(&mut self, service: &str, index: usize) -> Result<&mut Replica, Error> {
        let missing = || Error::failed(format!("there is no {service}-{index}"));
        self.stage.replica(service, index).ok_or_else(missing)
    }

    /// Stops a replica with SIGTERM and starts it again. Returns how long it was away. Notes a stop that was cut off.
    ///
    /// # Errors
    /// If it does not stop, or does not serve again.
    pub(crate) async fn restart(&mut self, service: &str, index: usize) -> Result<Duration, Error> {
        let begun = Instant::now();
        let replica = self.replica(service, index)?;
        replica.stop().await?;
        let cut = |line: &String| CUT_OFF_LOGS.iter().any(|said| line.contains(said)).then(|| line.clone());
        let cut = replica.output().find(cut);
        replica.start()?;
        replica.ready(START_TIMEOUT).await?;
        let name = replica.name();
        self.notes.extend(cut.map(|line| format!("the stop of {name} was cut off: {line}")));
        Ok(begun.elapsed())
    }
}

impl Run<Embedded> {
    /// Starts one embedded process and its load, and runs until the load is measured. With `power` the
    /// disk can lose power.
    ///
    /// # Errors
    /// If it does not start, or if this machine has no disk that can be made to fail.
    pub(crate) async fn embedded(plan: &Plan, power: bool) -> Result<Self, Error> {
        let directory = directory()?;
        let stage = Embedded::start(&plan.binary, directory.path(), power).await?;
        Self::on(stage, plan, false, directory).await
    }

    /// Starts one embedded process without load, because the scenario makes its own.
    ///
    /// # Errors
    /// As [`Self::embedded`].
    pub(crate) async fn embedded_idle(plan: &Plan) -> Result<Self, Error> {
        let directory = directory()?;
        let stage = Embedded::start(&plan.binary, directory.path(), false).await?;
        Self::on(stage, plan, true, directory).await
    }

    /// Ends the process with SIGTERM and starts it again with these settings. Returns how long it was away. Notes an
    /// end that had to be cut off.
    ///
    /// # Errors
    /// If it does not end, or does not serve again.
    pub(crate) async fn start_again(&mut self, settings: &[(&str, &str)]) -> Result<Duration, Error> {
        let begun = Instant::now();
        let said = self.stage.terminate().await?;
        let cut = said.lines().find(|line| CUT_OFF_LOGS.iter().any(|cut| line.contains(cut)));
        self.notes.extend(cut.map(|line| format!("the end was cut off: {line}")));
        self.stage.set(settings);
        self.stage.restart().await?;
        self.stage.ready(START_TIMEOUT).await?;
        Ok(begun.elapsed())
    }
}

impl<S: Stage> Run<S> {
    /// Starts the load, unless `idle`, on a stage that serves.
    async fn on(stage: S, plan: &Plan, idle: bool, directory: TempDir) -> Result<Self, Error> {
        let tokens = Tokens::of(&stage.directory());
        let hospital = Pool::of(stage.addrs("hospital"))?;
        let desk = Desk { screening: Pool::of(stage.addrs("screening"))?, tokens };
        let capacities: Vec<i32> = if idle { Vec::new() } else { CAPACITIES.to_vec() };
        let slots = open(&hospital, &desk.tokens, "busy", &capacities).await?;
        let observed = Arc::new(Observed::new(slots));
        let auditor = desk.tokens.auditor();
        let sampler = Sampler::start(&hospital, &desk.screening, &auditor, "hospitals/busy", &observed);
        let mut random = Random::new(plan.seed);
        let now = Instant::now();
        let load = (!idle).then(|| Load::start(&desk, &observed, plan.pressure, &mut random));
        let (plan, marks, notes) = (plan.clone(), Vec::new(), Vec::new());
        let mut run = Self {
            load,
            sampler,
            stage,
            desk,
            hospital,
            observed,
            plan,
            random,
            notes,
            begun: now,
            ended: None,
            steady: (now, now),
            withheld: Withheld::from_now(),
            marks,
            directory,
        };
        if run.load.is_some() {
            sleep(run.plan.warm_up).await;
            run.measure_steady().await;
        }
        Ok(run)
    }

    /// Marks a momentary fault that happens now. The recovery is measured from here.
    pub(crate) fn strikes(&mut self) {
        self.struck(Instant::now());
    }

    /// Marks a momentary fault that happened at `at`.
    pub(crate) fn struck(&mut self, at: Instant) {
        self.marks.push(FaultMark { from: at, lasted_from: None });
    }

    /// Marks the end of a fault that began at `begun`. The recovery is measured from now on.
    pub(crate) fn is_over(&mut self, begun: Instant) {
        self.marks.push(FaultMark { from: Instant::now(), lasted_from: Some(begun) });
    }

    /// A party that is an admin of every hospital.
    pub(crate) fn admin(&self) -> Party {
        Party::new(self.hospital.next(), Some(&self.desk.tokens.admin("root", "*")))
    }

    /// Lets the load continue for this time.
    pub(crate) async fn goes_on(&self, span: Duration) {
        sleep(span).await;
    }

    /// Measures the rate before the fault, again while it is below the plan's, at most [`RATE_SAMPLES`] times.
    pub(crate) async fn measure_steady(&mut self) {
        for window in 1..=RATE_SAMPLES {
            self.steady.0 = Instant::now();
            sleep(self.plan.steady).await;
            self.steady.1 = Instant::now();
            if self.observed.answers.rate(self.steady.0, self.steady.1) >= self.plan.least {
                let waited = self.plan.steady * (window - 1);
                self.notes.extend((window > 1).then(|| format!("waited {} s for load enough", waited.as_secs())));
                return;
            }
        }
        let waited = self.plan.steady * RATE_SAMPLES;
        self.notes.push(format!("never {:.0} calls a second in {} s", self.plan.least, waited.as_secs()));
    }

    /// Ends the load early.
    pub(crate) async fn stop_load(&mut self) {
        if let Some(load) = self.load.take() {
            self.ended.get_or_insert_with(Instant::now);
            load.stop().await;
        }
    }

    /// Replaces the observed slots, for a scenario that makes its own load.
    pub(crate) fn sell(&mut self, slots: Vec<Slot>) {
        self.observed = Arc::new(Observed::new(slots));
        (self.begun, self.withheld) = (Instant::now(), Withheld::from_now());
        let parent = self.observed.slots().first().and_then(|slot| slot.name.split_once("/slots/"));
        let parent = parent.map(|(hospital, _)| hospital.to_owned()).unwrap_or_default();
        let auditor = self.desk.tokens.auditor();
        self.sampler = Sampler::start(&self.hospital, &self.desk.screening, &auditor, &parent, &self.observed);
    }
}

/// A temporary directory that another user, such as PostgreSQL's, can enter.
pub(crate) fn directory() -> Result<TempDir, Error> {
    use std::os::unix::fs::PermissionsExt;
    let everybody = std::fs::Permissions::from_mode(0o755);
    let made = tempfile::Builder::new().prefix("checkup-chaos-").permissions(everybody).tempdir();
    made.map_err(Error::system("make a temporary directory"))
}

/// Creates a hospital with one slot per capacity, on dates that can be booked.
pub(crate) async fn open(pool: &Pool, tokens: &Tokens, id: &str, capacities: &[i32]) -> Result<Vec<Slot>, Error> {
    let days = (20..).zip(capacities).map(|(day, capacity)| (in_days(ZONE, day), *capacity));
    let days: Vec<_> = days.collect();
    let initial = days.iter().map(|(date, capacity)| hospital::Slot {
        date: Some(day_of(*date)),
        capacity: *capacity,
        ..hospital::Slot::default()
    });
    let request = hospital::CreateHospitalRequest {
        hospital: Some(hospital::Hospital {
            display_name: format!("Hospital {id}"),
            time_zone: ZONE.to_owned(),
            booking_policy: Some(hospital::BookingPolicy {
                waitlist_limit: Some(WAITLIST_LIMIT),
                reschedule_limit: Some(RESCHEDULE_LIMIT),
                ..hospital::BookingPolicy::default()
            }),
            ..hospital::Hospital::default()
        }),
        hospital_id: id.to_owned(),
        initial_slots: initial.collect(),
        request_id: String::new(),
    };
    let admin = Party::new(pool.next(), Some(&tokens.admin("root", "*")));
    admin.hospital().create_hospital(request).await.map_err(Error::call("CreateHospital"))?;
    let slot = |(date, capacity): &(_, i32)| Slot {
        name: testkit::slot_name(&format!("hospitals/{id}"), *date),
        capacity: *capacity,
    };
    Ok(days.iter().map(slot).collect())
}
