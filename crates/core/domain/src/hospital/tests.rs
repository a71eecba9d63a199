//! Every rule of hospitals and capacity requests, by example.

use jiff::civil::date;

use super::*;
use crate::capacity::{MAX_CAPACITY, Slot, SlotState, open_slot, reserve};
use crate::civil::time_zone;
use crate::ids::{CapacityRequestId, ClaimId, ScreeningId};

fn now() -> Timestamp {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

fn draft() -> Draft {
    Draft {
        display_name: "Seoul".into(),
        time_zone: time_zone("Asia/Seoul").unwrap(),
        policy: BookingPolicy::default(),
    }
}

fn seoul() -> Hospital {
    let id = HospitalId::from_segment("seoul").unwrap();
    register(&id, Uuid::from_u128(1), &draft(), None, now()).unwrap().0
}

fn slot() -> Slot {
    open_slot(&seoul(), date(2027, 1, 4), 10, None, now()).unwrap().0
}

/// This many bookings, for which nobody waits.
fn held(active: i64) -> Held {
    Held { active, waiting: 0 }
}

fn reason<T: std::fmt::Debug>(result: Result<T, Fault>) -> Reason {
    result.unwrap_err().reason()
}

#[test]
fn the_numbers_are_those_of_the_contract() {
    for state in [HospitalState::Active, HospitalState::Deleting, HospitalState::Deleted] {
        assert_eq!(HospitalState::from_number(state as i32), Some(state));
    }
    for state in [RequestState::Pending, RequestState::Approved, RequestState::Rejected, RequestState::Expired] {
        assert_eq!(RequestState::from_number(state as i32), Some(state));
        assert_eq!(state.message() as i32, state as i32);
    }
    assert_eq!(HospitalState::from_number(0), None);
}

#[test]
fn an_id_is_taken_for_ever() {
    let hospital = seoul();
    let again = register(&hospital.id, Uuid::from_u128(2), &draft(), Some(&hospital), now());
    assert_eq!(reason(again), Reason::HospitalAlreadyExists);
}

#[test]
fn a_policy_is_judged_as_a_whole_whatever_part_is_changed() {
    let hours = |hours| Some(SignedDuration::from_hours(hours));
    let with =
        |hospital: &Hospital, change: HospitalChange| update(hospital, &change, "", now()).map(|made| made.unwrap().0);
    let short = with(&seoul(), HospitalChange { max_advance: hours(100), ..HospitalChange::default() }).unwrap();
    let refused = with(&short, HospitalChange { min_notice: hours(200), ..HospitalChange::default() }).unwrap_err();
    assert_eq!(refused.violations()[0].field, "hospital.booking_policy.min_notice");
    assert!(refused.message().contains("720000 s"), "{refused:?}");
    let early = with(&seoul(), HospitalChange { min_notice: hours(200), ..HospitalChange::default() }).unwrap();
    let refused = with(&early, HospitalChange { max_advance: hours(100), ..HospitalChange::default() }).unwrap_err();
    assert_eq!(refused.violations()[0].field, "hospital.booking_policy.max_advance");
    assert_eq!(
        reason(with(&early, HospitalChange { max_advance: hours(200), ..HospitalChange::default() })),
        Reason::FieldInvalid
    );
    let both = HospitalChange { min_notice: hours(99), max_advance: hours(100), ..HospitalChange::default() };
    assert_eq!(with(&early, both).unwrap().policy.max_advance, SignedDuration::from_hours(100));
    // A hospital may choose that customers can never cancel.
    assert!(with(&short, HospitalChange { cancellation_cutoff: hours(200), ..HospitalChange::default() }).is_ok());
    // A policy that an earlier version stored does not block other changes.
    let mut wrong = seoul();
    wrong.policy.min_notice = wrong.policy.max_advance;
    assert!(
        with(&wrong, HospitalChange { display_name: Some("Seoul Central".into()), ..HospitalChange::default() })
            .is_ok()
    );
}

#[test]
fn bookings_count_from_today_and_a_deletion_keeps_its_day() {
    let hospital = seoul();
    let midnight: Timestamp = "2027-01-03T15:00:00Z".parse().unwrap();
    let moment = SignedDuration::from_nanos(1);
    assert_eq!(hospital.counts_from(midnight - moment), date(2027, 1, 3));
    assert_eq!(hospital.counts_from(midnight), date(2027, 1, 4));
    let (deleting, _) = delete(&hospital, held(2), true, "", "", midnight - moment).unwrap().unwrap();
    assert_eq!(deleting.counts_from(midnight), date(2027, 1, 3), "midnight changes nothing of what is under way");
}

#[test]
fn an_update_reports_what_it_changed_and_nothing_else() {
    let hospital = seoul();
    let change = HospitalChange {
        display_name: Some("Seoul Central".into()),
        time_zone: Some("Asia/Seoul".into()),
        min_notice: Some(SignedDuration::from_hours(1)),
        max_advance: Some(hospital.policy.max_advance),
        waitlist_limit: Some(7),
        promotion_min_notice: Some(SignedDuration::from_hours(48)),
        ..HospitalChange::default()
    };
    let (changed, fact) = update(&hospital, &change, "\"1\"", now()).unwrap().unwrap();
    assert_eq!((changed.version, changed.policy.min_notice), (2, SignedDuration::from_hours(1)));
    let Payload::HospitalUpdated(updated) = fact.payload else { panic!("another fact") };
    assert_eq!(
        updated.changed_paths,
        [
            "display_name",
            "booking_policy.min_notice",
            "booking_policy.promotion_min_notice",
            "booking_policy.waitlist_limit"
        ]
    );
    assert_eq!((updated.waitlist_limit, updated.promotion_min_notice.map(|notice| notice.seconds)), (7, Some(172_800)));
    assert_eq!(update(&changed, &change, "", now()).unwrap(), None);
    assert_eq!(reason(update(&changed, &change, "\"1\"", now())), Reason::EtagMismatch);
    let moved = HospitalChange { time_zone: Some("Asia/Tokyo".into()), ..HospitalChange::default() };
    let refused = update(&hospital, &moved, "", now()).unwrap_err();
    assert_eq!(refused.violations()[0].field, "hospital.time_zone");
}

#[test]
fn a_hospital_with_bookings_is_deleted_by_force_and_in_two_steps() {
    let hospital = seoul();
    let refused = delete(&hospital, held(3), false, "", "", now()).unwrap_err();
    assert_eq!(refused.reason(), Reason::HospitalHasBookings);
    assert_eq!(refused.metadata()["activeBookingCount"], "3");
    assert_eq!(reason(delete(&hospital, held(3), true, "", "\"7\"", now())), Reason::EtagMismatch);
    let (deleting, facts) = delete(&hospital, held(3), true, "moving", "\"1\"", now()).unwrap().unwrap();
    assert_eq!((deleting.state(), facts.len(), facts[0].version), (HospitalState::Deleting, 1, 2));
    assert_eq!(delete(&deleting, held(2), false, "", "\"1\"", now()).unwrap(), None);
    assert_eq!(reason(update(&deleting, &HospitalChange::default(), "", now())), Reason::HospitalDeleted);
    let (deleted, ended) = finish_deletion(&deleting, 2, now());
    assert_eq!((deleted.state(), ended.version), (HospitalState::Deleted, 3));
    assert_eq!(delete(&deleted, held(0), true, "", "", now()).unwrap(), None);
}

#[test]
fn who_only_waits_keeps_no_hospital_and_is_told_of_its_end() {
    let waiting = Held { active: 0, waiting: 2 };
    let (deleting, facts) = delete(&seoul(), waiting, false, "", "", now()).unwrap().unwrap();
    assert_eq!((deleting.state(), deleting.deletion.unwrap().claims), (HospitalState::Deleting, 2));
    let Payload::HospitalDeletionStarted(started) = &facts[0].payload else { panic!("another fact") };
    assert_eq!((facts.len(), started.claims_to_revoke), (1, 2));
    let refused = delete(&seoul(), Held { active: 1, waiting: 2 }, false, "", "", now()).unwrap_err();
    assert_eq!((refused.reason(), &*refused.metadata()["activeBookingCount"]), (Reason::HospitalHasBookings, "1"));
}

#[test]
fn a_hospital_without_bookings_is_deleted_at_once() {
    let (deleted, facts) = delete(&seoul(), held(0), false, "", "", now()).unwrap().unwrap();
    assert_eq!(deleted.state(), HospitalState::Deleted);
    assert_eq!(facts.iter().map(|fact| fact.version).collect::<Vec<_>>(), [2, 3]);
}

fn request(increase: &CapacityIncrease) -> Result<CapacityRequest, Fault> {
    let id = CapacityRequestId { hospital: seoul().id, uid: Uuid::from_u128(9) };
    ask_for_capacity(id, increase, &seoul(), &slot(), now()).map(|(request, _)| request)
}

fn increase() -> CapacityIncrease {
    CapacityIncrease { slot: slot().id, additional: 5, justification: "demand".into(), expire_time: None }
}

#[test]
fn a_capacity_request_is_decided_once_and_in_time() {
    let (hospital, slot, pending) = (seoul(), slot(), request(&increase()).unwrap());
    assert_eq!(pending.expire_time, now() + REQUEST_LIFETIME);
    let (approved, raised, _) = approve(&pending, &hospital, &slot, "fine", "\"1\"", &[], now()).unwrap();
    assert_eq!((approved.state_at(now()), raised.slot.capacity), (RequestState::Approved, 15));
    let Payload::SlotCapacityChanged(changed) = &raised.fact.payload else { panic!("another fact") };
    assert_eq!(changed.capacity_request, pending.id.to_string());
    assert_eq!(reason(approve(&approved, &hospital, &raised.slot, "", "", &[], now())), Reason::CapacityRequestDecided);
    assert_eq!(reason(reject(&approved, &hospital, "", "\"1\"", now())), Reason::EtagMismatch);
    let (rejected, _) = reject(&pending, &hospital, "no", "", now()).unwrap();
    assert_eq!(reason(reject(&rejected, &hospital, "", "", now())), Reason::CapacityRequestDecided);
    let late = reject(&pending, &hospital, "", "", pending.expire_time).unwrap_err();
    assert_eq!((late.reason(), late.metadata()["state"].as_str()), (Reason::CapacityRequestDecided, "EXPIRED"));
    assert_eq!(approved.state_at(pending.expire_time), RequestState::Approved);
}

#[test]
fn places_of_an_approved_request_go_to_who_waits() {
    let (hospital, full) = (seoul(), Slot { booked: 10, ..slot() });
    let join = |slot: &Slot, number| {
        let id = ClaimId { screening: ScreeningId(Uuid::from_u128(number)), generation: 1 };
        reserve(&slot.id, id, None, Some(&hospital), Some(slot), true, now()).unwrap()
    };
    let one = join(&full, 1);
    let other = join(one.slot.as_ref().unwrap(), 2);
    let (slot, queue) = (other.slot.unwrap(), [one.claim, other.claim]);
    let pending = CapacityRequest { additional: 1, ..request(&increase()).unwrap() };
    let (_, raised, decided) = approve(&pending, &hospital, &slot, "", "", &queue, now()).unwrap();
    let [promoted] = &raised.promoted[..] else { panic!("{raised:?}") };
    assert_eq!((promoted.claim.id, promoted.claim.version), (queue[0].id, 2));
    assert_eq!((raised.slot.remaining(), promoted.slot.as_ref().unwrap().waiting), (0, 1));
    assert!(matches!(decided.payload, Payload::CapacityIncreaseDecided(_)));
}

#[test]
fn a_capacity_request_cannot_ask_or_get_more_than_a_slot_may_have() {
    let (hospital, slot) = (seoul(), slot());
    let greedy = CapacityIncrease { additional: MAX_CAPACITY, ..increase() };
    assert_eq!(reason(request(&greedy)), Reason::FieldInvalid);
    assert_eq!(reason(request(&CapacityIncrease { expire_time: Some(now()), ..increase() })), Reason::FieldInvalid);
    let pending = request(&increase()).unwrap();
    let filled = Slot { capacity: MAX_CAPACITY - 4, ..slot.clone() };
    let refused = approve(&pending, &hospital, &filled, "", "", &[], now()).unwrap_err();
    assert_eq!((refused.reason(), refused.violations()[0].field.as_str()), (Reason::FieldInvalid, "name"));
    let closed = Slot { state: SlotState::Closed, ..slot };
    assert_eq!(reason(approve(&pending, &hospital, &closed, "", "", &[], now())), Reason::SlotClosed);
    let lasting = CapacityRequest { expire_time: Timestamp::MAX, ..pending };
    let over = "2027-01-04T15:00:00Z".parse().unwrap();
    assert_eq!(reason(approve(&lasting, &hospital, &closed, "", "", &[], over)), Reason::DateInPast);
    assert!(reject(&lasting, &hospital, "", "", over).is_ok(), "what can no longer be granted can be cleared away");
}
