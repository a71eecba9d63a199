//! The queue of a slot by example: who joins, who gets a place, and what everybody else sees of it.

use contract::event::v1::{CapacityReserved, CapacityWaitlisted};
use jiff::SignedDuration;

use super::*;

/// A hospital at which so many may wait for a slot.
fn with_limit(waitlist_limit: i32) -> Hospital {
    let mut hospital = seoul();
    hospital.policy.waitlist_limit = waitlist_limit;
    hospital
}

fn join(hospital: &Hospital, slot: &Slot, number: u128, now: Timestamp) -> Result<Step, Fault> {
    reserve(&slot.id, claim_id(number), None, Some(hospital), Some(slot), true, now)
}

/// A slot that is full, its first claim, and those who wait for a place, numbered from 11.
fn waiting(capacity: i32, count: u128) -> (Slot, Claim, Vec<Claim>) {
    let first = take(&slot(capacity), 1, None).unwrap();
    let mut slot = Slot { booked: capacity, ..first.slot.unwrap() };
    let queue = (11..11 + count).map(|number| {
        let step = join(&seoul(), &slot, number, now()).unwrap();
        slot = step.slot.unwrap();
        step.claim
    });
    let queue = queue.collect();
    (slot, first.claim, queue)
}

fn ids(steps: &[Step]) -> Vec<ClaimId> {
    steps.iter().map(|step| step.claim.id).collect()
}

/// The slot after the last of these steps.
fn last(steps: &[Step]) -> &Slot {
    steps.last().unwrap().slot.as_ref().unwrap()
}

/// When those who join by the default policy get no place any more.
fn close() -> Timestamp {
    "2027-01-02T15:00:00Z".parse().unwrap()
}

#[test]
fn who_joins_gets_a_ticket_and_takes_no_place() {
    let full = take(&slot(1), 1, None).unwrap().slot.unwrap();
    let joined = join(&seoul(), &full, 2, now()).unwrap();
    let slot = joined.slot.unwrap();
    assert_eq!((slot.booked, slot.waiting, slot.remaining(), slot.version), (1, 1, 0, full.version + 1));
    assert_eq!(slot.admin_version, full.admin_version);
    let ticket = ticket(&joined.claim).unwrap();
    assert_eq!((ticket.number, ticket.closes_at), (slot.version, close()));
    let fact = joined.fact.unwrap();
    assert_eq!((&*fact.aggregate, fact.version), (&*format!("{}/claims/{}", slot.id, claim_id(2)), 1));
    let Payload::CapacityWaitlisted(fact) = fact.payload else { panic!("{fact:?}") };
    let CapacityWaitlisted { waitlist_ticket, waitlisted_count, remaining_count, promotion_close_time, .. } = fact;
    assert_eq!((waitlist_ticket, waitlisted_count, remaining_count), (ticket.number, 1, 0));
    assert_eq!(promotion_close_time.unwrap().seconds, close().as_second());
    let next = join(&seoul(), &slot, 3, now()).unwrap();
    assert!(self::ticket(&next.claim).unwrap().number > ticket.number);
}

#[test]
fn nobody_waits_beside_a_free_place_or_for_one_that_is_not_sold() {
    let open = slot(1);
    assert_eq!(join(&seoul(), &open, 1, now()).unwrap().claim.state, ClaimState::Active);
    let full = take(&open, 1, None).unwrap().slot.unwrap();
    assert_eq!(reason(take(&full, 2, None)), Reason::SlotFull);
    let closed = Slot { state: SlotState::Closed, ..full.clone() };
    assert_eq!(reason(join(&seoul(), &closed, 2, now())), Reason::SlotClosed);
    let mut early = seoul();
    early.policy.min_notice = SignedDuration::from_hours(2_000);
    assert_eq!(reason(join(&early, &full, 2, now())), Reason::OutsideBookingWindow);
    let nowhere = reserve(&full.id, claim_id(2), None, Some(&seoul()), None, true, now());
    assert_eq!(reason(nowhere), Reason::SlotNotFound);
}

