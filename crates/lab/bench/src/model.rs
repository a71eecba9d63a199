//! A model of a mesh's size: what a booking costs with more replicas and more hot slots than those that were measured.
//!
//! It is calibrated by two loads of one mesh, with one replica of each service and one hot slot: all callers, and a
//! third of them. It knows five effects and nothing else. It leaves out that nats-server delivers every message once
//! more to each further my-page, and that one replica publishes for all of its service.
//!
//! 1. **Batches.** Callers in a closed loop divide among the replicas. Each of three has a third of the callers, so it
//!    has the batches of one replica that a third of the callers calls. Between, the number of batches for a booking
//!    grows with the replicas, and what they cost with it.
//! 2. **One hot slot has one Hospital.** Calls about a slot go to one replica of Hospital. So Hospital divides only if
//!    there are slots for several of its replicas.
//! 3. **My-page is repeated.** Each of its replicas folds every booking into a file of its own.
//! 4. **Rows of slots.** A batch writes a row for each slot in it, however few of its bookings are about that slot.
//! 5. **Processes.** Each further replica has connections, memory and polls of its own.

use std::collections::BTreeMap;

/// How many times fewer callers the second load of the calibration has: as few as one of the most replicas gets.
pub(crate) const FEWER: u32 = 3;
/// How far a measurement may be from the model, as a factor. The pairs of one measurement are that far apart: on a mesh
/// a booking took 10.1 H, and single pairs 8.33 to 12.7 (docs/measurements/README.md). Less would judge the machine.
pub(crate) const TOLERANCE: f64 = 1.25;

/// The services whose replicas divide the batches of a booking: Hospital, Screening, Reservation and Marketing.
const WRITERS: f64 = 4.0;
/// The facts of a booking: CapacityReserved, ScreeningConfirmed and ReservationRegistered. Each transaction sends one
/// message for each of its facts, so a batch is this many facts over the messages of a booking.
const FACTS: f64 = 3.0;
/// The rows that a booking writes in PostgreSQL, and their entries of indexes, as the migrations make them: 3 of a
/// claim, 7 of a screening, 3 of its request record, 8 of a reservation, 4 of Marketing's.
const ENTRIES: f64 = 25.0;
/// The entries that a batch of Hospital writes for each slot in it: the row. No index has what changes.
const SLOT_ENTRIES: f64 = 1.0;
/// The entries that a batch of Marketing writes for each slot in it: a signal's row, its key and its four indexes, of
/// which two have the share that is taken.
const SIGNAL_ENTRIES: f64 = 6.0;
/// The seconds between two batches of Marketing: the pace in its `reactions.rs`.
const SIGNAL_PACE: f64 = 0.1;
/// What a further replica does while nobody calls, as a share of the first: it asks for the lease of the relay twice a
/// second, with four statements. The one that has it looks for events 25 times, and renews and counts with six.
const FOLLOWER: f64 = 8.0 / 31.0;

/// The group of processes that the rows of slots cost.
pub(crate) const POSTGRES: &str = "PostgreSQL";
/// The group of processes that does everything once in each replica.
pub(crate) const REPEATED: &str = "mypage";
/// What further replicas cost for each booking, only by being there.
pub(crate) const PRESENCE: &str = "further replicas at rest";

/// A point of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// Replicas of each service.
    pub(crate) replicas: u32,
    /// Hot slots, which have equally many bookings.
    pub(crate) slots: u32,
}

/// What was measured at a point, or what the model says of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Ledger {
    /// CPU time of a booking in H, by group of processes, without the callers.
    pub(crate) cpu: BTreeMap<String, f64>,
    /// CPU time of a booking's caller, in H.
    pub(crate) callers: f64,
    /// Bookings for each hello-world call of as many callers.
    pub(crate) rate: f64,
    /// Bookings a second.
    pub(crate) per_second: f64,
    /// CPU time of a hello-world call with its caller, in µs: one H.
    pub(crate) h: f64,
    /// Bytes of PostgreSQL's log for each booking.
    pub(crate) wal: f64,
    /// Transactions of PostgreSQL for each booking, those that only read too.
    pub(crate) commits: f64,
    /// Messages of the broker's stream for each booking.
    pub(crate) messages: f64,
    /// Bytes of the broker's stream for each booking.
    pub(crate) stream: f64,
    /// Connections to PostgreSQL.
    pub(crate) connections: f64,
    /// Resident memory of the services, in MiB.
    pub(crate) memory: f64,
    /// Memory of PostgreSQL's processes that they share with none, in MiB.
    pub(crate) own_memory: f64,
    /// CPU time in use while nobody calls, in cores.
    pub(crate) at_rest: f64,
}

impl Ledger {
    /// CPU time of a booking in H, without the callers.
    pub(crate) fn services(&self) -> f64 {
        self.cpu.values().sum()
    }

