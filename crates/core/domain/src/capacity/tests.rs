//! Every rule by example, then all rules under random sequences of commands.

use std::collections::BTreeMap;

use contract::event::v1::event_envelope::Payload;
use contract::hospital::v1 as message;
use jiff::Timestamp;
use jiff::civil::date;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::civil::{begin_of, time_zone};
use crate::hospital::{self, Deletion, Hospital};
use crate::ids::{ClaimId, HospitalId, ScreeningId, SlotId};
use crate::window::BookingPolicy;

fn now() -> Timestamp {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

fn seoul() -> Hospital {
    let draft = hospital::Draft {
        display_name: "Seoul".into(),
        time_zone: time_zone("Asia/Seoul").unwrap(),
        policy: BookingPolicy::default(),
    };
    let id = HospitalId::from_segment("seoul").unwrap();
    hospital::register(&id, Uuid::from_u128(1), &draft, None, now()).unwrap().0
}

fn slot(capacity: i32) -> Slot {
    open_slot(&seoul(), date(2027, 1, 4), capacity, None, now()).unwrap().0
}

fn claim_id(number: u128) -> ClaimId {
    ClaimId { screening: ScreeningId(Uuid::from_u128(number)), generation: 1 }
}

fn take(slot: &Slot, number: u128, existing: Option<&Claim>) -> Result<Step, Fault> {
    reserve(&slot.id, claim_id(number), existing, Some(&seoul()), Some(slot), now())
}

fn reason<T: std::fmt::Debug>(result: Result<T, Fault>) -> Reason {
    result.unwrap_err().reason()
}

#[test]
fn the_numbers_are_those_of_the_contract() {
    for state in [SlotState::Open, SlotState::Closed, SlotState::Deleted] {
        assert_eq!(SlotState::from_number(state as i32), Some(state));
    }
    for reason in [RevokeReason::HospitalDeleted, RevokeReason::SlotCancelled] {
        assert_eq!(RevokeReason::from_number(reason as i32), Some(reason));
    }
    assert_eq!(SlotState::from_number(0), None);
    assert_eq!(RevokeReason::from_number(3), None);
}

#[test]
fn refusals_of_a_booking_come_in_the_order_of_the_contract() {
    let mut hospital = seoul();
    let open = slot(1);
    let past = SlotId { date: date(2026, 11, 30), ..open.id.clone() };
    let far = SlotId { date: date(2028, 6, 1), ..open.id.clone() };
    let full = Slot { booked: 1, ..open.clone() };
    let closed = Slot { state: SlotState::Closed, ..full.clone() };
    let judge = |id: &SlotId, hospital: Option<&Hospital>, slot: Option<&Slot>| {
        judge_booking(id, hospital.map(Venue::from).as_ref(), slot.map(Offer::from), now())
    };
    assert!(judge(&open.id, Some(&hospital), Some(&open)).is_ok());
    assert_eq!(reason(judge(&past, None, None)), Reason::HospitalNotFound);
    assert_eq!(reason(judge(&past, Some(&hospital), None)), Reason::SlotNotFound);
    assert_eq!(reason(judge(&past, Some(&hospital), Some(&closed))), Reason::DateInPast);
    assert_eq!(reason(judge(&far, Some(&hospital), Some(&closed))), Reason::OutsideBookingWindow);
    assert_eq!(reason(judge(&open.id, Some(&hospital), Some(&closed))), Reason::SlotClosed);
    let refused = judge(&open.id, Some(&hospital), Some(&full)).unwrap_err();
    assert_eq!((refused.reason(), refused.metadata()["remaining"].as_str()), (Reason::SlotFull, "0"));
    hospital.deletion = Some(Deletion { time: now(), claims: 0, complete: true });
    assert_eq!(reason(judge(&past, Some(&hospital), None)), Reason::HospitalDeleted);
}

#[test]
fn what_a_peer_read_is_judged_alike() {
    let message = message::Hospital {
        state: message::hospital::State::Active as i32,
        time_zone: "Asia/Seoul".into(),
        booking_policy: Some(message::BookingPolicy {
            min_notice: Some(prost_types::Duration { seconds: 3_600, nanos: 5 }),
            ..message::BookingPolicy::default()
        }),
        ..message::Hospital::default()
    };
    let venue = Venue::from_message(&message).unwrap();
    assert!(venue.active);
    assert_eq!(venue.policy.min_notice, jiff::SignedDuration::new(3_600, 5));
    assert_eq!(venue.policy.max_advance, BookingPolicy::default().max_advance);
    assert!(Venue::from_message(&message::Hospital::default()).is_none());
    let offer = message::Slot { state: 1, remaining_count: 3, ..message::Slot::default() };
    assert_eq!(Offer::from(&offer), Offer { open: true, remaining: 3 });
}

#[test]
fn a_claim_answers_before_any_rule() {
    let open = slot(1);
    let taken = take(&open, 1, None).unwrap();
    let full = taken.slot.unwrap();
    assert_eq!((full.booked, full.version, full.admin_version), (1, 2, 1));
    let again = take(&full, 1, Some(&taken.claim)).unwrap();
    assert_eq!(again, Step::unchanged(&taken.claim));
    assert_eq!(reason(take(&full, 2, None)), Reason::SlotFull);
    let elsewhere = SlotId { date: date(2027, 1, 5), ..open.id };
    let moved = reserve(&elsewhere, claim_id(1), Some(&taken.claim), None, None, now());
    assert_eq!(reason(moved), Reason::FieldInvalid);
    assert_eq!(reason(release(&elsewhere, claim_id(1), Some(&taken.claim), None, now())), Reason::FieldInvalid);
}

#[test]
fn a_release_that_comes_first_leaves_a_tombstone() {
    let open = slot(1);
    let tombstone = release(&open.id, claim_id(1), None, Some(&open), now()).unwrap();
    assert_eq!((tombstone.claim.state, tombstone.slot), (ClaimState::Released, None));
    let late = take(&open, 1, Some(&tombstone.claim)).unwrap_err();
    assert_eq!(late.reason(), Reason::ClaimTerminated);
    assert_eq!(late.metadata()["state"], "RELEASED");
    assert_eq!(late.metadata()["claimId"], claim_id(1).to_string());
    let nowhere = release(&open.id, claim_id(2), None, None, now()).unwrap();
    assert_eq!((nowhere.claim.state, nowhere.claim.slot_version), (ClaimState::Released, 0));
}

#[test]
fn a_release_of_a_revoked_claim_changes_nothing() {
    let taken = take(&slot(2), 1, None).unwrap();
    let revoked = revoke(&taken.claim, &taken.slot.unwrap(), RevokeReason::SlotCancelled, "fire", now());
    let slot = revoked.slot.unwrap();
    assert_eq!(slot.booked, 0);
    let Some(Payload::CapacityRevoked(fact)) = revoked.fact.map(|fact| fact.payload) else { panic!("no fact") };
    assert_eq!((fact.reason.as_str(), fact.message.as_str(), fact.remaining_count), ("SLOT_CANCELLED", "fire", 2));
    let released = release(&slot.id, claim_id(1), Some(&revoked.claim), Some(&slot), now()).unwrap();
    assert_eq!(released, Step::unchanged(&revoked.claim));
}

#[test]
fn capacity_stays_in_range_and_above_what_is_booked() {
    let taken = take(&slot(2), 1, None).unwrap().slot.unwrap();
    let set = |change, etag: &str| set_capacity(&seoul(), &taken, change, etag, None, now());
    assert_eq!(set(CapacityChange::To(5), "\"1\"").unwrap().unwrap().0.capacity, 5);
    assert_eq!(set(CapacityChange::By(-1), "").unwrap().unwrap().0.remaining(), 0);
    assert_eq!(set(CapacityChange::By(0), "").unwrap(), None);
    assert_eq!(set(CapacityChange::To(2), "\"1\"").unwrap(), None);
    let below = set(CapacityChange::By(-2), "").unwrap_err();
    assert_eq!(below.reason(), Reason::CapacityBelowBooked);
    assert_eq!((below.metadata()["bookedCount"].as_str(), below.metadata()["requestedCapacity"].as_str()), ("1", "0"));
    for change in [CapacityChange::By(-3), CapacityChange::By(i32::MAX), CapacityChange::By(i32::MIN)] {
        assert_eq!(reason(set(change, "")), Reason::FieldInvalid);
        assert_eq!(reason(set(change, "\"0\"")), Reason::EtagMismatch);
    }
    let deleted = withdraw_slot(&taken, now());
    assert_eq!(
        reason(set_capacity(&seoul(), &deleted, CapacityChange::By(1), "", None, now())),
        Reason::HospitalDeleted
    );
}

#[test]
fn closing_and_reopening_twice_change_nothing() {
    let booked = take(&slot(2), 1, None).unwrap().slot.unwrap();
    let (closed, _) = close_slot(&seoul(), &booked, false, "", "", now()).unwrap().unwrap();
    assert_eq!(reason(take(&closed, 2, None)), Reason::SlotClosed);
    assert_eq!(close_slot(&seoul(), &closed, false, "", "", now()).unwrap(), None);
    let (cancelling, _) = close_slot(&seoul(), &closed, true, "fire", "\"2\"", now()).unwrap().unwrap();
    assert_eq!((cancelling.admin_version, cancelling.version), (3, 4));
    assert_eq!(reason(reopen_slot(&seoul(), &cancelling, "", true, now())), Reason::RevocationInProgress);
    assert_eq!(reason(reopen_slot(&seoul(), &cancelling, "\"2\"", false, now())), Reason::EtagMismatch);
    let (open, _) = reopen_slot(&seoul(), &cancelling, "", false, now()).unwrap().unwrap();
    assert_eq!(reopen_slot(&seoul(), &open, "", true, now()).unwrap(), None);
    let empty = Slot { state: SlotState::Closed, ..slot(2) };
    assert_eq!(close_slot(&seoul(), &empty, true, "", "", now()).unwrap(), None);
}

#[test]
fn a_date_is_opened_once_and_not_in_the_past() {
    let open = slot(0);
    assert_eq!(reason(open_slot(&seoul(), open.id.date, 3, Some(&open), now())), Reason::SlotAlreadyExists);
    assert_eq!(reason(open_slot(&seoul(), date(2026, 11, 30), 3, None, now())), Reason::DateInPast);
    assert!(open_slot(&seoul(), date(2026, 12, 1), 3, None, now()).is_ok());
}

#[test]
fn what_is_over_is_history() {
    let taken = take(&slot(2), 1, None).unwrap();
    let booked = taken.slot.unwrap();
    let closed = Slot { state: SlotState::Closed, ..booked.clone() };
    let midnight = begin_of(date(2027, 1, 5), &seoul().time_zone);
    let changes = |now: Timestamp| {
        [
            set_capacity(&seoul(), &booked, CapacityChange::By(1), "", None, now).map(drop),
            set_capacity(&seoul(), &booked, CapacityChange::By(0), "", None, now).map(drop),
            close_slot(&seoul(), &booked, false, "", "", now).map(drop),
            close_slot(&seoul(), &booked, true, "", "", now).map(drop),
            close_slot(&seoul(), &closed, false, "", "", now).map(drop),
            reopen_slot(&seoul(), &closed, "", false, now).map(drop),
            reopen_slot(&seoul(), &booked, "", false, now).map(drop),
        ]
    };
    for change in changes(midnight - jiff::SignedDuration::from_nanos(1)) {
        assert_eq!(change, Ok(()), "the day itself is not over");
    }
    for change in changes(midnight) {
        let refused = change.unwrap_err();
        assert_eq!((refused.reason(), refused.metadata()["today"].as_str()), (Reason::DateInPast, "2027-01-05"));
    }
    // A service can always give a place back, also after the date is over.
    let released = release(&booked.id, claim_id(1), Some(&taken.claim), Some(&booked), midnight).unwrap();
    assert_eq!(released.slot.unwrap().booked, 0);
    let deleted = withdraw_slot(&booked, now());
    assert_eq!(reason(close_slot(&seoul(), &deleted, true, "", "", midnight)), Reason::HospitalDeleted);
}

/// A command on one slot. There are few claim ids, so that commands meet on the same claim.
#[derive(Debug, Clone)]
enum Command {
    Reserve(u128),
    Release(u128),
    Revoke(u128),
    Capacity(CapacityChange, bool),
    Close(bool),
    Reopen,
    Withdraw,
    Later(i64),
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let claim = 0..12_u128;
    let command = prop_oneof![
        10 => claim.clone().prop_map(Command::Reserve),
        6 => claim.clone().prop_map(Command::Release),
        2 => claim.prop_map(Command::Revoke),
        2 => (0..6).prop_map(|capacity| Command::Capacity(CapacityChange::To(capacity), true)),
        2 => (-3..4).prop_map(|delta| Command::Capacity(CapacityChange::By(delta), false)),
        1 => any::<bool>().prop_map(Command::Close),
        2 => Just(Command::Reopen),
        1 => (0..40_i64).prop_map(Command::Later),
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
    slot: Slot,
    claims: BTreeMap<ClaimId, Claim>,
    versions: BTreeMap<String, i64>,
}

impl World {
    fn keep(&mut self, slot: Option<Slot>, fact: Option<Fact>) {
        if let Some(slot) = slot {
            assert_eq!(slot.version, self.slot.version + 1, "every change counts once");
            self.slot = slot;
        }
        if let Some(fact) = fact {
            let version = self.versions.entry(fact.aggregate).or_insert(0);
            assert_eq!(fact.version, *version + 1, "versions of an aggregate are contiguous");
            *version = fact.version;
        }
    }

    fn keep_step(&mut self, step: Step) {
        if let Some(before) = self.claims.get(&step.claim.id) {
            assert!(before.state == ClaimState::Active || *before == step.claim, "ended claims never change");
            assert_eq!(step.fact.is_some(), *before != step.claim);
        }
        let counted = i32::from(step.claim.state == ClaimState::Active) - i32::from(self.is_active(step.claim.id));
        let booked = step.slot.as_ref().map_or(self.slot.booked, |slot| slot.booked);
        assert_eq!(booked, self.slot.booked + counted);
        self.claims.insert(step.claim.id, step.claim);
        self.keep(step.slot, step.fact);
    }

    fn is_active(&self, id: ClaimId) -> bool {
        self.claims.get(&id).is_some_and(|claim| claim.state == ClaimState::Active)
    }

    fn run(&mut self, command: &Command) {
        let (hospital, id) = (seoul(), self.slot.id.clone());
        let changed = match command {
            Command::Reserve(number) => {
                let existing = self.claims.get(&claim_id(*number));
                let outcome = reserve(&id, claim_id(*number), existing, Some(&hospital), Some(&self.slot), self.now);
                match outcome {
                    Ok(step) => self.keep_step(step),
                    Err(fault) if fault.reason() == Reason::SlotFull => {
                        assert_eq!(self.slot.booked, self.slot.capacity, "full means full");
                    }
                    Err(fault) if fault.reason() == Reason::ClaimTerminated => {
                        assert_ne!(self.claims[&claim_id(*number)].state, ClaimState::Active);
                    }
                    Err(_) => assert!(!self.is_active(claim_id(*number))),
                }
                return;
            }
            Command::Release(number) => {
                let existing = self.claims.get(&claim_id(*number));
                let step = release(&id, claim_id(*number), existing, Some(&self.slot), self.now).unwrap();
                self.keep_step(step);
                let after = self.slot.clone();
                let again = self.claims.get(&claim_id(*number));
                let twice = release(&id, claim_id(*number), again, Some(&after), self.now).unwrap();
                assert_eq!((twice.slot, twice.fact), (None, None), "a second release frees nothing");
                return;
            }
            Command::Revoke(number) => {
                if let Some(claim) = self.claims.get(&claim_id(*number)) {
                    let step = revoke(claim, &self.slot, RevokeReason::SlotCancelled, "", self.now);
                    self.keep_step(step);
                }
                return;
            }
            Command::Capacity(change, with_etag) => {
                let etag = if *with_etag { crate::token::etag(self.slot.admin_version) } else { String::new() };
                set_capacity(&hospital, &self.slot, *change, &etag, None, self.now).ok().flatten()
            }
            Command::Close(cancel) => close_slot(&hospital, &self.slot, *cancel, "", "", self.now).ok().flatten(),
            Command::Reopen => reopen_slot(&hospital, &self.slot, "", false, self.now).ok().flatten(),
            Command::Withdraw => {
                let withdrawn = withdraw_slot(&self.slot, self.now);
                self.keep(Some(withdrawn), None);
                return;
            }
            Command::Later(days) => {
                self.now += jiff::SignedDuration::from_hours(24 * days);
                return;
            }
        };
        if let Some((slot, fact)) = changed {
            self.keep(Some(slot), Some(fact));
        }
    }

    fn check(&self) {
        let active = self.claims.values().filter(|claim| claim.state == ClaimState::Active).count();
        assert_eq!(i32::try_from(active).unwrap(), self.slot.booked, "booked is the size of the active set");
        assert!((0..=self.slot.capacity).contains(&self.slot.booked), "never more active than capacity");
        assert!((0..=MAX_CAPACITY).contains(&self.slot.capacity));
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
        let mut world = World { now: now(), slot, claims: BTreeMap::new(), versions };
        for command in &commands {
            let before = world.slot.clone();
            world.run(command);
            world.check();
            if matches!(command, Command::Reserve(_)) && world.slot.booked > before.booked {
                prop_assert_eq!(before.state, SlotState::Open);
                prop_assert!(world.now < begin_of(before.id.date, &seoul().time_zone));
            }
        }
    }
}
