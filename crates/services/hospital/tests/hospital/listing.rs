//! Lists: their order, pages and filters, and page tokens that are valid for one list only.

use contract::capacity::v1 as capacity;
use contract::hospital::v1;
use fault::Reason;
use testkit::{Party, day_of, refused};

use crate::support::{House, claim, get_slot, hours, reserve};

async fn hospitals(party: &Party, request: v1::ListHospitalsRequest) -> Vec<String> {
    let mut request = request;
    let mut names = Vec::new();
    loop {
        let page = party.hospital().list_hospitals(request.clone()).await.unwrap().into_inner();
        assert!(request.page_size == 0 || page.hospitals.len() <= usize::try_from(request.page_size).unwrap());
        names.extend(page.hospitals.into_iter().map(|hospital| hospital.name));
        if page.next_page_token.is_empty() {
            return names;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn hospitals_are_listed_by_name_without_the_deleted_ones() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    for id in ["seoul", "busan", "daegu", "incheon", "ulsan"] {
        let mut request = house.draft(id, &[1], 5);
        request.hospital.as_mut().unwrap().display_name = format!("{id} 삼성 Ω 100%");
        admin.hospital().create_hospital(request).await.unwrap();
    }
    let slot = format!("hospitals/busan/slots/{}", house.day(1));
    reserve(&house.screening().await, &slot, &claim(1)).await.unwrap();
    let delete = v1::DeleteHospitalRequest { name: "hospitals/daegu".into(), ..Default::default() };
    admin.hospital().delete_hospital(delete).await.unwrap();
    let anybody = house.anybody().await;
    let all = ["hospitals/busan", "hospitals/incheon", "hospitals/seoul", "hospitals/ulsan"];
    for page_size in [0, 1, 2, 3, 5_000] {
        let request = v1::ListHospitalsRequest { page_size, ..Default::default() };
        assert_eq!(hospitals(&anybody, request).await, all);
    }
    let shown = v1::ListHospitalsRequest { show_deleted: true, page_size: 2, ..Default::default() };
    assert_eq!(hospitals(&anybody, shown).await.len(), 5);
    let filtered = |filter: &str| v1::ListHospitalsRequest { filter: filter.into(), ..Default::default() };
    assert_eq!(hospitals(&anybody, filtered("display_name:\"삼성 Ω 100%\"")).await, all);
    let seoul = anybody.hospital().get_hospital(v1::GetHospitalRequest { name: all[2].into() }).await.unwrap();
    let since = domain::civil::decode_time(seoul.get_ref().create_time.as_ref().unwrap()).unwrap();
    let later = hospitals(&anybody, filtered(&format!("update_time>\"{since}\""))).await;
    assert_eq!(later, ["hospitals/busan", "hospitals/incheon", "hospitals/ulsan"]);
    assert_eq!(hospitals(&anybody, filtered("display_name:\"100_\"")).await, Vec::<String>::new());
    let two = filtered("display_name:\"SEOUL\" AND display_name!=\"x\"");
    assert_eq!(hospitals(&anybody, two).await, ["hospitals/seoul"]);
    let first = anybody.hospital().list_hospitals(v1::ListHospitalsRequest::default()).await.unwrap().into_inner();
    assert_eq!(first.hospitals[0].active_booking_count, 1);
    house.stop().await;
}

#[tokio::test]
async fn a_page_token_belongs_to_its_list_and_a_page_has_a_size() {
    let (house, _dir) = House::start().await;
    house.hospital("busan", &[1, 2, 3], 5).await;
    house.hospital("seoul", &[1, 2, 3], 5).await;
    let anybody = house.anybody().await;
    let list = |parent: &str, page_token: &str, page_size| v1::ListSlotsRequest {
        parent: format!("hospitals/{parent}"),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    };
    let page = anybody.hospital().list_slots(list("seoul", "", 2)).await.unwrap().into_inner();
    assert_eq!(page.slots.len(), 2);
    let token = page.next_page_token;
    let rest = anybody.hospital().list_slots(list("seoul", &token, 1)).await.unwrap().into_inner();
    assert_eq!((rest.slots.len(), rest.next_page_token.as_str()), (1, ""));
    assert_eq!(rest.slots[0].date, Some(day_of(house.day(3))));
    refused(anybody.hospital().list_slots(list("busan", &token, 2)).await, Reason::PageTokenInvalid);
    refused(anybody.hospital().list_slots(list("seoul", "x", 2)).await, Reason::PageTokenInvalid);
    let both = refused(anybody.hospital().list_slots(list("seoul", &token[1..], -1)).await, Reason::FieldInvalid);
    assert_eq!(both.complaints(), [("page_size", "FIELD_INVALID"), ("page_token", "PAGE_TOKEN_INVALID")]);
    let hospitals = v1::ListHospitalsRequest { page_token: token, ..Default::default() };
    refused(anybody.hospital().list_hospitals(hospitals).await, Reason::PageTokenInvalid);
    let wrong = v1::ListHospitalsRequest { filter: "name=\"hospitals/seoul\"".into(), ..Default::default() };
    refused(anybody.hospital().list_hospitals(wrong).await, Reason::FilterInvalid);
    refused(anybody.hospital().list_slots(list("nowhere", "", 2)).await, Reason::HospitalNotFound);
    house.stop().await;
}

#[tokio::test]
async fn slots_are_listed_by_date_in_every_state_inside_of_a_range() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[40, 3, 1, 2, 100], 5).await;
    let admin = house.admin().await;
    let close = v1::CloseSlotRequest { name: slots[1].clone(), ..Default::default() };
    admin.hospital().close_slot(close).await.unwrap();
    let list = async |start: Option<i32>, end: Option<i32>| {
        let request = v1::ListSlotsRequest {
            parent: "hospitals/seoul".into(),
            start_date: start.map(|days| day_of(house.day(days))),
            end_date: end.map(|days| day_of(house.day(days))),
            ..Default::default()
        };
        let page = admin.hospital().list_slots(request).await.unwrap().into_inner();
        page.slots.into_iter().map(|slot| slot.name).collect::<Vec<_>>()
    };
    let day = |days| format!("hospitals/seoul/slots/{}", house.day(days));
    assert_eq!(list(None, None).await, [day(1), day(2), day(3), day(40), day(100)]);
    assert_eq!(list(Some(2), Some(40)).await, [day(2), day(3)]);
    assert_eq!(list(Some(41), None).await, [day(100)]);
    assert_eq!(list(None, Some(2)).await, [day(1)]);
    house.stop().await;
}