#[test]
fn a_queue_is_closed_before_it_is_full_and_slot_full_says_whether_it_is_open() {
    let (slot, _, _) = waiting(1, 2);
    let moment = SignedDuration::from_nanos(1);
    let refused = join(&with_limit(2), &slot, 3, now()).unwrap_err();
    assert_eq!((refused.reason(), &*refused.metadata()["waitlistLimit"]), (Reason::WaitlistFull, "2"));
    assert_eq!(refused.metadata()["slot"], slot.id.to_string());
    assert!(join(&with_limit(3), &slot, 3, close() - moment).is_ok());
    let refused = join(&with_limit(2), &slot, 3, close()).unwrap_err();
    assert_eq!((refused.reason(), &*refused.metadata()["closesAt"]), (Reason::WaitlistClosed, "2027-01-02T15:00:00Z"));
    assert_eq!(reason(join(&with_limit(0), &Slot { waiting: 0, ..slot.clone() }, 3, now())), Reason::WaitlistFull);
    let open = |hospital: &Hospital, now: Timestamp| {
        let refused = reserve(&slot.id, claim_id(3), None, Some(hospital), Some(&slot), false, now).unwrap_err();
        (refused.reason(), refused.metadata()["waitlistOpen"].clone())
    };
    let full = |open: &str| (Reason::SlotFull, open.to_owned());
    assert_eq!(open(&with_limit(3), now()), full("true"));
    assert_eq!(open(&with_limit(2), now()), full("false"));
    assert_eq!(open(&with_limit(3), close()), full("false"));
}

#[test]
fn a_hospital_of_the_version_before_has_no_queues() {
    let message = message::Hospital {
        state: message::hospital::State::Active as i32,
        time_zone: "Asia/Seoul".into(),
        booking_policy: Some(message::BookingPolicy::default()),
        ..message::Hospital::default()
    };
    let policy = |message: &message::Hospital| Venue::from_message(message).unwrap().policy;
    assert_eq!(policy(&message).waitlist_limit, 0);
    let booking_policy = message::BookingPolicy {
        waitlist_limit: Some(7),
        promotion_min_notice: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..message::BookingPolicy::default()
    };
    let read = policy(&message::Hospital { booking_policy: Some(booking_policy), ..message });
    assert_eq!((read.waitlist_limit, read.promotion_min_notice), (7, SignedDuration::from_secs(60)));
}

#[test]
fn a_later_policy_does_not_move_who_waits_already() {
    let (slot, claim, queue) = waiting(1, 1);
    let mut strict = seoul();
    strict.policy.promotion_min_notice = SignedDuration::from_hours(1_000);
    let again = reserve(&slot.id, queue[0].id, Some(&queue[0]), Some(&strict), Some(&slot), true, close());
    assert_eq!(again.unwrap(), Step::unchanged(&queue[0]));
    let just_before = close() - SignedDuration::from_nanos(1);
    let (_, promoted) = release(&slot.id, claim.id, Some(&claim), Some(&slot), &queue, just_before).unwrap();
    assert_eq!(ids(&promoted), [claim_id(11)]);
}

#[test]
fn a_claim_that_waits_or_was_promoted_is_the_answer() {
    let (slot, claim, queue) = waiting(1, 2);
    for allow_waitlist in [true, false] {
        let again = reserve(&slot.id, queue[1].id, Some(&queue[1]), None, None, allow_waitlist, close());
        assert_eq!(again.unwrap(), Step::unchanged(&queue[1]));
    }
    let (_, promoted) = release(&slot.id, claim.id, Some(&claim), Some(&slot), &queue, now()).unwrap();
    let active = &promoted[0].claim;
    let again = reserve(&slot.id, active.id, Some(active), None, None, false, close()).unwrap();
    assert_eq!((again.claim.state, again.claim.version), (ClaimState::Active, 2));
    let elsewhere = SlotId { date: date(2027, 1, 5), ..slot.id };
    let moved = reserve(&elsewhere, queue[1].id, Some(&queue[1]), None, None, true, now());
    assert_eq!(reason(moved), Reason::FieldInvalid);
}

