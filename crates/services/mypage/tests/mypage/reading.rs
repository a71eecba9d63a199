//! The page and the list of bookings: what they show, to whom, in which order, and reads that wait for a write.

use std::collections::BTreeSet;
use std::time::Duration;

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use contract::mypage::v1::{GetMyPageRequest, ListMyPageItemsRequest, MyPageItem};
use domain::page::MAX_BYTES;
use fault::Reason;
use jiff::SignedDuration;
use prost::Message;
use prost_types::Timestamp;
use sea_orm::ConnectionTrait;
use store::dead_letter::{self, DeadLetter};
use store::inbox::InboxKey;
use testkit::{day_of, in_days, refused, seed, within};
use tonic::Request;

use crate::support::{Booking, House, Plan, ZONE, get, incoming, list, list_all, page_of, shown_as};

fn brief(items: &[MyPageItem]) -> Vec<(&str, &str, i64)> {
    items.iter().map(|item| (item.screening.as_str(), item.state.as_str(), item.screening_version)).collect()
}

/// A row that a version before wrote has no slot. It is shown without one until its booking changes.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_of_before_has_no_slot_until_its_booking_changes() {
    let (house, dir) = House::start(Plan::default()).await;
    let (old, program) = (Booking::new(1, "kim", 5), Booking::new(2, "kim", 6));
    let program = Booking { slot: format!("{}~heart", program.slot), ..program };
    house.feed(&old.life(&["CONFIRMED"])).await;
    house.feed(&program.life(&["CONFIRMED"])).await;
    house.stop().await;
    let file =
        sea_orm::Database::connect(format!("sqlite://{}", dir.path().join("mypage.db").display())).await.unwrap();
    let first = "UPDATE item_version SET slot = NULL WHERE date = (SELECT min(date) FROM item_version)";
    assert_eq!(file.execute_unprepared(first).await.unwrap().rows_affected(), 1);
    file.close().await.unwrap();

    let house = House::open(dir.path(), Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let slots = async || -> Vec<String> {
        get(&kim, &page_of("kim"), "").await.unwrap().upcoming.into_iter().map(|item| item.slot).collect()
    };
    assert_eq!(slots().await, ["", program.slot.as_str()]);
    house.feed(&[old.event(2, "CONFIRMED")]).await;
    assert_eq!(slots().await, [old.slot.as_str(), program.slot.as_str()]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_every_state_and_counts_what_lies_ahead() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let empty = get(&kim, &page_of("kim"), "").await.unwrap();
    assert_eq!((empty.upcoming.len(), empty.active_count, empty.update_time), (0, 0, None));

    let pending = Booking::new(1, "kim", 9);
    let confirmed = Booking::new(2, "kim", 5);
    let cancelled = Booking::new(3, "kim", 7);
    let rejected = Booking::new(4, "kim", 8);
    let past = Booking::new(5, "kim", -3);
    house.feed(&pending.life(&["PENDING"])).await;
    house.feed(&confirmed.life(&["PENDING", "CONFIRMED"])).await;
    house.feed(&cancelled.life(&["CONFIRMED", "CANCELLED"])).await;
    house.feed(&rejected.life(&["PENDING", "REJECTED"])).await;
    house.feed(&past.life(&["CONFIRMED"])).await;

    let page = get(&kim, &page_of("kim"), "").await.unwrap();
    assert_eq!(page.name, page_of("kim"));
    let (soon, later) = (confirmed.name(), pending.name());
    assert_eq!(brief(&page.upcoming), [(soon.as_str(), "CONFIRMED", 2), (later.as_str(), "PENDING", 1)]);
    assert_eq!(page.active_count, 2);
    assert_eq!(page.update_time, Some(Timestamp { seconds: past.begin + 1, nanos: 0 }));
    let first = &page.upcoming[0];
    assert_eq!((first.hospital_display_name.as_str(), first.time_zone.as_str()), ("Seoul", ZONE));
    assert_eq!((&first.slot, first.date), (&confirmed.slot, Some(day_of(in_days(ZONE, 5)))));
    assert_eq!(first.update_time, confirmed.event(2, "CONFIRMED").occur_time);
    assert_eq!(page.upcoming[1].time_zone, "");

    let all = list(&kim, &page_of("kim"), 2).await.unwrap();
    let states: Vec<&str> = all.iter().map(|item| item.state.as_str()).collect();
    assert_eq!(states, ["PENDING", "REJECTED", "CANCELLED", "CONFIRMED", "CONFIRMED"]);
    assert_eq!((all[2].state_reason.as_str(), all[2].state_message.as_str()), ("REASON_2", "message 2"));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_twenty_are_listed_and_all_are_counted() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    for uid in 1..=23 {
        house.feed(&Booking::new(uid, "kim", 30 - uid as i32).life(&["CONFIRMED"])).await;
    }
    let page = get(&kim, &page_of("kim"), "").await.unwrap();
    assert_eq!((page.upcoming.len(), page.active_count), (20, 23));
    assert_eq!(page.upcoming[0].date, Some(day_of(in_days(ZONE, 7))));
    assert_eq!(page.upcoming[19].date, Some(day_of(in_days(ZONE, 26))));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_ahead_moves_with_the_date() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), Plan::default()).await;
    house.feed(&Booking::new(1, "kim", 2).life(&["CONFIRMED"])).await;
    let count =
        async |house: &House| get(&house.served.customer("kim").await, &page_of("kim"), "").await.unwrap().active_count;
    assert_eq!(count(&house).await, 1);
    house.stop().await;
    let plan = Plan { shift: SignedDuration::from_hours(3 * 24), ..Plan::default() };
    let house = House::open(dir.path(), plan).await;
    assert_eq!(count(&house).await, 0);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_any_delivery_ends_in_the_same_view() {
    let mut random = seed("r16_any_delivery_ends_in_the_same_view");
    let (house, _dir) = House::start(Plan::default()).await;
    let lives: [&[&str]; 10] = [
        &["PENDING"],
        &["PENDING", "REJECTED"],
        &["PENDING", "CONFIRMED", "CANCELLED"],
        &["CONFIRMED", "FORCE_CANCELLED"],
        &["CONFIRMED", "NO_SHOW", "COMPLETED"],
        &["PENDING", "CONFIRMED"],
        &["PENDING", "WAITLISTED"],
        &["WAITLISTED", "CONFIRMED"],
        &["WAITLISTED", "EXPIRED"],
        &["PENDING", "WAITLISTED", "LEFT"],
    ];
    let mut expected = BTreeSet::new();
    let mut events: Vec<EventEnvelope> = Vec::new();
    for uid in 1..=100 {
        let life = *random.pick(&lives);
        let booking = Booking::new(uid, "kim", random.below(60) as i32);
        expected.insert((booking.name(), shown_as(life.last().unwrap()).to_owned(), life.len() as i64));
        for event in booking.life(life) {
            for _ in 0..1 + random.below(3) {
                let place = random.below(events.len() as u64 + 1) as usize;
                events.insert(place, event.clone());
            }
        }
    }
    while !events.is_empty() {
        let batch: Vec<_> = events.drain(..events.len().min(1 + random.below(30) as usize)).collect();
        house.feed(&batch).await;
    }
    let kim = house.served.customer("kim").await;
    let shown = |items: &[MyPageItem]| -> BTreeSet<_> {
        items.iter().map(|item| (item.screening.clone(), item.state.clone(), item.screening_version)).collect()
    };
    let items = list_all(&kim, &page_of("kim"), 13).await.unwrap();
    assert_eq!((shown(&items), items.len()), (expected.clone(), 100));
    let items = list(&kim, &page_of("kim"), 13).await.unwrap();
    let known = expected.iter().filter(|(_, state, _)| state != "WAITLISTED" && state != "EXPIRED");
    assert_eq!(shown(&items), known.cloned().collect());
    let active = expected.iter().filter(|(_, state, _)| state == "PENDING" || state == "CONFIRMED").count();
    assert_eq!(get(&kim, &page_of("kim"), "").await.unwrap().active_count, active as i32);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_its_customers_and_auditors() {
    let (house, _dir) = House::start(Plan::default()).await;
    house.feed(&Booking::new(1, "kim", 3).life(&["CONFIRMED"])).await;
    let name = page_of("kim");
    for sees in [house.served.customer("kim").await, house.served.auditor().await] {
        assert_eq!(get(&sees, &name, "").await.unwrap().active_count, 1);
        assert_eq!(list(&sees, &name, 0).await.unwrap().len(), 1);
    }
    let stranger = house.served.customer("lee").await;
    refused(get(&stranger, &name, "").await, Reason::NotOwner);
    refused(list(&stranger, &name, 0).await, Reason::NotOwner);
    refused(get(&stranger, &page_of("nobody"), "").await, Reason::NotOwner);
    for (blind, reason) in [
        (house.served.admin().await, Reason::RoleRequired),
        (house.served.service("marketing").await, Reason::RoleRequired),
        (house.served.party(None).await, Reason::CredentialsMissing),
    ] {
        refused(get(&blind, "nonsense", "").await, reason);
        refused(list(&blind, "nonsense", -1).await, reason);
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_named_at_once() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let refusal = refused(get(&kim, "customers/kim", "?").await, Reason::FieldInvalid);
    assert_eq!(refusal.fields(), ["name", "min_consistency_token"]);
    let request = ListMyPageItemsRequest {
        parent: "x".into(),
        page_size: -1,
        page_token: "?".into(),
        min_consistency_token: "?".into(),
        show_waitlisted: true,
    };
    let refusal = refused(kim.my_page().list_my_page_items(request).await, Reason::FieldInvalid);
    assert_eq!(refusal.fields(), ["parent", "page_size", "page_token", "min_consistency_token"]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_belongs_to_one_customer_and_rows_may_come_in_between() {
    let (house, _dir) = House::start(Plan::default()).await;
    for uid in 1..=9 {
        house.feed(&Booking::new(uid, "kim", 10 + uid as i32).life(&["CONFIRMED"])).await;
    }
    let auditor = house.served.auditor().await;
    let mut request = ListMyPageItemsRequest { parent: page_of("kim"), page_size: 2, ..Default::default() };
    let mut seen = Vec::new();
    for newcomer in 0.. {
        let page = auditor.my_page().list_my_page_items(request.clone()).await.unwrap().into_inner();
        seen.extend(page.items.into_iter().map(|item| item.screening));
        if page.next_page_token.is_empty() || newcomer > 50 {
            break;
        }
        request.page_token = page.next_page_token;
        house.feed(&Booking::new(100 + newcomer, "kim", 40).life(&["CONFIRMED"])).await;
        house.feed(&Booking::new(200 + newcomer, "kim", 1).life(&["REJECTED"])).await;
    }
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len());
    assert!((1..=9).all(|uid| distinct.contains(&Booking::new(uid, "kim", 0).name())));

    let stray = ListMyPageItemsRequest { parent: page_of("lee"), ..request };
    refused(auditor.my_page().list_my_page_items(stray).await, Reason::PageTokenInvalid);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_write_it_names() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let booking = Booking::new(1, "kim", 4);
    let (name, token) = (page_of("kim"), booking.token(1));
    let wait = async { get(&kim, &name, &token).await.unwrap() };
    let write = async { house.feed(&booking.life(&["PENDING"])).await };
    let (page, ()) = within(Duration::from_secs(20), "the read", async { tokio::join!(wait, write) }).await;
    assert_eq!(page.active_count, 1);

    // a fence is shown to nobody, but a read with its token waits for it
    let fence = Booking::new(2, "", 4);
    let request = ListMyPageItemsRequest {
        parent: name.clone(),
        min_consistency_token: fence.token(1),
        ..ListMyPageItemsRequest::default()
    };
    let wait = async { kim.my_page().list_my_page_items(request).await.unwrap().into_inner() };
    let write = async { house.feed(&fence.life(&["REJECTED"])).await };
    let (listed, ()) = within(Duration::from_secs(20), "the read", async { tokio::join!(wait, write) }).await;
    assert_eq!(listed.items.len(), 1);

    let mut request =
        Request::new(GetMyPageRequest { name, min_consistency_token: booking.token(2), show_waitlisted: false });
    request.set_timeout(Duration::from_millis(600));
    let refusal = refused(kim.my_page().get_my_page(request).await, Reason::ViewLagging);
    assert!(refusal.retry_after.is_some());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_event_is_named_and_becomes_a_dead_letter_once() {
    let (house, _dir) = House::start(Plan::default()).await;
    let good = Booking::new(1, "kim", 4).event(1, "CONFIRMED");
    let mut broken = Booking::new(2, "kim", 4).event(1, "CONFIRMED");
    broken.occur_time = None;
    let fault = house.handler().handle(&[incoming(&good), incoming(&broken)]).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::Internal);
    let kim = house.served.customer("kim").await;
    assert!(list(&kim, &page_of("kim"), 0).await.unwrap().is_empty());

    let dead_letter = DeadLetter {
        consumer: house.service.consumers[0].name.into(),
        event_id: broken.event_id.clone(),
        subject: domain::event::subject(&broken),
        payload: Vec::new(),
        error: format!("{fault:?}"),
        attempts: 10,
        time: jiff::Timestamp::UNIX_EPOCH,
    };
    for _ in 0..2 {
        let inbox_key = InboxKey::at("screening".into(), 7, uuid::Uuid::nil());
        house.handler().store_dead_letter(dead_letter.clone(), inbox_key).await.unwrap();
    }
    assert_eq!(dead_letter::count(house.service.database.reader()).await.unwrap(), 1);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_messages_end_a_page_of_items_early() {
    const COUNT: u128 = 600;
    let (house, _dir) = House::start(Plan::default()).await;
    let mut events = Vec::new();
    for number in 1..=COUNT {
        let booking = Booking::new(number, "kim", i32::try_from(number % 30).unwrap());
        let mut life = booking.life(&["CONFIRMED", "CANCELLED"]);
        if let Some(Payload::ScreeningCancelled(cancelled)) = &mut life[1].payload {
            cancelled.message = "\u{1F600}".repeat(500);
        }
        events.extend(life);
    }
    house.feed(&events).await;
    let auditor = house.served.auditor().await;
    let mut request = ListMyPageItemsRequest { parent: page_of("kim"), page_size: 1_000, ..Default::default() };
    let (mut seen, mut pages) = (BTreeSet::new(), 0);
    loop {
        let page = auditor.my_page().list_my_page_items(request.clone()).await.unwrap().into_inner();
        assert!(page.encoded_len() <= MAX_BYTES, "{} bytes", page.encoded_len());
        pages += 1;
        for item in page.items {
            assert!(seen.insert(item.screening), "no item twice");
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!((pages, seen.len()), (2, 600));
    house.stop().await;
}
