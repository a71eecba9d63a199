//! Lists: pages that neither repeat nor skip rows while rows are added, tokens bound to their list, orders and filters.

use std::collections::BTreeSet;

use contract::hospital::v1 as hospital;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::{BatchCreateSlotsRequest, CreateSlotRequest, ListHospitalsRequest, ListSlotsRequest, Slot};
use hospital::{SearchAvailabilityRequest, SearchAvailabilityResponse};
use reservation::ListReservationsRequest;
use screening::screening::State;
use screening::{ListScreeningsRequest, Screening};
use testkit::{Checkup, Desk, Party, day_of, eventually, in_days, refused};
use tonic::Status;

use crate::launch;

/// One page of screenings, and the token of the next page.
async fn page(party: &Party, request: ListScreeningsRequest) -> Result<(Vec<Screening>, String), Status> {
    let page = party.screening().list_screenings(request).await?.into_inner();
    Ok((page.screenings, page.next_page_token))
}

/// Every screening, read in pages of `page_size`. `between` runs after each page.
async fn walk(
    party: &Party,
    page_size: i32,
    filter: &str,
    order_by: &str,
    mut between: impl AsyncFnMut(),
) -> Vec<Screening> {
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let (filter, order_by) = (filter.to_owned(), order_by.to_owned());
        let request =
            ListScreeningsRequest { page_size, page_token, filter, order_by, ..ListScreeningsRequest::default() };
        let (rows, next) = page(party, request).await.expect("a page");
        assert!(rows.len() <= usize::try_from(page_size).unwrap_or(0));
        seen.extend(rows);
        if next.is_empty() {
            return seen;
        }
        page_token = next;
        between().await;
    }
}

/// Creates forty bookings of two customers at two hospitals.
async fn some_screenings(checkup: &Checkup) -> Vec<Screening> {
    let admin = Desk::of(&checkup.admin().await);
    let mut made = Vec::new();
    for hospital in ["north", "south"] {
        let days: Vec<i32> = if hospital == "north" { (5..15).collect() } else { (20..30).collect() };
        for slot in admin.open(hospital, &days, 50).await {
            for customer in ["kim", "lee"] {
                made.push(admin.book(customer, &slot, "").await.expect("a place"));
            }
        }
    }
    made
}

