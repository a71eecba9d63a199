//! Names and texts that look right and are refused, and texts that look strange and are accepted.

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use hospital::{CreateHospitalRequest, GetHospitalRequest, GetSlotRequest, Hospital};
use screening::{CancelScreeningRequest, CreateScreeningRequest, Screening};
use testkit::Desk;

use super::{FIELD, complains};
use crate::launch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_names_are_refused_and_never_looked_up() {
    let checkup = launch().start().await;
    let stranger = checkup.stranger().await;
    let long = format!("hospitals/a{}", "b".repeat(63));
    let huge = format!("hospitals/{}", "x".repeat(100_000));
    let names = [
        "",
        "/",
        "hospitals",
        "hospitals/",
        "hospitals//",
        "hospitals/abc",
        "hospitals/1abc",
        "hospitals/abc-",
        "hospitals/ABCD",
        "hospitals/ab_cd",
        "hospitals/ab cd",
        "hospitals/삼성병원",
        "hospitals/abcd/",
        " hospitals/abcd",
        "hospitals/abcd\n",
        "hospitals/abcd\0",
        "hospitals/../hospitals/abcd",
        "hospitals/%61bcd",
        "//checkup/hospitals/abcd",
        long.as_str(),
        huge.as_str(),
    ];
    for name in names {
        let get = GetHospitalRequest { name: name.to_owned() };
        let refusal = complains(stranger.hospital().get_hospital(get).await, &[("name", FIELD)]);
        assert!(refusal.message.len() < 1000, "a refusal does not repeat what it refuses");
    }
    let slots = [
        "hospitals/abcd/slots/",
        "hospitals/abcd/slots/2030-1-1",
        "hospitals/abcd/slots/2030-02-30",
        "hospitals/abcd/slots/0000-01-01",
        "hospitals/abcd/slots/2030-01-01~premium",
        "hospitals/abcd/slots/２０３０-01-01",
        "hospitals/abcd/slots/+030-01-01",
        "hospitals/abcd/slots/2030-01-01/slots/2030-01-01",
    ];
    for name in slots {
        complains(stranger.hospital().get_slot(GetSlotRequest { name: name.to_owned() }).await, &[("name", FIELD)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_may_write_what_others_can_read() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let register = async |display_name: &str| {
        let request = CreateHospitalRequest {
            hospital: Some(Hospital {
                display_name: display_name.to_owned(),
                time_zone: Desk::ZONE.to_owned(),
                ..Hospital::default()
            }),
            ..CreateHospitalRequest::default()
        };
        admin.hospital().create_hospital(request).await
    };
    for text in ["", "a\nb", "a\tb", "\u{7f}", "\u{85}", "a\0b", "\u{1b}[31mred", "\r", " ", "\u{202e}tfel"] {
        complains(register(text).await, &[("hospital.display_name", FIELD)]);
    }
    let emoji = "👩🏽‍⚕️";
    for text in ["삼성병원", emoji, "'; DROP TABLE hospital; --", "<script>alert(1)</script>"] {
        let made = register(text).await.unwrap_or_else(|status| panic!("{text:?}: {status:?}")).into_inner();
        assert_eq!(made.display_name, text, "kept to the letter");
    }

    let slot = Desk::of(&admin).open("texts", &[7], 5).await.remove(0);
    let request = CreateScreeningRequest {
        screening: Some(Screening {
            customer: "customers/A.b_c~d-9".to_owned(),
            customer_display_name: "김\u{0}".to_owned(),
            slot: slot.clone(),
            ..Screening::default()
        }),
        ..CreateScreeningRequest::default()
    };
    complains(admin.screening().create_screening(request.clone()).await, &[("screening.customer_display_name", FIELD)]);
    let mut request = request;
    if let Some(screening) = request.screening.as_mut() {
        screening.customer_display_name = "김 \u{1F600}".to_owned();
    }
    let booked = admin.screening().create_screening(request).await.expect("accepted").into_inner();
    let cancel =
        CancelScreeningRequest { name: booked.name, reason: "검".repeat(500), ..CancelScreeningRequest::default() };
    let cancelled = admin.screening().cancel_screening(cancel).await.expect("500 characters").into_inner();
    assert_eq!(cancelled.state_message, "검".repeat(500));
    assert_eq!(cancelled.customer_display_name, "김 \u{1F600}");
}
