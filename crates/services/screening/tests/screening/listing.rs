//! Lists: whose rows they show, filters, orders and pages.

use std::collections::BTreeSet;

use contract::screening::v1::screening::State;
use contract::screening::v1::{CancelScreeningRequest, ListScreeningsRequest, Screening};
use domain::ids::SlotId;
use domain::page::MAX_BYTES;
use fault::Reason;
use prost::Message;
use testkit::{Party, refused};

use crate::world::{World, ask, book, cancel, list};

/// Nine bookings: three customers at three slots of two hospitals, one of them cancelled.
async fn filled(world: &World) -> Vec<(SlotId, Vec<Screening>)> {
    let slots = [world.slot("seoul", 7, 9), world.slot("seoul", 8, 9), world.slot("busan", 9, 9)];
    let mut made = Vec::new();
    for slot in slots {
        let mut bookings = Vec::new();
        for customer in ["kim", "park", "choi"] {
            bookings.push(book(&world.customer(customer).await, ask(customer, &slot)).await.unwrap());
        }
        made.push((slot, bookings));
    }
    let last = &mut made[2].1[0];
    *last = cancel(&world.customer("kim").await, &last.name).await.unwrap();
    made
}

fn names(screenings: &[Screening]) -> Vec<String> {
    screenings.iter().map(|screening| screening.name.clone()).collect()
}

async fn paged(party: &Party, filter: &str, order_by: &str, page_size: i32) -> Vec<Screening> {
    let mut request = ListScreeningsRequest {
        page_size,
        filter: filter.into(),
        order_by: order_by.into(),
        ..ListScreeningsRequest::default()
    };
    let mut rows = Vec::new();
    loop {
        let page = party.screening().list_screenings(request.clone()).await.unwrap().into_inner();
        assert!(page.screenings.len() <= usize::try_from(page_size).unwrap());
        rows.extend(page.screenings);
        if page.next_page_token.is_empty() {
            return rows;
        }
        request.page_token = page.next_page_token;
    }
}

/// Another system follows the bookings by asking for what has changed since it asked last.
#[tokio::test]
async fn what_changed_since_an_instant_is_found() {
    let world = World::start().await;
    let made = filled(&world).await;
    let (admin, cancelled) = (world.admin("*").await, &made[2].1[0]);
    let since = domain::civil::decode_time(cancelled.update_time.as_ref().unwrap()).unwrap();
    assert_eq!(list(&admin, &format!("update_time>=\"{since}\"")).await.unwrap(), std::slice::from_ref(cancelled));
    assert_eq!(list(&admin, &format!("update_time>\"{since}\"")).await.unwrap(), []);
    assert_eq!(list(&admin, &format!("update_time<\"{since}\" AND state=CONFIRMED")).await.unwrap().len(), 8);
    let status = list(&admin, "update_time>=\"2027-01-01\"").await;
    assert!(refused(status, Reason::FilterInvalid).violations[0].2.contains("2027-01-31T09:00:00Z"));
}

#[tokio::test]
async fn each_caller_sees_their_rows_newest_first() {
    let world = World::start().await;
    let made = filled(&world).await;
    let all: Vec<Screening> = made.iter().flat_map(|(_, bookings)| bookings.clone()).rev().collect();
    let of = |keep: &dyn Fn(&Screening) -> bool| -> Vec<String> {
        names(&all.iter().filter(|screening| keep(screening)).cloned().collect::<Vec<_>>())
    };
    let everybody = world.desk.served.auditor().await;
    assert_eq!(list(&everybody, "").await.unwrap(), all);
    assert_eq!(list(&world.admin("*").await, "").await.unwrap(), all);
    assert_eq!(list(&world.admin("seoul,busan,jeju").await, "").await.unwrap(), all);
    assert_eq!(
        names(&list(&world.customer("kim").await, "").await.unwrap()),
        of(&|row| row.customer == "customers/kim")
    );
    let at_busan = of(&|row| row.slot.starts_with("hospitals/busan"));
    assert_eq!(names(&list(&world.admin("busan").await, "").await.unwrap()), at_busan);
    assert_eq!(list(&world.admin("").await, "").await.unwrap(), []);
    refused(list(&world.desk.served.party(None).await, "").await, Reason::CredentialsMissing);
    refused(list(&world.desk.served.service("hospital").await, "").await, Reason::RoleRequired);
}

#[tokio::test]
async fn filters_select_and_never_widen() {
    let world = World::start().await;
    let made = filled(&world).await;
    let (first, last) = (&made[0].0, &made[2].0);
    let everybody = world.desk.served.auditor().await;
    let count = async |filter: String| list(&everybody, &filter).await.unwrap().len();
    for (filter, expected) in [
        ("customer=\"customers/kim\"".to_owned(), 3),
        ("customer!=\"customers/kim\"".to_owned(), 6),
        ("hospital=\"hospitals/seoul\"".to_owned(), 6),
        ("hospital!=\"hospitals/seoul\"".to_owned(), 3),
        (format!("slot=\"{first}\""), 3),
        (format!("slot!=\"{first}\""), 6),
        (format!("slot=\"{first}\" AND customer=\"customers/kim\""), 1),
        ("state=CONFIRMED".to_owned(), 8),
        ("state!=CONFIRMED".to_owned(), 1),
        ("state=CANCELLED AND customer=\"customers/park\"".to_owned(), 0),
        (format!("date={}", first.date), 3),
        (format!("date>{} AND date<=\"{}\"", first.date, last.date), 6),
        (format!("date<{}", first.date), 0),
    ] {
        assert_eq!(count(filter.clone()).await, expected, "{filter}");
    }
    let kim = world.customer("kim").await;
    assert_eq!(list(&kim, "customer=\"customers/kim\" AND state=CONFIRMED").await.unwrap().len(), 2);
    assert_eq!(list(&kim, "hospital=\"hospitals/busan\"").await.unwrap().len(), 1);
    assert_eq!(list(&kim, "customer!=\"customers/kim\"").await.unwrap(), []);
    refused(list(&kim, "customer=\"customers/park\"").await, Reason::NotOwner);
    let admin = world.admin("seoul").await;
    assert_eq!(list(&admin, "customer=\"customers/park\"").await.unwrap().len(), 2);
    refused(list(&admin, "hospital=\"hospitals/busan\"").await, Reason::NotOwner);
    refused(list(&admin, &format!("slot=\"{last}\"")).await, Reason::NotOwner);
    for bad in ["state=WAITING", "colour=red", "state=CONFIRMED OR state=CANCELLED", "date>yesterday", "customer=kim"] {
        assert_eq!(refused(list(&everybody, bad).await, Reason::FilterInvalid).fields(), ["filter"], "{bad}");
    }
}

