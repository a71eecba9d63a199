//! Who may call which method. This is checked before anything else.

use contract::capacity::v1 as capacity;
use contract::hospital::v1;
use fault::Reason;
use runtime::status::extract;
use testkit::{Party, refused};
use tonic::Status;

use crate::support::{House, claim};

/// Calls a method about resources that do not exist. A caller without permission must not learn that they do not exist.
async fn call(method: &str, party: &Party) -> Result<(), Status> {
    let hospital = || "hospitals/nowhere".to_owned();
    let slot = || "hospitals/nowhere/slots/2999-01-01".to_owned();
    let request = || "hospitals/nowhere/capacityRequests/01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
    let date = || Some(contract::google::r#type::Date { year: 2999, month: 1, day: 1 });
    let new_slot = || Some(v1::Slot { date: date(), ..v1::Slot::default() });
    let (mut rpc, mut capacity) = (party.hospital(), party.capacity());
    match method {
        "CreateHospital" => {
            let hospital = v1::Hospital { display_name: "x".into(), time_zone: "UTC".into(), ..Default::default() };
            let hospital_id = "nowhere".into();
            let message = v1::CreateHospitalRequest { hospital: Some(hospital), hospital_id, ..Default::default() };
            rpc.create_hospital(message).await.map(drop)
        }
        "UpdateHospital" => {
            let hospital = Some(v1::Hospital { name: hospital(), ..Default::default() });
            rpc.update_hospital(v1::UpdateHospitalRequest { hospital, update_mask: None }).await.map(drop)
        }
        "DeleteHospital" => {
            let message = v1::DeleteHospitalRequest { name: hospital(), ..Default::default() };
            rpc.delete_hospital(message).await.map(drop)
        }
        "DeleteHospital validate_only" => {
            let message = v1::DeleteHospitalRequest { name: hospital(), validate_only: true, ..Default::default() };
            rpc.delete_hospital(message).await.map(drop)
        }
        "CreateSlot" => {
            let message = v1::CreateSlotRequest { parent: hospital(), slot: new_slot(), ..Default::default() };
            rpc.create_slot(message).await.map(drop)
        }
        "BatchCreateSlots" | "BatchCreateSlots validate_only" => {
            let requests = vec![v1::CreateSlotRequest { slot: new_slot(), ..Default::default() }];
            let validate_only = method != "BatchCreateSlots";
            let message =
                v1::BatchCreateSlotsRequest { parent: hospital(), requests, validate_only, ..Default::default() };
            rpc.batch_create_slots(message).await.map(drop)
        }
        "SetSlotCapacity" => {
            let change = Some(v1::set_slot_capacity_request::Change::Delta(1));
            let message = v1::SetSlotCapacityRequest { name: slot(), change, ..Default::default() };
            rpc.set_slot_capacity(message).await.map(drop)
        }
        "CloseSlot" => rpc.close_slot(v1::CloseSlotRequest { name: slot(), ..Default::default() }).await.map(drop),
        "BatchCloseSlots" | "BatchCloseSlots validate_only" => {
            let ranges = vec![v1::DateRange { start_date: date(), repeat: None }];
            let validate_only = method != "BatchCloseSlots";
            let message =
                v1::BatchCloseSlotsRequest { parent: hospital(), ranges, validate_only, ..Default::default() };
            rpc.batch_close_slots(message).await.map(drop)
        }
        "ReopenSlot" => rpc.reopen_slot(v1::ReopenSlotRequest { name: slot(), ..Default::default() }).await.map(drop),
        "CreateCapacityRequest" => {
            let increase = v1::CapacityRequest { slot: slot(), additional_capacity: 1, ..Default::default() };
            let message = v1::CreateCapacityRequestRequest {
                parent: hospital(),
                capacity_request: Some(increase),
                ..Default::default()
            };
            rpc.create_capacity_request(message).await.map(drop)
        }
        "GetCapacityRequest" => {
            rpc.get_capacity_request(v1::GetCapacityRequestRequest { name: request() }).await.map(drop)
        }
        "ListCapacityRequests" => {
            let message = v1::ListCapacityRequestsRequest { parent: hospital(), ..Default::default() };
            rpc.list_capacity_requests(message).await.map(drop)
        }
        "ApproveCapacityRequest" => {
            let message = v1::ApproveCapacityRequestRequest { name: request(), ..Default::default() };
            rpc.approve_capacity_request(message).await.map(drop)
        }
        "RejectCapacityRequest" => {
            let message = v1::RejectCapacityRequestRequest { name: request(), ..Default::default() };
            rpc.reject_capacity_request(message).await.map(drop)
        }
        "ReserveCapacity" => {
            let message = capacity::ReserveCapacityRequest { slot: slot(), claim_id: claim(1), ..Default::default() };
            capacity.reserve_capacity(message).await.map(drop)
        }
        "BatchReserveCapacity" => {
            let request = capacity::ReserveCapacityRequest { slot: slot(), claim_id: claim(1), ..Default::default() };
            let call = capacity::ReserveCapacityCall { request: Some(request), ..Default::default() };
            let message = capacity::BatchReserveCapacityRequest { calls: vec![call] };
            let results = capacity.batch_reserve_capacity(message).await?.into_inner().results;
            match results.into_iter().next().and_then(|result| result.result).expect("a result") {
                capacity::reserve_capacity_result::Result::Claim(_) => Ok(()),
                capacity::reserve_capacity_result::Result::Error(refusal) => Err(extract(&refusal)),
            }
        }
        "ReleaseCapacity" => {
            let message = capacity::ReleaseCapacityRequest { slot: slot(), claim_id: claim(1) };
            capacity.release_capacity(message).await.map(drop)
        }
        "GetCapacityClaim" => {
            let message = capacity::GetCapacityClaimRequest { slot: slot(), claim_id: claim(99) };
            capacity.get_capacity_claim(message).await.map(drop)
        }
        "ListCapacityClaims" => {
            let message = capacity::ListCapacityClaimsRequest { slot: slot(), ..Default::default() };
            capacity.list_capacity_claims(message).await.map(drop)
        }
        _ => panic!("no such method: {method}"),
    }
}

/// A method, and the reason of its refusal for an admin of every hospital, an admin of another hospital, a customer, an
/// auditor, Screening and Marketing. `None` is OK.
type Row = (&'static str, [Option<Reason>; 6]);

const OWNER: Option<Reason> = Some(Reason::NotOwner);
const ROLE: Option<Reason> = Some(Reason::RoleRequired);
const NO_HOSPITAL: Option<Reason> = Some(Reason::HospitalNotFound);
const NO_SLOT: Option<Reason> = Some(Reason::SlotNotFound);
const NO_REQUEST: Option<Reason> = Some(Reason::CapacityRequestNotFound);
const NO_CLAIM: Option<Reason> = Some(Reason::ClaimNotFound);

const TABLE: &[Row] = &[
    ("UpdateHospital", [NO_HOSPITAL, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("DeleteHospital", [NO_HOSPITAL, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("DeleteHospital validate_only", [NO_HOSPITAL, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("CreateSlot", [NO_HOSPITAL, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("BatchCreateSlots", [NO_HOSPITAL, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("BatchCreateSlots validate_only", [NO_HOSPITAL, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("SetSlotCapacity", [NO_SLOT, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("CloseSlot", [NO_SLOT, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("BatchCloseSlots", [NO_HOSPITAL, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("BatchCloseSlots validate_only", [NO_HOSPITAL, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("ReopenSlot", [NO_SLOT, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("CreateCapacityRequest", [ROLE, ROLE, ROLE, ROLE, ROLE, NO_HOSPITAL]),
    ("GetCapacityRequest", [NO_REQUEST, OWNER, ROLE, NO_REQUEST, ROLE, NO_REQUEST]),
    ("ListCapacityRequests", [NO_HOSPITAL, OWNER, ROLE, NO_HOSPITAL, ROLE, NO_HOSPITAL]),
    ("ApproveCapacityRequest", [NO_REQUEST, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("RejectCapacityRequest", [NO_REQUEST, OWNER, ROLE, ROLE, ROLE, ROLE]),
    ("ReserveCapacity", [ROLE, ROLE, ROLE, ROLE, NO_HOSPITAL, ROLE]),
    ("BatchReserveCapacity", [ROLE, ROLE, ROLE, ROLE, NO_HOSPITAL, ROLE]),
    ("ReleaseCapacity", [ROLE, ROLE, ROLE, ROLE, None, ROLE]),
    ("GetCapacityClaim", [ROLE, ROLE, ROLE, NO_CLAIM, NO_CLAIM, ROLE]),
    ("ListCapacityClaims", [ROLE, ROLE, ROLE, NO_SLOT, NO_SLOT, ROLE]),
    // Last, because it creates the hospital.
    ("CreateHospital", [None, OWNER, ROLE, ROLE, ROLE, ROLE]),
];

#[tokio::test]
async fn permission_is_decided_before_existence() {
    let (house, _dir) = House::start().await;
    let parties = [
        house.admin().await,
        house.admin_of("busan").await,
        house.served.customer("kim").await,
        house.served.auditor().await,
        house.screening().await,
        house.marketing().await,
    ];
    let anybody = house.anybody().await;
    for (method, expected) in TABLE {
        refused(call(method, &anybody).await, Reason::CredentialsMissing);
        for (party, expected) in parties.iter().zip(expected) {
            let answered = call(method, party).await;
            match expected {
                Some(reason) => drop(refused(answered, *reason)),
                None => assert!(answered.is_ok(), "{method}: {answered:?}"),
            }
        }
    }
    house.stop().await;
}

#[tokio::test]
async fn an_id_the_server_makes_belongs_to_admins_of_every_hospital() {
    let (house, _dir) = House::start().await;
    let listed = house.admin_of("busan,seoul").await;
    refused(listed.hospital().create_hospital(house.draft("", &[], 1)).await, Reason::NotOwner);
    refused(listed.hospital().create_hospital(house.draft("daegu", &[], 1)).await, Reason::NotOwner);
    listed.hospital().create_hospital(house.draft("seoul", &[], 1)).await.unwrap();
    house.stop().await;
}

#[tokio::test]
async fn public_reads_need_no_token_but_no_bad_one_either() {
    let (house, _dir) = House::start().await;
    house.slot("seoul", 1).await;
    let reads = async |party: Party| {
        let name = || "hospitals/seoul".to_owned();
        let get = party.hospital().get_hospital(v1::GetHospitalRequest { name: name() }).await.map(drop);
        let list = party.hospital().list_hospitals(v1::ListHospitalsRequest::default()).await.map(drop);
        let slots = v1::ListSlotsRequest { parent: name(), ..Default::default() };
        [get, list, party.hospital().list_slots(slots).await.map(drop)]
    };
    for answered in reads(house.anybody().await).await {
        answered.unwrap();
    }
    for answered in reads(house.served.party(Some("x.y.z".into())).await).await {
        refused(answered, Reason::CredentialsInvalid);
    }
    house.stop().await;
}
