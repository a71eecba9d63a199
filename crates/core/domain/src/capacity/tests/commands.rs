//! All rules under random sequences of commands on one slot.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

/// A command on one slot. There are few claim ids, so that commands meet on the same claim.
#[derive(Debug, Clone)]
enum Command {
    Reserve(u128, bool),
    Release(u128),
    Revoke(u128),
    Capacity(CapacityChange, bool),
    Close(bool),
    Reopen,
    Withdraw,
    /// From now on who joins may wait until this many hours before the date, and so many may.
    Policy(i64, i32),
    Later(i64),
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let claim = 0..12_u128;
    let command = prop_oneof![
        10 => (claim.clone(), any::<bool>()).prop_map(|(claim, joins)| Command::Reserve(claim, joins)),
        6 => claim.clone().prop_map(Command::Release),
        2 => claim.prop_map(Command::Revoke),
        2 => (0..6).prop_map(|capacity| Command::Capacity(CapacityChange::To(capacity), true)),
        2 => (-3..4).prop_map(|delta| Command::Capacity(CapacityChange::By(delta), false)),
        1 => any::<bool>().prop_map(Command::Close),
        2 => Just(Command::Reopen),
        1 => (0..800_i64, 0..6).prop_map(|(hours, limit)| Command::Policy(hours, limit)),
        1 => (0..15_i64).prop_map(Command::Later),
    ];
    // A withdrawn slot accepts nothing more, so withdrawing comes late or not at all.
    (proptest::collection::vec(command, 1..120), any::<bool>()).prop_map(|(mut commands, withdrawn)| {
        if withdrawn {
            let at = commands.len() * 3 / 4;
            commands.insert(at, Command::Withdraw);
        }
        commands
    })
}

struct World {
    now: Timestamp,
    hospital: Hospital,
    slot: Slot,
    claims: BTreeMap<ClaimId, Claim>,
    versions: BTreeMap<String, i64>,
}

impl World {
    /// The WAITING claims in the order of their tickets.
    fn queue(&self) -> Vec<Claim> {
        let mut queue: Vec<_> = self.claims.values().filter_map(|claim| Some((ticket(claim)?, claim))).collect();
        queue.sort_by_key(|(ticket, _)| ticket.number);
        queue.into_iter().map(|(_, claim)| claim.clone()).collect()
    }

    /// Those of them that still may get a place.
    fn may_get_one(&self) -> Vec<ClaimId> {
        let in_time = |claim: &Claim| ticket(claim).is_some_and(|ticket| self.now < ticket.closes_at);
        self.queue().into_iter().filter(in_time).map(|claim| claim.id).collect()
    }

    fn keep(&mut self, slot: Option<Slot>, fact: Option<Fact>) {
        if let Some(slot) = slot {
            assert_eq!(slot.version, self.slot.version + 1, "every change counts once");
            self.slot = slot;
        }
        if let Some(fact) = fact {
            assert_eq!(counts(&fact), (self.slot.version, self.slot.capacity, self.slot.booked, self.slot.waiting));
            let version = self.versions.entry(fact.aggregate).or_insert(0);
            assert_eq!(fact.version, *version + 1, "versions of an aggregate are contiguous");
            *version = fact.version;
        }
    }

    fn keep_step(&mut self, step: Step) {
        let before = self.claims.get(&step.claim.id);
        assert_eq!(step.fact.is_some(), before != Some(&step.claim));
        let allowed = match (before.map(|claim| claim.state), step.claim.state) {
            (None, ClaimState::Active | ClaimState::Waiting(_) | ClaimState::Released) => true,
            (Some(ClaimState::Waiting(_)), after) => !matches!(after, ClaimState::Waiting(_)),
            (Some(ClaimState::Active), after) => matches!(after, ClaimState::Released | ClaimState::Revoked(_)),
            (None | Some(ClaimState::Released | ClaimState::Revoked(_)), _) => false,
        };
        assert!(allowed || before == Some(&step.claim), "{before:?} became {:?}", step.claim);
        self.claims.insert(step.claim.id, step.claim);
        self.keep(step.slot, step.fact);
    }

    /// What follows from places that became free: the first of the queue have them, and nobody saw them free.
    fn keep_promoted(&mut self, promoted: Vec<Step>, first: &[ClaimId]) {
        let remaining = self.slot.remaining();
        let ids: Vec<_> = promoted.iter().map(|step| step.claim.id).collect();
        assert_eq!(ids, first[..ids.len()], "promotion is in the order of the tickets");
        for step in promoted {
            assert_eq!(step.claim.state, ClaimState::Active);
            self.keep_step(step);
            assert_eq!(self.slot.remaining(), remaining, "the place was never free");
        }
    }

    fn keep_administered(&mut self, changed: Option<Administered>, first: &[ClaimId]) {
        if let Some(Administered { slot, fact, promoted }) = changed {
            let free = usize::try_from(slot.capacity - self.slot.booked).unwrap();
            assert_eq!(promoted.len(), if slot.state == SlotState::Open { free.min(first.len()) } else { 0 });
            self.keep(Some(slot), Some(fact));
            self.keep_promoted(promoted, first);
        }
    }