    /// What is compared with the model, in one order: a name with its unit, and the value.
    pub(crate) fn quantities(&self) -> [(&'static str, f64); 10] {
        [
            ("CPU of the services a booking, H", self.services()),
            ("rate against hello-world, ×", self.rate),
            ("PostgreSQL's log a booking, bytes", self.wal),
            ("PostgreSQL's commits a booking", self.commits),
            ("messages in the stream a booking", self.messages),
            ("bytes in the stream a booking", self.stream),
            ("connections to PostgreSQL", self.connections),
            ("memory of the services, MiB", self.memory),
            ("PostgreSQL's own memory, MiB", self.own_memory),
            ("CPU while nobody calls, cores", self.at_rest),
        ]
    }
}

/// The model, calibrated with one replica of each service and one hot slot.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// With all callers.
    pub(crate) crowded: Ledger,
    /// With a third of them, see [`FEWER`].
    pub(crate) sparse: Ledger,
}

impl Model {
    /// The point of the calibration.
    pub(crate) const POINT: Point = Point { replicas: 1, slots: 1 };

    /// What is to be measured at a point with all callers.
    pub(crate) fn predict(&self, point: Point) -> Ledger {
        let replicas = f64::from(point.replicas);
        let spread = spread(point);
        let mixed = |crowded: f64, sparse: f64| crowded + spread * (sparse - crowded);
        let of = |quantity: fn(&Ledger) -> f64| mixed(quantity(&self.crowded), quantity(&self.sparse));
        let messages = of(|ledger| ledger.messages);
        let more = self.slot_entries(point, messages) - self.slot_entries(Self::POINT, self.crowded.messages);
        let rows = 1.0 + more / ENTRIES;
        let mut cpu = BTreeMap::new();
        for (group, crowded) in &self.crowded.cpu {
            let sparse = self.sparse.cpu.get(group).copied().unwrap_or(*crowded);
            let times = match group.as_str() {
                POSTGRES => rows,
                REPEATED => replicas,
                _ => 1.0,
            };
            cpu.insert(group.clone(), mixed(*crowded, sparse) * times);
        }
        let further = (replicas - 1.0) * FOLLOWER * self.crowded.at_rest;
        cpu.insert(PRESENCE.to_owned(), further * 1e6 / self.crowded.per_second / self.crowded.h);
        let callers = of(|ledger| ledger.callers);
        // The processors are what a closed loop uses up, so a booking that costs more leaves room for fewer.
        let dearer = (cpu.values().sum::<f64>() + callers) / (self.crowded.services() + self.crowded.callers);
        Ledger {
            cpu,
            callers,
            rate: self.crowded.rate / dearer,
            per_second: self.crowded.per_second / dearer,
            h: self.crowded.h,
            wal: of(|ledger| ledger.wal) * rows,
            commits: of(|ledger| ledger.commits),
            messages,
            stream: of(|ledger| ledger.stream),
            connections: self.crowded.connections * replicas,
            memory: self.crowded.memory * replicas,
            own_memory: self.crowded.own_memory * replicas,
            at_rest: self.crowded.at_rest + further,
        }
    }

    /// The entries that the rows of slots and their signals are for each booking.
    fn slot_entries(&self, point: Point, messages: f64) -> f64 {
        let slots = f64::from(point.slots);
        let batch = FACTS / messages;
        let signals = self.crowded.per_second * SIGNAL_PACE / f64::from(point.replicas);
        SLOT_ENTRIES * slots_a_booking(slots / busy(point), batch) + SIGNAL_ENTRIES * slots_a_booking(slots, signals)
    }
}

/// How many replicas of Hospital are called, on average: each slot has one, as if it were drawn.
fn busy(point: Point) -> f64 {
    drawn(f64::from(point.replicas), f64::from(point.slots))
}

/// How far the batches are on their way from those of all callers (0) to those of a third (1).
fn spread(point: Point) -> f64 {
    let divided = busy(point) - 1.0 + (WRITERS - 1.0) * (f64::from(point.replicas) - 1.0);
    divided / WRITERS / f64::from(FEWER - 1)
}

/// How many different slots a batch has for each of its bookings.
fn slots_a_booking(slots: f64, batch: f64) -> f64 {
    drawn(slots, batch) / batch
}

/// How many different ones of `all` are met in so many draws, on average.
fn drawn(all: f64, draws: f64) -> f64 {
    if all <= 1.0 { 1.0 } else { all * (1.0 - (1.0 - 1.0 / all).powf(draws)) }
}

