//! What may happen next in the model of queues.

use domain::booking::{
    Accepts, Ended, PendingStep, Reply, Step, WaitingStep, after_release, pending_step, step, waiting_step,
};

use crate::Variant;
use crate::rows::{Act, Row, Rows};
use crate::scenarios::{Kind, Scenario};
use crate::slot::{BOOKINGS, Claim, Op, Sale, Slot};
use crate::slots::Slots;
use crate::world::{Booking, Call, Question, Reserved, World};

/// The possible next events, and the world after each.
pub(crate) struct Successors<'a> {
    rows: &'a Rows,
    slots: &'a Slots,
    variant: Variant,
    scenario: &'a Scenario,
    world: World,
    slot: Slot,
    found: Vec<(&'static str, usize, World)>,
}

impl<'a> Successors<'a> {
    pub(crate) fn new(rows: &'a Rows, slots: &'a Slots, variant: Variant, scenario: &'a Scenario) -> Self {
        let world = World::start(scenario, slots);
        Self { rows, slots, variant, scenario, world, slot: slots.get(world.slot), found: Vec::new() }
    }

    pub(crate) fn of(&mut self, world: World) -> Vec<(&'static str, usize, World)> {
        (self.world, self.slot) = (world, self.slots.get(world.slot));
        for index in 0..BOOKINGS {
            let (booking, kind) = (world.bookings[index], self.scenario.kinds[index]);
            self.calls(index, booking, kind);
            self.question(index, booking, kind);
            self.events(index, booking, kind);
            self.customer(index, booking, kind);
        }
        self.admins();
        std::mem::take(&mut self.found)
    }

    fn add(&mut self, label: &'static str, number: usize, change: impl FnOnce(&mut World)) {
        let mut world = self.world;
        change(&mut world);
        let slot = self.slots.get(world.slot);
        world.bookings.iter_mut().zip(slot.claims).for_each(|(booking, claim)| booking.settle(claim, self.variant));
        self.found.push((label, number, world));
    }

    /// A transaction of Hospital. Its events are those of the claims that it changed.
    fn hear(&self, world: &mut World, op: Op) -> Reply {
        let heard = self.slots.hear(world.slot, op);
        let (before, after) = (self.slots.get(world.slot), self.slots.get(heard.slot));
        world.slot = heard.slot;
        world.broken = world.broken.or(heard.broken);
        for ((booking, old), new) in world.bookings.iter_mut().zip(before.claims).zip(after.claims) {
            match (old, new) {
                (Claim::None, Claim::Waiting(..)) => booking.joined = true,
                (Claim::None, Claim::Active) => booking.reserved = Reserved::AtOnce,
                (Claim::Waiting(..), Claim::Active) => booking.reserved = Reserved::Promoted,
                _ => {}
            }
        }
        match op {
            Op::Reserve(index, _)
                if world.bookings[index].revoked && heard.reply == Reply::Terminated(Ended::Released) =>
            {
                Reply::Terminated(Ended::Revoked)
            }
            _ => heard.reply,
        }
    }

    /// Applies a command to the row, as the rules judge it.
    fn act(&self, world: &mut World, index: usize, act: Act) {
        let booking = &mut world.bookings[index];
        let (row, ends) = self.rows.act(booking.row, act);
        // the event of its promotion may have come while it was PENDING, and did nothing then
        let joins = booking.row.is_open() && row == Row::Waitlisted;
        booking.watched |= joins && self.variant != Variant::PendingUnwatched;
        booking.row = row;
        booking.ended |= ends;
        let has_expired = act == Act::Expire && row == Row::Ended;
        let is_active = self.slot.claims[index] == Claim::Active;
        if has_expired && is_active && self.slot.clock == 2 && !self.has_two_clocks() {
            world.broken = Some("who got a place in time is turned away");
        }
    }

    /// Whether Screening may hold the time of promotion for over while Hospital still promotes.
    fn has_two_clocks(&self) -> bool {
        self.scenario.once.contains(&Op::Clock(1))
    }

