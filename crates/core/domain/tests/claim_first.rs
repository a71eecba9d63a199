//! Explores the booking protocol exhaustively, over the rules that the services run.
//!
//! Two bookings compete for one place. Every call and answer can be lost or late, and every event can arrive at any
//! later moment. Screening can crash once, a caller can accept PENDING, a customer can cancel, another booking of the
//! same date can win at the commit, the hospital can be deleted. All decisions come from `domain`: `screening` for
//! rows, `capacity` for claims, `booking` for the steps after a reply. Each event is handled once here; the inbox and
//! the property tests of both sides prove that handling it twice changes nothing.
//!
//! Each variant leaves out one precaution and must be caught: a model that passes a variant checks nothing.

#[path = "claim_first/rules.rs"]
mod rules;

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use domain::booking::{Accepts, PendingStep, Reply, Step, after_release, pending_step, step};

use rules::{Act, CLAIMS, Claim, ROWS, Row, Rules};

/// Places of the only slot.
const CAPACITY: usize = 1;
/// How often a service sends the same ReserveCapacity.
const ATTEMPTS: u8 = 2;

/// The precaution that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// None: this is the design as it runs.
    Design,
    /// A release of a claim that was never reserved is dropped instead of remembered.
    NoTombstone,
    /// The reconciler releases an orphan without first writing the fence.
    NoFence,
    /// A revocation of a claim whose row does not exist yet is dropped.
    NoRevokeFence,
    /// Nobody looks for claims without a row.
    NoReconciler,
    /// The commit overwrites whatever row is there.
    ConfirmBlind,
    /// A PENDING booking is confirmed even when it was cancelled meanwhile.
    ParkBlind,
    /// The resolver has a refused claim released without first writing that the booking is given up.
    ReleaseUnmarked,
}

/// An event that reports one change of one booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    None = 0,
    OnItsWay = 1,
    Handled = 2,
}

/// The state of one booking in both services, and the messages between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Booking {
    row: Row,
    claim: Claim,
    /// Reserve calls that the caller's call has sent.
    sent: u8,
    /// Reserve calls on their way to Hospital.
    calls: u8,
    /// Replies on their way back, by their index in the rules.
    replies: [u8; rules::REPLIES],
    /// The resolver's release on its way, then its acknowledgement.
    releasing: Fact,
    /// The event CapacityReserved of this booking.
    reserved: Fact,
    /// The event ScreeningRejected or ScreeningCancelled of this booking.
    given_up: Fact,
    /// The event CapacityRevoked of this booking.
    revoked: Fact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct World {
    bookings: [Booking; 2],
    deleting: bool,
    crashed: bool,
}

impl World {
    fn start() -> Self {
        let booking = Booking {
            row: Row::NONE,
            claim: Claim::NONE,
            sent: 0,
            calls: 0,
            replies: [0; rules::REPLIES],
            releasing: Fact::None,
            reserved: Fact::None,
            given_up: Fact::None,
            revoked: Fact::None,
        };
        Self { bookings: [booking; 2], deleting: false, crashed: false }
    }

    /// The state of the world as a number, for the set of known states. The two bookings are interchangeable.
    fn key(&self) -> u64 {
        let [one, other] = self.bookings.map(|booking| booking.key());
        let pair = one.min(other) * BOOKINGS + one.max(other);
        pair * 4 + u64::from(self.deleting) * 2 + u64::from(self.crashed)
    }

    fn active(&self) -> usize {
        self.bookings.iter().filter(|booking| booking.claim == Claim::ACTIVE).count()
    }

    /// The invariant that does not hold, if any.
    fn violation(&self, rules: &Rules, variant: Variant) -> Option<&'static str> {
        if self.active() > CAPACITY {
            return Some("more active claims than capacity");
        }
        for booking in &self.bookings {
            let losing_it = rules.is_revoked(booking.claim) && booking.revoked == Fact::OnItsWay;
            if rules.is_confirmed(booking.row) && booking.claim != Claim::ACTIVE && !losing_it {
                return Some("a booking is confirmed without a place");
            }
        }
        let quiet = self.bookings.iter().all(|booking| booking.is_quiet(rules, variant));
        if quiet && !(self.deleting && self.active() > 0) {
            let confirmed = self.bookings.iter().filter(|booking| rules.is_confirmed(booking.row)).count();
            if self.active() != confirmed {
                return Some("all is quiet, and the active claims are not the confirmed bookings");
            }
            if self.deleting && confirmed > 0 {
                return Some("a deleted hospital has a booking");
            }
        }
        None
    }
}

/// One more than the greatest [`Booking::key`].
const BOOKINGS: u64 = ROWS * CLAIMS * 3_u64.pow(2 + rules::REPLIES as u32 + 4);

impl Booking {
    fn key(self) -> u64 {
        let row_and_claim = self.row.0 as u64 * CLAIMS + self.claim.0 as u64;
        let facts = [self.releasing, self.reserved, self.given_up, self.revoked].map(|fact| fact as u8);
        let counts = [self.sent, self.calls].into_iter().chain(self.replies).chain(facts);
        counts.fold(row_and_claim, |key, count| {
            assert!(count < 3, "a count the key has no place for");
            key * 3 + u64::from(count)
        })
    }