#[tokio::test]
async fn rows_that_come_and_go_neither_repeat_nor_hide_others() {
    let (house, _dir) = House::start().await;
    house.hospital("seoul", &[2, 4, 6, 8], 5).await;
    let admin = house.admin().await;
    let mut request = v1::ListSlotsRequest { parent: "hospitals/seoul".into(), page_size: 2, ..Default::default() };
    let first = admin.hospital().list_slots(request.clone()).await.unwrap().into_inner();
    for days in [1, 3, 5] {
        let slot = Some(v1::Slot { date: Some(day_of(house.day(days))), capacity: 1, ..Default::default() });
        let create = v1::CreateSlotRequest { parent: "hospitals/seoul".into(), slot, ..Default::default() };
        admin.hospital().create_slot(create).await.unwrap();
    }
    request.page_token = first.next_page_token;
    request.page_size = 10;
    let second = admin.hospital().list_slots(request).await.unwrap().into_inner();
    let dates: Vec<_> = second.slots.iter().map(|slot| slot.date.unwrap()).collect();
    assert_eq!(dates, [5, 6, 8].map(|days| day_of(house.day(days))));
    house.stop().await;
}

#[tokio::test]
async fn claims_are_listed_by_id_in_pages() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2], 50).await;
    let screening = house.screening().await;
    for number in [9, 3, 7, 1, 5] {
        reserve(&screening, &slots[0], &claim(number)).await.unwrap();
    }
    reserve(&screening, &slots[1], &claim(4)).await.unwrap();
    crate::support::release(&screening, &slots[0], &claim(7)).await.unwrap();
    let list = async |slot: &str, filter: &str| {
        let mut request = capacity::ListCapacityClaimsRequest {
            slot: slot.into(),
            page_size: 2,
            filter: filter.into(),
            ..Default::default()
        };
        let mut ids = Vec::new();
        loop {
            let page = screening.capacity().list_capacity_claims(request.clone()).await.unwrap().into_inner();
            ids.extend(page.claims.into_iter().map(|claim| claim.claim_id));
            if page.next_page_token.is_empty() {
                return ids;
            }
            request.page_token = page.next_page_token;
        }
    };
    assert_eq!(list(&slots[0], "").await, [1, 3, 5, 7, 9].map(claim));
    assert_eq!(list(&slots[0], "state=ACTIVE").await, [1, 3, 5, 9].map(claim));
    assert_eq!(list(&slots[0], "state!=ACTIVE").await, [claim(7)]);
    assert_eq!(list("hospitals/-/slots/-", "").await, [1, 3, 4, 5, 7, 9].map(claim));
    assert_eq!(list("hospitals/-/slots/-", "state=ACTIVE").await, [1, 3, 4, 5, 9].map(claim));
    let half = capacity::ListCapacityClaimsRequest { slot: "hospitals/seoul/slots/-".into(), ..Default::default() };
    refused(screening.capacity().list_capacity_claims(half).await, Reason::FieldInvalid);
    let wrong = capacity::ListCapacityClaimsRequest {
        slot: slots[0].clone(),
        filter: "state=STATE_UNSPECIFIED".into(),
        ..Default::default()
    };
    refused(screening.capacity().list_capacity_claims(wrong).await, Reason::FilterInvalid);
    house.stop().await;
}