#[test]
fn a_place_that_is_given_back_passes_to_the_first_and_is_never_seen_free() {
    let (slot, claim, queue) = waiting(3, 2);
    let (step, promoted) = release(&slot.id, claim.id, Some(&claim), Some(&slot), &queue, now()).unwrap();
    assert_eq!(ids(&promoted), [claim_id(11)]);
    let (released, fact) = (step.slot.as_ref().unwrap(), step.fact.as_ref().unwrap());
    assert_eq!((released.booked, released.waiting, released.version), (3, 2, slot.version + 1));
    assert_eq!(counts(fact), (released.version, 3, 3, 2));
    let Payload::CapacityReleased(left) = &fact.payload else { panic!("{fact:?}") };
    assert_eq!((left.remaining_count, left.waitlisted_count), (0, 2));
    let (after, fact) = (last(&promoted), promoted[0].fact.as_ref().unwrap());
    assert_eq!((after.booked, after.waiting, after.version), (3, 1, slot.version + 2));
    assert_eq!(promoted[0].claim.slot_version, after.version);
    assert_eq!((fact.version, counts(fact)), (2, (after.version, 3, 3, 1)));
    let Payload::CapacityReserved(CapacityReserved { from_waitlist, remaining_count, .. }) = fact.payload else {
        panic!("{fact:?}")
    };
    assert_eq!((from_waitlist, remaining_count), (true, 0));
    let Some(Payload::CapacityReserved(newcomer)) =
        take(&self::slot(1), 1, None).unwrap().fact.map(|fact| fact.payload)
    else {
        panic!("another fact")
    };
    assert!(!newcomer.from_waitlist);
}

#[test]
fn nobody_is_promoted_too_late_or_on_a_closed_slot() {
    let (slot, claim, queue) = waiting(1, 1);
    let given_back = |slot: &Slot, now| {
        let (step, promoted) = release(&slot.id, claim.id, Some(&claim), Some(slot), &queue, now).unwrap();
        (ids(&promoted), step.slot.unwrap().remaining())
    };
    assert_eq!(given_back(&slot, close()), (vec![], 1), "the place goes on sale");
    for state in [SlotState::Closed, SlotState::Deleted] {
        assert_eq!(given_back(&Slot { state, ..slot.clone() }, now()), (vec![], 1), "the place rests");
    }
}

#[test]
fn who_may_not_get_a_place_any_more_is_passed_over() {
    let (slot, claim, mut queue) = waiting(1, 3);
    let ticket = ticket(&queue[0]).unwrap();
    queue[0].state = ClaimState::Waiting(Ticket { closes_at: now(), ..ticket });
    let (_, promoted) = release(&slot.id, claim.id, Some(&claim), Some(&slot), &queue, now()).unwrap();
    assert_eq!(ids(&promoted), [claim_id(12)]);
    let raised = set_capacity(&seoul(), &slot, CapacityChange::By(2), "", None, &queue, now()).unwrap().unwrap();
    assert_eq!(ids(&raised.promoted), [claim_id(12), claim_id(13)]);
}

#[test]
fn who_leaves_the_queue_frees_nothing() {
    let (slot, claim, queue) = waiting(1, 2);
    let (left, promoted) = release(&slot.id, queue[0].id, Some(&queue[0]), Some(&slot), &queue, now()).unwrap();
    let after = left.slot.unwrap();
    assert_eq!((left.claim.state, after.booked, after.waiting), (ClaimState::Released, 1, 1));
    assert_eq!((promoted, counts(&left.fact.unwrap())), (vec![], (after.version, 1, 1, 1)));
    let (_, promoted) = release(&slot.id, claim.id, Some(&claim), Some(&after), &queue[1..], now()).unwrap();
    assert_eq!(ids(&promoted), [claim_id(12)]);
}

