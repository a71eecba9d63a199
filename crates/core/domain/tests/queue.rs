//! Explores the queue of one slot exhaustively, over the rules that the services run.
//!
//! Up to four bookings want the places of a slot. Some have one already; the others ask for one in up to two calls,
//! which wait in the queue or do not. Every call and answer can be lost or late, and every event can arrive at any
//! later moment, some of them more than once. Customers leave, book elsewhere on that date or twice on the slot; admins
//! raise and reduce the capacity, close the slot, cancel its bookings and open it again; the time of promotion ends, by
//! Screening's clock perhaps sooner than by Hospital's. A crash of Screening loses what can be lost one by one.
//!
//! All decisions come from `domain`: `screening` for rows, `capacity` for claims, `booking` for the steps after a
//! reply. What the services add is repeated here: which claims Screening watches, and when it asks Hospital again.
//!
//! Each variant leaves out one precaution and must be caught: a model that passes a variant checks nothing.

#[path = "queue/rows.rs"]
mod rows;
#[path = "queue/rules.rs"]
mod rules;
#[path = "queue/scenarios.rs"]
mod scenarios;
#[path = "queue/slot.rs"]
mod slot;
#[path = "queue/slots.rs"]
mod slots;
#[path = "queue/steps.rs"]
mod steps;
#[path = "queue/world.rs"]
mod world;

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use rows::Rows;
use scenarios::{SCENARIOS, Scenario};
use slots::Slots;
use steps::Successors;
use world::World;

/// The precaution that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// None: this is the design as it runs.
    Design,
    /// A place that is given back passes to who waits in a transaction of its own.
    PromoteLater,
    /// Of what one transaction decides, a newcomer's call comes before the promotion.
    NewcomerFirst,
    /// Promotion takes whoever joined last.
    IgnoreTickets,
    /// Whether a booking joins the queue is decided by a count of places that was read before.
    JoinByOldCount,
    /// New places go on sale.
    RaiseGoesOnSale,
    /// The free places of a slot that opens again go on sale.
    ReopenGoesOnSale,
    /// A reduction of the capacity promotes.
    ReductionPromotes,
    /// Admins who cancel the bookings of a slot leave those that wait.
    CancelSparesQueue,
    /// A place that is given back on a closed slot passes on.
    ClosedPromotes,
    /// Promotion does not look at the time.
    PromoteTooLate,
    /// A repeated release passes a place on again.
    ReleaseTwice,
    /// A promotion is dropped if its booking has no row yet.
    PromotionDropped,
    /// A claim that joined the queue for a booking without a row is not watched.
    TicketUnwatched,
    /// The commit of a row ends the watch of its claim.
    CommitEndsWatch,
    /// A row that exists when the grace is over ends the watch, as that of a booking with a place does.
    AnyRowEndsWatch,
    /// A PENDING booking that joins the queue is not watched, so its promotion may have come before.
    PendingUnwatched,
    /// A wait ends by Screening's clock, without asking Hospital.
    ExpireUnasked,
    /// Hospital ignores how a wait ended.
    EndUnheard,
    /// A promotion books whatever the row is.
    Resurrect,
    /// A promotion does not look for another booking of the date.
    ConflictIgnored,
    /// A PENDING booking joins the queue although its customer waits for the slot already.
    SecondTicket,
}

/// A hasher for states, which are already distinct numbers: spreading their bits is enough.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }

    fn write_u128(&mut self, key: u128) {
        let folded = (key as u64) ^ ((key >> 64) as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.0 = (folded ^ (folded >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }
}

/// Explores breadth first; returns the number of states, or the shortest path to a violation.
fn explore(rows: &Rows, variant: Variant, scenario: &Scenario) -> Result<usize, String> {
    let slots = Slots::new(variant);
    let start = World::start(scenario, &slots);
    let mut known: HashSet<u128, BuildHasherDefault<Spread>> = HashSet::default();
    known.insert(start.key());
    let (mut queue, mut next) = (vec![(start, 0, "", 0)], 0);
    let mut successors = Successors::new(rows, &slots, variant, scenario);
    while next < queue.len() {
        let world = queue[next].0;
        if let Some(violation) = world.violation(scenario, &slots) {
            let (mut steps, mut at) = (Vec::new(), next);
            while at != 0 {
                let (_, before, label, number) = queue[at];
                steps.push(format!("{label} ({number})"));
                at = before;
            }
            steps.reverse();
            return Err(format!("{violation} after {} states: {}", next + 1, steps.join("; ")));
        }
        for (label, number, found) in successors.of(world) {
            if known.insert(found.key()) {
                queue.push((found, next, label, number));
            }
        }
        next += 1;
    }
    Ok(queue.len())
}

#[test]
fn the_design_holds() {
    let rows = Rows::new();
    let mut all = 0;
    for scenario in SCENARIOS {
        let states = explore(&rows, Variant::Design, scenario)
            .unwrap_or_else(|violation| panic!("{}: {violation}", scenario.name));
        println!("design, {}: {states} states hold every invariant", scenario.name);
        all += states;
    }
    println!("design: {all} states");
    assert!(all > 100_000, "the model has become trivial: {all} states");
}

#[test]
fn every_missing_precaution_is_caught() {
    let rows = Rows::new();
    for variant in [
        Variant::PromoteLater,
        Variant::NewcomerFirst,
        Variant::IgnoreTickets,
        Variant::JoinByOldCount,
        Variant::RaiseGoesOnSale,
        Variant::ReopenGoesOnSale,
        Variant::ReductionPromotes,
        Variant::CancelSparesQueue,
        Variant::ClosedPromotes,
        Variant::PromoteTooLate,
        Variant::ReleaseTwice,
        Variant::PromotionDropped,
        Variant::TicketUnwatched,
        Variant::CommitEndsWatch,
        Variant::AnyRowEndsWatch,
        Variant::PendingUnwatched,
        Variant::ExpireUnasked,
        Variant::EndUnheard,
        Variant::Resurrect,
        Variant::ConflictIgnored,
        Variant::SecondTicket,
    ] {
        let scenario = scenarios::for_variant(variant);
        match explore(&rows, variant, scenario) {
            Err(violation) => println!("{variant:?}, {}: {violation}", scenario.name),
            Ok(states) => panic!("{variant:?} passes with {states} states"),
        }
    }
}
