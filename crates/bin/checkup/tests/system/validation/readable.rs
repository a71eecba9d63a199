//! Every text that people read, in every service: it is visible, one line, in one direction, and in one Unicode form.

use contract::hospital::v1 as hospital;
use contract::marketing::v1 as marketing;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::*;
use marketing::ProposeCapacityIncreaseRequest;
use screening::{CancelScreeningRequest, CreateScreeningRequest, RescheduleScreeningRequest, Screening};
use testkit::{Desk, Party, day_of, in_days, refused};
use tonic::Status;

use super::{FIELD, complains};
use crate::launch;

const REQUEST: &str = "hospitals/steady/capacityRequests/01890a5d-ac96-774b-bcce-b302099a8057";
const SCREENING: &str = "screenings/01890a5d-ac96-774b-bcce-b302099a8057";

/// Texts that are invisible, change the direction of the line, or have more than one line.
const UNREADABLE: &[&str] = &[
    "   ",
    "\u{3000}\u{A0}",
    "\u{200B}",
    "\u{2800}",
    "\u{3164}",
    "\u{115F}\u{1160}",
    "\u{200D}",
    "서\u{200B}울",
    "\u{FEFF}서울",
    "\u{202E}tfel",
    "a\u{2066}b",
    "\u{200F}서울",
    "first\nsecond",
    "first\u{2028}second",
    "a\tb",
];

