//! Opening dates by rules: all of them or none.

use std::collections::BTreeSet;

use contract::google::r#type::DayOfWeek;
use contract::hospital::v1;
use fault::Reason;
use jiff::civil::Weekday;
use testkit::refused;
use v1::slot::State as SlotState;

use crate::closures::{SEOUL, date_of, judge_opening, names, open, rule, rule_of};
use crate::support::{House, claim, facts, request_id, reserve};

#[tokio::test]
async fn a_rule_opens_every_monday_and_wednesday() {
    const WEEKS: i32 = 4;
    let (house, _dir) = House::start().await;
    house.hospital("seoul", &[], 1).await;
    let admin = house.admin_of("seoul").await;
    let tuesday = (1..8).find(|days| house.day(*days).weekday() == Weekday::Tuesday).unwrap();
    // The rule begins on a Tuesday, which is not one of its days, and ends before a Wednesday, which is.
    let end = tuesday + 1 + 7 * WEEKS;
    let asked = v1::BatchCreateSlotsRequest {
        parent: SEOUL.into(),
        requests: vec![
            date_of(&house, end + 30),
            rule_of(&house, tuesday, end, &[DayOfWeek::Wednesday, DayOfWeek::Monday]),
            date_of(&house, tuesday),
        ],
        request_id: request_id(),
        validate_only: false,
    };
    let ruled =
        (tuesday..end).filter(|days| [Weekday::Monday, Weekday::Wednesday].contains(&house.day(*days).weekday()));
    let expected = [end + 30].into_iter().chain(ruled).chain([tuesday]);
    let expected: Vec<String> = expected.map(|days| format!("{SEOUL}/slots/{}", house.day(days))).collect();
    assert_eq!(expected.len(), 2 * WEEKS as usize + 2);

    let events = house.events().await.len();
    let judged = judge_opening(&admin, &asked).await.unwrap();
    assert_eq!(names(&judged), expected);
    let list = v1::ListSlotsRequest { parent: SEOUL.into(), page_size: 100, ..Default::default() };
    let listed = async || admin.hospital().list_slots(list.clone()).await.unwrap().into_inner().slots;
    assert_eq!((listed().await, house.events().await.len()), (Vec::new(), events), "judging opens nothing");

    let made = open(&admin, &asked).await.unwrap();
    let timeless = |slot: &v1::Slot| v1::Slot { create_time: None, update_time: None, ..slot.clone() };
    let bare = |slots: &[v1::Slot]| slots.iter().map(timeless).collect::<Vec<_>>();
    assert_eq!(bare(&made), bare(&judged), "what was judged is what is opened");
    assert!(made.iter().all(|slot| slot.state() == SlotState::Open && slot.capacity == 4 && slot.version == 1));
    let sorted: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    assert_eq!(names(&listed().await), sorted.into_iter().collect::<Vec<_>>());
    assert_eq!(facts(&house.sound_events().await)["slot_opened"], expected.len());

    reserve(&house.screening().await, &made[1].name, &claim(1)).await.unwrap();
    let again = open(&admin, &asked).await.unwrap();
    assert_eq!((names(&again), again[1].booked_count), (names(&made), 1), "a replay answers the slots as they are now");
    assert_eq!(judge_opening(&admin, &asked).await.unwrap(), again);
    let mut other = asked.clone();
    other.requests[1].repeat = rule(&house, end, &[DayOfWeek::Monday]);
    refused(open(&admin, &other).await, Reason::RequestIdReused);
    refused(judge_opening(&admin, &other).await, Reason::RequestIdReused);
    assert_eq!(facts(&house.sound_events().await)["slot_opened"], expected.len());
    house.stop().await;
}

#[tokio::test]
async fn a_rule_opens_all_of_its_dates_or_none() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[5, 8], 1).await;
    let admin = house.admin().await;
    let batch = |requests| v1::BatchCreateSlotsRequest { parent: SEOUL.into(), requests, ..Default::default() };
    let events = house.events().await.len();
    for (asked, reason) in [
        (batch(vec![rule_of(&house, 2, 10, &[])]), Reason::SlotAlreadyExists),
        (batch(vec![date_of(&house, 3), rule_of(&house, 5, 6, &[])]), Reason::SlotAlreadyExists),
        (batch(vec![rule_of(&house, -1, 4, &[])]), Reason::DateInPast),
        (batch(vec![date_of(&house, 1), rule_of(&house, -3, 1, &[])]), Reason::DateInPast),
    ] {
        let answers = [open(&admin, &asked).await, judge_opening(&admin, &asked).await];
        for refusal in answers.map(|answer| refused(answer, reason)) {
            if reason == Reason::SlotAlreadyExists {
                assert_eq!(refusal.value("slot"), slots[0], "the first one is named");
            }
        }
    }
    assert_eq!(house.events().await.len(), events);
    for days in [1, 2, 3, 4, 6, 7, 9] {
        let get = v1::GetSlotRequest { name: format!("{SEOUL}/slots/{}", house.day(days)) };
        refused(admin.hospital().get_slot(get).await, Reason::SlotNotFound);
    }
    // What is left out is opened.
    let rest = batch(vec![rule_of(&house, 2, 5, &[]), rule_of(&house, 6, 8, &[]), date_of(&house, 9)]);
    assert_eq!(open(&admin, &rest).await.unwrap().len(), 6);
    house.stop().await;
}
