//! Queues: who waits for a place gets the next free one, in the order of tickets, and nobody sees that place before.

use contract::capacity::v1::CapacityClaim;
use contract::capacity::v1::capacity_claim::State;
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, ScreeningSnapshot, ScreeningWaitlistEnded};
use contract::hospital::v1;
use fault::Reason;
use relay::Incoming;
use runtime::clock::Clock;
use store::inbox::InboxKey;
use testkit::{Party, eventually, refused, rush};
use tonic::Response;
use uuid::Uuid;

use crate::support::{
    House, assert_slot_adds_up, claim, claims, get_hospital, get_slot, hours, join, noon, release, reserve,
};

async fn state(party: &Party, slot: &str, number: u128) -> State {
    let claims = claims(party, slot, "").await;
    claims.iter().find(|found| found.claim_id == claim(number)).unwrap().state()
}

async fn set_capacity(party: &Party, slot: &str, delta: i32) -> v1::Slot {
    let change = v1::set_slot_capacity_request::Change::Delta(delta);
    let request = v1::SetSlotCapacityRequest { name: slot.into(), change: Some(change), ..Default::default() };
    party.hospital().set_slot_capacity(request).await.map(Response::into_inner).unwrap()
}

async fn close(party: &Party, slot: &str, cancel_bookings: bool) -> v1::Slot {
    let request = v1::CloseSlotRequest { name: slot.into(), cancel_bookings, ..Default::default() };
    party.hospital().close_slot(request).await.map(Response::into_inner).unwrap()
}

async fn reopen(party: &Party, slot: &str) -> v1::Slot {
    let request = v1::ReopenSlotRequest { name: slot.into(), ..Default::default() };
    party.hospital().reopen_slot(request).await.map(Response::into_inner).unwrap()
}

async fn set_policy(party: &Party, policy: v1::BookingPolicy) {
    let hospital = v1::Hospital { name: "hospitals/seoul".into(), booking_policy: Some(policy), ..Default::default() };
    let update = v1::UpdateHospitalRequest { hospital: Some(hospital), update_mask: None };
    party.hospital().update_hospital(update).await.unwrap();
}

/// The claims that got a place from the queue, in the order of their events.
fn promoted(events: &[EventEnvelope]) -> Vec<String> {
    let promoted = |event: &EventEnvelope| match &event.payload {
        Some(Payload::CapacityReserved(fact)) if fact.from_waitlist => Some(fact.claim_id.clone()),
        _ => None,
    };
    events.iter().filter_map(promoted).collect()
}

/// A house with a hospital of one full slot in 3 days, whose places are held by the claims from 1 to `capacity`.
async fn full(capacity: i32) -> (House, tempfile::TempDir, String) {
    let (house, dir) = House::start().await;
    let slot = house.hospital("seoul", &[3], capacity).await.remove(0);
    let screening = house.screening().await;
    for number in 1..=capacity.unsigned_abs() {
        reserve(&screening, &slot, &claim(number.into())).await.unwrap();
    }
    (house, dir, slot)
}

