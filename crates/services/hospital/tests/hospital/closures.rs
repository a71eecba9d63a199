//! Many dates by one call: closing the dates of ranges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::capacity::v1::capacity_claim::RevokeReason;
use contract::event::v1::event_envelope::Payload;
use contract::google::r#type::DayOfWeek;
use contract::hospital::v1;
use fault::Reason;
use jiff::civil::Weekday;
use runtime::clock::Clock;
use testkit::{Party, day_of, eventually, gather, refused, rush, start_together};
use tonic::{Response, Status};
use v1::slot::State as SlotState;

use crate::support::{
    Budget, House, assert_slot_adds_up, claim, claims, facts, get_slot, noon, release, request_id, reserve,
};

pub(crate) const SEOUL: &str = "hospitals/seoul";
const QUARTER: i32 = 91;
const REASON: &str = "no staff on Saturdays";

/// The dates before that of a day from today, on these days of the week.
pub(crate) fn rule(house: &House, end: i32, days: &[DayOfWeek]) -> Option<v1::DateRepetition> {
    let days_of_week = days.iter().map(|day| *day as i32).collect();
    Some(v1::DateRepetition { end_date: Some(day_of(house.day(end))), days_of_week })
}

/// Both ends are counted in days from today.
fn range(house: &House, first: i32, end: i32, days: &[DayOfWeek]) -> v1::DateRange {
    v1::DateRange { start_date: Some(day_of(house.day(first))), repeat: rule(house, end, days) }
}

fn closing(ranges: Vec<v1::DateRange>, cancel_bookings: bool) -> v1::BatchCloseSlotsRequest {
    v1::BatchCloseSlotsRequest {
        parent: SEOUL.into(),
        ranges,
        cancel_bookings,
        reason: REASON.into(),
        ..Default::default()
    }
}

async fn close(party: &Party, asked: &v1::BatchCloseSlotsRequest) -> Result<v1::BatchCloseSlotsResponse, Status> {
    party.hospital().batch_close_slots(asked.clone()).await.map(Response::into_inner)
}

async fn judge(party: &Party, asked: &v1::BatchCloseSlotsRequest) -> Result<v1::BatchCloseSlotsResponse, Status> {
    close(party, &v1::BatchCloseSlotsRequest { validate_only: true, ..asked.clone() }).await
}

pub(crate) async fn open(party: &Party, asked: &v1::BatchCreateSlotsRequest) -> Result<Vec<v1::Slot>, Status> {
    party.hospital().batch_create_slots(asked.clone()).await.map(|answer| answer.into_inner().slots)
}

pub(crate) async fn judge_opening(party: &Party, asked: &v1::BatchCreateSlotsRequest) -> Result<Vec<v1::Slot>, Status> {
    open(party, &v1::BatchCreateSlotsRequest { validate_only: true, ..asked.clone() }).await
}

/// One place on each date from one day after today to before another, on these days of the week.
pub(crate) fn rule_of(house: &House, first: i32, end: i32, days: &[DayOfWeek]) -> v1::CreateSlotRequest {
    v1::CreateSlotRequest { repeat: rule(house, end, days), ..date_of(house, first) }
}

pub(crate) fn date_of(house: &House, days: i32) -> v1::CreateSlotRequest {
    let slot = v1::Slot { date: Some(day_of(house.day(days))), capacity: 4, ..Default::default() };
    v1::CreateSlotRequest { slot: Some(slot), ..Default::default() }
}

/// Takes `each` places of every slot. The claims are numbered from `first`.
async fn book(party: &Party, slots: &[String], each: usize, first: usize) {
    let answers = rush(each * slots.len(), |i| {
        let (party, slot) = (party.clone(), slots[i % slots.len()].clone());
        async move { reserve(&party, &slot, &claim((first + i) as u128)).await.map(drop) }
    })
    .await;
    answers.into_iter().for_each(|answer| answer.unwrap());
}

pub(crate) fn names(slots: &[v1::Slot]) -> Vec<&str> {
    slots.iter().map(|slot| slot.name.as_str()).collect()
}

fn all(slots: &[String]) -> Vec<&str> {
    slots.iter().map(String::as_str).collect()
}

async fn active(party: &Party, slots: &[String]) -> usize {
    let mut active = 0;
    for slot in slots {
        active += claims(party, slot, "state=ACTIVE").await.len();
    }
    active
}