    /// Whether the customer has another active booking on that date; or, for `waits`, one that waits for the slot.
    fn conflict(&self, index: usize, waits: bool) -> bool {
        let other = match index {
            1 if self.scenario.twins => self.world.bookings[2].row,
            2 if self.scenario.twins => self.world.bookings[1].row,
            _ => Row::None,
        };
        self.world.bookings[index].elsewhere || other.is_active() || (waits && other == Row::Waitlisted)
    }

    fn confirm(&self, index: usize) -> Act {
        Act::Confirm(self.conflict(index, false))
    }

    fn queue(&self, index: usize, row: Row) -> Act {
        let is_missing = self.variant == Variant::SecondTicket && row.is_open();
        Act::Queue(self.conflict(index, true) && !is_missing)
    }

    fn calls(&mut self, index: usize, booking: Booking, kind: Kind) {
        for (number, call) in booking.calls.into_iter().enumerate() {
            let Some(joins) = kind.calls[number] else { continue };
            let set = |world: &mut World, call| world.bookings[index].calls[number] = call;
            let is_next = number == 0 || booking.calls[0] != Call::Unsent;
            match call {
                Call::Unsent if booking.row == Row::None && is_next && !self.conflict(index, joins) => {
                    self.add("screening sends a reserve", index, |world| set(world, Call::Sent));
                }
                Call::Unsent | Call::Done => {}
                Call::Sent => self.answer(index, number, joins, kind),
                Call::Granted => {
                    let act = self.confirm(index);
                    let mut world = self.world;
                    self.act(&mut world, index, act);
                    set(&mut world, Call::Done);
                    self.add("screening commits CONFIRMED", index, |next| *next = world);
                }
                Call::Queued => {
                    let act = self.queue(index, booking.row);
                    let mut world = self.world;
                    self.act(&mut world, index, act);
                    set(&mut world, Call::Done);
                    world.bookings[index].watched &= self.variant != Variant::CommitEndsWatch;
                    self.add("screening commits WAITLISTED", index, |next| *next = world);
                }
            }
            if kind.loses && matches!(call, Call::Granted | Call::Queued) {
                self.add("screening crashes before it commits", index, |world| set(world, Call::Done));
            }
        }
        for joins in [false, true].into_iter().filter(|joins| booking.late[usize::from(*joins)]) {
            let mut world = self.world;
            world.bookings[index].late[usize::from(joins)] = false;
            self.hear(&mut world, Op::Reserve(index, joins));
            self.add("hospital hears a late reserve", index, |next| *next = world);
        }
    }

    fn answer(&mut self, index: usize, number: usize, joins: bool, kind: Kind) {
        let accepts = Accepts { pending: kind.parks, waitlisted: joins };
        let mut world = self.world;
        let reply = self.hear(&mut world, Op::Reserve(index, joins));
        world.bookings[index].calls[number] = match step(reply, accepts) {
            Step::Commit => Call::Granted,
            Step::Queue => Call::Queued,
            Step::Full | Step::PassOn | Step::NextAttempt => Call::Done,
            step => panic!("{step:?} after {reply:?}"),
        };
        self.add("hospital answers a reserve", index, |next| *next = world);
        if kind.loses || kind.parks {
            let mut world = self.world;
            world.bookings[index].calls[number] = Call::Done;
            world.bookings[index].late[usize::from(joins)] = true;
            if step(Reply::Unknown, accepts) == Step::Park {
                self.act(&mut world, index, Act::Park(joins, self.conflict(index, false)));
            }
            self.add("a call gets no answer", index, |next| *next = world);
        }
    }

