//! The decisions of the real functions about the claims of one slot.

use domain::booking::Reply;
use domain::capacity::{self, CapacityChange, Claim as RealClaim, ClaimState, RevokeReason, Step, Ticket};
use domain::civil::time_zone;
use domain::hospital::{self, Draft};
use domain::ids::{ClaimId, HospitalId, ScreeningId, SlotId};
use domain::window::BookingPolicy;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::Variant;
use crate::slot::{Claim, Op, Sale, Slot};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn slot_id() -> SlotId {
    SlotId::new(HospitalId::from_segment("seoul").unwrap(), jiff::civil::date(2027, 1, 4))
}

fn claim_id(booking: usize) -> ClaimId {
    ClaimId { screening: ScreeningId(Uuid::from_u128(booking as u128)), generation: 1 }
}

/// The rows of Hospital for a slot of the model.
pub(crate) struct Real {
    hospital: hospital::Hospital,
    slot: capacity::Slot,
    claims: Vec<RealClaim>,
    now: Timestamp,
}

impl Real {
    pub(crate) fn of(model: &Slot) -> Self {
        let hours = |early: bool| SignedDuration::from_hours(if early { 48 } else { 24 });
        let policy = BookingPolicy { promotion_min_notice: hours(model.early), ..BookingPolicy::default() };
        let draft = Draft { display_name: "Seoul".into(), time_zone: time_zone("Asia/Seoul").unwrap(), policy };
        let now =
            time(["2026-12-01T00:00:00Z", "2027-01-02T00:00:00Z", "2027-01-03T00:00:00Z"][usize::from(model.clock)]);
        let (hospital, _) = hospital::register(&slot_id().hospital, Uuid::from_u128(9), &draft, None, now).unwrap();
        let (open, _) = capacity::open_slot(&hospital, slot_id().date, model.capacity.into(), None, now).unwrap();
        let count = |counts: fn(Claim) -> bool| model.claims.iter().filter(|claim| counts(**claim)).count() as i32;
        let state = if model.sale == Sale::Open { capacity::SlotState::Open } else { capacity::SlotState::Closed };
        let (booked, waiting) = (count(|claim| claim == Claim::Active), count(Claim::waits));
        let slot = capacity::Slot { state, booked, waiting, version: 100, ..open };
        let midnight = time("2027-01-03T15:00:00Z");
        let claims = model.claims.iter().enumerate().filter_map(|(booking, claim)| {
            let state = match *claim {
                Claim::None => return None,
                Claim::Active => ClaimState::Active,
                Claim::Waiting(rank, early) => {
                    ClaimState::Waiting(Ticket { number: 10 + i64::from(rank), closes_at: midnight - hours(early) })
                }
                Claim::Ended => ClaimState::Released,
            };
            let id = claim_id(booking);
            Some(RealClaim { id, slot: slot_id(), state, slot_version: 1, version: 1, update_time: now })
        });
        Self { hospital, slot, claims: claims.collect(), now }
    }

    /// The slot of the model after a transaction.
    pub(crate) fn model(&self, before: &Slot, op: Op, variant: Variant) -> Slot {
        let number = |claim: &RealClaim| match claim.state {
            ClaimState::Waiting(ticket) => Some(ticket.number),
            ClaimState::Active | ClaimState::Released | ClaimState::Revoked(_) => None,
        };
        let claims = std::array::from_fn(|booking| {
            let Some(claim) = self.claim(booking) else { return Claim::None };
            match claim.state {
                ClaimState::Active => Claim::Active,
                ClaimState::Waiting(ticket) => {
                    let smaller = self.claims.iter().filter_map(number).filter(|other| *other < ticket.number).count();
                    Claim::Waiting(smaller as u8, ticket.closes_at < time("2027-01-02T00:00:00Z"))
                }
                ClaimState::Released | ClaimState::Revoked(_) => Claim::Ended,
            }
        });
        let is_left = |claim: &Claim| claim.waits() && variant != Variant::CancelSparesQueue;
        let holds = claims.iter().any(|claim| *claim == Claim::Active || is_left(claim));
        let sale = match (before.sale, op) {
            _ if self.slot.state == capacity::SlotState::Open => Sale::Open,
            (_, Op::Cancel) | (Sale::Cancelling, _) if holds => Sale::Cancelling,
            _ => Sale::Closed,
        };
        let clock = if let Op::Clock(clock) = op { clock } else { before.clock };
        let early = before.early && op != Op::Notice;
        let after = Slot { capacity: self.slot.capacity as u8, sale, clock, early, claims };
        let waiting = after.claims.iter().filter(|claim| claim.waits()).count();
        assert_eq!(
            (self.slot.booked, self.slot.waiting),
            (after.active() as i32, waiting as i32),
            "{op:?} of {before:?}"
        );
        after
    }

    fn claim(&self, booking: usize) -> Option<&RealClaim> {
        self.claims.iter().find(|claim| claim.id == claim_id(booking))
    }

    fn queue(&self) -> Vec<RealClaim> {
        let mut queue: Vec<_> = self.claims.clone();
        queue.retain(|claim| matches!(claim.state, ClaimState::Waiting(_)));
        queue.sort_by_key(|claim| if let ClaimState::Waiting(ticket) = claim.state { ticket.number } else { 0 });
        queue
    }