#[tokio::test]
async fn r19_a_place_given_back_passes_to_the_first_in_the_queue() {
    let (house, _dir, slot) = full(2).await;
    let screening = house.screening().await;
    let first = join(&screening, &slot, &claim(10)).await.unwrap();
    let second = join(&screening, &slot, &claim(11)).await.unwrap();
    assert_eq!((first.state(), first.waitlist_position), (State::Waiting, 1));
    assert_eq!((second.state(), second.waitlist_position), (State::Waiting, 2));
    assert!(first.waitlist_ticket < second.waitlist_ticket && first.terms.is_some());
    let before = get_slot(&screening, &slot).await;
    assert_eq!((before.booked_count, before.waitlisted_count), (2, 2));

    release(&screening, &slot, &claim(1)).await.unwrap();
    let newcomer = refused(reserve(&screening, &slot, &claim(20)).await, Reason::SlotFull);
    assert_eq!((newcomer.value("remaining"), newcomer.value("waitlistOpen")), ("0", "true"));
    assert_eq!(state(&screening, &slot, 10).await, State::Active);
    let waiting = claims(&screening, &slot, "state=WAITING").await;
    let positions = waiting.iter().map(|claim| (claim.claim_id.clone(), claim.waitlist_position));
    assert_eq!(positions.collect::<Vec<_>>(), [(claim(11), 1)]);
    // who waits and leaves frees no place
    release(&screening, &slot, &claim(11)).await.unwrap();
    let after = assert_slot_adds_up(&screening, &slot).await;
    assert_eq!((after.booked_count, after.remaining_count, after.waitlisted_count), (2, 0, 0));

    let events = house.sound_events().await;
    assert_eq!(promoted(&events), [claim(10)]);
    // no event of the slot ever shows the place that passed on
    let freed = events.iter().filter_map(|event| match &event.payload {
        Some(Payload::CapacityReleased(fact)) => Some(fact.remaining_count),
        _ => None,
    });
    assert_eq!(freed.collect::<Vec<_>>(), [0, 0]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r20_nobody_waits_beside_a_free_place_whatever_comes_together() {
    let (house, _dir, slot) = full(20).await;
    let screening = house.screening().await;
    // 20 releases, 40 joins and 30 newcomers at once
    let answers = rush(90, |i| {
        let (party, slot) = (screening.clone(), slot.clone());
        async move {
            match i % 9 {
                0 | 4 => release(&party, &slot, &claim(1 + (i / 9 * 2 + i % 9 / 4) as u128)).await.map(drop),
                1 | 3 | 5 | 7 => join(&party, &slot, &claim(100 + i as u128)).await.map(drop),
                _ => reserve(&party, &slot, &claim(100 + i as u128)).await.map(drop),
            }
        }
    })
    .await;
    assert_eq!(answers.len(), 90);
    let slot = assert_slot_adds_up(&screening, &slot).await;
    assert!(slot.remaining_count == 0 || slot.waitlisted_count == 0, "{slot:?}");
    assert_eq!(slot.booked_count, 20);
    let mut tickets = std::collections::BTreeMap::new();
    let events = house.sound_events().await;
    for event in &events {
        if let Some(Payload::CapacityWaitlisted(fact)) = &event.payload {
            assert_eq!(fact.remaining_count, 0, "joined beside a free place");
            tickets.insert(fact.claim_id.clone(), fact.waitlist_ticket);
        }
    }
    let order: Vec<i64> = promoted(&events).iter().map(|claim| tickets[claim]).collect();
    assert!(order.is_sorted(), "{order:?}");
    house.stop().await;
}

#[tokio::test]
async fn r21_added_places_go_to_the_queue_first_and_a_reduction_leaves_it_alone() {
    let (house, _dir, slot) = full(1).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    for number in 10..13 {
        join(&screening, &slot, &claim(number)).await.unwrap();
    }
    let raised = set_capacity(&admin, &slot, 2).await;
    assert_eq!((raised.booked_count, raised.remaining_count, raised.waitlisted_count), (3, 0, 1));
    release(&screening, &slot, &claim(12)).await.unwrap();
    join(&screening, &slot, &claim(13)).await.unwrap();
    let raised = set_capacity(&admin, &slot, 3).await;
    assert_eq!((raised.capacity, raised.booked_count, raised.waitlisted_count), (6, 4, 0));
    let lowered = set_capacity(&admin, &slot, -2).await;
    assert_eq!((lowered.capacity, lowered.remaining_count), (4, 0));
    join(&screening, &slot, &claim(14)).await.unwrap();
    let below = v1::SetSlotCapacityRequest {
        name: slot.clone(),
        change: Some(v1::set_slot_capacity_request::Change::Delta(-1)),
        ..Default::default()
    };
    refused(admin.hospital().set_slot_capacity(below).await, Reason::CapacityBelowBooked);
    assert_eq!(state(&screening, &slot, 14).await, State::Waiting);
    let events = house.sound_events().await;
    assert_eq!(promoted(&events), [claim(10), claim(11), claim(13)]);
    for event in &events {
        if let Some(Payload::SlotCapacityChanged(fact)) = &event.payload {
            assert!(fact.new_capacity == fact.booked_count || fact.waitlisted_count <= fact.booked_count, "{fact:?}");
        }
    }
    house.stop().await;
}

#[tokio::test]
async fn r24_a_closed_slot_keeps_its_queue_and_reopening_serves_it() {
    let (house, _dir, slot) = full(2).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    join(&screening, &slot, &claim(10)).await.unwrap();
    close(&admin, &slot, false).await;
    release(&screening, &slot, &claim(1)).await.unwrap();
    let closed = assert_slot_adds_up(&screening, &slot).await;
    assert_eq!((closed.remaining_count, closed.waitlisted_count), (1, 1), "a freed place rests");
    set_capacity(&admin, &slot, 1).await;
    assert_eq!(state(&screening, &slot, 10).await, State::Waiting);
    let reopened = reopen(&admin, &slot).await;
    assert_eq!((reopened.remaining_count, reopened.waitlisted_count), (1, 0));
    assert_eq!(state(&screening, &slot, 10).await, State::Active);
    house.sound_events().await;
    house.stop().await;
}

#[tokio::test]
async fn r24_a_place_freed_too_late_goes_on_sale() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), noon(), None).await;
    let slot = house.hospital("seoul", &[3], 1).await.remove(0);
    let (admin, screening) = (house.admin().await, house.screening().await);
    reserve(&screening, &slot, &claim(1)).await.unwrap();
    // 60 h before the date: who joins now could get a place until 12 h from now
    set_policy(&admin, v1::BookingPolicy { promotion_min_notice: hours(48), ..Default::default() }).await;
    let early = join(&screening, &slot, &claim(10)).await.unwrap();
    set_policy(&admin, v1::BookingPolicy { promotion_min_notice: hours(24), ..Default::default() }).await;
    let late = join(&screening, &slot, &claim(11)).await.unwrap();
    let (early, late) = (early.promotion_close_time.unwrap(), late.promotion_close_time.unwrap());
    assert_eq!(late.seconds - early.seconds, 24 * 3_600, "a later policy does not move an earlier ticket");
    house.stop().await;

    let clock =
        Clock::shifted(noon().now().duration_since(Clock::system().now()) + jiff::SignedDuration::from_hours(13));
    let house = House::open(dir.path(), clock, None).await;
    let screening = house.screening().await;
    release(&screening, &slot, &claim(1)).await.unwrap();
    assert_eq!(state(&screening, &slot, 10).await, State::Waiting);
    assert_eq!(state(&screening, &slot, 11).await, State::Active);
    release(&screening, &slot, &claim(11)).await.unwrap();
    // nobody who waits may get it any more, so a newcomer does
    assert_eq!(reserve(&screening, &slot, &claim(20)).await.unwrap().state(), State::Active);
    assert_slot_adds_up(&screening, &slot).await;
    house.stop().await;
}