fn names(screenings: &[Screening]) -> Vec<&str> {
    screenings.iter().map(|one| one.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_come_in_neither_repeat_nor_hide_others() {
    let checkup = launch().start().await;
    let before = some_screenings(&checkup).await;
    let auditor = checkup.auditor().await;
    let admin = Desk::of(&checkup.admin().await);
    let slots = admin.open("between", &(40..60).collect::<Vec<_>>(), 50).await;
    for order_by in ["", "create_time", "date", "date desc"] {
        let mut arrivals = 0;
        let seen = walk(&auditor, 7, "", order_by, async || {
            arrivals += 1;
            let customer = format!("newcomer-{arrivals}{}", order_by.replace(' ', "-"));
            admin.book(&customer, &slots[arrivals % slots.len()], "").await.expect("a place");
        })
        .await;
        assert!(arrivals > 4, "rows came in meanwhile");
        let unique: BTreeSet<&str> = names(&seen).into_iter().collect();
        assert_eq!(unique.len(), seen.len(), "{order_by}: no row twice");
        for row in &before {
            assert!(unique.contains(row.name.as_str()), "{order_by}: {} was hidden", row.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_and_filters_do_what_they_say() {
    let checkup = launch().start().await;
    let made = some_screenings(&checkup).await;
    let auditor = checkup.auditor().await;
    let all = async |filter: &str, order: &str| walk(&auditor, 9, filter, order, async || {}).await;

    let newest_first = all("", "").await;
    let mut reversed: Vec<&str> = names(&made);
    reversed.reverse();
    assert_eq!(names(&newest_first), reversed, "newest first");
    assert_eq!(names(&all("", "create_time desc").await), reversed);
    assert_eq!(names(&all("", "create_time").await), names(&made));
    let date = |one: &Screening| one.date.map(|date| (date.year, date.month, date.day));
    let by_date = all("", "date").await;
    assert!(by_date.is_sorted_by_key(|one| (date(one), one.name.clone())), "by date, then by name");
    let mut backwards = all("", "date desc").await;
    backwards.reverse();
    assert_eq!(names(&backwards), names(&by_date));

    let admin = Desk::of(&checkup.admin().await);
    admin.cancel(&made[0].name, "").await.expect("cancelled");
    let expected = |keep: &dyn Fn(&Screening) -> bool| -> BTreeSet<String> {
        made.iter().filter(|one| keep(one)).map(|one| one.name.clone()).collect()
    };
    let day = |days| in_days(Desk::ZONE, days).to_string();
    let cutoff = in_days(Desk::ZONE, 10);
    let before = |one: &Screening| one.slot.rsplit('/').next().is_some_and(|date| *date < *cutoff.to_string());
    let gone = made[0].name.clone();
    let cases: Vec<(String, BTreeSet<String>)> = vec![
        ("customer=\"customers/kim\"".to_owned(), expected(&|one| one.customer == "customers/kim")),
        ("hospital=\"hospitals/north\"".to_owned(), expected(&|one| one.slot.starts_with("hospitals/north/"))),
        ("hospital!=\"hospitals/north\"".to_owned(), expected(&|one| one.slot.starts_with("hospitals/south/"))),
        (format!("slot=\"{}\"", made[5].slot), expected(&|one| one.slot == made[5].slot)),
        ("state=CANCELLED".to_owned(), expected(&|one| one.name == gone)),
        ("state!=CONFIRMED".to_owned(), expected(&|one| one.name == gone)),
        (format!("date<\"{cutoff}\""), expected(&before)),
        (format!("date>={cutoff}"), expected(&|one| !before(one))),
        (
            format!("date>{} AND date<={} AND customer=\"customers/lee\"", day(6), day(8)),
            expected(&|one| {
                one.customer == "customers/lee" && (one.slot.ends_with(&day(7)) || one.slot.ends_with(&day(8)))
            }),
        ),
    ];
    for (filter, expected) in cases {
        let found = all(&filter, "").await.into_iter().map(|one| one.name).collect::<BTreeSet<_>>();
        assert_eq!(found, expected, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_continues_only_what_it_came_from() {
    let checkup = launch().start().await;
    some_screenings(&checkup).await;
    let auditor = checkup.auditor().await;
    let ask = |page_token: &str, filter: &str, order_by: &str| ListScreeningsRequest {
        page_size: 5,
        page_token: page_token.to_owned(),
        filter: filter.to_owned(),
        order_by: order_by.to_owned(),
        ..ListScreeningsRequest::default()
    };
    let (_, token) = page(&auditor, ask("", "state=CONFIRMED", "date")).await.expect("a page");
    page(&auditor, ask(&token, "state=CONFIRMED", "date")).await.expect("the same list");
    for (filter, order_by) in
        [("", "date"), ("state=CONFIRMED", ""), ("state=PENDING", "date"), ("state=CONFIRMED", "date desc")]
    {
        refused(page(&auditor, ask(&token, filter, order_by)).await, Reason::PageTokenInvalid);
    }
    let mut wider = ask(&token, "state=CONFIRMED", "date");
    wider.show_waitlisted = true;
    refused(page(&auditor, wider).await, Reason::PageTokenInvalid);
    let mut size = ask(&token, "state=CONFIRMED", "date");
    size.page_size = 3;
    assert_eq!(page(&auditor, size).await.expect("another size is fine").0.len(), 3);
    for broken in [format!("{token}A"), token[1..].to_owned(), "A".repeat(5_000), "%".to_owned()] {
        refused(page(&auditor, ask(&broken, "state=CONFIRMED", "date")).await, Reason::PageTokenInvalid);
    }
    // With another caller's token, a caller sees only their own rows.
    let kim = checkup.customer("kim").await;
    if let Ok((rows, _)) = page(&kim, ask(&token, "state=CONFIRMED", "date")).await {
        assert!(rows.iter().all(|one| one.customer == "customers/kim"));
    }
    let list = ListReservationsRequest { page_token: token, ..ListReservationsRequest::default() };
    refused(auditor.reservation().list_reservations(list).await, Reason::PageTokenInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_has_fifty_rows_or_what_was_asked_up_to_a_thousand() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    Desk::of(&admin).register("everyday", Desk::ZONE, Vec::new()).await.expect("a hospital");
    for year in 0..3 {
        let requests = (0..366)
            .map(|day| {
                let date = day_of(in_days(Desk::ZONE, 1 + year * 366 + day));
                CreateSlotRequest {
                    slot: Some(Slot { date: Some(date), capacity: 1, ..Slot::default() }),
                    ..CreateSlotRequest::default()
                }
            })
            .collect();
        let parent = "hospitals/everyday".to_owned();
        let request = BatchCreateSlotsRequest { parent, requests, ..BatchCreateSlotsRequest::default() };
        admin.hospital().batch_create_slots(request).await.expect("opened");
    }
    let list = async |page_size, page_token: String| {
        let parent = "hospitals/everyday".to_owned();
        let request = ListSlotsRequest { parent, page_size, page_token, ..ListSlotsRequest::default() };
        admin.hospital().list_slots(request).await.expect("a page").into_inner()
    };
    assert_eq!(list(0, String::new()).await.slots.len(), 50);
    assert_eq!(list(7, String::new()).await.slots.len(), 7);
    let first = list(5_000, String::new()).await;
    assert_eq!(first.slots.len(), 1_000);
    let rest = list(5_000, first.next_page_token).await;
    assert_eq!((rest.slots.len(), rest.next_page_token.as_str()), (98, ""), "and the end is marked");
    let all: Vec<Slot> = first.slots.into_iter().chain(rest.slots).collect();
    assert!(all.is_sorted_by_key(|slot| slot.name.clone()), "by date");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hospitals_and_availability_are_paged_in_their_order() {
    let checkup = launch().start().await;
    let desk = Desk::of(&checkup.admin().await);
    for i in 0..9 {
        desk.open(&format!("clinic-{i}"), &[7, 8], if i == 4 { 0 } else { 2 }).await;
    }
    let stranger = checkup.stranger().await;
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListHospitalsRequest { page_size: 4, page_token, ..ListHospitalsRequest::default() };
        let page = stranger.hospital().list_hospitals(request).await.expect("a page").into_inner();
        found.extend(page.hospitals.into_iter().map(|hospital| hospital.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        // One new name before the current position, and one after it.
        let next = found.len();
        desk.register(&format!("aaaa-{next}"), Desk::ZONE, Vec::new()).await.expect("a hospital");
    }
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!(found.iter().filter(|name| name.contains("clinic")).count(), 9);
    let request = ListHospitalsRequest { filter: "display_name:\"clinic-3\"".to_owned(), ..Default::default() };
    let one = stranger.hospital().list_hospitals(request).await.expect("a page").into_inner().hospitals;
    assert_eq!(one.len(), 1);

    let search = async |page_size, page_token: String, min_remaining| -> SearchAvailabilityResponse {
        let request = SearchAvailabilityRequest {
            start_date: Some(day_of(in_days(Desk::ZONE, 1))),
            end_date: Some(day_of(in_days(Desk::ZONE, 30))),
            page_size,
            page_token,
            min_remaining,
            ..SearchAvailabilityRequest::default()
        };
        stranger.hospital().search_availability(request).await.expect("a page").into_inner()
    };
    let mut offered = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = search(5, page_token, 0).await;
        page_token = page.next_page_token.clone();
        offered.extend(testkit::slots_of(page));
        if page_token.is_empty() {
            break;
        }
    }
    let order: Vec<(String, String)> = offered
        .iter()
        .map(|slot| slot.name.split_once("/slots/").expect("a slot's name"))
        .map(|(hospital, date)| (date.to_owned(), hospital.to_owned()))
        .collect();
    assert_eq!(order.len(), 16, "the one without places is left out");
    assert!(order.is_sorted(), "by date and then hospital: {order:?}");
    assert_eq!(search(0, String::new(), 3).await.available_slots.len(), 0, "nobody has three places left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reservations_are_paged_like_screenings() {
    let checkup = launch().start().await;
    let made = some_screenings(&checkup).await;
    let kim = checkup.customer("kim").await;
    let all = async |order_by: &str| {
        let mut found = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListReservationsRequest {
                page_size: 3,
                page_token,
                order_by: order_by.to_owned(),
                ..ListReservationsRequest::default()
            };
            let page = kim.reservation().list_reservations(request).await.expect("a page").into_inner();
            found.extend(page.reservations);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    };
    let own = made.iter().filter(|one| one.customer == "customers/kim").count();
    eventually("the ledger to catch up", async || {
        let found = all("").await.len();
        if found == own { Ok(()) } else { Err(format!("{found} of {own}")) }
    })
    .await;
    let by_date = all("date").await;
    assert!(by_date.is_sorted_by_key(|row| row.slot.rsplit('/').next().map(str::to_owned)));
    assert!(by_date.iter().all(|row| row.customer == "customers/kim"));
    let state: BTreeSet<_> = by_date.iter().map(|row| row.state()).collect();
    assert_eq!(state.len(), 1);
    assert_eq!(made[0].state(), State::Confirmed);
}