/// Waits until no booking of these slots is left.
async fn emptied(party: &Party, slots: &[String]) {
    eventually("the cancelling", async || match active(party, slots).await {
        0 => Ok(()),
        left => Err(format!("{left} left")),
    })
    .await;
    for slot in slots {
        assert_eq!(assert_slot_adds_up(party, slot).await.booked_count, 0);
    }
}

async fn progress(party: &Party, slot: &str) -> Option<(i32, i32)> {
    get_slot(party, slot).await.revocation_progress.map(|progress| (progress.total, progress.revoked))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_saturday_of_a_quarter_is_closed_and_no_other_date() {
    let (house, _dir) = House::start().await;
    // There is a slot on every second day, so on every second Saturday.
    let days: Vec<i32> = (1..QUARTER).step_by(2).collect();
    let slots = house.hospital("seoul", &days, 10).await;
    let elsewhere = house.hospital("busan", &days, 10).await;
    let (admin, screening) = (house.admin_of("seoul").await, house.screening().await);
    book(&screening, &slots, 3, 0).await;
    book(&screening, &elsewhere, 1, 1_000).await;
    let is_saturday = |(days, _): &(&i32, &String)| house.day(**days).weekday() == Weekday::Saturday;
    let (saturdays, others): (Vec<_>, Vec<_>) = days.iter().zip(&slots).partition(is_saturday);
    let saturdays: Vec<String> = saturdays.into_iter().map(|(_, slot)| slot.clone()).collect();
    let booked = 3 * saturdays.len();
    assert!((6..=7).contains(&saturdays.len()), "{saturdays:?}");

    let asked = closing(vec![range(&house, 0, QUARTER, &[DayOfWeek::Saturday])], true);
    let events = house.events().await.len();
    let judged = judge(&admin, &asked).await.unwrap();
    assert_eq!(names(&judged.slots), saturdays);
    assert_eq!(usize::try_from(judged.active_booking_count).unwrap(), booked);
    for slot in &judged.slots {
        assert_eq!((slot.state(), slot.booked_count), (SlotState::Open, 3));
        assert_eq!(slot.revocation_progress, Some(v1::RevocationProgress { total: 3, revoked: 0 }));
        let bare = v1::Slot { revocation_progress: None, ..slot.clone() };
        assert_eq!(get_slot(&admin, &slot.name).await, bare, "judging changes nothing");
    }
    let stops = v1::BatchCloseSlotsRequest { cancel_bookings: false, ..asked.clone() };
    let judged = judge(&admin, &stops).await.unwrap();
    assert!(judged.slots.iter().all(|slot| slot.revocation_progress.is_none()), "none would be cancelled");
    assert_eq!(usize::try_from(judged.active_booking_count).unwrap(), booked, "and that many would stay");
    assert_eq!(house.events().await.len(), events);

    let closed = close(&admin, &asked).await.unwrap();
    assert_eq!(names(&closed.slots), saturdays);
    assert!(closed.slots.iter().all(|slot| slot.state() == SlotState::Closed));
    assert_eq!(usize::try_from(closed.active_booking_count).unwrap(), booked);
    refused(reserve(&screening, &saturdays[0], &claim(9_999)).await, Reason::SlotClosed);
    emptied(&screening, &saturdays).await;
    for slot in &saturdays {
        let ended = claims(&screening, slot, "state=REVOKED").await;
        assert_eq!(ended.len(), 3);
        assert!(ended.iter().all(|claim| claim.revoke_reason() == RevokeReason::SlotCancelled));
        assert_eq!(progress(&admin, slot).await, None);
    }
    for (_, slot) in others {
        let slot = assert_slot_adds_up(&screening, slot).await;
        assert_eq!((slot.state(), slot.booked_count), (SlotState::Open, 3), "{}", slot.name);
    }
    for slot in &elsewhere {
        let slot = assert_slot_adds_up(&screening, slot).await;
        assert_eq!((slot.state(), slot.booked_count), (SlotState::Open, 1), "{}", slot.name);
    }
    let events = house.sound_events().await;
    let counted = facts(&events);
    assert_eq!((counted["slot_closed"], counted["capacity_revoked"]), (saturdays.len(), booked));
    for event in &events {
        match &event.payload {
            Some(Payload::SlotClosed(closed)) => {
                assert_eq!((closed.booked_count, closed.bookings_cancelled), (3, true));
                assert_eq!((closed.reason.as_str(), event.actor.as_str()), (REASON, "admin:lee"));
            }
            Some(Payload::CapacityRevoked(revoked)) => {
                assert_eq!((revoked.reason.as_str(), revoked.message.as_str()), ("SLOT_CANCELLED", REASON));
                assert_eq!(event.actor, "admin:lee");
            }
            _ => {}
        }
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookings_stay_unless_they_are_to_be_cancelled() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2, 3], 10).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    book(&screening, &slots, 2, 0).await;
    // Ranges overlap, and a range without a rule is its first date alone.
    let alone = v1::DateRange { repeat: None, ..range(&house, 1, 2, &[]) };
    let stops = closing(vec![range(&house, 2, 300, &[]), alone, range(&house, 1, 3, &[])], false);
    let closed = close(&admin, &stops).await.unwrap();
    assert_eq!((names(&closed.slots), closed.active_booking_count), (all(&slots), 6));
    assert!(closed.slots.iter().all(|slot| slot.state() == SlotState::Closed && slot.revocation_progress.is_none()));
    assert_eq!(active(&screening, &slots).await, 6);
    for slot in &slots {
        refused(reserve(&screening, slot, &claim(99)).await, Reason::SlotClosed);
    }
    let counted = facts(&house.sound_events().await);
    assert_eq!((counted["slot_closed"], counted.get("capacity_revoked")), (3, None));

    // Closing what is closed changes nothing, but for the bookings that are to be cancelled now.
    assert_eq!(close(&admin, &stops).await.unwrap(), closed);
    assert_eq!(facts(&house.events().await), counted);
    release(&screening, &slots[0], &claim(0)).await.unwrap();
    let cancels = v1::BatchCloseSlotsRequest { cancel_bookings: true, ..stops };
    assert_eq!(close(&admin, &cancels).await.unwrap().active_booking_count, 5);
    emptied(&screening, &slots).await;
    let again = close(&admin, &cancels).await.unwrap();
    assert_eq!((again.slots.len(), again.active_booking_count), (3, 0));
    let counted = facts(&house.sound_events().await);
    assert_eq!((counted["slot_closed"], counted["capacity_revoked"], counted["capacity_released"]), (6, 5, 1));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_the_cancelling_has_come_is_told_until_it_ends() {
    let budget = Budget::unlimited();
    let (house, dir) = House::start_under(budget.clone()).await;
    let slots = house.hospital("seoul", &[1, 2, 3], 10).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    book(&screening, &slots[..2], 4, 0).await;
    let asked = closing(vec![range(&house, 1, 4, &[])], true);
    // The closing is committed, and nothing after it.
    let closed = eventually("the last commit", async || {
        budget.set(1);
        close(&admin, &asked).await.map_err(|status| status.to_string())
    })
    .await;
    let shown = closed.slots.iter().map(|slot| slot.revocation_progress);
    let all = Some(v1::RevocationProgress { total: 4, revoked: 0 });
    assert_eq!((shown.collect::<Vec<_>>(), closed.active_booking_count), (vec![all, all, None], 8));
    assert_eq!(progress(&admin, &slots[1]).await, Some((4, 0)));
    let judged = judge(&admin, &asked).await.unwrap();
    assert!(judged.slots.iter().all(|slot| slot.revocation_progress.is_none()), "an earlier call cancels them");
    house.stop().await;

    let house = House::open(dir.path(), noon(), None).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    emptied(&screening, &slots).await;
    // A slot that had bookings is reopened once its cancelling has ended, and one that had none at any time.
    for slot in &slots {
        let reopen = v1::ReopenSlotRequest { name: slot.clone(), ..Default::default() };
        let open = eventually("the reopening", async || match admin.hospital().reopen_slot(reopen.clone()).await {
            Ok(open) => Ok(open.into_inner()),
            Err(status) => Err(refused(Err::<(), _>(status), Reason::RevocationInProgress).message),
        })
        .await;
        assert_eq!((open.state(), open.booked_count, open.revocation_progress), (SlotState::Open, 0, None));
    }
    assert_eq!(facts(&house.sound_events().await)["capacity_revoked"], 8);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_id_closes_once_and_answers_again() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2, 3], 10).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    book(&screening, &slots, 1, 0).await;
    let asked = v1::BatchCloseSlotsRequest {
        request_id: request_id(),
        ..closing(vec![range(&house, 1, 4, &[DayOfWeek::Monday]), range(&house, 1, 4, &[])], false)
    };
    let answers = rush(10, |_| {
        let (admin, asked) = (admin.clone(), asked.clone());
        async move { close(&admin, &asked).await.unwrap() }
    })
    .await;
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(facts(&house.sound_events().await)["slot_closed"], 3);

    let reopen = v1::ReopenSlotRequest { name: slots[1].clone(), ..Default::default() };
    admin.hospital().reopen_slot(reopen).await.unwrap();
    release(&screening, &slots[2], &claim(2)).await.unwrap();
    let again = close(&admin, &asked).await.unwrap();
    assert_eq!(names(&again.slots), slots);
    let states: Vec<SlotState> = again.slots.iter().map(v1::Slot::state).collect();
    assert_eq!(states, [SlotState::Closed, SlotState::Open, SlotState::Closed], "the slots as they are now");
    assert_eq!(again.active_booking_count, 2);
    assert_eq!(judge(&admin, &asked).await.unwrap(), again, "a replay is judged as one");
    assert_eq!(facts(&house.sound_events().await)["slot_closed"], 3);

    let same_id = |other: v1::BatchCloseSlotsRequest| v1::BatchCloseSlotsRequest {
        request_id: asked.request_id.clone(),
        ..other
    };
    for other in [
        same_id(closing(asked.ranges.clone(), true)),
        same_id(closing(asked.ranges[1..].to_vec(), false)),
        same_id(v1::BatchCloseSlotsRequest { reason: "another".into(), ..asked.clone() }),
    ] {
        let refusal = refused(close(&admin, &other).await, Reason::RequestIdReused);
        assert_eq!(refusal.value("requestId"), asked.request_id);
        refused(judge(&admin, &other).await, Reason::RequestIdReused);
    }
    assert_eq!(facts(&house.sound_events().await)["slot_closed"], 3);
    assert_eq!(active(&screening, &slots).await, 2);
    house.stop().await;
}