#[tokio::test]
async fn r24_cancelled_bookings_and_a_deletion_end_who_waits_too() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[3, 4], 1).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    for (slot, first) in slots.iter().zip([1, 11]) {
        for number in first..first + 3 {
            join(&screening, slot, &claim(number)).await.unwrap();
        }
    }
    assert_eq!(get_hospital(&admin, "hospitals/seoul").await.active_booking_count, 2);
    close(&admin, &slots[0], true).await;
    eventually("the cancelling", async || match get_slot(&admin, &slots[0]).await {
        slot if slot.booked_count == 0 && slot.waitlisted_count == 0 => Ok(()),
        slot => Err(format!("{slot:?}")),
    })
    .await;
    let request = v1::DeleteHospitalRequest { name: "hospitals/seoul".into(), force: true, ..Default::default() };
    let deleting = admin.hospital().delete_hospital(request).await.unwrap().into_inner();
    assert_eq!(deleting.revocation_progress.unwrap().total, 3);
    eventually("the deletion", async || match get_hospital(&admin, "hospitals/seoul").await {
        hospital if hospital.state() == v1::hospital::State::Deleted => Ok(()),
        hospital => Err(format!("{hospital:?}")),
    })
    .await;
    let ended: Vec<CapacityClaim> = claims(&screening, "hospitals/-/slots/-", "").await;
    assert_eq!(ended.len(), 6);
    assert!(ended.iter().all(|claim| claim.state() == State::Revoked && claim.waitlist_ticket == 0));
    let events = house.sound_events().await;
    assert_eq!(promoted(&events), Vec::<String>::new(), "a place that is taken away goes to nobody");
    house.stop().await;
}

