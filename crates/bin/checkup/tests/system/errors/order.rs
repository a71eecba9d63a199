//! Requests with several mistakes: the reason that a booking is refused for, and what `validate_only` answers.

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::{CloseSlotRequest, DeleteHospitalRequest, GetHospitalRequest};
use screening::{CreateScreeningRequest, Screening};
use testkit::{Desk, Party, in_days, refused, seed, slot_name};
use tonic::{Response, Status};

use crate::launch;
use crate::races::{all_screenings, claims};

async fn close(admin: &Party, slot: &str) {
    let close = CloseSlotRequest { name: slot.to_owned(), ..CloseSlotRequest::default() };
    admin.hospital().close_slot(close).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_is_refused_for_the_first_reason_that_holds() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    let slots = desk.open("busy", &[0, 7, 8], 1).await;
    let gone = desk.open("gone", &[9], 1).await.remove(0);
    let delete = DeleteHospitalRequest { name: "hospitals/gone".to_owned(), ..DeleteHospitalRequest::default() };
    admin.hospital().delete_hospital(delete).await.expect("deleted");
    let kim = Desk::of(&checkup.customer("kim").await);
    kim.book("kim", &slots[1], "").await.expect("a place");
    close(&admin, &slots[1]).await;
    close(&admin, &slots[0]).await;

    let date = |days| in_days(Desk::ZONE, days);
    // The customer's own booking on that date is checked before anything about the hospital.
    let nowhere = slot_name("hospitals/nowhere", date(7));
    refused(kim.book("kim", &nowhere, "").await, Reason::CustomerDateConflict);
    refused(desk.book("lee", &nowhere, "").await, Reason::HospitalNotFound);
    refused(desk.book("lee", &gone, "").await, Reason::HospitalDeleted);
    let never_opened = slot_name("hospitals/gone", date(30));
    refused(desk.book("lee", &never_opened, "").await, Reason::HospitalDeleted);
    refused(desk.book("lee", &slot_name("hospitals/busy", date(30)), "").await, Reason::SlotNotFound);
    refused(desk.book("lee", &slots[0], "").await, Reason::OutsideBookingWindow);
    refused(desk.book("lee", &slots[1], "").await, Reason::SlotClosed);
    desk.book("park", &slots[2], "").await.expect("the last place");
    refused(desk.book("lee", &slots[2], "").await, Reason::SlotFull);
}

async fn judge(party: &Party, customer: &str, slot: &str, request_id: &str) -> Result<Screening, Status> {
    judge_joining(party, customer, slot, request_id, false).await
}

async fn judge_joining(
    party: &Party,
    customer: &str,
    slot: &str,
    request_id: &str,
    join_waitlist: bool,
) -> Result<Screening, Status> {
    let request = CreateScreeningRequest {
        join_waitlist,
        screening: Some(Screening {
            customer: format!("customers/{customer}"),
            slot: slot.to_owned(),
            ..Screening::default()
        }),
        validate_only: true,
        request_id: request_id.to_owned(),
        ..CreateScreeningRequest::default()
    };
    party.screening().create_screening(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validate_only_answers_what_the_call_would_and_stores_nothing() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let desk = Desk::of(&admin);
    let slots = desk.open("rehearsed", &[7, 8], 1).await;
    let kim = checkup.customer("kim").await;
    let request_id = seed("validate only").uuid().to_string();
    let judged = judge(&kim, "kim", &slots[0], &request_id).await.expect("there is a place");
    assert_eq!(judged.state(), screening::screening::State::Confirmed);
    let auditor = checkup.auditor().await;
    assert_eq!(desk.booked(&slots[0]).await, Ok(0));
    assert!(all_screenings(&auditor, "").await.is_empty());
    for state in ["ACTIVE", "RELEASED"] {
        assert!(claims(&auditor, &slots[0], state).await.is_empty(), "not even a tombstone");
    }
    // Judging did not use up the request_id, not even for other content.
    judge(&kim, "kim", &slots[1], &request_id).await.expect("there is a place");
    let booked = Desk::of(&kim).book("kim", &slots[0], &request_id).await.expect("the real one");

    let lee = checkup.customer("lee").await;
    assert_eq!(refused(judge(&lee, "lee", &slots[0], "").await, Reason::SlotFull).value("waitlistOpen"), "true");
    let judged = judge_joining(&lee, "lee", &slots[0], "", true).await.expect("there is a queue");
    assert_eq!((judged.state(), judged.waitlist_position), (screening::screening::State::Waitlisted, 1));
    assert!(judged.promotion_close_time.is_some());
    assert_eq!(desk.slot(&slots[0]).await.expect("the slot").waitlisted_count, 0, "nobody waits");
    let joined = Desk::of(&lee).join("lee", &slots[0], "").await.expect("the real one");
    let conflict = refused(judge_joining(&lee, "lee", &slots[0], "", true).await, Reason::CustomerDateConflict);
    assert_eq!(conflict.value("screening"), joined.name);
    let conflict = refused(judge(&kim, "kim", &slots[0], "").await, Reason::CustomerDateConflict);
    assert_eq!(conflict.value("screening"), booked.name);
    refused(judge(&lee, "lee", "hospitals/nowhere/slots/2030-01-01", "").await, Reason::HospitalNotFound);

    let mut delete = DeleteHospitalRequest {
        name: "hospitals/rehearsed".to_owned(),
        validate_only: true,
        ..DeleteHospitalRequest::default()
    };
    refused(admin.hospital().delete_hospital(delete.clone()).await, Reason::HospitalHasBookings);
    delete.force = true;
    let judged = admin.hospital().delete_hospital(delete).await.expect("it could be deleted").into_inner();
    assert_eq!(judged.revocation_progress.expect("how many it would cancel").total, 2, "with the one who waits");
    let get = GetHospitalRequest { name: "hospitals/rehearsed".to_owned() };
    let after = admin.hospital().get_hospital(get).await.expect("the hospital").into_inner();
    assert_eq!(after.state(), hospital::hospital::State::Active);
    assert_eq!((after.revocation_progress, after.delete_time), (None, None));
}