    /// What Screening asks by itself, of a booking whose row waits for an answer.
    fn question(&mut self, index: usize, booking: Booking, kind: Kind) {
        let set = |world: &mut World, question| world.bookings[index].question = question;
        let is_over = booking.row == Row::Waitlisted && self.slot.clock > 0;
        match booking.question {
            Question::None if is_over && self.variant == Variant::ExpireUnasked => {
                self.act_alone("a wait ends unasked", index, Act::Expire);
            }
            Question::None => {
                let next = match booking.row {
                    row if row.is_open() => Question::Pending,
                    Row::Waitlisted if is_over => Question::Over,
                    Row::Waitlisted if booking.watched => Question::Waiting,
                    _ => return,
                };
                self.add("screening asks again", index, |world| set(world, next));
            }
            Question::Pending | Question::Waiting | Question::Over => {
                let mut world = self.world;
                let joins = booking.row != Row::PendingOnly;
                let reply = self.hear(&mut world, Op::Reserve(index, joins));
                set(&mut world, after(booking, reply));
                if booking.question != Question::Pending && !matches!(reply, Reply::Unknown | Reply::Busy(_)) {
                    // the promotion that comes after this answer finds the row
                    world.bookings[index].watched &= reply == Reply::Active;
                }
                self.add("hospital answers what screening asked", index, |next| *next = world);
                if kind.loses {
                    let mut world = self.world;
                    set(&mut world, Question::None);
                    world.bookings[index].late[usize::from(joins)] = true;
                    self.add("what screening asked gets no answer", index, |next| *next = world);
                }
            }
            Question::Confirm => self.conclude(index, self.confirm(index)),
            Question::Queue => self.conclude(index, self.queue(index, booking.row)),
            Question::GiveUp => self.conclude(index, Act::GiveUp),
            Question::Expire => self.conclude(index, Act::Expire),
        }
        if booking.row == Row::GivenUp {
            let claim = self.slot.claims[index];
            if claim != Claim::Ended {
                self.hear_alone("hospital releases for the resolver", index, Op::Release(index));
            } else if after_release(if booking.revoked { Ended::Revoked } else { Ended::Released }) {
                self.act_alone("the resolver rejects", index, Act::Reject);
            }
        }
    }

    /// Writes what an answer led to. A crash before that loses it.
    fn conclude(&mut self, index: usize, act: Act) {
        let mut world = self.world;
        world.bookings[index].question = Question::None;
        self.act(&mut world, index, act);
        self.add("screening writes what it heard", index, |next| *next = world);
        if self.scenario.kinds[index].loses {
            self.add("screening forgets what it heard", index, |world| {
                world.bookings[index].question = Question::None;
            });
        }
    }

    fn act_alone(&mut self, label: &'static str, index: usize, act: Act) {
        let mut world = self.world;
        self.act(&mut world, index, act);
        self.add(label, index, |next| *next = world);
    }

    fn hear_alone(&mut self, label: &'static str, index: usize, op: Op) {
        let mut world = self.world;
        self.hear(&mut world, op);
        self.add(label, index, |next| *next = world);
    }

    fn events(&mut self, index: usize, booking: Booking, kind: Kind) {
        if booking.joined {
            let watched = self.variant != Variant::TicketUnwatched;
            self.add("screening hears that the claim waits", index, |world| {
                let booking = &mut world.bookings[index];
                (booking.joined, booking.watched) = (false, booking.watched || watched);
            });
        }
        // each is delivered once, or once more
        for again in [false, true].into_iter().filter(|again| !again || kind.loses) {
            if booking.reserved != Reserved::None {
                let mut world = self.world;
                self.reserved(&mut world, index, booking);
                world.bookings[index].reserved = if again { booking.reserved } else { Reserved::None };
                self.add("screening hears of the place", index, |next| *next = world);
            }
            if booking.revoked {
                let mut world = self.world;
                self.act(&mut world, index, Act::Revoke);
                world.bookings[index].revoked = again;
                self.add("screening hears of the revocation", index, |next| *next = world);
            }
            if booking.ended {
                self.ended(index, again);
            }
        }
        if booking.watched && booking.row == Row::None {
            let mut world = self.world;
            self.act(&mut world, index, Act::Fence);
            world.bookings[index].watched = false;
            self.add("the reconciler fences the claim", index, |next| *next = world);
        }
        let is_missing = self.variant == Variant::AnyRowEndsWatch;
        if booking.watched && (booking.row.is_open() || is_missing && booking.row == Row::Waitlisted) {
            self.add("the reconciler finds a row", index, |world| world.bookings[index].watched = false);
        }
    }