#[tokio::test]
async fn pages_neither_repeat_nor_hide_rows_in_any_order() {
    let world = World::start().await;
    filled(&world).await;
    let parties = [world.desk.served.auditor().await, world.admin("seoul,busan").await, world.admin("seoul").await];
    for party in &parties {
        let newest = list(party, "").await.unwrap();
        for order in ["", "create_time desc", "create_time", "date", "date desc"] {
            for size in [1, 2, 4, 1_000] {
                let rows = paged(party, "", order, size).await;
                let mut expected = newest.clone();
                let date = |row: &Screening| row.date.map(|date| (date.year, date.month, date.day));
                match order {
                    "create_time" => expected.reverse(),
                    "date" => expected.sort_by_key(|row| (date(row), row.name.clone())),
                    "date desc" => expected.sort_by_key(|row| std::cmp::Reverse((date(row), row.name.clone()))),
                    _ => {}
                }
                assert_eq!(names(&rows), names(&expected), "{order:?} by {size}");
            }
        }
    }
    let filtered = paged(&parties[0], "state=CONFIRMED", "date", 3).await;
    assert!(filtered.iter().all(|row| row.state() == State::Confirmed));
    assert_eq!(filtered.len(), 8);
}

#[tokio::test]
async fn rows_that_come_between_two_pages_disturb_nothing() {
    let world = World::start().await;
    filled(&world).await;
    let auditor = world.desk.served.auditor().await;
    let before = names(&list(&auditor, "").await.unwrap());
    let request = ListScreeningsRequest { page_size: 4, ..ListScreeningsRequest::default() };
    let first = auditor.screening().list_screenings(request.clone()).await.unwrap().into_inner();
    book(&world.customer("new").await, ask("new", &world.slot("seoul", 10, 1))).await.unwrap();
    let rest = ListScreeningsRequest { page_size: 100, page_token: first.next_page_token.clone(), ..request };
    let second = auditor.screening().list_screenings(rest).await.unwrap().into_inner();
    assert_eq!([names(&first.screenings), names(&second.screenings)].concat(), before);

    let other = ListScreeningsRequest {
        page_token: first.next_page_token,
        filter: "state=CONFIRMED".into(),
        ..ListScreeningsRequest::default()
    };
    refused(auditor.screening().list_screenings(other).await, Reason::PageTokenInvalid);
    let wrong = ListScreeningsRequest {
        page_size: -1,
        page_token: "x".into(),
        filter: "x".into(),
        order_by: "colour".into(),
        ..ListScreeningsRequest::default()
    };
    let refusal = refused(auditor.screening().list_screenings(wrong).await, Reason::FieldInvalid);
    assert_eq!(
        refusal.complaints(),
        [
            ("page_size", "FIELD_INVALID"),
            ("page_token", "PAGE_TOKEN_INVALID"),
            ("filter", "FILTER_INVALID"),
            ("order_by", "FIELD_INVALID"),
        ]
    );
}

/// Customers book, and cancel with the longest possible reason. The two hospitals' lists are merged after the reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_reasons_end_a_page_early_in_every_order() {
    const COUNT: usize = 600;
    let world = World::start().await;
    let slots = [world.slot("seoul", 7, 600), world.slot("busan", 9, 600)];
    let admin = world.admin("seoul,busan").await;
    let made = testkit::rush(COUNT, |i| {
        let (admin, customer, slot) = (admin.clone(), format!("customer-{i}"), slots[i % 2].clone());
        async move {
            let name = book(&admin, ask(&customer, &slot)).await.unwrap().name;
            let reason = "\u{1F600}".repeat(500);
            let request = CancelScreeningRequest { name, reason, ..CancelScreeningRequest::default() };
            admin.screening().cancel_screening(request).await.unwrap().into_inner().name
        }
    })
    .await;
    let made: BTreeSet<String> = made.into_iter().collect();
    let auditor = world.desk.served.auditor().await;
    for party in [&admin, &auditor] {
        for order_by in ["", "create_time", "date", "date desc"] {
            let order_by = order_by.to_owned();
            let mut request = ListScreeningsRequest { page_size: 1_000, order_by, ..ListScreeningsRequest::default() };
            let (mut seen, mut pages) = (Vec::new(), 0);
            loop {
                let page = party.screening().list_screenings(request.clone()).await.unwrap().into_inner();
                assert!(page.encoded_len() <= MAX_BYTES, "{} bytes", page.encoded_len());
                pages += 1;
                seen.extend(page.screenings.into_iter().map(|row| row.name));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            assert_eq!((pages, seen.len()), (2, COUNT), "{:?}", request.order_by);
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), made, "{:?}", request.order_by);
        }
    }
}