#[tokio::test]
async fn dates_that_are_over_stay_as_they_are() {
    let (house, dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2, 3], 5).await;
    book(&house.screening().await, &slots, 2, 0).await;
    let asked = closing(vec![range(&house, -3, 10, &[])], true);
    let past = closing(vec![range(&house, -3, 2, &[])], true);
    let later = house.now() + jiff::SignedDuration::from_hours(48);
    house.stop().await;

    // Now the second of the three dates is today.
    let shift = later.duration_since(Clock::system().now());
    let house = House::open(dir.path(), Clock::shifted(shift), None).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let before = get_slot(&admin, &slots[0]).await;
    let judged = judge(&admin, &asked).await.unwrap();
    assert_eq!((names(&judged.slots), judged.active_booking_count), (vec![slots[1].as_str(), &slots[2]], 4));
    for answer in [judge(&admin, &past).await.unwrap(), close(&admin, &past).await.unwrap()] {
        assert_eq!(answer, v1::BatchCloseSlotsResponse::default(), "there is nothing to close");
    }
    let closed = close(&admin, &asked).await.unwrap();
    assert_eq!((names(&closed.slots), closed.active_booking_count), (vec![slots[1].as_str(), &slots[2]], 4));
    emptied(&screening, &slots[1..]).await;
    assert_eq!(get_slot(&admin, &slots[0]).await, before);
    assert_eq!(active(&screening, &slots[..1]).await, 2);
    let counted = facts(&house.sound_events().await);
    assert_eq!((counted["slot_closed"], counted["capacity_revoked"]), (2, 4));
    house.stop().await;
}

