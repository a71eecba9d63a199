//! The choice of a replica for a call: the one that its key belongs to, or the next one while that is out of reach.
//!
//! It sends and repeats nothing: the caller asks for an attempt, makes it, and reports the outcome. The replicas are
//! the listed addresses. A name is one replica however many addresses it resolves to, because behind a name something
//! else, such as a sidecar, balances the load, and two balancers would work against each other.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Uri;

use super::{ClientOptions, Line, connect};
use crate::deadline::{Deadline, FAIR};
use crate::entropy::jittered;
use crate::lifecycle::lock;
use crate::server::Local;

/// How long a replica is passed over after its first failure; it doubles with each further failure.
const FIRST_PASS_OVER: Duration = Duration::from_millis(250);
/// The longest time for which a replica is passed over before another call tries it.
const MAX_PASS_OVER: Duration = Duration::from_secs(5);

/// The metadata key that names the slot a call is about. If one name stands for all replicas, a mesh that hashes this
/// header keeps the calls for one slot together, as [`Replicas::route`] would.
pub const SLOT: &str = "checkup-slot";

/// The replicas of a service; a cheap handle.
///
/// All calls for one key go to the same replica as long as it answers, whichever process makes them. Processes prefer
/// the same replica if they list the same addresses in the same spelling, in any order.
#[derive(Clone)]
pub struct Replicas(Arc<[Replica]>);

/// One address, its connections and its health.
struct Replica {
    address: String,
    lanes: Vec<Lane>,
    turn: AtomicUsize,
    health: Mutex<Health>,
}

/// One connection to a replica.
struct Lane {
    line: Line,
    under_way: AtomicUsize,
}

/// How recent calls to a replica went.
#[derive(Debug, Clone, Copy, Default)]
struct Health {
    failures: u32,
    passed_over_until: Option<Instant>,
}

/// The replicas in the order of preference for a key.
#[derive(Debug, Clone)]
pub struct Route {
    replicas: Replicas,
    /// The key as metadata; `None` if it is not ASCII. Slot names always are.
    key: Option<AsciiMetadataValue>,
    /// The replicas that were not tried yet in this round, the preferred one first.
    untried: Vec<usize>,
    order: Vec<usize>,
}

/// A call that is about to be made. If it is dropped without a report, it says nothing about the replica, because its
/// caller went away.
#[derive(Debug)]
pub struct Attempt {
    replicas: Replicas,
    replica: usize,
    lane: usize,
    probes: bool,
    begun: Instant,
}

/// What a missing answer is evidence of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The replica is out of reach.
    Replica,
    /// The caller's time ran out too early to tell.
    Caller,
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|replica| &replica.address)).finish()
    }
}

impl Replicas {
    /// Replicas at these addresses, each with as many connections as the options say. Connections are made at their
    /// first use and again when needed. This never fails; calls do.
    ///
    /// # Panics
    /// Without an address, or outside a tokio runtime.
    #[must_use]
    pub fn connect(addresses: &[Uri], options: ClientOptions) -> Self {
        Self::over(addresses.iter().map(|address| {
            let lanes = (0..options.connections.max(1)).map(|_| Line::Remote(connect(address.clone(), options)));
            (address.to_string(), lanes.collect())
        }))
    }

    /// Replicas by name that are reached over these lines, for networks that are not the machine's.
    ///
    /// # Panics
    /// Without a replica, or with a replica that has no line.
    #[must_use]
    pub fn over(replicas: impl IntoIterator<Item = (String, Vec<Line>)>) -> Self {
        let replicas: Arc<[Replica]> =
            replicas.into_iter().map(|(address, lanes)| Replica::new(address, lanes)).collect();
        assert!(!replicas.is_empty(), "a service has at least one replica");
        Self(replicas)
    }

    /// The server of this process as the only replica.
    #[must_use]
    pub fn here(server: Local) -> Self {
        Self::over([("this process".to_owned(), vec![Line::Here(server)])])
    }

    /// The route of a request with this key.
    #[must_use]
    pub fn route(&self, key: &str) -> Route {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        if order.len() > 1 {
            // The highest weight wins. The index decides between equal weights, if an address is listed twice.
            order.sort_by_cached_key(|index| (std::cmp::Reverse(weight(&self.0[*index].address, key)), *index));
        }
        let named = if key.is_ascii() { key.parse().ok() } else { None };
        Route { replicas: self.clone(), key: named, untried: order.clone(), order }
    }
}

