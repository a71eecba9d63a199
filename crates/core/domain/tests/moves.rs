//! Explores moves of a booking exhaustively, over the rules that the services run.
//!
//! A booking is CONFIRMED on slot A, and two calls move it at the same time: both to slot B, to B and to C, or to B and
//! back to A. B and C have one place each, and on B somebody else takes it or leaves it. A reserve that was sent may
//! arrive at any later moment, more than once or never; answers are lost; events arrive at any later moment. The
//! customer cancels, and the hospital takes any place away. Two things are no steps of their own: a slot that closes
//! refuses as a full one does, and a crash of Screening loses what can be lost one by one.
//!
//! All decisions come from `domain`: `screening` for the row, `capacity` for claims, `booking` for the step after a
//! reply. What the services add is repeated here: which claims Screening watches, and when it fences and releases them.
//!
//! Each variant leaves out one precaution and must be caught: a model that passes a variant checks nothing.

#[path = "moves/rules.rs"]
mod rules;

use std::collections::HashSet;

use rules::{Act, Answer, Claim, GENERATIONS, Outcome, Row, Rules, Slot};

/// How often a move reads the row and goes on, its own repetitions after a lost answer included.
const ATTEMPTS: u8 = 2;
/// The slots that the two moves go to.
const PAIRS: [[Slot; 2]; 3] = [[Slot::B, Slot::B], [Slot::B, Slot::C], [Slot::B, Slot::A]];

/// The precaution that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// None: this is the design as it runs.
    Design,
    /// A move gives the old place back before it commits.
    ReleaseBeforeCommit,
    /// Every claim of a screening that has a row counts as settled, as if bookings could not move.
    FenceByScreening,
    /// A commit uses a claim although it was fenced.
    CommitIgnoresFence,
    /// The revocation of a claim that the row does not hold yet is dropped.
    RevokeIgnored,
    /// The reconciler releases the claim of a move without first fencing it in the row.
    ReleaseWithoutFence,
    /// Hospital ignores that a booking has moved.
    NoRelease,
}

/// The event CapacityReserved of a claim, and what Screening makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Watch {
    /// There was none, or it needs nothing any more.
    Done,
    OnItsWay,
    /// The reconciler will look at the claim.
    Watched,
    /// No row can hold the claim. A release is on its way to Hospital.
    Releasing,
}

/// The claim of one generation, and the messages about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    claim: Claim,
    watch: Watch,
    /// Whether the event ScreeningRescheduled or ScreeningCancelled that gives it back is on its way.
    left: bool,
    /// Whether the event CapacityRevoked is on its way.
    revoked: bool,
}

