//! One run: builds the mesh of a seed, runs it and judges it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtime::identity::{Role, Signer};
use turmoil::Builder;

use crate::caller::Caller;
use crate::history::CallHistory;
use crate::host;
use crate::mutant::Mutant;
use crate::nemesis::Nemesis;
use crate::plan::{CUSTOMERS, HOSTS, Plan};
use crate::restore::Restore;
use crate::site::{Applied, Site};
use crate::stage::Stage;
use crate::trace::Trace;
use crate::transport::Broker;
use crate::{audit, clock, older, queues, retention, schema};

/// How far the simulated clock moves per step.
const CLOCK_STEP: Duration = Duration::from_millis(10);
/// When the disruptions end even if callers still have work.
const DISRUPTIONS_END: Duration = Duration::from_secs(40);

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub hash: String,
    /// The length of the run in simulated time.
    pub simulated: Duration,
    /// The number of calls, and how many of them had no definite answer.
    pub calls: (u64, u64),
    /// How many bookings waited for a place, and how many of all that did got one.
    pub queued: (usize, usize),
    /// The number of disruptions that began.
    pub disruptions: usize,
    /// What is wrong; `None` if nothing is.
    pub wrong: Option<String>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { hash, simulated, calls: (calls, unknown), queued: (waited, promoted), disruptions, wrong } = self;
        let (simulated, wrong) = (simulated.as_secs_f64(), wrong.as_deref().unwrap_or("ok"));
        write!(f, "hash {hash}, {simulated:.1} s, {calls} calls, {unknown} unknown, {waited} waited, ")?;
        write!(f, "{promoted} promoted, {disruptions} disruptions: {wrong}")
    }
}

/// The seed to run, and how.
#[derive(Debug, Clone)]
pub struct Run {
    /// The seed that everything follows from.
    pub seed: u64,
    /// The bug to plant.
    pub mutant: Option<Mutant>,
    /// Whether everything that happens is written to standard error.
    pub printed: bool,
    /// The directory of [migrated databases](crate::schemas). Migrating them in this process would
    /// change its random numbers and counters.
    pub schemas: PathBuf,
}

/// Runs a seed. The process cannot run a second one.
///
/// # Errors
/// If the run cannot be set up.
pub fn run(run: Run) -> std::io::Result<Outcome> {
    let Run { seed, mutant, printed, schemas } = run;
    runtime::simulation::begin(seed, clock::now);
    let side = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    store::simulation::block_on(side.handle().clone());
    let data = schema::scratch()?;
    schema::copy(&schemas, data.path())?;
    let mut plan = Plan::of(seed, mutant);
    let broker = Broker::new(plan.chance.fork());
    broker.behave(plan.delivery_faults);
    let signer = Signer::load_or_create(data.path()).map_err(std::io::Error::other)?;
    let (trace, side_handle) = (Trace::new(printed), side.handle().clone());
    let (data_path, fates, applied) = (data.path().to_owned(), Arc::default(), Applied::default());
    let site = Site {
        plan,
        data: data_path,
        side: side_handle,
        signer,
        broker,
        trace,
        fates,
        applied,
        restore: Restore::default(),
    };
    let site = Arc::new(site);
    let mut outcome = simulate(seed, Arc::clone(&site));
    match side.block_on(queues::judge(&site)) {
        Ok(queues) => {
            outcome.queued.1 = queues.promoted;
            outcome.wrong = outcome.wrong.or(queues.wrong);
        }
        Err(error) => outcome.wrong = outcome.wrong.or_else(|| Some(error.to_string())),
    }
    if outcome.wrong.is_none() {
        let missing = side.block_on(retention::missing(&site));
        outcome.wrong = missing.unwrap_or_else(|error| Some(error.to_string()));
    }
    // Threads of the database drivers may still read files that are gone. Nothing waits for them.
    side.shutdown_background();
    Ok(outcome)
}

fn simulate(seed: u64, site: Arc<Site>) -> Outcome {
    let plan = site.plan.clone();
    let mut chance = plan.chance.clone();
    let mut sim = Builder::new()
        .rng_seed(seed)
        .tick_duration(CLOCK_STEP)
        .simulation_duration(DISRUPTIONS_END * 4)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(plan.latency)
        .fail_rate(plan.fail_rate)
        .repair_rate(0.2)
        .tcp_capacity(4_096)
        .build();
    // Long latencies are as likely as short ones.
    sim.set_message_latency_curve(1.0);
    for name in HOSTS {
        let site = Arc::clone(&site);
        sim.host(name, move || host::run(Arc::clone(&site), name));
    }
    let (history, stage) = (Arc::<CallHistory>::default(), Arc::new(Stage::new(plan.customers + 1)));
    let mut caller = |name: &str, role| Caller::new(name, role, &site, &history, &stage, chance.fork());
    sim.client("admin", caller("admin", Role::Admin).admin());
    for name in &CUSTOMERS[..plan.customers] {
        sim.client(*name, caller(name, Role::Customer).customer());
    }
    sim.client("auditor", audit::run(caller("auditor", Role::Auditor)));
    if plan.goes_back() {
        sim.client("operator", older::operate(Arc::clone(&site), Arc::clone(&stage), chance.fork()));
    }

    let mut nemesis = Nemesis::new(&site);
    let wrong = loop {
        clock::set(sim.elapsed());
        if !stage.is_healed() {
            nemesis.act(&mut sim);
            if stage.is_over() || sim.elapsed() > DISRUPTIONS_END {
                nemesis.heal(&mut sim);
                stage.heal();
            }
        }
        match sim.step() {
            Ok(true) => break None,
            Ok(false) => {}
            Err(why) => break Some(why.to_string()),
        }
    };
    let wrong = wrong.or_else(|| history.seen_broken().first().cloned());
    let hash = site.trace.hash();
    let (calls, queued) = (history.calls(), (history.waiting(), 0));
    Outcome { hash, simulated: sim.elapsed(), calls, queued, disruptions: nemesis.dealt, wrong }
}