/// The weight of a key at an address, by rendezvous hashing: a replica that comes or goes moves only its own keys. The
/// standard library's hasher is not used because it differs between builds.
fn weight(address: &str, key: &str) -> u64 {
    let digest = Sha256::new().chain_update(address).chain_update([0]).chain_update(key).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

impl Replica {
    fn new(address: String, lanes: Vec<Line>) -> Self {
        assert!(!lanes.is_empty(), "a replica has at least one connection");
        let lanes = lanes.into_iter().map(|line| Lane { line, under_way: AtomicUsize::new(0) }).collect();
        Self { address, lanes, turn: AtomicUsize::new(0), health: Mutex::default() }
    }

    /// Takes the connection with the fewest calls under way, in turn if several have equally few.
    fn take_lane(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = (0..self.lanes.len()).map(|step| turn.wrapping_add(step) % self.lanes.len());
        let least = in_turn.min_by_key(|lane| self.lanes[*lane].under_way.load(Ordering::Relaxed)).unwrap_or_default();
        self.lanes[least].under_way.fetch_add(1, Ordering::Relaxed);
        least
    }

    /// Whether a call may go to this replica now.
    fn offers(&self, now: Instant) -> bool {
        lock(&self.health).passed_over_until.is_none_or(|until| until <= now)
    }

    /// A call takes the replica. If the replica was passed over, the call is a probe, and others pass the replica over
    /// until the probe has reported.
    fn take(&self, now: Instant) -> bool {
        let mut health = lock(&self.health);
        let probes = health.failures > 0 && health.passed_over_until.is_some_and(|until| until <= now);
        if probes {
            health.passed_over_until = Some(now + pause_after(health.failures));
        }
        probes
    }

    fn answered(&self) {
        let before = std::mem::take(&mut *lock(&self.health));
        if before.failures > 0 {
            tracing::info!(address = self.address, "a replica answers again");
        }
    }

    fn failed(&self, probe: bool) {
        let now = Instant::now();
        let mut health = lock(&self.health);
        // Calls that were under way together failed together, which counts once.
        if !probe && health.passed_over_until.is_some_and(|until| until > now) {
            return;
        }
        if health.failures == 0 {
            tracing::warn!(address = self.address, "a replica is out of reach");
        }
        health.failures = health.failures.saturating_add(1);
        health.passed_over_until = Some(now + jittered(pause_after(health.failures)));
    }
}

/// How long a replica is passed over after this many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    FIRST_PASS_OVER.saturating_mul(doubled).min(MAX_PASS_OVER)
}

impl Route {
    /// The next attempt: at the first untried replica in the key's order that is not passed over, or, if all untried
    /// ones are passed over, at the first of them. Once every replica was tried, a new round begins.
    pub fn next_attempt(&mut self) -> Attempt {
        if self.untried.is_empty() {
            self.untried.clone_from(&self.order);
        }
        let now = Instant::now();
        let offered = self.untried.iter().position(|index| self.replicas.0[*index].offers(now));
        let replica = self.untried.remove(offered.unwrap_or_default());
        let taken = &self.replicas.0[replica];
        let probes = taken.take(now);
        Attempt { lane: taken.take_lane(), replicas: self.replicas.clone(), replica, probes, begun: now }
    }

    /// Adds the key to the request's metadata, see [`SLOT`].
    #[must_use]
    pub fn about_slot<M>(&self, mut request: Request<M>) -> Request<M> {
        if let Some(key) = &self.key {
            request.metadata_mut().insert(SLOT, key.clone());
        }
        request
    }

    /// Whether a replica was not tried yet in this round; an attempt there need not wait.
    #[must_use]
    pub fn has_untried(&self) -> bool {
        !self.untried.is_empty()
    }
}

impl Attempt {
    /// The line to make the call through.
    #[must_use]
    pub fn line(&self) -> Line {
        self.lane().line.clone()
    }

