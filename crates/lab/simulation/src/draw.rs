//! Draws the plan that follows from a seed.

use std::time::Duration;

use checkup::service::Service;

use crate::aim::Aim;
use crate::chance::Chance;
use crate::mutant::Mutant;
use crate::plan::{CUSTOMERS, Disruption, HOSPITALS, HOSTS, How, Plan, SCREENINGS, SERVICES};
use crate::transport::DeliveryFaults;

/// When the load should be over. Disruptions begin before that.
const LOAD_DURATION: Duration = Duration::from_secs(3);

/// Tells the numbers about a database that goes back from all others of a seed.
const GO_BACK: u64 = 0x6f6c_6465_7200_0001;

/// Tells the numbers about the retention of events from all others of a seed.
const RETENTION: u64 = 0x6b65_6570_0000_0001;

/// Tells the numbers about queues from all others of a seed.
const QUEUES: u64 = 0x7175_6575_6573_0001;

/// Tells the numbers about limits from all others of a seed.
const LIMITS: u64 = 0x6c69_6d69_7473_0001;

/// The possible values of Screening's timeouts for calls to Hospital.
const HOSPITAL_TIMEOUTS: [(Duration, Duration); 3] = [
    (Duration::from_millis(300), Duration::from_millis(100)),
    (Duration::from_secs(1), Duration::from_millis(400)),
    (Duration::from_secs(5), Duration::from_secs(2)),
];

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut chance = Chance::new(seed);
        let hospitals = 1 + chance.below(2);
        let slots = |chance: &mut Chance| (0..2 + chance.below(4)).map(|_| capacity(chance)).collect();
        let capacities: Vec<Vec<i32>> = (0..hospitals).map(|_| slots(&mut chance)).collect();
        // A storm around the relays: slow acknowledgements, and a broker that is wiped repeatedly.
        let storm = chance.one_in(8);
        let skewed = chance.one_in(3);
        let skew = |chance: &mut Chance| if skewed { i64::try_from(chance.below(600)).unwrap_or(0) - 300 } else { 0 };
        let aim = Aim::draw(&mut chance);
        let mut disruptions: Vec<_> = (0..aim.others(&mut chance)).map(|_| disruption(&mut chance)).collect();
        if storm {
            let at = |chance: &mut Chance| chance.between(Duration::from_secs(1), LOAD_DURATION);
            disruptions.extend((0..2).map(|_| (at(&mut chance), Disruption::Wipe)));
        }
        let mut plan = Self {
            mutant,
            rash: chance.pick(&[0, 4]),
            pending: chance.pick(&[1, 2, 4]),
            moving: chance.pick(&[0, 2, 3, 5]),
            joining: 0,
            patient: 0,
            changes: 0,
            closing: None,
            limit: limit(seed, mutant),
            customers: 3 + usize::try_from(chance.below(4)).unwrap_or_default().min(CUSTOMERS.len() - 3),
            operations: 10 + usize::try_from(chance.below(6)).unwrap_or_default(),
            capacities,
            deletions: usize::from(chance.one_in(3)),
            latency: Duration::from_millis(2 + chance.below(20)),
            fail_rate: if chance.one_in(3) { 0.003 } else { 0.0 },
            delivery_faults: DeliveryFaults {
                repeats: chance.pick(&[0, 3, 6]),
                silent: chance.pick(&[0, 4, 10]),
                deaf: chance.pick(&[0, 6, 12]),
                delay: Duration::from_millis(chance.below(400)),
                slow: if storm { 4 } else { chance.pick(&[0, 5, 15]) },
                blind: mutant == Some(Mutant::BlindCursor),
                discreet: mutant == Some(Mutant::TrustedStream),
                hasty: mutant == Some(Mutant::AckBeforeCommit),
            },
            window: if storm { 1 } else { chance.pick(&[2, 4, 8, 512]) },
            grace: Duration::from_millis(chance.pick(&[30, 100, 300, 2_000])),
            hospital_timeouts: chance.pick(&HOSPITAL_TIMEOUTS),
            work: Duration::from_millis(chance.pick(&[0, 30, 100])),
            skews: HOSTS.iter().map(|_| skew(&mut chance)).collect(),
            retention: retention(seed, mutant),
            disruptions,
            chance: chance.fork(),
        };
        aim.take(&mut plan, &mut chance);
        plan.queue_up(seed);
        plan.go_back(seed);
        plan.disruptions.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Gives one seed in two queues: few places, customers who wait for one, and an admin who changes what they wait
    /// for. The numbers are drawn apart, so all other seeds stay as they are.
    fn queue_up(&mut self, seed: u64) {
        let mut chance = Chance::new(seed ^ QUEUES);
        if !self.mutant.map_or_else(|| chance.one_in(2), Mutant::is_in_queues) {
            return;
        }
        self.capacities.iter_mut().flatten().for_each(|capacity| *capacity = chance.pick(&[1, 1, 2]));
        self.joining = chance.pick(&[1, 1, 2]);
        self.changes = usize::try_from(chance.below(8)).unwrap_or_default();
        // The hosts have to agree on whether that moment is over.
        let closes = self.skews.iter().all(|skew| *skew == 0) && chance.one_in(3);
        if chance.one_in(3) || self.mutant == Some(Mutant::DroppedPromotion) {
            Aim::Overtaken.take(self, &mut chance);
        }
        self.closing = closes.then(|| Duration::from_secs(1 + chance.below(LOAD_DURATION.as_secs())));
    }

    /// Adds to one seed in eight a database that comes back as it was earlier. What it lost is known to the stream, so
    /// the broker loses nothing in such a run. The numbers are drawn apart, so all other seeds stay as they are.
    fn go_back(&mut self, seed: u64) {
        let mut chance = Chance::new(seed ^ GO_BACK);
        let wanted = if self.mutant.is_some() { self.mutant == Some(Mutant::TrustedPast) } else { chance.one_in(8) };
        if !wanted {
            return;
        }
        self.disruptions.retain(|(_, disruption)| {
            use Disruption::{ForgetTail, Lose, Stall, Wipe};
            !matches!(disruption, ForgetTail { .. } | Lose { .. } | Stall { .. } | Wipe)
        });
        // A log tells what it removed by age from what it lost by the time of each. So events have to be kept for
        // longer than clocks differ, which no run is long enough for.
        if self.skews.iter().any(|skew| *skew != 0) {
            self.retention = Duration::ZERO;
        }
        // Publishers that hang would keep the stream from having everything until the load is over.
        self.delivery_faults.slow = 0;
        let services: [(Service, &'static [&'static str]); 2] =
            [(Service::Hospital, &HOSPITALS), (Service::Screening, &SCREENINGS)];
        let (service, hosts) = chance.pick(&services);
        let at = chance.between(LOAD_DURATION / 10, LOAD_DURATION / 3);
        let ago = chance.between(LOAD_DURATION / 20, LOAD_DURATION / 4);
        let down = chance.between(Duration::from_millis(10), Duration::from_secs(1));
        self.disruptions.push((at, Disruption::GoBack { service, hosts, ago, down }));
    }
}