#[tokio::test]
async fn r25_a_repeated_call_hears_of_its_claim_as_it_is() {
    let (house, _dir, slot) = full(1).await;
    let screening = house.screening().await;
    join(&screening, &slot, &claim(10)).await.unwrap();
    let waiting = join(&screening, &slot, &claim(11)).await.unwrap();
    for again in [join(&screening, &slot, &claim(11)).await, reserve(&screening, &slot, &claim(11)).await] {
        assert_eq!(again.unwrap(), waiting);
    }
    release(&screening, &slot, &claim(10)).await.unwrap();
    assert_eq!(join(&screening, &slot, &claim(11)).await.unwrap().waitlist_position, 1);
    release(&screening, &slot, &claim(1)).await.unwrap();
    for again in [join(&screening, &slot, &claim(11)).await, reserve(&screening, &slot, &claim(11)).await] {
        let again = again.unwrap();
        assert_eq!((again.state(), again.waitlist_position, again.waitlist_ticket), (State::Active, 0, 0));
        assert_eq!(again.promotion_close_time, None);
    }
    refused(join(&screening, &slot, &claim(10)).await, Reason::ClaimTerminated);
    let other = house.hospital("busan", &[3], 1).await.remove(0);
    refused(join(&screening, &other, &claim(11)).await, Reason::FieldInvalid);
    assert_eq!(house.sound_events().await.iter().filter(|event| event.aggregate.ends_with(&claim(11))).count(), 2);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_a_queue_takes_as_many_as_it_may() {
    let (house, _dir, slot) = full(1).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    set_policy(&admin, v1::BookingPolicy { waitlist_limit: Some(5), ..Default::default() }).await;
    let answers = rush(12, |i| {
        let (party, slot) = (screening.clone(), slot.clone());
        async move { join(&party, &slot, &claim(100 + i as u128)).await }
    })
    .await;
    let (joined, full): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((joined.len(), full.len()), (5, 7));
    for refusal in full {
        assert_eq!(refused(refusal, Reason::WaitlistFull).value("waitlistLimit"), "5");
    }
    let mut positions: Vec<i32> =
        claims(&screening, &slot, "state=WAITING").await.iter().map(|claim| claim.waitlist_position).collect();
    positions.sort_unstable();
    assert_eq!(positions, [1, 2, 3, 4, 5]);
    assert_eq!(refused(reserve(&screening, &slot, &claim(20)).await, Reason::SlotFull).value("waitlistOpen"), "false");
    // who waits keeps waiting where the limit is lowered
    set_policy(&admin, v1::BookingPolicy { waitlist_limit: Some(0), ..Default::default() }).await;
    refused(join(&screening, &slot, &claim(21)).await, Reason::WaitlistFull);
    release(&screening, &slot, &claim(1)).await.unwrap();
    let after = assert_slot_adds_up(&screening, &slot).await;
    assert_eq!((after.booked_count, after.waitlisted_count), (1, 4));
    set_policy(&admin, v1::BookingPolicy { promotion_min_notice: hours(24 * 5), ..Default::default() }).await;
    let closed = refused(join(&screening, &slot, &claim(22)).await, Reason::WaitlistClosed);
    assert!(closed.value("closesAt").contains('T'));
    house.stop().await;
}

#[tokio::test]
async fn the_end_of_a_wait_gives_a_ticket_back_and_that_of_a_promotion_its_place() {
    let (house, _dir, slot) = full(1).await;
    let screening = house.screening().await;
    for number in 10..13 {
        join(&screening, &slot, &claim(number)).await.unwrap();
    }
    release(&screening, &slot, &claim(1)).await.unwrap();
    let ended = |number: u128| {
        let event_id = Uuid::from_u128(1_000 + number);
        let screening = Some(ScreeningSnapshot { slot: slot.clone(), ..ScreeningSnapshot::default() });
        let ended = ScreeningWaitlistEnded { screening, claim_id: claim(number), ..ScreeningWaitlistEnded::default() };
        let payload = Some(Payload::ScreeningWaitlistEnded(ended));
        let envelope = EventEnvelope { event_id: event_id.to_string(), payload, ..EventEnvelope::default() };
        Incoming { envelope, event_id, inbox_key: InboxKey::alone(event_id) }
    };
    // one that waits, and one whose booking ended when its place came
    house.service.consumers[0].handler.handle(&[ended(11), ended(10), ended(10)]).await.unwrap();
    let after = assert_slot_adds_up(&screening, &slot).await;
    assert_eq!((after.booked_count, after.waitlisted_count), (1, 0));
    assert_eq!(promoted(&house.sound_events().await), [claim(10), claim(12)]);
    house.stop().await;
}
