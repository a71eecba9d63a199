//! The aim of a run: conditions that open the window of one kind of bug, which random disruptions hit too seldom.
//!
//! Every seed draws an aim, whether or not a bug is planted, so the healthy system is tested under all of them.

use std::time::Duration;

use crate::chance::Chance;
use crate::plan::{Disruption, HOSPITALS, HOSTS, How, PAGES, Plan, RESERVATION, SCREENINGS};

/// The kind of bug that a run provokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// No particular kind.
    Anything,
    /// Hospital's answers arrive after its events: claims look abandoned while their bookings are about to be written.
    LateAnswers,
    /// Hospital's answers arrive late, and its events soon: claims get places from queues before the bookings that wait
    /// for them are written. Only seeds with queues have it, beside their own aim.
    Overtaken,
    /// PENDING bookings are cancelled at once, while requests for their places are still on their way.
    Parked,
    /// Processes are killed while they have transactions that never commit, and events that were delivered to them.
    Unwritten,
    /// A relay is stopped until its lease has expired, and the broker loses what it has just acknowledged to it.
    StalledRelay,
    /// The broker repeatedly loses the end of its stream while a reader is cut off.
    LostTails,
    /// The broker loses events that a reader which is cut off has not read, and its stream continues.
    LostMiddles,
}

/// The aims to draw from. The narrowest window is there twice.
const ALL: [Aim; 8] = [
    Aim::Anything,
    Aim::LateAnswers,
    Aim::Parked,
    Aim::Unwritten,
    Aim::StalledRelay,
    Aim::StalledRelay,
    Aim::LostTails,
    Aim::LostMiddles,
];

/// When disruptions of an aim begin: while most of the load is still to come.
const DISRUPTION_WINDOW: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(2_200));

impl Aim {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        chance.pick(&ALL)
    }

    /// The number of random disruptions beside those of the aim.
    pub(crate) fn others(self, chance: &mut Chance) -> u64 {
        match self {
            Self::Anything => 3 + chance.below(8),
            Self::LostTails | Self::LostMiddles => 0,
            Self::LateAnswers | Self::Overtaken | Self::Parked | Self::Unwritten | Self::StalledRelay => {
                chance.below(3)
            }
        }
    }

    /// Changes a plan so that it has this aim.
    pub(crate) fn take(self, plan: &mut Plan, chance: &mut Chance) {
        let slow = |chance: &mut Chance, one, slowest| {
            let how = How::Slow(slowest / 2 + chance.below(slowest));
            let disruption = Disruption::Link { one, others: &HOSPITALS, how, lasts: Duration::from_secs(4) };
            (Duration::from_millis(200 + chance.below(400)), disruption)
        };
        let at = |chance: &mut Chance| chance.between(DISRUPTION_WINDOW.0, DISRUPTION_WINDOW.1);
        match self {
            Self::Anything => {}
            Self::Overtaken => {
                Self::LateAnswers.take(plan, chance);
                hurry_queues(plan);
            }
            Self::LateAnswers => {
                (plan.grace, plan.work) = (Duration::from_millis(30), Duration::ZERO);
                plan.hospital_timeouts = (Duration::from_secs(5), Duration::from_secs(2));
                plan.delivery_faults.delay = Duration::from_millis(chance.below(50));
                plan.disruptions.extend(SCREENINGS.map(|one| slow(chance, one, 1_000)));
            }
            Self::Parked => {
                (plan.pending, plan.rash) = (1, chance.pick(&[1, 2]));
                // Either some requests for a PENDING booking are answered in time, or most reach Hospital after its
                // cancellation.
                let (slowest, attempt) = chance.pick(&[(330, 250), (330, 250), (700, 100)]);
                plan.hospital_timeouts = (Duration::from_millis(300), Duration::from_millis(attempt));
                plan.delivery_faults.delay = Duration::from_millis(chance.below(100));
                plan.disruptions.extend(SCREENINGS.map(|one| slow(chance, one, slowest)));
            }
            Self::Unwritten => {
                // The other replica fences a booking that was not committed before its caller asks again.
                (plan.grace, plan.work) = (Duration::from_millis(30), Duration::ZERO);
                plan.delivery_faults.delay = Duration::from_millis(chance.below(50));
                let turns = [(SCREENINGS[0], 400, 700), (SCREENINGS[1], 2_000, 700), (RESERVATION, 800, 100)];
                for (host, from, least) in turns.into_iter().chain([(chance.pick(&HOSTS), 400, 100)]) {
                    let lasts = Duration::from_millis(least + chance.below(600));
                    let down = Duration::from_millis(100 + chance.below(600));
                    let at = Duration::from_millis(from + chance.below(800));
                    plan.disruptions.push((at, Disruption::Choke { host, lasts, down }));
                }
            }
            Self::StalledRelay => {
                // Such a window has events that are lost for good beside events that come again.
                (plan.window, plan.operations) = (chance.pick(&[3, 5, 8]), plan.operations + 4);
                // Switches off what would reveal a lost event in another way: a deletion, and a relay that reads the
                // stream's state again.
                (plan.deletions, plan.delivery_faults.slow) = (0, 0);
                let lasts = Duration::from_millis(1_300 + chance.below(900));
                plan.disruptions.push((
                    Duration::from_millis(500 + chance.below(700)),
                    Disruption::Stall { hosts: &SCREENINGS, lasts },
                ));
            }
            Self::LostTails => {
                plan.deletions = 0;
                for _ in 0..3 {
                    let (at, host) = (at(chance), chance.pick(&[RESERVATION, PAGES[0], PAGES[1]]));
                    let lasts = Duration::from_millis(400 + chance.below(800));
                    plan.disruptions.push((at, Disruption::Cut { host, lasts }));
                    // More events than came since the cut, so that events that the reader has are lost as well.
                    let count = 8 + usize::try_from(chance.below(16)).unwrap_or_default();
                    let loss = if chance.one_in(3) { Disruption::Wipe } else { Disruption::ForgetTail { count } };
                    plan.disruptions.push((at + lasts / 2, loss));
                }
            }
            Self::LostMiddles => {
                plan.deletions = 0;
                for _ in 0..3 {
                    let (at, host) = (at(chance), chance.pick(&[RESERVATION, PAGES[0], PAGES[1]]));
                    let lasts = Duration::from_millis(400 + chance.below(800));
                    plan.disruptions.push((at, Disruption::Cut { host, lasts }));
                    plan.disruptions.push((at + lasts / 2, Disruption::Lose { one_in: chance.pick(&[1, 2, 5]) }));
                }
            }
        }
    }
}

/// Makes the queues of a plan with late answers short, and lets them move on while bookings of them are being written.
fn hurry_queues(plan: &mut Plan) {
    (plan.capacities, plan.joining) = (vec![vec![1; 3]], 1);
    (plan.customers, plan.operations) = (plan.customers.min(4), plan.operations + 8);
    (plan.moving, plan.changes, plan.deletions) = (0, 0, 0);
    for (_, disruption) in &mut plan.disruptions {
        if let Disruption::Link { how: How::Slow(_), lasts, .. } = disruption {
            *lasts *= 2;
        }
    }
    // Otherwise their claims are fenced before they are written.
    plan.grace = Duration::from_secs(2);
    // A promotion that comes again, or a cancellation, would reveal that the promotion was lost.
    (plan.patient, plan.delivery_faults.repeats, plan.delivery_faults.deaf) = (2, 0, 0);
}