#[tokio::test]
async fn a_hospital_that_is_not_there_or_is_deleted_closes_and_opens_nothing() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 5).await;
    let admin = house.admin().await;
    let asked = v1::BatchCloseSlotsRequest {
        request_id: request_id(),
        ..closing(vec![range(&house, 1, 9, &[DayOfWeek::Sunday]), range(&house, 1, 2, &[])], true)
    };
    let opening = |parent: &str| v1::BatchCreateSlotsRequest {
        parent: parent.into(),
        requests: vec![rule_of(&house, 5, 9, &[])],
        ..Default::default()
    };
    let nowhere = v1::BatchCloseSlotsRequest { parent: "hospitals/nowhere".into(), ..asked.clone() };
    refused(close(&admin, &nowhere).await, Reason::HospitalNotFound);
    refused(judge(&admin, &nowhere).await, Reason::HospitalNotFound);
    refused(open(&admin, &opening("hospitals/nowhere")).await, Reason::HospitalNotFound);
    refused(judge_opening(&admin, &opening("hospitals/nowhere")).await, Reason::HospitalNotFound);

    assert_eq!(names(&close(&admin, &asked).await.unwrap().slots), [slot.as_str()]);
    let delete = v1::DeleteHospitalRequest { name: SEOUL.into(), ..Default::default() };
    admin.hospital().delete_hospital(delete).await.unwrap();
    let other = closing(asked.ranges.clone(), true);
    refused(close(&admin, &other).await, Reason::HospitalDeleted);
    refused(judge(&admin, &other).await, Reason::HospitalDeleted);
    refused(open(&admin, &opening(SEOUL)).await, Reason::HospitalDeleted);
    refused(judge_opening(&admin, &opening(SEOUL)).await, Reason::HospitalDeleted);
    let again = close(&admin, &asked).await.unwrap();
    assert_eq!((names(&again.slots), again.slots[0].state()), (vec![slot.as_str()], SlotState::Deleted), "a replay");
    assert_eq!(judge(&admin, &asked).await.unwrap(), again);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leap_year_of_dates_is_opened_and_closed_by_a_call_each() {
    const DATES: i32 = 366;
    const BOOKED: usize = 40;
    let (house, _dir) = House::start().await;
    house.hospital("seoul", &[], 1).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let opening = v1::BatchCreateSlotsRequest {
        parent: SEOUL.into(),
        requests: vec![rule_of(&house, 1, 1 + DATES, &[])],
        ..Default::default()
    };
    let made = open(&admin, &opening).await.unwrap();
    let slots: Vec<String> = made.into_iter().map(|slot| slot.name).collect();
    assert_eq!(slots.len(), DATES as usize);
    // More slots with bookings than are worked on at once.
    book(&screening, &slots[..BOOKED], 2, 0).await;

    let one_by_one = (1..=DATES).map(|days| v1::DateRange { repeat: None, ..range(&house, days, days + 1, &[]) });
    let judged = judge(&admin, &closing(one_by_one.collect(), true)).await.unwrap();
    assert_eq!((names(&judged.slots), judged.active_booking_count), (all(&slots), 80));
    let asked = closing(vec![range(&house, 1, 1 + DATES, &[])], true);
    let closed = close(&admin, &asked).await.unwrap();
    assert_eq!((names(&closed.slots), closed.active_booking_count), (names(&judged.slots), 80));
    assert!(closed.slots.iter().all(|slot| slot.state() == SlotState::Closed));
    emptied(&screening, &slots[..BOOKED]).await;
    let counted = facts(&house.sound_events().await);
    assert_eq!((counted["slot_closed"], counted["capacity_revoked"]), (DATES as usize, 2 * BOOKED));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_books_while_dates_are_closed_has_no_place_afterwards() {
    const WORKERS: usize = 8;
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2, 3, 4, 5, 6, 7], 10_000).await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let closed = Arc::new(AtomicBool::new(false));
    // Each takes one place after another, until it is refused after the answer.
    let booking = start_together(WORKERS, |worker| {
        let (screening, slots, closed) = (screening.clone(), slots.clone(), Arc::clone(&closed));
        async move {
            let mut booked = 0;
            for turn in 0.. {
                let was_closed = closed.load(Ordering::SeqCst);
                let (slot, number) = (&slots[(worker + turn) % slots.len()], turn * WORKERS + worker);
                match reserve(&screening, slot, &claim(number as u128)).await {
                    Ok(taken) => {
                        assert!(!was_closed, "a place after the answer: {taken:?}");
                        booked += 1;
                    }
                    Err(status) => {
                        assert_eq!(refused(Err::<(), _>(status), Reason::SlotClosed).value("slot"), slot);
                        if was_closed {
                            break;
                        }
                    }
                }
            }
            booked
        }
    });
    eventually("some bookings", async || match active(&screening, &slots).await {
        booked if booked >= 40 => Ok(()),
        booked => Err(format!("{booked} booked")),
    })
    .await;
    let answer = close(&admin, &closing(vec![range(&house, 1, 8, &[])], true)).await.unwrap();
    closed.store(true, Ordering::SeqCst);
    assert_eq!(names(&answer.slots), slots);
    let booked: usize = gather(booking).await.into_iter().sum();
    assert_eq!(usize::try_from(answer.active_booking_count).unwrap(), booked, "the closing knew them all");
    emptied(&screening, &slots).await;
    for slot in &slots {
        assert_eq!(get_slot(&admin, slot).await.state(), SlotState::Closed);
    }
    let counted = facts(&house.sound_events().await);
    assert_eq!((counted["capacity_reserved"], counted["capacity_revoked"]), (booked, booked));
    assert_eq!(counted["slot_closed"], slots.len());
    house.stop().await;
}