/// How far a call that moves the booking is. A number is the generation of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// It reads the row next, if it goes on at all.
    Idle,
    /// It has sent a reserve.
    Asking(usize),
    /// It has Hospital's answer.
    Answered(usize, Answer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Move {
    to: Slot,
    phase: Phase,
    attempts: u8,
    /// Whether a reserve was sent that can still change something, by generation.
    sent: [bool; 1 + GENERATIONS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    row: Row,
    /// By generation; the first is not used.
    places: [Place; 1 + GENERATIONS],
    moves: [Move; 2],
    /// Whether somebody else has the place on slot B.
    rival: bool,
}

impl World {
    /// The event of the first claim came before its booking was committed, so the claim is watched still. An event that
    /// comes later finds the row and changes nothing.
    fn start(pair: [Slot; 2]) -> Self {
        let none = Place { claim: Claim::NONE, watch: Watch::Done, left: false, revoked: false };
        let mut places = [none; 1 + GENERATIONS];
        places[1] = Place { claim: Claim::active(Slot::A), watch: Watch::Watched, ..none };
        let moves = pair.map(|to| Move { to, phase: Phase::Idle, attempts: 0, sent: [false; 1 + GENERATIONS] });
        Self { row: Row::START, places, moves, rival: false }
    }

    /// Applies a command to the row, as the rules judge it.
    fn act(&mut self, rules: &Rules, act: Act) -> Outcome {
        let acted = rules.act(self.row, act);
        self.row = acted.row;
        if let Some(generation) = acted.left {
            self.places[generation].left = true;
        }
        acted.outcome
    }

    /// Drops messages that change nothing, which by the rules then change nothing later either. Without this there are
    /// a hundred times as many states.
    fn settle(&mut self, rules: &Rules) {
        for generation in 1..=GENERATIONS {
            let changes = |act: Act| rules.act(self.row, act).row != self.row;
            let (fences, revokes) = (changes(Act::Fence(generation)), changes(Act::Revoke(generation)));
            let place = &mut self.places[generation];
            place.revoked &= revokes;
            if rules.release(place.claim) == place.claim {
                place.left = false;
                place.watch = if fences { place.watch } else { Watch::Done };
            }
            if place.claim == Claim::REVOKED && !place.revoked {
                place.claim = Claim::RELEASED;
            }
            if place.claim != Claim::NONE {
                self.moves.iter_mut().for_each(|one| one.sent[generation] &= one.phase == Phase::Asking(generation));
            }
        }
    }

    /// How many places of the slot are left.
    fn free(&self, slot: Slot) -> i32 {
        let ours = self.places.iter().filter(|place| place.claim == Claim::active(slot)).count() as i32;
        slot.capacity() - ours - i32::from(self.rival && slot == Slot::B)
    }

    /// The invariant that does not hold, if any.
    fn violation(&self, rules: &Rules) -> Option<&'static str> {
        if Slot::ALL.into_iter().any(|slot| self.free(slot) < 0) {
            return Some("more active claims than places");
        }
        let (slot, generation) = rules.held(self.row);
        let (own, is_confirmed) = (self.places[generation], rules.is_confirmed(self.row));
        let losing_it = own.claim == Claim::REVOKED && own.revoked;
        if is_confirmed && own.claim != Claim::active(slot) && !losing_it {
            return Some("the booking is confirmed without a place");
        }
        // a reserve that is late may be lost as well
        let is_silent = |place: &Place| place.watch == Watch::Done && !place.left && !place.revoked;
        let is_quiet = self.places.iter().all(is_silent) && self.moves.iter().all(|one| one.phase == Phase::Idle);
        let active = self.places.iter().filter(|place| place.claim.place().is_some()).count();
        match (is_quiet, is_confirmed) {
            (true, true) if active != 1 => Some("all is quiet, and the booking has not one place"),
            (true, false) if active > 0 => Some("all is quiet, and an ended booking has a place"),
            _ => None,
        }
    }
}

/// The possible next events, and the world after each.
struct Successors<'a> {
    rules: &'a Rules,
    variant: Variant,
    world: World,
    /// Each `#` stands for one of the numbers: that of a move, or the generation of a claim.
    found: Vec<(&'static str, [usize; 2], World)>,
}

impl Successors<'_> {
    fn add(&mut self, label: &'static str, numbers: [usize; 2], change: impl FnOnce(&mut World)) {
        let mut world = self.world;
        change(&mut world);
        world.settle(self.rules);
        self.found.push((label, numbers, world));
    }

    fn all(&mut self) {
        let (rules, World { row, places, moves, rival }) = (self.rules, self.world);
        for (index, one) in moves.into_iter().enumerate() {
            self.go_on(index, one);
            (1..=GENERATIONS).for_each(|generation| self.reserve([index, generation], one));
        }
        for (generation, place) in places.into_iter().enumerate().skip(1) {
            self.watch(generation, place);
            self.events(generation, place);
        }
        if rules.is_confirmed(row) {
            self.add("the customer cancels", [0, 0], |world| _ = world.act(rules, Act::Cancel));
        }
        let (_, answer, _) = rules.reserve(Claim::NONE, Slot::B, self.world.free(Slot::B));
        if rival || answer == Answer::Granted {
            self.add("somebody else takes or leaves slot B", [0, 0], |world| world.rival = !rival);
        }
    }

    fn go_on(&mut self, index: usize, one: Move) {
        let idle = Move { phase: Phase::Idle, ..one };
        let step = match one.phase {
            Phase::Idle => self.begin(one),
            Phase::Asking(generation) => Some(("move # gets no answer for claim #", generation, idle)),
            Phase::Answered(generation, answer) => {
                self.answered([index, generation], idle, answer);
                // where the claim is on another slot, this is also the pause for the other move
                Some(("move # loses the answer for claim #", generation, idle))
            }
        };
        if let Some((label, generation, next)) = step {
            self.add(label, [index, generation], |world| world.moves[index] = next);
        }
    }

    /// An attempt of a move that has read the row.
    fn begin(&self, one: Move) -> Option<(&'static str, usize, Move)> {
        let generation = self.rules.claim_of_a_move(self.world.row, one.to).filter(|_| one.attempts < ATTEMPTS)?;
        let mut next = Move { attempts: one.attempts + 1, ..one };
        if self.rules.held(self.world.row) == (one.to, generation) {
            next.phase = Phase::Answered(generation, Answer::Granted);
            return Some(("move # finds the booking on its slot with claim #", generation, next));
        }
        next.phase = Phase::Asking(generation);
        *next.sent.get_mut(generation)? = true;
        Some(("move # sends a reserve for claim #", generation, next))
    }

    /// A reserve that was sent may arrive at any time, also when nobody waits for its answer any more.
    fn reserve(&mut self, [index, generation]: [usize; 2], one: Move) {
        if !one.sent[generation] {
            return;
        }
        let place = self.world.places[generation];
        let (claim, answer, is_announced) = self.rules.reserve(place.claim, one.to, self.world.free(one.to));
        let place = Place { claim, watch: if is_announced { Watch::OnItsWay } else { place.watch }, ..place };
        let label = "hospital hears move # reserve claim # and is not heard";
        self.add(label, [index, generation], |world| world.places[generation] = place);
        if one.phase != Phase::Asking(generation) {
            return;
        }
        let answered = Move { phase: Phase::Answered(generation, answer), ..one };
        let ended = Move { phase: Phase::Idle, attempts: ATTEMPTS, ..one };
        let (label, next) = match answer {
            Answer::Granted => ("hospital tells move # that claim # is active", answered),
            Answer::Ended => ("hospital tells move # that claim # has ended", answered),
            Answer::Elsewhere => ("hospital tells move # that claim # is on another slot", answered),
            Answer::Refused => ("hospital refuses move # a place for claim #", ended),
        };
        self.add(label, [index, generation], |world| (world.places[generation], world.moves[index]) = (place, next));
    }

    /// The move does not know what happened to the row since it read it; the rules do.
    fn answered(&mut self, [index, generation]: [usize; 2], idle: Move, answer: Answer) {
        let (rules, variant, (_, held)) = (self.rules, self.variant, self.rules.held(self.world.row));
        let (is_granted, old) = (answer == Answer::Granted, self.world.places[held].claim);
        if variant == Variant::ReleaseBeforeCommit && is_granted && held < generation && old.place().is_some() {
            let claim = rules.release(old);
            self.add("a move gives claim # back first", [held, 0], |world| world.places[held].claim = claim);
            return;
        }
        let moves = [false, true].map(|conflict| Act::Move(idle.to, generation, conflict));
        let commits = [
            ("move # commits with claim #", moves[0]),
            ("move # commits with claim # but has another booking on the date", moves[1]),
        ];
        let fences = [("move # fences claim #", Act::Fence(generation))];
        for (label, act) in if is_granted { commits.iter() } else { fences.iter() } {
            self.add(label, [index, generation], |world| {
                if variant == Variant::CommitIgnoresFence && is_granted {
                    world.row = rules.without_fence(world.row);
                }
                let is_over = world.act(rules, *act) != Outcome::Fenced && is_granted;
                world.moves[index] = if is_over { Move { attempts: ATTEMPTS, ..idle } } else { idle };
            });
        }
    }

    fn watch(&mut self, generation: usize, place: Place) {
        let (rules, variant, (_, held)) = (self.rules, self.variant, self.rules.held(self.world.row));
        match place.watch {
            Watch::Done => {}
            Watch::OnItsWay => {
                let is_settled = generation == 1 || generation == held || variant == Variant::FenceByScreening;
                let watch = if is_settled { Watch::Done } else { Watch::Watched };
                self.add("screening hears of claim #", [generation, 0], |world| world.places[generation].watch = watch);
            }
            Watch::Watched => self.add("the reconciler fences claim # or finds it held", [generation, 0], |world| {
                if variant != Variant::ReleaseWithoutFence {
                    world.act(rules, Act::Fence(generation));
                }
                let is_held = rules.held(world.row).1 == generation;
                world.places[generation].watch = if is_held { Watch::Done } else { Watch::Releasing };
            }),
            Watch::Releasing => {
                let released = rules.release(place.claim);
                for (label, claim, watch) in [
                    ("hospital releases claim #", released, Watch::Done),
                    ("hospital releases claim # and nobody hears", released, Watch::Watched),
                    ("the release of claim # is lost", place.claim, Watch::Watched),
                ] {
                    let next = Place { claim, watch, ..place };
                    self.add(label, [generation, 0], |world| world.places[generation] = next);
                }
            }
        }
    }

    fn events(&mut self, generation: usize, place: Place) {
        let (rules, (_, held)) = (self.rules, self.rules.held(self.world.row));
        if place.left {
            let is_ignored = self.variant == Variant::NoRelease && generation < held;
            let claim = if is_ignored { place.claim } else { rules.release(place.claim) };
            let next = Place { claim, left: false, ..place };
            self.add("hospital hears that claim # was left", [generation, 0], |world| world.places[generation] = next);
        }
        if place.revoked {
            let is_ignored = self.variant == Variant::RevokeIgnored && generation > held;
            self.add("screening hears that claim # was revoked", [generation, 0], |world| {
                world.places[generation].revoked = false;
                if !is_ignored {
                    world.act(rules, Act::Revoke(generation));
                }
            });
        }
        if place.claim.place().is_some() {
            let next = Place { claim: rules.revoke(place.claim), revoked: true, ..place };
            self.add("hospital revokes claim #", [generation, 0], |world| world.places[generation] = next);
        }
    }
}

