//! The requests of Screening, Reservation, MyPage and Marketing.

use contract::marketing::v1 as marketing;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use marketing::{ListDemandSignalsRequest, ProposeCapacityIncreaseRequest};
use mypage::{GetMyPageRequest, ListMyPageItemsRequest, WatchMyPageRequest};
use prost_types::FieldMask;
use reservation::{GetReservationRequest, ListReservationHistoryRequest, ListReservationsRequest};
use screening::{CancelScreeningRequest, CompleteScreeningRequest, CreateScreeningRequest, GetScreeningRequest};
use screening::{ListScreeningsRequest, MarkNoShowRequest, RescheduleScreeningRequest};
use screening::{Screening, UpdateScreeningRequest};
use testkit::{Desk, in_days};

use super::{FIELD, FILTER, REQUEST_ID, TOKEN, complains, hangul};
use crate::launch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_with_everything_wrong_hears_it_all_at_once() {
    let checkup = launch().start().await;
    let kim = checkup.customer("kim").await;
    let create = async |screening: Option<Screening>, request_id: &str| {
        let request = CreateScreeningRequest {
            screening,
            request_id: request_id.to_owned(),
            ..CreateScreeningRequest::default()
        };
        kim.screening().create_screening(request).await
    };
    let everything = Screening {
        customer: "kim".to_owned(),
        customer_display_name: hangul(101),
        slot: "hospitals/a/slots/today".to_owned(),
        ..Screening::default()
    };
    complains(
        create(Some(everything), "{7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30}").await,
        &[
            ("screening.customer", FIELD),
            ("screening.customer_display_name", FIELD),
            ("screening.slot", FIELD),
            ("request_id", REQUEST_ID),
        ],
    );
    complains(create(None, "").await, &[("screening", FIELD)]);
    for customer in ["", "customers/", "customers/a b", "customers/-kim", "customers/kim/myPage", "customers/한"] {
        let screening = Screening {
            customer: customer.to_owned(),
            slot: "hospitals/abcd/slots/2030-01-01".to_owned(),
            ..Screening::default()
        };
        complains(create(Some(screening), "").await, &[("screening.customer", FIELD)]);
    }
    // The longest allowed name, and output-only fields, which are ignored.
    let slot = Desk::of(&checkup.admin().await).open("roomy", &[7], 5).await.remove(0);
    let screening = Screening {
        customer: "customers/kim".to_owned(),
        customer_display_name: hangul(100),
        slot,
        name: "screenings/mine".to_owned(),
        state: 77,
        version: -1,
        ..Screening::default()
    };
    let booked = create(Some(screening), "").await.expect("accepted").into_inner();
    assert_eq!((booked.customer_display_name, booked.version), (hangul(100), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn screenings_are_read_and_changed_by_good_requests_only() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let malformed = [
        "",
        "screenings/",
        "screenings/1",
        "reservations/01890a5d-ac96-774b-bcce-b302099a8057",
        "screenings/01890a5dac96774bbcceb302099a8057",
        "screenings/01890a5d-ac96-774b-bcce-b302099a8057/",
    ];
    for name in malformed.map(str::to_owned) {
        let get = GetScreeningRequest { name: name.clone() };
        complains(admin.screening().get_screening(get).await, &[("name", FIELD)]);
        let cancel = CancelScreeningRequest {
            name: name.clone(),
            reason: hangul(501),
            request_id: "1".to_owned(),
            ..CancelScreeningRequest::default()
        };
        complains(
            admin.screening().cancel_screening(cancel).await,
            &[("name", FIELD), ("reason", FIELD), ("request_id", REQUEST_ID)],
        );
        let reschedule = RescheduleScreeningRequest {
            name: name.clone(),
            slot: "hospitals/abcd/slots/tomorrow".to_owned(),
            reason: hangul(501),
            etag: "\"1\"\n".to_owned(),
            request_id: "1".to_owned(),
            ..RescheduleScreeningRequest::default()
        };
        complains(
            admin.screening().reschedule_screening(reschedule).await,
            &[("name", FIELD), ("slot", FIELD), ("reason", FIELD), ("etag", FIELD), ("request_id", REQUEST_ID)],
        );
        let complete = CompleteScreeningRequest { name: name.clone(), ..CompleteScreeningRequest::default() };
        complains(admin.screening().complete_screening(complete).await, &[("name", FIELD)]);
        let update = UpdateScreeningRequest {
            screening: Some(Screening {
                name: name.clone(),
                customer_display_name: hangul(101),
                ..Screening::default()
            }),
            update_mask: Some(FieldMask { paths: vec!["slot".to_owned()] }),
        };
        complains(
            admin.screening().update_screening(update).await,
            &[("screening.name", FIELD), ("screening.customer_display_name", FIELD), ("update_mask", FIELD)],
        );
        let absent = MarkNoShowRequest { name, ..MarkNoShowRequest::default() };
        complains(admin.screening().mark_no_show(absent).await, &[("name", FIELD)]);
    }
    let list = ListScreeningsRequest {
        page_size: -1,
        page_token: "nope".to_owned(),
        filter: "date>=yesterday".to_owned(),
        order_by: "name".to_owned(),
        show_waitlisted: true,
    };
    let refusal = complains(
        admin.screening().list_screenings(list).await,
        &[("page_size", FIELD), ("page_token", TOKEN), ("filter", FILTER), ("order_by", FIELD)],
    );
    assert!(refusal.violations.iter().all(|(_, _, description)| !description.contains("nope")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_keep_to_what_each_list_names() {
    let checkup = launch().start().await;
    let auditor = checkup.auditor().await;
    let list = async |filter: &str| {
        let request = ListScreeningsRequest { filter: filter.to_owned(), ..ListScreeningsRequest::default() };
        auditor.screening().list_screenings(request).await
    };
    let too_long = format!("state=CONFIRMED{}", " AND state=CONFIRMED".repeat(200));
    let bad = [
        "state",
        "state=",
        "=CONFIRMED",
        "state=UNKNOWN",
        "state=CONFIRMED OR state=PENDING",
        "NOT state=CONFIRMED",
        "(state=CONFIRMED)",
        "state>CONFIRMED",
        "state=CONFIRMED state=PENDING",
        "customer=kim",
        "customer>\"customers/kim\"",
        "hospital=\"hospitals/\"",
        "slot=\"hospitals/abcd\"",
        "date=2027-02-30",
        "date=\"2027-1-1\"",
        "version=1",
        "state=\"CONFIRMED",
        "state=CONFIRMED AND",
        "'; DROP TABLE screening; --",
        too_long.as_str(),
    ];
    for filter in bad {
        complains(list(filter).await, &[("filter", FILTER)]);
    }
    let good = [
        "",
        "state=CONFIRMED",
        "state=WAITLISTED",
        "state!=EXPIRED",
        "state = \"CONFIRMED\" AND date >= 2027-01-01 AND date<\"2028-01-01\"",
        "customer=\"customers/kim\"",
        "hospital!=\"hospitals/abcd\"",
        "slot=\"hospitals/abcd/slots/2030-01-01\"",
    ];
    for filter in good {
        list(filter).await.unwrap_or_else(|status| panic!("{filter}: {status:?}"));
    }
    for filter in ["state=PENDING", "state=WAITLISTED", "customer:kim", "colour=red"] {
        let request = ListReservationsRequest { filter: filter.to_owned(), ..ListReservationsRequest::default() };
        complains(auditor.reservation().list_reservations(request).await, &[("filter", FILTER)]);
    }
    for filter in ["fill_ratio>=much", "state=OPEN", "slot=\"hospitals/abcd/slots/2030-01-01\"", "fill_ratio:0"] {
        let request = ListDemandSignalsRequest { filter: filter.to_owned(), ..ListDemandSignalsRequest::default() };
        complains(auditor.marketing().list_demand_signals(request).await, &[("filter", FILTER)]);
    }
    let request = ListDemandSignalsRequest {
        filter: "fill_ratio>=0.9 AND date<\"2027-02-01\" AND hospital=\"hospitals/abcd\"".to_owned(),
        ..ListDemandSignalsRequest::default()
    };
    auditor.marketing().list_demand_signals(request).await.expect("the comment's own fields");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_read_by_good_requests_only() {
    let checkup = launch().start().await;
    let auditor = checkup.auditor().await;
    let get = GetReservationRequest { name: "reservations/1".to_owned(), min_consistency_token: "?".to_owned() };
    complains(auditor.reservation().get_reservation(get).await, &[("name", FIELD), ("min_consistency_token", FIELD)]);
    let list = ListReservationsRequest {
        page_size: -9,
        page_token: "t".to_owned(),
        filter: "x".to_owned(),
        order_by: "date asc nonsense".to_owned(),
    };
    complains(
        auditor.reservation().list_reservations(list).await,
        &[("page_size", FIELD), ("page_token", TOKEN), ("filter", FILTER), ("order_by", FIELD)],
    );
    let history = ListReservationHistoryRequest {
        parent: "screenings/01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        page_size: -1,
        page_token: "t".to_owned(),
    };
    complains(
        auditor.reservation().list_reservation_history(history).await,
        &[("parent", FIELD), ("page_size", FIELD), ("page_token", TOKEN)],
    );
    let page = GetMyPageRequest {
        name: "customers/kim".to_owned(),
        min_consistency_token: "AAAA".to_owned(),
        show_waitlisted: true,
    };
    complains(auditor.my_page().get_my_page(page).await, &[("name", FIELD), ("min_consistency_token", FIELD)]);
    let items = ListMyPageItemsRequest {
        parent: "customers//myPage".to_owned(),
        page_size: -1,
        page_token: "t".to_owned(),
        min_consistency_token: "t".to_owned(),
        show_waitlisted: true,
    };
    complains(
        auditor.my_page().list_my_page_items(items).await,
        &[("parent", FIELD), ("page_size", FIELD), ("page_token", TOKEN), ("min_consistency_token", FIELD)],
    );
    // A resume token is bound to the page, so it is only checked if the page's name is valid.
    for (name, expected) in [("myPage", ("name", FIELD)), ("customers/kim/myPage", ("resume_token", TOKEN))] {
        let watch = WatchMyPageRequest { name: name.to_owned(), resume_token: "r".to_owned(), show_waitlisted: true };
        complains(auditor.my_page().watch_my_page(watch).await, &[expected]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_are_checked_before_they_travel() {
    let checkup = launch().start().await;
    let marketing = checkup.service("marketing").await;
    let propose = async |slot: String, additional_capacity, justification: String, request_id: &str| {
        let request = ProposeCapacityIncreaseRequest {
            slot,
            additional_capacity,
            justification,
            request_id: request_id.to_owned(),
        };
        marketing.marketing().propose_capacity_increase(request).await
    };
    complains(
        propose("hospitals/abcd".to_owned(), 0, hangul(501), "1").await,
        &[("slot", FIELD), ("additional_capacity", FIELD), ("justification", FIELD), ("request_id", REQUEST_ID)],
    );
    let slot = format!("hospitals/abcd/slots/{}", in_days(Desk::ZONE, 7));
    complains(propose(slot.clone(), 100_001, String::new(), "").await, &[("additional_capacity", FIELD)]);
    complains(
        propose(slot, -1, "a\tb".to_owned(), "").await,
        &[("additional_capacity", FIELD), ("justification", FIELD)],
    );
    let list = ListDemandSignalsRequest {
        page_size: -1,
        page_token: "t".to_owned(),
        filter: "fill_ratio".to_owned(),
        order_by: "slot".to_owned(),
    };
    complains(
        marketing.marketing().list_demand_signals(list).await,
        &[("page_size", FIELD), ("page_token", TOKEN), ("filter", FILTER), ("order_by", FIELD)],
    );
}