#[tokio::test]
async fn a_page_of_availability_is_full_whatever_lies_outside_of_its_window() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let days: Vec<i32> = (1..=60).collect();
    // More dates outside their booking windows than one statement reads, and a few dates inside.
    for id in ["aaaa", "bbbb", "cccc", "dddd", "eeee"] {
        let mut request = house.draft(id, &days, 5);
        let policy = v1::BookingPolicy { max_advance: hours(1), ..Default::default() };
        request.hospital.as_mut().unwrap().booking_policy = Some(policy);
        admin.hospital().create_hospital(request).await.unwrap();
    }
    let open = house.hospital("zzzz", &[50, 58, 59], 5).await;
    let mut request = v1::SearchAvailabilityRequest {
        start_date: Some(day_of(house.day(0))),
        end_date: Some(day_of(house.day(62))),
        page_size: 2,
        ..Default::default()
    };
    let anybody = house.anybody().await;
    let first = anybody.hospital().search_availability(request.clone()).await.unwrap().into_inner();
    let row = &first.available_slots[0];
    assert_eq!((row.hospital_display_name.as_str(), row.time_zone.as_str()), ("Hospital zzzz", crate::support::ZONE));
    let names: Vec<_> = first.available_slots.iter().flat_map(|row| &row.slot).map(|slot| slot.name.as_str()).collect();
    assert_eq!(names, [open[0].as_str(), &open[1]]);
    request.page_token = first.next_page_token;
    let second = anybody.hospital().search_availability(request.clone()).await.unwrap().into_inner();
    assert_eq!(second.next_page_token, "");
    let rest = testkit::slots_of(second);
    assert_eq!((rest[0].name.as_str(), rest.len()), (open[2].as_str(), 1));
    request.min_remaining = 2;
    refused(anybody.hospital().search_availability(request.clone()).await, Reason::PageTokenInvalid);
    request.page_token.clear();
    request.hospitals = vec!["hospitals/zzzz".into(), "hospitals/nowhere".into()];
    let unknown = refused(anybody.hospital().search_availability(request.clone()).await, Reason::HospitalNotFound);
    assert_eq!(unknown.value("hospital"), "hospitals/nowhere");
    request.end_date = request.start_date;
    let empty = refused(anybody.hospital().search_availability(request).await, Reason::FieldInvalid);
    assert_eq!(empty.fields(), ["end_date"]);
    assert_eq!(get_slot(&anybody, &open[0]).await.booked_count, 0);
    house.stop().await;
}