/// Explores breadth first; returns the number of states, or the shortest path to a violation.
fn explore(rules: &Rules, variant: Variant, pair: [Slot; 2]) -> Result<usize, String> {
    let start = World::start(pair);
    let mut known = HashSet::from([start]);
    let (mut queue, mut next) = (vec![(start, 0, "", [0, 0])], 0);
    let mut successors = Successors { rules, variant, world: start, found: Vec::new() };
    while next < queue.len() {
        let world = queue[next].0;
        if let Some(violation) = world.violation(rules) {
            let (mut steps, mut at) = (Vec::new(), next);
            while at != 0 {
                let (_, before, label, numbers) = queue[at];
                let number = |step: String, number: usize| step.replacen('#', &number.to_string(), 1);
                steps.push(numbers.into_iter().fold(label.to_owned(), number));
                at = before;
            }
            steps.reverse();
            return Err(format!("{violation} after {} states: {}", next + 1, steps.join("; ")));
        }
        successors.world = world;
        successors.all();
        for (label, numbers, found) in successors.found.drain(..) {
            if known.insert(found) {
                queue.push((found, next, label, numbers));
            }
        }
        next += 1;
    }
    Ok(queue.len())
}

#[test]
fn the_design_holds() {
    let rules = Rules::new();
    let mut all = 0;
    for pair in PAIRS {
        let states = explore(&rules, Variant::Design, pair).unwrap_or_else(|violation| panic!("{pair:?}: {violation}"));
        println!("design, moves to {pair:?}: {states} states hold every invariant");
        all += states;
    }
    assert!(all > 100_000, "the model has become trivial: {all} states");
}

#[test]
fn every_missing_precaution_is_caught() {
    let rules = Rules::new();
    for variant in [
        Variant::ReleaseBeforeCommit,
        Variant::FenceByScreening,
        Variant::CommitIgnoresFence,
        Variant::RevokeIgnored,
        Variant::ReleaseWithoutFence,
        Variant::NoRelease,
    ] {
        for pair in PAIRS {
            match explore(&rules, variant, pair) {
                Err(violation) => println!("{variant:?}, moves to {pair:?}: {violation}"),
                Ok(states) => panic!("{variant:?} passes with {states} states"),
            }
        }
    }
}