    fn reserve(&mut self, number: u128, joins: bool) {
        let (id, first) = (claim_id(number), self.may_get_one());
        let (existing, slot, hospital) = (self.claims.get(&id), self.slot.clone(), Some(&self.hospital));
        let before = existing.map(|claim| claim.state);
        match reserve(&slot.id, id, existing, hospital, Some(&slot), joins, self.now) {
            Ok(step) => {
                if before.is_none() && step.claim.state == ClaimState::Active {
                    assert_eq!(first, [], "no newcomer gets a place while somebody waits for one");
                }
                if let (None, Some(ticket)) = (before, ticket(&step.claim)) {
                    assert!(joins && slot.remaining() == 0 && slot.waiting < self.hospital.policy.waitlist_limit);
                    assert!(self.now < ticket.closes_at && ticket.number == step.claim.slot_version);
                }
                self.keep_step(step);
            }
            Err(fault) if matches!(fault.reason(), Reason::SlotFull) => assert!(slot.remaining() == 0 && !joins),
            Err(fault) if matches!(fault.reason(), Reason::WaitlistFull | Reason::WaitlistClosed) => {
                assert!(slot.remaining() == 0 && joins && before.is_none());
            }
            Err(fault) if fault.reason() == Reason::ClaimTerminated => {
                assert!(matches!(before, Some(ClaimState::Released | ClaimState::Revoked(_))));
            }
            Err(_) => assert_eq!(before, None),
        }
    }

    fn release(&mut self, number: u128) {
        let (id, first, queue) = (claim_id(number), self.may_get_one(), self.queue());
        let held = |world: &Self| world.claims.get(&id).cloned();
        let (before, slot) = (held(self), self.slot.clone());
        let (step, promoted) = release(&slot.id, id, before.as_ref(), Some(&slot), &queue, self.now).unwrap();
        let frees = before.is_some_and(|claim| claim.state == ClaimState::Active) && slot.state == SlotState::Open;
        assert_eq!(promoted.len(), if frees { first.len().min(1) } else { 0 });
        self.keep_step(step);
        self.keep_promoted(promoted, &first);
        let (again, queue) = (held(self), self.queue());
        let twice = release(&slot.id, id, again.as_ref(), Some(&self.slot), &queue, self.now).unwrap();
        assert_eq!(twice, (Step::unchanged(&again.unwrap()), Vec::new()), "a second release frees nothing");
    }

    fn run(&mut self, command: &Command) {
        let (hospital, first, queue) = (self.hospital.clone(), self.may_get_one(), self.queue());
        match command {
            Command::Reserve(number, joins) => self.reserve(*number, *joins),
            Command::Release(number) => self.release(*number),
            Command::Revoke(number) => {
                if let Some(claim) = self.claims.get(&claim_id(*number)).filter(|_| self.slot.state != SlotState::Open)
                {
                    let step = revoke(claim, &self.slot, RevokeReason::SlotCancelled, "", self.now);
                    self.keep_step(step);
                }
            }
            Command::Capacity(change, with_etag) => {
                let etag = if *with_etag { crate::token::etag(self.slot.admin_version) } else { String::new() };
                let changed = set_capacity(&hospital, &self.slot, *change, &etag, None, &queue, self.now);
                self.keep_administered(changed.ok().flatten(), &first);
            }
            Command::Close(cancel) => {
                if let Ok(Some((slot, fact))) = close_slot(&hospital, &self.slot, *cancel, "", "", self.now) {
                    self.keep(Some(slot), Some(fact));
                }
            }
            Command::Reopen => {
                let reopened = reopen_slot(&hospital, &self.slot, "", false, &queue, self.now).ok().flatten();
                self.keep_administered(reopened, &first);
            }
            Command::Withdraw => self.keep(Some(withdraw_slot(&self.slot, self.now)), None),
            Command::Policy(hours, limit) => {
                self.hospital.policy.promotion_min_notice = SignedDuration::from_hours(*hours);
                self.hospital.policy.waitlist_limit = *limit;
            }
            Command::Later(days) => self.now += SignedDuration::from_hours(24 * days),
        }
    }

    fn check(&self) {
        let active = self.claims.values().filter(|claim| claim.state == ClaimState::Active).count();
        assert_eq!(i32::try_from(active).unwrap(), self.slot.booked, "booked is the size of the active set");
        assert_eq!(i32::try_from(self.queue().len()).unwrap(), self.slot.waiting, "waiting is the length of the queue");
        assert!((0..=self.slot.capacity).contains(&self.slot.booked), "never more active than capacity");
        assert!((0..=MAX_CAPACITY).contains(&self.slot.capacity));
        if self.slot.state == SlotState::Open && self.slot.remaining() > 0 {
            assert_eq!(self.may_get_one(), [], "nobody waits beside a free place");
        }
        for claim in self.claims.values() {
            assert_eq!(self.versions[&format!("{}/claims/{}", claim.slot, claim.id)], claim.version);
            assert!(claim.slot_version <= self.slot.version);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn places_are_never_invented_or_lost(capacity in 0..6, commands in commands()) {
        let (slot, opened) = open_slot(&seoul(), date(2027, 1, 4), capacity, None, now()).unwrap();
        let versions = BTreeMap::from([(opened.aggregate, opened.version)]);
        let mut world = World { now: now(), hospital: seoul(), slot, claims: BTreeMap::new(), versions };
        for command in &commands {
            let before = world.slot.clone();
            world.run(command);
            world.check();
            if matches!(command, Command::Reserve(..)) && world.slot.booked > before.booked {
                prop_assert_eq!(before.state, SlotState::Open);
                prop_assert!(world.now < begin_of(before.id.date, &seoul().time_zone));
            }
        }
    }
}