/// Sends a text in each field that takes one. Returns the answers by field. `name` says whether the field is required.
async fn everywhere(
    admin: &Party,
    marketing: &Party,
    slot: &str,
    text: &str,
) -> Vec<(&'static str, Result<tonic::Response<()>, Status>)> {
    fn bare<T>(answer: Result<tonic::Response<T>, Status>) -> Result<tonic::Response<()>, Status> {
        answer.map(|answer| answer.map(drop))
    }
    let text = || text.to_owned();
    let clinic = Hospital { display_name: text(), time_zone: Desk::ZONE.to_owned(), ..Hospital::default() };
    let renamed = Hospital { name: "hospitals/steady".to_owned(), display_name: text(), ..Hospital::default() };
    let create = CreateHospitalRequest { hospital: Some(clinic), ..CreateHospitalRequest::default() };
    let update = UpdateHospitalRequest { hospital: Some(renamed), update_mask: None };
    let delete = DeleteHospitalRequest {
        name: "hospitals/steady".to_owned(),
        reason: text(),
        validate_only: true,
        force: true,
        ..DeleteHospitalRequest::default()
    };
    let close = CloseSlotRequest { name: slot.to_owned(), reason: text(), ..CloseSlotRequest::default() };
    let start_date = Some(day_of(in_days(Desk::ZONE, 7)));
    let close_all = BatchCloseSlotsRequest {
        parent: "hospitals/steady".to_owned(),
        ranges: vec![DateRange { start_date, repeat: None }],
        reason: text(),
        ..BatchCloseSlotsRequest::default()
    };
    let increase = CapacityRequest {
        slot: slot.to_owned(),
        additional_capacity: 1,
        justification: text(),
        ..CapacityRequest::default()
    };
    let ask = CreateCapacityRequestRequest {
        parent: "hospitals/steady".to_owned(),
        capacity_request: Some(increase),
        request_id: String::new(),
    };
    let approve = ApproveCapacityRequestRequest { name: REQUEST.to_owned(), note: text(), ..Default::default() };
    let reject = RejectCapacityRequestRequest { name: REQUEST.to_owned(), note: text(), ..Default::default() };
    let propose = ProposeCapacityIncreaseRequest {
        slot: slot.to_owned(),
        additional_capacity: 1,
        justification: text(),
        ..Default::default()
    };
    let booking = Screening {
        customer: "customers/kim".to_owned(),
        customer_display_name: text(),
        slot: slot.to_owned(),
        ..Screening::default()
    };
    let book = CreateScreeningRequest { screening: Some(booking), validate_only: true, ..Default::default() };
    let cancel = CancelScreeningRequest { name: SCREENING.to_owned(), reason: text(), ..Default::default() };
    let reschedule = RescheduleScreeningRequest {
        name: SCREENING.to_owned(),
        slot: slot.to_owned(),
        reason: text(),
        ..Default::default()
    };
    vec![
        ("hospital.display_name", bare(admin.hospital().create_hospital(create).await)),
        ("hospital.display_name", bare(admin.hospital().update_hospital(update).await)),
        ("reason", bare(admin.hospital().delete_hospital(delete).await)),
        ("capacity_request.justification", bare(marketing.hospital().create_capacity_request(ask).await)),
        ("note", bare(admin.hospital().approve_capacity_request(approve).await)),
        ("note", bare(admin.hospital().reject_capacity_request(reject).await)),
        ("justification", bare(marketing.marketing().propose_capacity_increase(propose).await)),
        ("screening.customer_display_name", bare(admin.screening().create_screening(book).await)),
        ("reason", bare(admin.screening().cancel_screening(cancel).await)),
        ("reason", bare(admin.screening().reschedule_screening(reschedule).await)),
        ("reason", bare(admin.hospital().close_slot(close).await)),
        ("reason", bare(admin.hospital().batch_close_slots(close_all).await)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_cannot_read_is_refused_in_every_field_of_every_service() {
    let checkup = launch().start().await;
    let (admin, marketing) = (checkup.admin().await, checkup.service("marketing").await);
    let slot = Desk::of(&admin).open("steady", &[7], 5).await.remove(0);
    for text in UNREADABLE {
        let answers = everywhere(&admin, &marketing, &slot, text).await;
        assert_eq!(answers.len(), 12);
        for (field, answer) in answers {
            let refusal = complains(answer, &[(field, FIELD)]);
            assert!(refusal.message.is_ascii(), "{text:?} is not repeated: {}", refusal.message);
        }
    }
    // Any readable text is accepted, and lengths are counted in characters.
    for text in ["가족 👨‍👩‍👧‍👦 검진", "می\u{200C}خواهم", &"\u{1112}\u{1161}\u{11AB}".repeat(100)]
    {
        for (field, answer) in everywhere(&admin, &marketing, &slot, text).await {
            let unfit = answer.err().and_then(|status| testkit::Refusal::of(&status));
            assert!(unfit.as_ref().is_none_or(|refusal| refusal.reason != FIELD), "{field} {text:?}: {unfit:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_the_same_is_found_and_repeated_as_the_same() {
    const COMPOSED: &str = "한강검진센터";
    const DECOMPOSED: &str = "\u{1112}\u{1161}\u{11AB}\u{1100}\u{1161}\u{11BC}\u{1100}\u{1165}\u{11B7}\u{110C}\u{1175}\u{11AB}\u{1109}\u{1166}\u{11AB}\u{1110}\u{1165}";
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let create = async |display_name: &str, hospital_id: &str, request_id: &str| {
        let hospital =
            Hospital { display_name: display_name.to_owned(), time_zone: Desk::ZONE.to_owned(), ..Hospital::default() };
        let request = CreateHospitalRequest {
            hospital: Some(hospital),
            hospital_id: hospital_id.to_owned(),
            request_id: request_id.to_owned(),
            ..CreateHospitalRequest::default()
        };
        admin.hospital().create_hospital(request).await.map(tonic::Response::into_inner)
    };
    let id = "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30";
    let made = create(DECOMPOSED, "han-river", id).await.expect("a hospital");
    assert_eq!(made.display_name, COMPOSED);
    assert_eq!(create(COMPOSED, "han-river", id).await.expect("the same content"), made);
    refused(create("한강", "han-river", id).await, Reason::RequestIdReused);
    create(COMPOSED, "han-river-two", "").await.expect("names are not unique");

    let list = async |filter: String, page_token: String| {
        let request = ListHospitalsRequest { filter, page_token, page_size: 1, ..ListHospitalsRequest::default() };
        admin.hospital().list_hospitals(request).await.expect("a list").into_inner()
    };
    for operator in ["=", ":"] {
        for (first, second) in [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)] {
            let page = list(format!("display_name{operator}\"{first}\""), String::new()).await;
            assert_eq!(page.hospitals[0].name, "hospitals/han-river");
            // The token stays valid if the same filter is typed in another Unicode form.
            let page = list(format!("display_name{operator}\"{second}\""), page.next_page_token).await;
            assert_eq!(page.hospitals[0].name, "hospitals/han-river-two");
        }
    }
    let unlike = list(format!("display_name!=\"{DECOMPOSED}\""), String::new()).await;
    assert_eq!(unlike.hospitals, []);

    let slot = Desk::of(&admin).open("steady", &[7], 5).await.remove(0);
    let book = async |customer_display_name: &str| {
        let booking = Screening {
            customer: "customers/kim".to_owned(),
            customer_display_name: customer_display_name.to_owned(),
            slot: slot.clone(),
            ..Screening::default()
        };
        let request = CreateScreeningRequest {
            screening: Some(booking),
            request_id: id.to_owned(),
            ..CreateScreeningRequest::default()
        };
        admin.screening().create_screening(request).await.map(tonic::Response::into_inner)
    };
    let booked = book("\u{1100}\u{1175}\u{11B7}").await.expect("a place");
    assert_eq!(booked.customer_display_name, "김");
    assert_eq!(book("김").await.expect("the same booking"), booked);
    refused(book("킴").await, Reason::RequestIdReused);
}