    /// Stores what changed. Where a precaution is missing, the count of places that are taken is made right again.
    fn keep(&mut self, steps: Vec<Step>, variant: Variant) {
        for step in steps {
            self.claims.retain(|claim| claim.id != step.claim.id);
            self.claims.push(step.claim);
            self.slot = step.slot.unwrap_or_else(|| self.slot.clone());
        }
        if variant != Variant::Design {
            self.slot.booked = self.claims.iter().filter(|claim| claim.state == ClaimState::Active).count() as i32;
        }
    }

    pub(crate) fn run(&mut self, op: Op, variant: Variant) -> Reply {
        let mut queue = self.queue();
        match (op, variant) {
            (Op::Reserve(booking, joins), _) => return self.reserve(booking, joins, variant),
            (Op::Release(booking), _) => self.release(booking, variant),
            (Op::Both(left, newcomer), _) => {
                self.release(left, Variant::PromoteLater);
                let reply = self.reserve(newcomer, false, variant);
                self.promote();
                return reply;
            }
            (Op::Promote, _) => self.promote(),
            (Op::Revoke(booking), _) => {
                if let Some(claim) = self.claim(booking) {
                    let step = capacity::revoke(claim, &self.slot, RevokeReason::SlotCancelled, "", self.now);
                    self.keep(vec![step], variant);
                }
            }
            (Op::Raise | Op::Reduce, _) => {
                let by = CapacityChange::By(if op == Op::Raise { 1 } else { -1 });
                if op == Op::Raise && variant == Variant::RaiseGoesOnSale {
                    queue.clear();
                }
                let changed = capacity::set_capacity(&self.hospital, &self.slot, by, "", None, &queue, self.now);
                self.administered(changed.ok().flatten());
                if op == Op::Reduce && variant == Variant::ReductionPromotes {
                    self.promote_one_more();
                }
            }
            (Op::Close | Op::Cancel, _) => {
                let closed = capacity::close_slot(&self.hospital, &self.slot, op == Op::Cancel, "", "", self.now);
                self.slot = closed.unwrap().map_or_else(|| self.slot.clone(), |(slot, _)| slot);
            }
            (Op::Reopen, _) => {
                if variant == Variant::ReopenGoesOnSale {
                    queue.clear();
                }
                let opened = capacity::reopen_slot(&self.hospital, &self.slot, "", false, &queue, self.now);
                self.administered(opened.unwrap());
            }
            (Op::Notice | Op::Clock(_), _) => {}
        }
        Reply::Unknown
    }

    fn administered(&mut self, changed: Option<capacity::Administered>) {
        if let Some(changed) = changed {
            self.slot = changed.slot;
            self.keep(changed.promoted, Variant::Design);
        }
    }

    fn reserve(&mut self, booking: usize, joins: bool, variant: Variant) -> Reply {
        let mut slot = self.slot.clone();
        if variant == Variant::JoinByOldCount && joins {
            slot.booked = slot.capacity;
        }
        let (existing, hospital) = (self.claim(booking), Some(&self.hospital));
        let made = capacity::reserve(&slot_id(), claim_id(booking), existing, hospital, Some(&slot), joins, self.now);
        match made {
            Ok(step) => {
                let reply = if step.claim.state == ClaimState::Active { Reply::Active } else { Reply::Waiting };
                self.keep(vec![step], variant);
                reply
            }
            Err(refusal) => {
                let state = refusal.metadata().get("state").map(String::as_str).unwrap_or_default();
                Reply::of_refusal(refusal.reason(), state)
            }
        }
    }

    fn release(&mut self, booking: usize, variant: Variant) {
        let (mut queue, mut slot, mut now) = (self.queue(), self.slot.clone(), self.now);
        let state = slot.state;
        match variant {
            Variant::PromoteLater => queue.clear(),
            Variant::IgnoreTickets => queue.reverse(),
            Variant::ClosedPromotes => slot.state = capacity::SlotState::Open,
            Variant::PromoteTooLate => now = time("2026-12-01T00:00:00Z"),
            _ => {}
        }
        let mut existing = self.claim(booking).cloned();
        if let (Variant::ReleaseTwice, Some(claim)) = (variant, &mut existing)
            && claim.state == ClaimState::Released
        {
            claim.state = ClaimState::Active;
        }
        let released = capacity::release(&slot_id(), claim_id(booking), existing.as_ref(), Some(&slot), &queue, now);
        let (step, promoted) = released.unwrap();
        let free = |step: &Step| step.slot.as_ref().map(capacity::Slot::remaining);
        assert!(promoted.iter().all(|other| free(other) == free(&step)), "the place was seen free");
        self.keep([vec![step], promoted].concat(), variant);
        self.slot.state = state;
    }

    /// Gives free places to who waits, in a transaction of its own.
    fn promote(&mut self) {
        let closed = capacity::Slot { state: capacity::SlotState::Closed, ..self.slot.clone() };
        let opened = capacity::reopen_slot(&self.hospital, &closed, "", false, &self.queue(), self.now);
        self.administered(opened.unwrap());
    }

    fn promote_one_more(&mut self) {
        self.slot.capacity += 1;
        self.promote();
        self.slot.capacity -= 1;
    }
}