    /// Whether nothing more will happen to the booking by itself.
    fn is_quiet(&self, rules: &Rules, variant: Variant) -> bool {
        let watched = self.reserved == Fact::OnItsWay && variant != Variant::NoReconciler;
        let on_its_way = watched
            || self.given_up == Fact::OnItsWay
            || self.revoked == Fact::OnItsWay
            || self.releasing != Fact::None;
        !rules.is_pending(self.row) && self.calls == 0 && self.replies == [0; rules::REPLIES] && !on_its_way
    }
}

/// The possible next events, and the world after each.
struct Successors<'a> {
    rules: &'a Rules,
    variant: Variant,
    world: World,
    found: Vec<(&'static str, usize, World)>,
}

impl Successors<'_> {
    fn add(&mut self, label: &'static str, index: usize, booking: Booking) {
        let mut world = self.world;
        world.bookings[index] = booking;
        self.found.push((label, index, world));
    }

    /// Applies a command to the row, as the rules judge it.
    fn act(&mut self, label: &'static str, index: usize, booking: Booking, act: Act) {
        let (row, gives_up) = self.rules.act(booking.row, act);
        let given_up = if gives_up && booking.given_up == Fact::None { Fact::OnItsWay } else { booking.given_up };
        self.add(label, index, Booking { row, given_up, ..booking });
    }

    fn all(&mut self) {
        for index in 0..2 {
            let booking = self.world.bookings[index];
            self.calls(index, booking);
            self.replies(index, booking);
            self.release_of_the_resolver(index, booking);
            self.events(index, booking);
            if self.rules.is_shown(booking.row) && self.rules.act(booking.row, Act::Cancel).0 != booking.row {
                self.act("the customer cancels", index, booking, Act::Cancel);
            }
        }
        self.shared();
    }

    fn calls(&mut self, index: usize, booking: Booking) {
        let silent = booking.replies == [0; rules::REPLIES];
        if booking.row == Row::NONE && booking.sent < ATTEMPTS {
            let sent = Booking { sent: booking.sent + 1, calls: booking.calls + 1, ..booking };
            self.add("screening sends a reserve", index, sent);
        }
        if booking.row == Row::NONE && booking.sent > 0 {
            assert_eq!(step(Reply::Unknown, Accepts { pending: true, waitlisted: false }), Step::Park);
            self.act("screening parks it as PENDING", index, booking, Act::Park);
        }
        let waits = self.rules.is_pending(booking.row) && !self.rules.is_given_up(booking.row);
        if waits && booking.calls < ATTEMPTS && silent {
            self.add("the resolver sends a reserve", index, Booking { calls: booking.calls + 1, ..booking });
        }
        if self.rules.is_given_up(booking.row) && booking.releasing == Fact::None {
            self.add("the resolver sends a release", index, Booking { releasing: Fact::OnItsWay, ..booking });
        }
        if booking.calls > 0 {
            let mut next = Booking { calls: booking.calls - 1, ..booking };
            self.add("a reserve is lost", index, next);
            let others_active = self.world.bookings[1 - index].claim == Claim::ACTIVE;
            let outcome = self.rules.reserve(booking.claim, others_active, self.world.deleting);
            if outcome.announced {
                next.reserved = Fact::OnItsWay;
            }
            next.claim = outcome.claim;
            next.replies[outcome.reply] += 1;
            self.add("hospital answers a reserve", index, next);
        }
    }

    fn replies(&mut self, index: usize, booking: Booking) {
        for reply in 0..rules::REPLIES {
            if booking.replies[reply] == 0 {
                continue;
            }
            let mut rest = booking;
            rest.replies[reply] -= 1;
            self.add("an answer is lost", index, rest);
            let reply = self.rules.reply(reply);
            if step(reply, Accepts::default()) == Step::Commit {
                self.commit(index, rest);
            }
            if self.rules.is_pending(booking.row) {
                match pending_step(reply, false) {
                    PendingStep::Confirm => self.act("the resolver confirms", index, rest, Act::Confirm),
                    PendingStep::GiveUp(_) if self.variant == Variant::ReleaseUnmarked => {
                        self.add("the resolver sends a release", index, Booking { releasing: Fact::OnItsWay, ..rest });
                    }
                    PendingStep::GiveUp(_) => self.act("the resolver gives it up", index, rest, Act::GiveUp),
                    PendingStep::AwaitRevocation | PendingStep::Later => {}
                    PendingStep::Queue => panic!("nobody waits here"),
                }
            }
        }
    }

    /// The caller's call has its claim. It does not know what happened to the row meanwhile; the rules do.
    fn commit(&mut self, index: usize, rest: Booking) {
        let blind = match self.variant {
            Variant::ConfirmBlind => true,
            Variant::ParkBlind => self.rules.is_cancelled(rest.row),
            _ => false,
        };
        if blind {
            self.add("a commit overwrites the row", index, Booking { row: self.rules.confirmed(), ..rest });
            return;
        }
        self.act("screening commits CONFIRMED", index, rest, Act::Confirm);
        if rest.row == Row::NONE {
            self.act("the commit meets another booking of the date", index, rest, Act::ConfirmInConflict);
        }
    }

    /// The release travels to Hospital; once handled, its acknowledgement travels back.
    fn release_of_the_resolver(&mut self, index: usize, booking: Booking) {
        if booking.releasing == Fact::None {
            return;
        }
        let rest = Booking { releasing: Fact::None, ..booking };
        self.add("a release or its answer is lost", index, rest);
        if booking.releasing == Fact::OnItsWay {
            let claim = self.release(booking.claim);
            self.add("hospital acknowledges a release", index, Booking { claim, releasing: Fact::Handled, ..booking });
        } else if after_release(self.rules.ended(booking.claim)) {
            // Without the mark, the rules first see here that the booking was given up.
            let row = self.rules.act(rest.row, Act::GiveUp).0;
            let marked = if self.variant == Variant::ReleaseUnmarked { Booking { row, ..rest } } else { rest };
            self.act("the resolver rejects", index, marked, Act::Reject);
        }
    }

    fn release(&self, claim: Claim) -> Claim {
        let dropped = self.variant == Variant::NoTombstone && claim == Claim::NONE;
        if dropped { claim } else { self.rules.release(claim) }
    }

    fn events(&mut self, index: usize, booking: Booking) {
        if booking.reserved == Fact::OnItsWay && self.variant != Variant::NoReconciler {
            let handled = Booking { reserved: Fact::Handled, ..booking };
            if self.variant == Variant::NoFence && booking.row == Row::NONE {
                let released = Booking { given_up: Fact::OnItsWay, ..handled };
                self.add("the reconciler releases without a fence", index, released);
            } else {
                self.act("the reconciler fences or finds the row", index, handled, Act::Fence);
            }
        }
        if booking.given_up == Fact::OnItsWay {
            let claim = self.release(booking.claim);
            self.add("hospital hears of the end", index, Booking { claim, given_up: Fact::Handled, ..booking });
        }
        if booking.revoked == Fact::OnItsWay {
            let handled = Booking { revoked: Fact::Handled, ..booking };
            if self.variant == Variant::NoRevokeFence && booking.row == Row::NONE {
                self.add("a revocation is dropped", index, handled);
            } else {
                self.act("screening hears of the revocation", index, handled, Act::Revoke);
            }
        }
        if self.world.deleting && booking.claim == Claim::ACTIVE {
            let claim = self.rules.revoke(booking.claim);
            self.add("hospital revokes", index, Booking { claim, revoked: Fact::OnItsWay, ..booking });
        }
    }

    fn shared(&mut self) {
        if !self.world.deleting {
            self.found.push(("the hospital's deletion begins", 0, World { deleting: true, ..self.world }));
        }
        if !self.world.crashed {
            let mut world = World { crashed: true, ..self.world };
            for booking in &mut world.bookings {
                booking.replies = [0; rules::REPLIES];
                if booking.releasing == Fact::Handled {
                    booking.releasing = Fact::None;
                }
            }
            self.found.push(("screening crashes", 0, world));
        }
    }
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

    fn write_u64(&mut self, key: u64) {
        self.0 = (key ^ (key >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }
}

/// Explores breadth first; returns the number of states, or the shortest path to a violation.
fn explore(rules: &Rules, variant: Variant) -> Result<usize, String> {
    let start = World::start();
    let mut known: HashSet<u64, BuildHasherDefault<Spread>> = HashSet::default();
    known.insert(start.key());
    let mut queue = vec![(start, 0, "", 0)];
    let mut next = 0;
    let mut successors = Successors { rules, variant, world: start, found: Vec::new() };
    while next < queue.len() {
        let world = queue[next].0;
        if let Some(violation) = world.violation(rules, variant) {
            let mut steps = Vec::new();
            let mut at = next;
            while at != 0 {
                let (_, before, label, index) = queue[at];
                steps.push(format!("{label} ({index})"));
                at = before;
            }
            steps.reverse();
            return Err(format!("{violation} after {} states: {}", next + 1, steps.join("; ")));
        }
        successors.world = world;
        successors.all();
        for (label, index, found) in successors.found.drain(..) {
            if known.insert(found.key()) {
                queue.push((found, next, label, index));
            }
        }
        next += 1;
    }
    Ok(queue.len())
}

#[test]
fn the_design_holds() {
    let states = explore(&Rules::new(), Variant::Design).unwrap_or_else(|violation| panic!("{violation}"));
    println!("design: {states} states hold every invariant");
    assert!(states > 100_000, "the model has become trivial: {states} states");
}

#[test]
fn every_missing_precaution_is_caught() {
    let rules = Rules::new();
    for variant in [
        Variant::NoTombstone,
        Variant::NoFence,
        Variant::NoRevokeFence,
        Variant::NoReconciler,
        Variant::ConfirmBlind,
        Variant::ParkBlind,
        Variant::ReleaseUnmarked,
    ] {
        match explore(&rules, variant) {
            Err(violation) => println!("{variant:?}: {violation}"),
            Ok(states) => panic!("{variant:?} passes with {states} states"),
        }
    }
}
