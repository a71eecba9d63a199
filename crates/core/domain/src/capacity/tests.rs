//! Every rule by example, then all rules under random sequences of commands.

mod commands;
mod queue;

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use contract::hospital::v1 as message;
use jiff::Timestamp;
use jiff::civil::date;
use uuid::Uuid;

use super::*;
use crate::civil::{begin_of, encode_time, time_zone};
use crate::demand;
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
    reserve(&slot.id, claim_id(number), existing, Some(&seoul()), Some(slot), false, now())
}

/// The release of a claim for which nobody waits.
fn give_back(slot_id: &SlotId, number: u128, existing: Option<&Claim>, slot: Option<&Slot>) -> Result<Step, Fault> {
    let (step, promoted) = release(slot_id, claim_id(number), existing, slot, &[], now())?;
    assert_eq!(promoted, []);
    Ok(step)
}

fn ticket(claim: &Claim) -> Option<Ticket> {
    match claim.state {
        ClaimState::Waiting(ticket) => Some(ticket),
        ClaimState::Active | ClaimState::Released | ClaimState::Revoked(_) => None,
    }
}

/// What consumers read from a fact: the slot's version and capacity, and how many claims are ACTIVE and WAITING.
fn counts(fact: &Fact) -> (i64, i32, i32, i32) {
    let occur_time = Some(encode_time(now()));
    let envelope = EventEnvelope { payload: Some(fact.payload.clone()), occur_time, ..EventEnvelope::default() };
    let Ok(Some(demand::Fact::Places(places))) = demand::Fact::decode(&envelope) else { panic!("{fact:?}") };
    let remaining = match &fact.payload {
        Payload::CapacityReserved(fact) => fact.remaining_count,
        Payload::CapacityWaitlisted(fact) => fact.remaining_count,
        Payload::CapacityReleased(fact) => fact.remaining_count,
        Payload::CapacityRevoked(fact) => fact.remaining_count,
        _ => places.capacity - places.booked,
    };
    assert_eq!(remaining, places.capacity - places.booked, "{fact:?}");
    (places.slot_version, places.capacity, places.booked, places.waiting)
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
    let offer = message::Slot { state: 1, remaining_count: 3, waitlisted_count: 2, ..message::Slot::default() };
    assert_eq!(Offer::from(&offer), Offer { open: true, remaining: 3, waiting: 2 });
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
    let moved = reserve(&elsewhere, claim_id(1), Some(&taken.claim), None, None, true, now());
    assert_eq!(reason(moved), Reason::FieldInvalid);
    assert_eq!(reason(give_back(&elsewhere, 1, Some(&taken.claim), None)), Reason::FieldInvalid);
}

#[test]
fn a_release_that_comes_first_leaves_a_tombstone() {
    let open = slot(1);
    let tombstone = give_back(&open.id, 1, None, Some(&open)).unwrap();
    assert_eq!((tombstone.claim.state, tombstone.slot), (ClaimState::Released, None));
    let late = take(&open, 1, Some(&tombstone.claim)).unwrap_err();
    assert_eq!(late.reason(), Reason::ClaimTerminated);
    assert_eq!(late.metadata()["state"], "RELEASED");
    assert_eq!(late.metadata()["claimId"], claim_id(1).to_string());
    let nowhere = give_back(&open.id, 2, None, None).unwrap();
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
    let released = give_back(&slot.id, 1, Some(&revoked.claim), Some(&slot)).unwrap();
    assert_eq!(released, Step::unchanged(&revoked.claim));
}

#[test]
fn capacity_stays_in_range_and_above_what_is_booked() {
    let taken = take(&slot(2), 1, None).unwrap().slot.unwrap();
    let set = |change, etag: &str| set_capacity(&seoul(), &taken, change, etag, None, &[], now());
    assert_eq!(set(CapacityChange::To(5), "\"1\"").unwrap().unwrap().slot.capacity, 5);
    assert_eq!(set(CapacityChange::By(-1), "").unwrap().unwrap().slot.remaining(), 0);
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
        reason(set_capacity(&seoul(), &deleted, CapacityChange::By(1), "", None, &[], now())),
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
    assert_eq!(reason(reopen_slot(&seoul(), &cancelling, "", true, &[], now())), Reason::RevocationInProgress);
    assert_eq!(reason(reopen_slot(&seoul(), &cancelling, "\"2\"", false, &[], now())), Reason::EtagMismatch);
    let open = reopen_slot(&seoul(), &cancelling, "", false, &[], now()).unwrap().unwrap();
    assert_eq!(reopen_slot(&seoul(), &open.slot, "", true, &[], now()).unwrap(), None);
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
            set_capacity(&seoul(), &booked, CapacityChange::By(1), "", None, &[], now).map(drop),
            set_capacity(&seoul(), &booked, CapacityChange::By(0), "", None, &[], now).map(drop),
            close_slot(&seoul(), &booked, false, "", "", now).map(drop),
            close_slot(&seoul(), &booked, true, "", "", now).map(drop),
            close_slot(&seoul(), &closed, false, "", "", now).map(drop),
            reopen_slot(&seoul(), &closed, "", false, &[], now).map(drop),
            reopen_slot(&seoul(), &booked, "", false, &[], now).map(drop),
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
    let (released, _) = release(&booked.id, claim_id(1), Some(&taken.claim), Some(&booked), &[], midnight).unwrap();
    assert_eq!(released.slot.unwrap().booked, 0);
    let deleted = withdraw_slot(&booked, now());
    assert_eq!(reason(close_slot(&seoul(), &deleted, true, "", "", midnight)), Reason::HospitalDeleted);
}
