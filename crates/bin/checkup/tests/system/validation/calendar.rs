//! Rules that open dates, closings of many dates, and streams of them.

use contract::google::r#type::Date;
use contract::hospital::v1 as hospital;
use fault::Reason;
use hospital::*;
use testkit::{Desk, refused};

use super::hospitals::{admin_of, date, slot};
use super::{DATE, FIELD, REQUEST_ID, TOKEN, complains, hangul};
use crate::launch;

/// The dates before that of a day from today, on these days of the week.
fn until(days: i32, days_of_week: &[i32]) -> Option<DateRepetition> {
    Some(DateRepetition { end_date: date(days), days_of_week: days_of_week.to_vec() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_is_wrong_opens_nothing() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    Desk::of(&admin).open("steady", &[7], 5).await;
    let from = |days, repeat| CreateSlotRequest { slot: Some(slot(days, 1)), repeat, ..CreateSlotRequest::default() };
    let batch = async |requests| {
        let parent = "hospitals/steady".to_owned();
        let request = BatchCreateSlotsRequest { parent, requests, ..BatchCreateSlotsRequest::default() };
        let judged = BatchCreateSlotsRequest { validate_only: true, ..request.clone() };
        let (judged, answer) =
            (admin.hospital().batch_create_slots(judged).await, admin.hospital().batch_create_slots(request).await);
        assert_eq!(judged.is_ok(), answer.is_ok(), "{judged:?}");
        answer
    };
    let everything = vec![
        from(20, Some(DateRepetition { end_date: None, days_of_week: vec![2, 2] })),
        from(21, Some(DateRepetition { end_date: Some(Date::default()), days_of_week: vec![0, 1, 8, -1] })),
        from(22, until(22, &[])),
        from(23, until(22, &[])),
        from(24, until(24 + 367, &[])),
        from(25, until(30, &[1, 2, 3, 4, 5, 6, 7, 1])),
        CreateSlotRequest { slot: None, ..from(0, until(30, &[])) },
        CreateSlotRequest { slot: Some(slot(26, -1)), request_id: "7".to_owned(), ..from(0, until(30, &[9])) },
    ];
    complains(
        batch(everything).await,
        &[
            ("requests[0].repeat.end_date", DATE),
            ("requests[0].repeat.days_of_week", FIELD),
            ("requests[1].repeat.end_date", DATE),
            ("requests[1].repeat.days_of_week[0]", FIELD),
            ("requests[1].repeat.days_of_week[2]", FIELD),
            ("requests[1].repeat.days_of_week[3]", FIELD),
            ("requests[2].repeat.end_date", FIELD),
            ("requests[3].repeat.end_date", FIELD),
            ("requests[4].repeat.end_date", FIELD),
            ("requests[5].repeat.days_of_week", FIELD),
            ("requests[6].slot", FIELD),
            ("requests[7].slot.capacity", FIELD),
            ("requests[7].request_id", FIELD),
            ("requests[7].repeat.days_of_week[0]", FIELD),
        ],
    );
    // No date twice, whichever of them a rule names.
    complains(batch(vec![from(22, None), from(20, until(30, &[]))]).await, &[("requests[1].repeat", FIELD)]);
    complains(batch(vec![from(20, until(30, &[])), from(22, None)]).await, &[("requests[1].slot.date", FIELD)]);
    complains(
        batch(vec![from(20, until(30, &[])), from(29, until(40, &[])), from(39, until(41, &[]))]).await,
        &[("requests[1].repeat", FIELD)],
    );
    complains(batch(vec![from(20, until(386, &[])), from(400, None)]).await, &[("requests", FIELD)]);
    let most = vec![from(20, until(385, &[])), from(400, None)];
    let made = batch(most).await.expect("366 dates are accepted").into_inner().slots;
    assert_eq!(made.len(), 366);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_of_many_dates_names_every_wrong_one() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    Desk::of(&admin).open("steady", &[7], 5).await;
    let close = async |request: BatchCloseSlotsRequest| {
        let judged = BatchCloseSlotsRequest { validate_only: true, ..request.clone() };
        let (judged, answer) =
            (admin.hospital().batch_close_slots(judged).await, admin.hospital().batch_close_slots(request).await);
        assert_eq!(judged.is_ok(), answer.is_ok(), "{judged:?}");
        answer
    };
    let from = |days, repeat| DateRange { start_date: date(days), repeat };
    let everything = BatchCloseSlotsRequest {
        parent: "hospitals/Steady".to_owned(),
        ranges: vec![
            DateRange::default(),
            DateRange { start_date: Some(Date { year: 2027, month: 2, day: 29 }), repeat: until(30, &[1, 1]) },
            from(1, Some(DateRepetition { end_date: None, days_of_week: vec![0] })),
            from(1, until(1, &[8])),
            from(1, until(0, &[])),
            from(1, until(368, &[])),
            from(1, until(30, &[7; 8])),
        ],
        reason: hangul(501),
        request_id: "x".to_owned(),
        ..BatchCloseSlotsRequest::default()
    };
    complains(
        close(everything).await,
        &[
            ("parent", FIELD),
            ("ranges[0].start_date", DATE),
            ("ranges[1].start_date", DATE),
            ("ranges[1].repeat.days_of_week", FIELD),
            ("ranges[2].repeat.end_date", DATE),
            ("ranges[2].repeat.days_of_week[0]", FIELD),
            ("ranges[3].repeat.end_date", FIELD),
            ("ranges[3].repeat.days_of_week[0]", FIELD),
            ("ranges[4].repeat.end_date", FIELD),
            ("ranges[5].repeat.end_date", FIELD),
            ("ranges[6].repeat.days_of_week", FIELD),
            ("reason", FIELD),
            ("request_id", REQUEST_ID),
        ],
    );
    let at_steady = |ranges| BatchCloseSlotsRequest {
        parent: "hospitals/steady".to_owned(),
        ranges,
        ..BatchCloseSlotsRequest::default()
    };
    complains(close(at_steady(Vec::new())).await, &[("ranges", FIELD)]);
    complains(close(at_steady(vec![from(1, None); 367])).await, &[("ranges", FIELD)]);
    complains(close(at_steady(vec![from(1, until(367, &[])), from(367, None)])).await, &[("ranges", FIELD)]);
    // Dates that are named twice count once.
    let most = vec![from(1, until(367, &[])), from(8, until(300, &[3])), from(366, None)];
    let closed = close(at_steady(most)).await.expect("366 dates are accepted").into_inner();
    assert_eq!(closed.slots.len(), 1);
    close(at_steady(vec![from(1, None); 366])).await.expect("366 ranges are accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_availability_is_checked_before_it_begins() {
    let checkup = launch().start().await;
    let kim = checkup.customer("kim").await;
    Desk::of(&admin_of(&checkup).await).open("steady", &[7], 5).await;
    let watch = async |request: WatchAvailabilityRequest| kim.hospital().watch_availability(request).await;
    let everything = WatchAvailabilityRequest {
        hospitals: Vec::new(),
        start_date: None,
        end_date: Some(Date { year: 2027, month: 0, day: 0 }),
        resume_token: "!".to_owned(),
    };
    complains(
        watch(everything).await,
        &[("hospitals", FIELD), ("start_date", DATE), ("end_date", DATE), ("resume_token", TOKEN)],
    );
    let between = |start, end| WatchAvailabilityRequest {
        hospitals: vec!["hospitals/steady".to_owned()],
        start_date: date(start),
        end_date: date(end),
        resume_token: String::new(),
    };
    for (start, end) in [(7, 7), (7, 6), (1, 64)] {
        complains(watch(between(start, end)).await, &[("end_date", FIELD)]);
    }
    let named = |hospitals: Vec<String>| WatchAvailabilityRequest { hospitals, ..between(1, 63) };
    complains(watch(named(vec!["hospitals/steady".to_owned(); 21])).await, &[("hospitals", FIELD)]);
    let wrong = vec!["hospitals/steady".to_owned(), "clinics/steady".to_owned()];
    complains(watch(named(wrong)).await, &[("hospitals[1]", FIELD)]);
    refused(watch(named(vec!["hospitals/nowhere".to_owned()])).await, Reason::HospitalNotFound);
    drop(watch(between(1, 63)).await.expect("62 days"));
}