    /// The replica's address, for logs.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.replicas.0[self.replica].address
    }

    /// Reports that the service answered, possibly with a refusal.
    pub fn answered(self) {
        self.replicas.0[self.replica].answered();
    }

    /// Reports that no answer came, see [`super::is_unreachable`], and returns what that is evidence of. If the
    /// caller's deadline left the replica less than [`FAIR`] to answer, nothing is known about the replica, however
    /// late this process notices that it has passed.
    pub fn silent(self, deadline: Deadline) -> Silence {
        if deadline.has_passed() && deadline.instant() < self.begun + FAIR {
            return Silence::Caller;
        }
        self.failed();
        Silence::Replica
    }

    /// Reports that the replica is out of reach. It is passed over for a while that grows with each failure.
    pub fn failed(self) {
        self.replicas.0[self.replica].failed(self.probes);
    }

    fn lane(&self) -> &Lane {
        &self.replicas.0[self.replica].lanes[self.lane]
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.lane().under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Replicas {
        let addresses = ["http://a:1", "http://b:1", "http://c:1"].map(Uri::from_static);
        Replicas::connect(&addresses, ClientOptions::default())
    }

    fn key(i: usize) -> String {
        format!("hospitals/h/slots/{i}")
    }

    fn preferred(replicas: &Replicas, key: &str) -> String {
        replicas.route(key).next_attempt().address().to_owned()
    }

    #[tokio::test]
    async fn keys_spread_and_only_those_of_a_lost_replica_move() {
        let all = three();
        let two = Replicas::connect(&["http://c:1", "http://a:1"].map(Uri::from_static), ClientOptions::default());
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for i in 0..3_000 {
            let at = preferred(&all, &key(i));
            if !at.starts_with("http://b") {
                assert_eq!(preferred(&two, &key(i)), at);
            }
            *counts.entry(at).or_default() += 1;
        }
        assert!(counts.len() == 3 && counts.values().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_replica_is_passed_over_and_one_call_finds_out_when_it_is_back() {
        let replicas = three();
        let mut route = replicas.route("k");
        let first = route.next_attempt();
        let lost = first.address().to_owned();
        // Calls that fail together count once.
        let together = replicas.route("k").next_attempt();
        first.failed();
        together.failed();
        assert_ne!(preferred(&replicas, "k"), lost);
        tokio::time::advance(FIRST_PASS_OVER * 3 / 2).await;
        let probe = replicas.route("k").next_attempt();
        assert_eq!(probe.address(), lost);
        assert_ne!(preferred(&replicas, "k"), lost, "one probe at a time");
        probe.failed();
        tokio::time::advance(FIRST_PASS_OVER * 3 / 2).await;
        assert_ne!(preferred(&replicas, "k"), lost, "the pause has doubled");
        tokio::time::advance(FIRST_PASS_OVER * 3).await;
        replicas.route("k").next_attempt().answered();
        assert_eq!(preferred(&replicas, "k"), lost);
        assert_eq!(preferred(&replicas, "k"), lost);
        assert_eq!(pause_after(1_000), MAX_PASS_OVER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_goes_through_all_even_when_none_answers() {
        let replicas = three();
        for _ in 0..2 {
            let mut route = replicas.route("k");
            for round in 0..2 {
                let mut tried: Vec<String> = Vec::new();
                while tried.is_empty() || route.has_untried() {
                    let attempt = route.next_attempt();
                    tried.push(attempt.address().to_owned());
                    attempt.failed();
                }
                tried.sort();
                assert_eq!(tried, ["http://a:1/", "http://b:1/", "http://c:1/"], "round {round}");
            }
        }
    }

    #[tokio::test]
    async fn a_request_names_its_slot_for_those_who_balance_instead() {
        let named = |key: &str| three().route(key).about_slot(Request::new(())).metadata().get(SLOT).cloned();
        assert_eq!(named("hospitals/h/slots/2027-03-02").unwrap(), "hospitals/h/slots/2027-03-02");
        assert_eq!(named("병원"), None);
    }

    #[tokio::test]
    async fn calls_go_over_the_connection_with_the_fewest() {
        let address = [Uri::from_static("http://a:1")];
        let replicas = Replicas::connect(&address, ClientOptions { connections: 3, ..ClientOptions::default() });
        let held: Vec<Attempt> = (0..6).map(|_| replicas.route("k").next_attempt()).collect();
        let under_way =
            || replicas.0[0].lanes.iter().map(|lane| lane.under_way.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!(under_way(), [2, 2, 2]);
        let lane = held[0].lane;
        held.into_iter().filter(|attempt| attempt.lane == lane).for_each(Attempt::answered);
        assert_eq!(under_way().iter().sum::<usize>(), 0, "whoever is dropped is under way no more");
        assert_eq!(replicas.route("k").next_attempt().address(), "http://a:1/");
    }
}
