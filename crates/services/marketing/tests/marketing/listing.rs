//! Demand signals: they do not depend on the order of events; who sees which; filters, orders and pages.

use std::collections::BTreeSet;
use std::time::Duration;

use contract::event::v1::EventEnvelope;
use contract::marketing::v1::{DemandSignal, ListDemandSignalsRequest};
use fault::Reason;
use jiff::SignedDuration;
use marketing::Options;
use sea_orm::{ConnectionTrait, Statement};
use store::dead_letter::{self, DeadLetter};
use store::inbox::InboxKey;
use testkit::{day_of, eventually, in_days, refused, seed};

use crate::support::{
    House, Plan, ZONE, booked, deletion, incoming, list, moved, places, queue, refusals, registered, slot,
};

fn numbers(signal: &DemandSignal) -> (&str, i32, i32, f64) {
    (&signal.slot, signal.bookings_7d, signal.refused_7d, signal.fill_ratio)
}

fn slots(signals: &[DemandSignal]) -> Vec<&str> {
    signals.iter().map(|signal| signal.slot.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_adds_up_what_happened_of_late() {
    let (house, _dir) = House::start(Plan::default()).await;
    let marketing = house.served.service("marketing").await;
    let name = slot("seoul", 5);
    house.feed(&[registered("seoul"), places(&name, 1, 4, 0, 0), places(&name, 2, 4, 1, 3)]).await;
    let early = list(&marketing, "", "").await.unwrap();
    assert_eq!(numbers(&early[0]), (name.as_str(), 0, 0, 0.25));
    assert_eq!(early[0].date, Some(day_of(in_days(ZONE, 5))));

    let bookings = [booked(&name, 0), booked(&name, 24), booked(&name, 7 * 24 - 1), booked(&name, 7 * 24 + 1)];
    let turned_away = [refusals(&name, 5, 2), refusals(&name, 3, 50), refusals(&name, 100, 8 * 24)];
    for _ in 0..2 {
        house.feed(&bookings).await;
        house.feed(&turned_away).await;
    }
    house.feed(&[places(&name, 5, 8, 8, 1), places(&name, 4, 4, 4, 3)]).await;
    let signals = list(&marketing, "", "").await.unwrap();
    assert_eq!(signals.len(), 1);
    assert_eq!(numbers(&signals[0]), (name.as_str(), 3, 8, 1.0));
    assert_eq!(signals[0].update_time, bookings[0].occur_time.map(micros));
    house.stop().await;
}

/// Of the two facts of a move the second one counts, once for each slot that the booking had. What a slot brought stays
/// counted when the booking leaves it, as when it is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_booking_that_moves_counts_on_its_new_slot_too() {
    let (house, _dir) = House::start(Plan::default()).await;
    let marketing = house.served.service("marketing").await;
    let (from, to) = (slot("seoul", 5), slot("seoul", 6));
    house.feed(&[registered("seoul"), places(&from, 1, 4, 1, 0), places(&to, 1, 4, 1, 0)]).await;
    let bookings = async || -> Vec<i32> {
        list(&marketing, "", "").await.unwrap().iter().map(|signal| signal.bookings_7d).collect()
    };
    let first = booked(&from, 3);
    house.feed(std::slice::from_ref(&first)).await;
    assert_eq!(bookings().await, [1, 0]);
    for _ in 0..2 {
        house.feed(&moved(&first, &to, 2, 2)).await;
        house.feed(std::slice::from_ref(&first)).await;
    }
    assert_eq!(bookings().await, [1, 1]);
    // there again, with another claim
    house.feed(&moved(&first, &from, 4, 1)).await;
    assert_eq!(bookings().await, [2, 1]);
    house.stop().await;
}

/// A time cut to microseconds, as it is stored.
fn micros(time: prost_types::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { nanos: time.nanos / 1_000 * 1_000, ..time }
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_any_delivery_ends_in_the_same_demand() {
    let mut random = seed("r16_any_delivery_ends_in_the_same_demand");
    let mut events: Vec<EventEnvelope> = Vec::new();
    for hospital in ["seoul", "busan", "daegu"] {
        events.push(registered(hospital));
        for days in 1..=4 {
            let name = slot(hospital, days);
            for version in 1..=6 {
                let (capacity, booked_count) = (5 + random.below(5) as i32, random.below(6) as i32);
                let counts = [capacity, booked_count, random.below(9) as i32];
                events.push(queue(&name, version, counts, random.number()));
            }
            for _ in 0..random.below(8) {
                events.push(booked(&name, random.below(200) as i64));
                events.push(refusals(&name, 1 + random.below(9) as i64, random.below(200) as i64));
            }
        }
    }
    events.extend(deletion("daegu"));

    let (ordered, _dir) = House::start(Plan::default()).await;
    ordered.feed(&events).await;
    let expected = list(&ordered.served.auditor().await, "", "").await.unwrap();
    assert_eq!(expected.len(), 8);
    ordered.stop().await;

    let (house, _dir) = House::start(Plan::default()).await;
    let mut delivery = Vec::new();
    for event in &events {
        for _ in 0..1 + random.below(3) {
            delivery.insert(random.below(delivery.len() as u64 + 1) as usize, event.clone());
        }
    }
    while !delivery.is_empty() {
        let batch: Vec<_> = delivery.drain(..delivery.len().min(1 + random.below(25) as usize)).collect();
        house.feed(&batch).await;
    }
    assert_eq!(list(&house.served.auditor().await, "", "").await.unwrap(), expected);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_slots_that_lie_ahead_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let auditor = house.served.auditor().await;
    let (past, today, soon) = (slot("seoul", -1), slot("seoul", 0), slot("seoul", 1));
    // refusals alone make no signal, because the slot's places are not known yet
    house.feed(&[refusals(&slot("seoul", 2), 4, 0)]).await;
    house.feed(&[places(&past, 1, 4, 0, 0), places(&today, 1, 4, 0, 0), places(&soon, 1, 4, 0, 0)]).await;
    house.feed(&[registered("seoul")]).await;
    assert_eq!(slots(&list(&auditor, "", "").await.unwrap()), [today.as_str(), soon.as_str()]);
    house.stop().await;

    let plan = Plan { shift: SignedDuration::from_hours(24), ..Plan::default() };
    let house = House::open(dir.path(), plan).await;
    let auditor = house.served.auditor().await;
    assert_eq!(slots(&list(&auditor, "", "").await.unwrap()), [soon.as_str()]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_hospital_drops_out_for_good() {
    let (house, _dir) = House::start(Plan::default()).await;
    let auditor = house.served.auditor().await;
    let (stays, goes) = (slot("seoul", 3), slot("busan", 3));
    house.feed(&[registered("seoul"), registered("busan")]).await;
    house.feed(&[places(&stays, 1, 4, 0, 0), places(&goes, 1, 4, 0, 0)]).await;
    assert_eq!(list(&auditor, "", "").await.unwrap().len(), 2);
    house.feed(&deletion("busan")[..1]).await;
    house.feed(&[places(&goes, 2, 4, 1, 3), booked(&goes, 0), registered("busan")]).await;
    assert_eq!(slots(&list(&auditor, "", "").await.unwrap()), [stays.as_str()]);
    house.feed(&deletion("busan")[1..]).await;
    assert_eq!(slots(&list(&auditor, "", "").await.unwrap()), [stays.as_str()]);
    house.stop().await;
}

/// Ten slots. Each is filled to a tenth more than the one before, and its date is a day earlier.
async fn populate(house: &House) -> Vec<String> {
    house.feed(&[registered("seoul"), registered("busan")]).await;
    let mut names = Vec::new();
    for number in 0..10 {
        let hospital = if number % 2 == 0 { "seoul" } else { "busan" };
        let name = slot(hospital, 20 - number);
        house.feed(&[places(&name, 1, 10, number, 0)]).await;
        names.push(name);
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn marketing_admins_and_auditors_read_demand() {
    let (house, _dir) = House::start(Plan::default()).await;
    populate(&house).await;
    let tokens = house.served.tokens();
    for all in [
        house.served.service("marketing").await,
        house.served.auditor().await,
        house.served.admin().await,
        house.served.party(Some(tokens.admin("cho", "seoul,busan"))).await,
    ] {
        for order_by in ["", "date desc", "fill_ratio", "fill_ratio desc"] {
            let read = list(&all, "", order_by).await.unwrap();
            assert_eq!(read.len(), 10);
            assert_eq!(read, list(&house.served.auditor().await, "", order_by).await.unwrap());
        }
    }
    let seoul = house.served.party(Some(tokens.admin("lee", "seoul"))).await;
    let own = list(&seoul, "", "").await.unwrap();
    assert_eq!(own.len(), 5);
    assert!(own.iter().all(|signal| signal.slot.starts_with("hospitals/seoul/")));
    refused(list(&seoul, r#"hospital="hospitals/busan""#, "").await, Reason::NotOwner);
    for (blind, reason) in [
        (house.served.customer("kim").await, Reason::RoleRequired),
        (house.served.service("screening").await, Reason::RoleRequired),
        (house.served.party(None).await, Reason::CredentialsMissing),
    ] {
        refused(list(&blind, "nonsense", "").await, reason);
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_orders_mean_what_they_say() {
    let (house, _dir) = House::start(Plan::default()).await;
    let names = populate(&house).await;
    let auditor = house.served.auditor().await;
    let latest = format!("date>={}", in_days(ZONE, 17));
    for (filter, count) in [
        ("fill_ratio>=0.5", 5),
        ("fill_ratio=0", 1),
        ("fill_ratio<0.25 AND fill_ratio>0", 2),
        (r#"hospital="hospitals/busan""#, 5),
        (r#"hospital!="hospitals/busan" AND fill_ratio>0.1"#, 4),
        (latest.as_str(), 4),
    ] {
        assert_eq!(list(&auditor, filter, "").await.unwrap().len(), count, "{filter}");
    }
    let all = list(&auditor, "", "").await.unwrap();
    let changed = |signal: &DemandSignal| domain::civil::decode_time(signal.update_time.as_ref().unwrap()).unwrap();
    let latest = all.iter().map(changed).max().unwrap();
    let of_latest = list(&auditor, &format!("update_time=\"{latest}\""), "").await.unwrap();
    assert_eq!(of_latest, all.iter().filter(|signal| changed(signal) == latest).cloned().collect::<Vec<_>>());
    let before = list(&auditor, &format!("update_time<\"{latest}\""), "").await.unwrap();
    assert_eq!(before.len() + of_latest.len(), all.len());
    let mut soonest: Vec<&str> = names.iter().rev().map(String::as_str).collect();
    assert_eq!(slots(&list(&auditor, "", "").await.unwrap()), soonest);
    assert_eq!(slots(&list(&auditor, "", "fill_ratio desc").await.unwrap()), soonest);
    soonest.reverse();
    assert_eq!(slots(&list(&auditor, "", "date desc").await.unwrap()), soonest);
    assert_eq!(slots(&list(&auditor, "", "fill_ratio").await.unwrap()), soonest);

    let request = ListDemandSignalsRequest {
        page_size: -1,
        page_token: "?".into(),
        filter: "slot=1".into(),
        order_by: "refused_7d".into(),
    };
    let refusal = refused(auditor.marketing().list_demand_signals(request).await, Reason::FieldInvalid);
    assert_eq!(refusal.fields(), ["page_size", "page_token", "filter", "order_by"]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_in_neither_repeat_nor_hide_others() {
    let (house, _dir) = House::start(Plan::default()).await;
    let names = populate(&house).await;
    let auditor = house.served.auditor().await;
    for (order_by, newcomers) in [("date", ["gumi", "jeju"]), ("fill_ratio desc", ["ulsan", "suwon"])] {
        let mut request =
            ListDemandSignalsRequest { order_by: order_by.into(), page_size: 4, ..ListDemandSignalsRequest::default() };
        let mut seen = Vec::new();
        for number in 0..40 {
            let page = auditor.marketing().list_demand_signals(request.clone()).await.unwrap().into_inner();
            seen.extend(page.signals.into_iter().map(|signal| signal.slot));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
            let (before, behind) = (slot(newcomers[0], 1 + number), slot(newcomers[1], 60 - number));
            house.feed(&[places(&before, 1, 10, 10, 0), places(&behind, 1, 10, 0, 0)]).await;
        }
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "{order_by}: a row came twice");
        assert!(names.iter().all(|name| distinct.contains(name)), "{order_by}: a row is missing");
        let strayed = ListDemandSignalsRequest { filter: "fill_ratio>0".into(), ..request };
        refused(auditor.marketing().list_demand_signals(strayed).await, Reason::PageTokenInvalid);
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_no_longer_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    let name = slot("seoul", 1);
    house.feed(&[registered("seoul"), places(&name, 1, 4, 0, 0)]).await;
    let many: Vec<_> = (0..1_500).map(|_| booked(&name, 1)).collect();
    for some in many.chunks(250) {
        house.feed(some).await;
    }
    house.feed(&[refusals(&name, 1, 1)]).await;
    let auditor = house.served.auditor().await;
    assert_eq!(list(&auditor, "", "").await.unwrap()[0].bookings_7d, 1_500);
    house.stop().await;

    let options = Options { prune_interval: Duration::from_millis(10) };
    let plan = Plan { options, shift: SignedDuration::from_hours(10 * 24), ..Plan::default() };
    let house = House::open(dir.path(), plan).await;
    eventually("the rows to be removed", async || match rows(&house).await {
        0 => Ok(()),
        more => Err(format!("{more} are left")),
    })
    .await;
    house.feed(&[places(&name, 2, 4, 0, 0), booked(&name, 0)]).await;
    assert_eq!(rows(&house).await, 0);
    house.stop().await;
}

async fn rows(house: &House) -> i64 {
    let connection = house.service.database.reader();
    let counts = ["signal", "booking", "refusal"].map(|table| format!("(SELECT COUNT(*) FROM {table})"));
    let sum = format!("SELECT {} AS count", counts.join(" + "));
    let statement = Statement::from_string(connection.get_database_backend(), sum);
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get("", "count").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_demand_and_knows_what_it_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    let name = slot("seoul", 5);
    let events = [registered("seoul"), places(&name, 1, 4, 2, 0), booked(&name, 1), refusals(&name, 7, 1)];
    let house = House::open(dir.path(), Plan::default()).await;
    house.feed(&events).await;
    let before = list(&house.served.auditor().await, "", "").await.unwrap();
    house.stop().await;
    let house = House::open(dir.path(), Plan::default()).await;
    house.feed(&events).await;
    assert_eq!(list(&house.served.auditor().await, "", "").await.unwrap(), before);
    assert_eq!(numbers(&before[0]), (name.as_str(), 1, 7, 0.5));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_event_is_named_and_becomes_a_dead_letter_once() {
    let (house, _dir) = House::start(Plan::default()).await;
    let good = places(&slot("seoul", 5), 1, 4, 0, 0);
    let broken = places("slots/nowhere", 1, 4, 0, 0);
    let fault = house.handler("hospital").handle(&[incoming(&good), incoming(&broken)]).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::Internal);
    assert!(list(&house.served.auditor().await, "", "").await.unwrap().is_empty());
    let dead_letter = DeadLetter {
        consumer: "marketing-hospital".into(),
        event_id: broken.event_id.clone(),
        subject: domain::event::subject(&broken),
        payload: Vec::new(),
        error: format!("{fault:?}"),
        attempts: 10,
        time: jiff::Timestamp::UNIX_EPOCH,
    };
    for _ in 0..2 {
        let inbox_key = InboxKey::at("hospital".into(), 7, uuid::Uuid::nil());
        house.handler("hospital").store_dead_letter(dead_letter.clone(), inbox_key).await.unwrap();
    }
    assert_eq!(dead_letter::count(house.service.database.reader()).await.unwrap(), 1);
    house.stop().await;
}