/// In one seed of four, hospitals limit how many bookings a customer has. The numbers are drawn apart, so all other
/// seeds stay as they are.
fn limit(seed: u64, mutant: Option<Mutant>) -> Option<i32> {
    let mut chance = Chance::new(seed ^ LIMITS);
    let wanted = mutant.map_or_else(|| chance.one_in(4), |mutant| mutant == Mutant::NoLimit);
    wanted.then(|| chance.pick(&[1, 1, 2]))
}

/// In one seed of three, producers remove what is older than a moment and repeat the rest. The numbers are drawn apart,
/// so all other seeds stay as they are.
fn retention(seed: u64, mutant: Option<Mutant>) -> Duration {
    let mut chance = Chance::new(seed ^ RETENTION);
    let wanted = match mutant {
        Some(Mutant::ForgetsNewest) => true,
        None | Some(Mutant::TrustedPast) => chance.one_in(3),
        Some(_) => false,
    };
    // A shorter moment repeats everything so often that the broker is never quiet.
    if wanted { chance.between(Duration::from_millis(500), LOAD_DURATION) } else { Duration::ZERO }
}

fn capacity(chance: &mut Chance) -> i32 {
    i32::try_from(1 + chance.below(6)).unwrap_or(1)
}

fn disruption(chance: &mut Chance) -> (Duration, Disruption) {
    let at = chance.between(Duration::from_millis(300), LOAD_DURATION);
    let lasts = chance.between(Duration::from_millis(100), Duration::from_secs(4));
    let host = chance.pick(&HOSTS);
    let disruption = match chance.below(23) {
        0..3 => Disruption::Crash { host, down: lasts / 4 },
        3..9 => link(chance, lasts),
        9 => Disruption::Link {
            one: chance.pick(&CUSTOMERS[..3]),
            others: &SCREENINGS,
            how: How::Deaf,
            lasts: lasts / 2,
        },
        10 => Disruption::Cut { host, lasts: lasts / 2 },
        11 => Disruption::BrokerDown { lasts: lasts / 2 },
        12 | 13 => Disruption::ForgetTail { count: 1 + usize::try_from(chance.below(12)).unwrap_or_default() },
        14 => Disruption::Wipe,
        15 | 16 => Disruption::Commits { hosts: chance.pick(&SERVICES), one_in: 2 + chance.below(8), lasts },
        17 | 18 => Disruption::Storage { hosts: chance.pick(&SERVICES), one_in: 2 + chance.below(6), lasts: lasts / 2 },
        19 | 20 => Disruption::Choke { host, lasts: Duration::from_millis(100) + lasts / 8, down: lasts / 4 },
        21 => Disruption::Lose { one_in: chance.pick(&[1, 2, 5]) },
        _ => Disruption::Stall { hosts: chance.pick(&SERVICES[..2]), lasts: Duration::from_millis(1_500) + lasts / 2 },
    };
    (at, disruption)
}

/// A disruption of a link between Screening and Hospital, where the calls are made.
fn link(chance: &mut Chance, lasts: Duration) -> Disruption {
    let slow = How::Slow(50 + chance.below(2_000));
    let how = chance.pick(&[How::Cut, How::Mute, How::Deaf, How::Late, slow, slow, slow]);
    let lasts = if how == How::Late { lasts / 3 } else { lasts };
    let others: [&'static [&'static str]; 4] = [&HOSPITALS, &HOSPITALS, &HOSPITALS[..1], &HOSPITALS[1..]];
    Disruption::Link { one: chance.pick(&SCREENINGS), others: chance.pick(&others), how, lasts }
}
