//! Who may call which method: good and bad tokens, roles, ownership, and that strangers learn nothing.

use std::time::Duration;

use contract::capacity::v1::ReserveCapacityRequest;
use contract::hospital::v1 as hospital;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use fault::Reason;
use hospital::{DeleteHospitalRequest, GetHospitalRequest, UpdateHospitalRequest};
use mypage::GetMyPageRequest;
use reservation::GetReservationRequest;
use screening::{CreateScreeningRequest, ListScreeningsRequest, Screening};
use testkit::{Answer, Claims, Desk, Party, RawMethod, Refusal, call_raw, refused};
use tonic::Code;

use crate::launch;

/// The roles that each method accepts. `public` methods need no token.
const ACCESS: &[(&str, &str, &[&str])] = &[
    ("checkup.hospital.v1.HospitalService", "CreateHospital", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "GetHospital", &["public"]),
    ("checkup.hospital.v1.HospitalService", "ListHospitals", &["public"]),
    ("checkup.hospital.v1.HospitalService", "UpdateHospital", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "DeleteHospital", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "CreateSlot", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "BatchCreateSlots", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "GetSlot", &["public"]),
    ("checkup.hospital.v1.HospitalService", "ListSlots", &["public"]),
    ("checkup.hospital.v1.HospitalService", "SetSlotCapacity", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "CloseSlot", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "BatchCloseSlots", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "ReopenSlot", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "SearchAvailability", &["public"]),
    ("checkup.hospital.v1.HospitalService", "WatchAvailability", ROLES),
    ("checkup.hospital.v1.HospitalService", "CreateCapacityRequest", &["marketing"]),
    ("checkup.hospital.v1.HospitalService", "GetCapacityRequest", &["admin", "marketing", "auditor"]),
    ("checkup.hospital.v1.HospitalService", "ListCapacityRequests", &["admin", "marketing", "auditor"]),
    ("checkup.hospital.v1.HospitalService", "ApproveCapacityRequest", &["admin"]),
    ("checkup.hospital.v1.HospitalService", "RejectCapacityRequest", &["admin"]),
    ("checkup.capacity.v1.CapacityService", "ReserveCapacity", &["screening"]),
    ("checkup.capacity.v1.CapacityService", "BatchReserveCapacity", &["screening"]),
    ("checkup.capacity.v1.CapacityService", "ReleaseCapacity", &["screening"]),
    ("checkup.capacity.v1.CapacityService", "GetCapacityClaim", &["screening", "auditor"]),
    ("checkup.capacity.v1.CapacityService", "ListCapacityClaims", &["screening", "auditor"]),
    ("checkup.screening.v1.ScreeningService", "CreateScreening", &["customer", "admin"]),
    ("checkup.screening.v1.ScreeningService", "GetScreening", &["customer", "admin", "auditor"]),
    ("checkup.screening.v1.ScreeningService", "ListScreenings", &["customer", "admin", "auditor"]),
    ("checkup.screening.v1.ScreeningService", "CancelScreening", &["customer", "admin"]),
    ("checkup.screening.v1.ScreeningService", "RescheduleScreening", &["customer", "admin"]),
    ("checkup.screening.v1.ScreeningService", "UpdateScreening", &["customer", "admin"]),
    ("checkup.screening.v1.ScreeningService", "CompleteScreening", &["admin"]),
    ("checkup.screening.v1.ScreeningService", "MarkNoShow", &["admin"]),
    ("checkup.reservation.v1.ReservationService", "GetReservation", &["customer", "admin", "auditor"]),
    ("checkup.reservation.v1.ReservationService", "ListReservations", &["customer", "admin", "auditor"]),
    ("checkup.reservation.v1.ReservationService", "ListReservationHistory", &["customer", "admin", "auditor"]),
    ("checkup.mypage.v1.MyPageService", "GetMyPage", &["customer", "auditor"]),
    ("checkup.mypage.v1.MyPageService", "ListMyPageItems", &["customer", "auditor"]),
    ("checkup.mypage.v1.MyPageService", "WatchMyPage", &["customer", "auditor"]),
    ("checkup.marketing.v1.MarketingService", "ListDemandSignals", &["admin", "marketing", "auditor"]),
    ("checkup.marketing.v1.MarketingService", "ProposeCapacityIncrease", &["admin", "marketing"]),
];