    fn reserved(&self, world: &mut World, index: usize, booking: Booking) {
        let is_promotion = booking.reserved == Reserved::Promoted;
        match booking.row {
            Row::None => {
                world.bookings[index].watched |= !(is_promotion && self.variant == Variant::PromotionDropped);
            }
            Row::Waitlisted if self.variant == Variant::ConflictIgnored => self.act(world, index, Act::Confirm(false)),
            Row::Waitlisted => self.act(world, index, self.confirm(index)),
            Row::Ended if self.variant == Variant::Resurrect => world.bookings[index].row = Row::Confirmed,
            _ => {}
        }
    }

    /// Hospital hears that a booking ended, and releases its claim.
    fn ended(&mut self, index: usize, again: bool) {
        let mut world = self.world;
        world.bookings[index].ended = again;
        let in_vain = self.slot.claims[index].waits();
        if self.variant != Variant::EndUnheard || !in_vain {
            self.hear(&mut world, Op::Release(index));
        }
        self.add("hospital hears of the end", index, |next| *next = world);
        if self.variant == Variant::NewcomerFirst {
            for newcomer in 0..BOOKINGS {
                if self.scenario.kinds[newcomer].calls[0] == Some(false)
                    && self.world.bookings[newcomer].calls[0] == Call::Sent
                {
                    self.hear_alone("hospital hears of the end and a newcomer", newcomer, Op::Both(index, newcomer));
                }
            }
        }
    }

    fn customer(&mut self, index: usize, booking: Booking, kind: Kind) {
        if kind.leaves && self.rows.act(booking.row, Act::Cancel).0 != booking.row {
            self.act_alone("the customer leaves", index, Act::Cancel);
        }
        if kind.books_elsewhere && !booking.elsewhere && !booking.row.is_active() {
            self.add("the customer books elsewhere", index, |world| world.bookings[index].elsewhere = true);
        }
    }

    fn admins(&mut self) {
        let Slot { sale, clock, claims, .. } = self.slot;
        for (bit, op) in self.scenario.once.iter().enumerate() {
            let is_possible = match *op {
                Op::Close => sale == Sale::Open,
                Op::Reopen => sale == Sale::Closed,
                Op::Clock(later) => later > clock,
                _ => true,
            };
            if is_possible && self.world.once & (1 << bit) == 0 {
                let mut world = self.world;
                world.once |= 1 << bit;
                self.hear(&mut world, *op);
                self.add(op.label(), 0, |next| *next = world);
            }
        }
        if sale == Sale::Cancelling {
            for (index, _) in claims.iter().enumerate().filter(|(_, claim)| **claim == Claim::Active || claim.waits()) {
                let mut world = self.world;
                self.hear(&mut world, Op::Revoke(index));
                world.bookings[index].revoked = true;
                self.add("hospital revokes the claim", index, |next| *next = world);
            }
        }
        if self.variant == Variant::PromoteLater {
            self.hear_alone("hospital promotes", 0, Op::Promote);
        }
    }
}

/// What follows from an answer to a question.
fn after(booking: Booking, reply: Reply) -> Question {
    if booking.question == Question::Pending {
        return match pending_step(reply, booking.row == Row::PendingJoins) {
            PendingStep::Confirm => Question::Confirm,
            PendingStep::Queue => Question::Queue,
            PendingStep::GiveUp(_) => Question::GiveUp,
            PendingStep::AwaitRevocation | PendingStep::Later => Question::None,
        };
    }
    match waiting_step(reply, booking.question == Question::Over) {
        WaitingStep::Confirm => Question::Confirm,
        WaitingStep::Expire => Question::Expire,
        WaitingStep::AwaitRevocation | WaitingStep::Later => Question::None,
    }
}