/// How many times a measurement is more, or less, than the model says. Infinite if one of them says nothing.
pub(crate) fn off(measured: f64, predicted: f64) -> f64 {
    if measured > 0.0 && predicted > 0.0 { (measured / predicted).max(predicted / measured) } else { f64::INFINITY }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9 * expected.abs().max(1.0), "{value} is not {expected}");
    }

    /// Hospital, PostgreSQL and my-page take these, and everything that grows with batches is `batches` times as much.
    pub(crate) fn ledger(batches: f64) -> Ledger {
        let cpu = [("hospital", 2.0 * batches), (POSTGRES, 5.0 * batches), (REPEATED, 1.0)];
        Ledger {
            cpu: cpu.map(|(group, cpu)| (group.to_owned(), cpu)).into(),
            callers: 2.0,
            rate: 0.05,
            per_second: 2_000.0,
            h: 40.0,
            wal: 4_000.0 * batches,
            commits: 0.2 * batches,
            messages: 0.06 * batches,
            stream: 900.0 * batches,
            connections: 30.0,
            memory: 140.0,
            own_memory: 90.0,
            at_rest: 0.031,
        }
    }

    fn model() -> Model {
        Model { crowded: ledger(1.0), sparse: ledger(1.5) }
    }

    fn at(replicas: u32, slots: u32) -> Ledger {
        model().predict(Point { replicas, slots })
    }

    #[test]
    fn where_it_was_calibrated_the_model_says_what_was_measured() {
        let (predicted, measured) = (at(1, 1), ledger(1.0));
        for ((name, predicted), (_, measured)) in predicted.quantities().into_iter().zip(measured.quantities()) {
            assert!((predicted - measured).abs() < 1e-9, "{name}: {predicted} is not {measured}");
        }
    }

    #[test]
    fn three_replicas_have_the_batches_of_a_third_of_the_callers() {
        let (one, three) = (at(1, 64), at(3, 64));
        near((three.cpu["hospital"] * 100.0).round(), 300.0);
        near((three.messages * 1e6).round(), 90_000.0);
        near((three.commits * 1e6).round(), 300_000.0);
        assert!(three.wal > one.wal * 1.4, "{} and {}", three.wal, one.wal);
        near((at(2, 64).messages * 1e6).round(), 75_000.0);
    }

    #[test]
    fn one_hot_slot_keeps_hospital_together() {
        near(busy(Point { replicas: 3, slots: 1 }), 1.0);
        near(busy(Point { replicas: 2, slots: 2 }), 1.5);
        near(spread(Point { replicas: 3, slots: 1 }), 0.75);
        assert!(spread(Point { replicas: 3, slots: 64 }) > 0.999);
        assert!(at(3, 1).messages < at(3, 64).messages);
    }

    #[test]
    fn each_further_replica_brings_its_own() {
        let (one, three) = (at(1, 1), at(3, 1));
        near(three.cpu[REPEATED], 3.0 * one.cpu[REPEATED]);
        near(three.connections, 90.0);
        near(three.memory, 420.0);
        near(three.own_memory, 270.0);
        near(three.at_rest, 0.031 + 2.0 * 0.008);
        // 0.016 cores are 16,000 µs a second, for 2,000 bookings of which one costs 40 µs for each H.
        near(three.cpu[PRESENCE], 0.2);
        near(one.cpu[PRESENCE], 0.0);
    }

    #[test]
    fn a_batch_writes_a_row_for_each_of_its_slots() {
        near(slots_a_booking(1.0, 50.0), 0.02);
        near(slots_a_booking(2.0, 2.0), 0.75);
        assert!(slots_a_booking(1e9, 50.0) > 0.999);
        let (one, many) = (at(1, 1), at(1, 64));
        // 50 bookings a batch of Hospital, 200 a batch of Marketing.
        let more = slots_a_booking(64.0, 50.0) - 0.02 + 6.0 * (slots_a_booking(64.0, 200.0) - 0.005);
        near(many.wal, one.wal * (1.0 + more / 25.0));
        near(many.cpu[POSTGRES], one.cpu[POSTGRES] * (1.0 + more / 25.0));
        near(many.cpu["hospital"], one.cpu["hospital"]);
    }

    #[test]
    fn what_costs_more_is_as_much_slower() {
        let (one, three) = (at(1, 1), at(3, 64));
        let whole = |ledger: &Ledger| ledger.services() + ledger.callers;
        near(three.rate * whole(&three), one.rate * whole(&one));
        assert!(three.rate < one.rate * 0.8);
        near(three.per_second / one.per_second, three.rate / one.rate);
    }

    #[test]
    fn a_measurement_is_as_far_off_above_as_below() {
        near(off(12.0, 10.0), 1.2);
        near(off(10.0, 12.0), 1.2);
        assert!(off(0.0, 10.0) > TOLERANCE && off(10.0, f64::NAN) > TOLERANCE, "nothing is not a measurement");
    }
}