/// The roles that a method accepts.
pub(crate) fn allowed(service: &str, method: &str) -> &'static [&'static str] {
    let row = ACCESS.iter().find(|(listed, name, _)| *listed == service && *name == method);
    row.map_or(&[], |(_, _, roles)| *roles)
}

/// Every role.
const ROLES: &[&str] = &["customer", "admin", "auditor", "screening", "marketing", "reservation"];

/// Calls a method with an empty message. A caller who is accepted learns at most that fields are missing.
async fn knock(party: &Party, service: &str, method: &str) -> Option<Refusal> {
    let method = RawMethod::new(service, method);
    match call_raw(party, &method, bytes::Bytes::new(), Duration::from_secs(10)).await {
        Answer::Messages(_) => None,
        Answer::Refused(status) => Some(Refusal::of(&status).unwrap_or_else(|| panic!("{method}: {status:?}"))),
    }
}

#[test]
fn the_table_names_every_method_of_the_contract() {
    let listed: Vec<String> = ACCESS.iter().map(|(service, method, _)| format!("{service}/{method}")).collect();
    let mut missing = crate::methods::methods();
    missing.retain(|method| !listed.contains(method));
    assert_eq!(missing, [""; 0], "methods without a rule of access");
    assert_eq!(listed.len(), crate::methods::methods().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_lets_in_its_roles_and_nobody_else() {
    let checkup = launch().start().await;
    let stranger = checkup.stranger().await;
    let forger = checkup.party(Some("not.a.token".to_owned())).await;
    for (service, method, allowed) in ACCESS {
        let public = allowed.contains(&"public");
        let strange = knock(&stranger, service, method).await;
        let missing = strange.as_ref().is_some_and(|refusal| refusal.reason == "CREDENTIALS_MISSING");
        assert_eq!(missing, !public, "{method} without a token: {strange:?}");
        if missing {
            assert_eq!(strange.map(|refusal| refusal.code), Some(Code::Unauthenticated));
        }
        let forged = knock(&forger, service, method).await.expect("a bad token is refused everywhere");
        assert_eq!((forged.code, forged.reason.as_str()), (Code::Unauthenticated, "CREDENTIALS_INVALID"), "{method}");
    }
    for role in ROLES {
        let party = match *role {
            "customer" => checkup.customer("kim").await,
            "admin" => checkup.admin().await,
            "auditor" => checkup.auditor().await,
            service => checkup.service(service).await,
        };
        for (service, method, allowed) in ACCESS {
            let answer = knock(&party, service, method).await;
            let refused = answer.as_ref().is_some_and(|refusal| refusal.code == Code::PermissionDenied);
            let welcome = allowed.contains(role) || allowed.contains(&"public");
            assert_eq!(refused, !welcome, "{method} as {role}: {answer:?}");
            if let Some(refusal) = answer.filter(|_| refused) {
                assert_eq!(refusal.reason, "ROLE_REQUIRED", "the role is judged before the request: {refusal:?}");
                assert!(!refusal.value("requiredRole").is_empty());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_ours_is_worth_nothing() {
    let checkup = launch().start().await;
    let tokens = checkup.tokens().clone();
    let good = Claims::new("customer", "kim");
    let past = Claims { exp: 1_000_000_000, ..good.clone() };
    let elsewhere = Claims { aud: "another-system".to_owned(), ..good.clone() };
    let foreign = Claims { iss: "another-issuer".to_owned(), ..good.clone() };
    let unknown_role = Claims { role: "root".to_owned(), ..good.clone() };
    let nobody = Claims { sub: String::new(), ..good.clone() };
    let path = Claims { sub: "../kim".to_owned(), ..good.clone() };
    let tampered = {
        let token = tokens.sign(&good);
        let (head, signature) = token.rsplit_once('.').expect("three parts");
        let other = tokens.sign(&Claims::new("admin", "kim"));
        let (other_head, _) = other.rsplit_once('.').expect("three parts");
        assert_ne!(head, other_head);
        format!("{other_head}.{signature}")
    };
    let bad = [
        ("expired", tokens.sign(&past)),
        ("wrong audience", tokens.sign(&elsewhere)),
        ("wrong issuer", tokens.sign(&foreign)),
        ("unknown role", tokens.sign(&unknown_role)),
        ("no subject", tokens.sign(&nobody)),
        ("a path for a subject", tokens.sign(&path)),
        ("wrong key", tokens.sign_with_another_key(&good)),
        ("HS256", tokens.sign_with_hs256(&good)),
        ("alg none", tokens.unsigned(&good)),
        ("changed after signing", tampered),
        ("garbage", "garbage".to_owned()),
        ("empty", String::new()),
        ("a million dots", ".".repeat(10_000)),
    ];
    for (what, token) in bad {
        let party = checkup.party(Some(token)).await;
        let list = party.screening().list_screenings(ListScreeningsRequest::default()).await;
        let refusal = refused(list, Reason::CredentialsInvalid);
        assert_eq!(refusal.code, Code::Unauthenticated, "{what}");
        // A bad token is refused even if the method needs none, so that its owner notices.
        let request = GetHospitalRequest { name: "hospitals/nowhere".to_owned() };
        refused(party.hospital().get_hospital(request).await, Reason::CredentialsInvalid);
    }
    let fine = checkup.party(Some(tokens.sign(&good))).await;
    fine.screening().list_screenings(ListScreeningsRequest::default()).await.expect("the good one is let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_makes_tokens_that_are_let_in_until_they_end() {
    let checkup = launch().start().await;
    let data = checkup.launch().data().path().to_string_lossy().into_owned();
    let token = async |more: &[&str]| {
        let made = checkup.launch().run(&[&["token", "--data-dir", data.as_str()], more].concat()).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        assert_eq!(made.stdout.lines().count(), 1, "the bare token: {made:?}");
        made.stdout.trim().to_owned()
    };
    let customer = token(&["--role", "customer", "--subject", "kim"]).await;
    let party = checkup.party(Some(customer)).await;
    let page = GetMyPageRequest { name: "customers/kim/myPage".to_owned(), ..GetMyPageRequest::default() };
    party.my_page().get_my_page(page).await.expect("kim's own page");

    let limited = token(&["--role", "admin", "--subject", "lee", "--hospitals", "one-clinic,two-clinic"]).await;
    let limited = Desk::of(&checkup.party(Some(limited)).await);
    limited.register("one-clinic", Desk::ZONE, Vec::new()).await.expect("a listed id");
    refused(limited.register("three-clinic", Desk::ZONE, Vec::new()).await, Reason::NotOwner);
    refused(limited.register("", Desk::ZONE, Vec::new()).await, Reason::NotOwner);

    let brief = token(&["--role", "auditor", "--subject", "kang", "--ttl", "1s"]).await;
    let brief = checkup.party(Some(brief)).await;
    testkit::eventually("a token to expire", async || {
        match brief.screening().list_screenings(ListScreeningsRequest::default()).await {
            Ok(_) => Err("still let in".to_owned()),
            refusal => Ok(refused(refusal, Reason::CredentialsInvalid)),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_others_looks_like_what_does_not_exist() {
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("own-clinic", &[7], 5).await.remove(0);
    let kim = Desk::of(&checkup.customer("kim").await).book("kim", &slot, "").await.expect("a place");
    let lee = checkup.customer("lee").await;
    let elsewhere = checkup.party(Some(checkup.tokens().admin("choi", "other-clinic"))).await;
    let unknown = "screenings/01890a5d-ac96-774b-bcce-b302099a8057";
    for stranger in [&lee, &elsewhere] {
        let desk = Desk::of(stranger);
        for (theirs, nobodys) in [
            (desk.screening(&kim.name).await, desk.screening(unknown).await),
            (desk.cancel(&kim.name, "").await, desk.cancel(unknown, "").await),
        ] {
            let (theirs, nobodys) = (refused(theirs, Reason::NotOwner), refused(nobodys, Reason::NotOwner));
            assert_eq!(theirs.message, nobodys.message, "word for word");
            assert_eq!(theirs.metadata, nobodys.metadata);
            assert_eq!(theirs.resource, nobodys.resource, "no resource is named, or the same one");
        }
        let mut answers = Vec::new();
        for name in [kim.name.replace("screenings", "reservations"), unknown.replace("screenings", "reservations")] {
            let request = GetReservationRequest { name, ..GetReservationRequest::default() };
            answers.push(refused(stranger.reservation().get_reservation(request).await, Reason::NotOwner));
        }
        assert_eq!(answers[0].message, answers[1].message);
    }
    for filter in ["customer=\"customers/kim\"", "customer=\"customers/nobody\""] {
        let request = ListScreeningsRequest { filter: filter.to_owned(), ..ListScreeningsRequest::default() };
        refused(lee.screening().list_screenings(request).await, Reason::NotOwner);
    }
    let own = lee.screening().list_screenings(ListScreeningsRequest::default()).await.expect("one's own");
    assert!(own.into_inner().screenings.is_empty());
    let page = GetMyPageRequest { name: "customers/kim/myPage".to_owned(), ..GetMyPageRequest::default() };
    refused(lee.my_page().get_my_page(page).await, Reason::NotOwner);
    refused(Desk::of(&lee).book("kim", &slot, "").await, Reason::NotOwner);

    // An admin of other hospitals cannot tell whether this one exists.
    for name in ["hospitals/own-clinic", "hospitals/no-such-clinic"] {
        let request = DeleteHospitalRequest { name: name.to_owned(), ..DeleteHospitalRequest::default() };
        refused(elsewhere.hospital().delete_hospital(request).await, Reason::NotOwner);
        let hospital = hospital::Hospital {
            name: name.to_owned(),
            display_name: "Mine now".to_owned(),
            ..hospital::Hospital::default()
        };
        let request = UpdateHospitalRequest { hospital: Some(hospital), update_mask: None };
        refused(elsewhere.hospital().update_hospital(request).await, Reason::NotOwner);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_acts_for_customers_of_its_hospitals_and_the_door_to_capacity_stays_shut() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let slot = Desk::of(&admin).open("own-clinic", &[7], 5).await.remove(0);
    let other = Desk::of(&admin).open("other-clinic", &[8], 5).await.remove(0);
    let clerk = checkup.party(Some(checkup.tokens().admin("choi", "own-clinic"))).await;
    let desk = Desk::of(&clerk);
    let booked = desk.book("kim", &slot, "").await.expect("on behalf of kim");
    refused(desk.book("kim", &other, "").await, Reason::NotOwner);
    Desk::of(&admin).book("kim", &other, "").await.expect("an admin of all");
    let listed = clerk.screening().list_screenings(ListScreeningsRequest::default()).await.expect("its own hospitals");
    assert_eq!(listed.into_inner().screenings.iter().map(|one| &one.slot).collect::<Vec<_>>(), [&slot]);
    assert_eq!(desk.screening(&booked.name).await.expect("a screening of its hospital").customer, "customers/kim");

    for party in [&admin, &clerk, &checkup.customer("kim").await, &checkup.service("marketing").await] {
        let request = ReserveCapacityRequest {
            slot: slot.clone(),
            claim_id: "01890a5d-ac96-774b-bcce-b302099a8057.1".to_owned(),
            allow_waitlist: true,
        };
        let refusal = refused(party.capacity().reserve_capacity(request).await, Reason::RoleRequired);
        assert_eq!(refusal.value("requiredRole"), "service:screening");
    }
    assert_eq!(desk.booked(&slot).await, Ok(1));

    // The role is checked before the message, and the message before the ownership.
    let nonsense = CreateScreeningRequest {
        screening: Some(Screening { customer: "nobody".to_owned(), ..Screening::default() }),
        request_id: "not a uuid".to_owned(),
        ..CreateScreeningRequest::default()
    };
    let auditor = checkup.auditor().await;
    refused(auditor.screening().create_screening(nonsense.clone()).await, Reason::RoleRequired);
    let kim = checkup.customer("kim").await;
    refused(kim.screening().create_screening(nonsense).await, Reason::FieldInvalid);
}