#[test]
fn new_places_go_to_the_queue_first() {
    let (slot, _, queue) = waiting(1, 2);
    let set = |change| set_capacity(&seoul(), &slot, change, "", None, &queue, now()).unwrap().unwrap();
    for (more, promoted, remaining) in [(1, 1, 0), (2, 2, 0), (5, 2, 3)] {
        let raised = set(CapacityChange::By(more));
        assert_eq!(ids(&raised.promoted), [claim_id(11), claim_id(12)][..promoted]);
        // the change is reported with the places as taken, and then who took them
        assert_eq!((raised.slot.remaining(), raised.slot.version), (remaining, slot.version + 1));
        assert_eq!(counts(&raised.fact), (slot.version + 1, 1 + more, 1 + promoted as i32, 2));
        let after = last(&raised.promoted);
        assert_eq!((after.remaining(), after.waiting), (remaining, 2 - promoted as i32));
        assert_eq!((after.version, after.admin_version), (raised.slot.version + promoted as i64, 2));
    }
    let (wide, _, queue) = waiting(3, 1);
    let two = Slot { booked: 2, state: SlotState::Closed, ..wide };
    let reduced = set_capacity(&seoul(), &two, CapacityChange::To(2), "", None, &queue, now()).unwrap().unwrap();
    assert_eq!((reduced.promoted, reduced.slot.waiting), (vec![], 1), "who waits goes on waiting");
}

#[test]
fn a_closed_slot_keeps_its_queue_and_gives_it_the_places_when_it_is_open_again() {
    let (slot, claim, queue) = waiting(2, 3);
    let (closed, fact) = close_slot(&seoul(), &slot, false, "", "", now()).unwrap().unwrap();
    assert_eq!((closed.waiting, counts(&fact)), (3, (closed.version, 2, 2, 3)));
    let (step, promoted) = release(&slot.id, claim.id, Some(&claim), Some(&closed), &queue, now()).unwrap();
    let rests = step.slot.unwrap();
    assert_eq!((promoted, rests.remaining()), (vec![], 1));
    let raised = set_capacity(&seoul(), &rests, CapacityChange::By(1), "", None, &queue, now()).unwrap().unwrap();
    assert_eq!((&raised.promoted[..], raised.slot.remaining()), (&[][..], 2));
    let opened = reopen_slot(&seoul(), &raised.slot, "", false, &queue, now()).unwrap().unwrap();
    assert_eq!(ids(&opened.promoted), [claim_id(11), claim_id(12)]);
    assert_eq!((opened.slot.remaining(), counts(&opened.fact)), (0, (opened.slot.version, 3, 3, 3)));
    assert_eq!((last(&opened.promoted).booked, last(&opened.promoted).waiting), (3, 1));
    let late = reopen_slot(&seoul(), &raised.slot, "", false, &queue, close()).unwrap().unwrap();
    assert_eq!((late.promoted, late.slot.remaining()), (vec![], 2));
}

#[test]
fn cancelling_a_slot_ends_the_queue_too() {
    let (slot, claim, queue) = waiting(1, 1);
    assert_eq!((slot.to_cancel(true), slot.to_cancel(false)), (2, 0));
    let (closed, _) = close_slot(&seoul(), &slot, true, "fire", "", now()).unwrap().unwrap();
    let revoked = revoke(&claim, &closed, RevokeReason::SlotCancelled, "fire", now());
    let emptied = revoked.slot.unwrap();
    assert_eq!((emptied.booked, emptied.waiting), (0, 1), "its place goes to nobody");
    let revoked = revoke(&queue[0], &emptied, RevokeReason::SlotCancelled, "fire", now());
    let after = revoked.slot.unwrap();
    assert_eq!((revoked.claim.version, after.waiting, after.remaining()), (2, 0, 1));
    assert_eq!(counts(&revoked.fact.unwrap()), (after.version, 1, 0, 0));
    let again = revoke(&revoked.claim, &after, RevokeReason::SlotCancelled, "fire", now());
    assert_eq!(again, Step::unchanged(&revoked.claim));
    // only who waits is left: a slot without a booking is still cancelled
    let left = Slot { booked: 0, state: SlotState::Closed, ..slot };
    assert!(close_slot(&seoul(), &left, true, "", "", now()).unwrap().is_some());
}

#[test]
fn the_state_of_a_slot_is_reported_with_its_queue() {
    let (slot, _, _) = waiting(1, 2);
    let closed = Slot { state: SlotState::Closed, ..slot.clone() };
    for (slot, before) in [(&slot, None), (&slot, Some(1)), (&closed, None)] {
        assert_eq!(counts(&state_fact(slot, before)), (slot.version, 1, 1, 2));
    }
}
