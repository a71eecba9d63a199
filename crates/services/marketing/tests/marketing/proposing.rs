//! Proposals: who may make them, what Hospital receives, and what the caller gets in return.

use std::time::Duration;

use contract::marketing::v1::ProposeCapacityIncreaseRequest;
use domain::access::Caller;
use fault::{Fault, Reason};
use runtime::identity::Signer;
use testkit::{Party, refused, within};
use tonic::{Request, Status};

use crate::stand_in::{Mood, StandIn};
use crate::support::{House, Plan, slot};

fn proposal(slot: &str) -> ProposeCapacityIncreaseRequest {
    ProposeCapacityIncreaseRequest {
        slot: slot.into(),
        additional_capacity: 20,
        justification: "sold out in an hour".into(),
        request_id: String::new(),
    }
}

async fn propose(party: &Party, message: ProposeCapacityIncreaseRequest) -> Result<String, Status> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(5));
    let answer = party.marketing().propose_capacity_increase(request).await?;
    Ok(answer.into_inner().capacity_request)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_becomes_a_capacity_request_once() {
    let dir = tempfile::tempdir().unwrap();
    let open = StandIn::open(dir.path()).await;
    let house = House::open(dir.path(), Plan { hospital: Some(open.uri.clone()), ..Plan::default() }).await;
    let marketing = house.served.service("marketing").await;
    let lee = house.served.party(Some(house.served.tokens().admin("lee", "seoul"))).await;
    let name = slot("seoul", 5);

    let chosen = "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30";
    let identified = ProposeCapacityIncreaseRequest { request_id: chosen.into(), ..proposal(&name) };
    let first = propose(&marketing, identified.clone()).await.unwrap();
    assert!(first.starts_with("hospitals/seoul/capacityRequests/"), "{first}");
    let shouted = ProposeCapacityIncreaseRequest { request_id: chosen.to_uppercase(), ..identified.clone() };
    assert_eq!(propose(&marketing, shouted).await.unwrap(), first);
    assert_ne!(propose(&lee, identified).await.unwrap(), first);
    assert_ne!(
        propose(&marketing, proposal(&name)).await.unwrap(),
        propose(&marketing, proposal(&name)).await.unwrap()
    );

    let calls = open.hospital.calls();
    let call = &calls[0];
    assert_eq!(call.caller, Caller::Service("marketing".into()));
    assert_eq!(call.message.parent, "hospitals/seoul");
    let asked = call.message.capacity_request.as_ref().unwrap();
    assert_eq!((asked.slot.as_str(), asked.additional_capacity), (name.as_str(), 20));
    assert_eq!(asked.justification, "sold out in an hour");
    assert!(call.remaining < Duration::from_secs(5), "{:?}", call.remaining);
    assert_eq!(calls[1].message.request_id, call.message.request_id);
    assert_ne!(calls[2].message.request_id, call.message.request_id);
    assert_eq!(calls[3].message.request_id, "");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_the_content_and_the_hospital_are_checked_in_this_order() {
    let (house, _dir) = House::start(Plan::default()).await;
    let lee = house.served.party(Some(house.served.tokens().admin("lee", "seoul"))).await;
    let broken = ProposeCapacityIncreaseRequest {
        slot: "hospitals/seoul".into(),
        additional_capacity: 0,
        justification: "x".repeat(501),
        request_id: "7".into(),
    };
    for (blind, reason) in [
        (house.served.party(None).await, Reason::CredentialsMissing),
        (house.served.customer("kim").await, Reason::RoleRequired),
        (house.served.auditor().await, Reason::RoleRequired),
        (house.served.service("screening").await, Reason::RoleRequired),
    ] {
        refused(propose(&blind, broken.clone()).await, reason);
    }
    let refusal = refused(propose(&lee, broken).await, Reason::FieldInvalid);
    let complaints = [
        ("slot", "FIELD_INVALID"),
        ("additional_capacity", "FIELD_INVALID"),
        ("justification", "FIELD_INVALID"),
        ("request_id", "REQUEST_ID_MALFORMED"),
    ];
    assert_eq!(refusal.complaints(), complaints);
    let most = ProposeCapacityIncreaseRequest { additional_capacity: 100_001, ..proposal(&slot("busan", 5)) };
    assert_eq!(refused(propose(&lee, most).await, Reason::FieldInvalid).fields(), ["additional_capacity"]);
    refused(propose(&lee, proposal(&slot("busan", 5))).await, Reason::NotOwner);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_hospital_is_passed_on() {
    let dir = tempfile::tempdir().unwrap();
    let open = StandIn::open(dir.path()).await;
    let house = House::open(dir.path(), Plan { hospital: Some(open.uri.clone()), ..Plan::default() }).await;
    let marketing = house.served.service("marketing").await;
    let name = slot("seoul", 5);
    for reason in [Reason::HospitalNotFound, Reason::HospitalDeleted, Reason::RequestIdReused, Reason::Overloaded] {
        let fault = Fault::new(reason, "because of that").with("hospital", "hospitals/seoul");
        open.hospital.mood(Mood::Refuse(fault));
        let refusal = refused(propose(&marketing, proposal(&name)).await, reason);
        assert_eq!(refusal.message, "because of that");
        assert_eq!(refusal.value("hospital"), "hospitals/seoul");
        assert_eq!(refusal.retry_after.is_some(), reason.retryable());
    }
    // the caller is not to blame if Hospital refuses this service's identity
    open.hospital.mood(Mood::Refuse(Fault::new(Reason::CredentialsInvalid, "who are you")));
    refused(propose(&marketing, proposal(&name)).await, Reason::Internal);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hospital_out_of_reach_is_unavailable_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let open = StandIn::open(dir.path()).await;
    let house = House::open(dir.path(), Plan { hospital: Some(open.uri.clone()), ..Plan::default() }).await;
    let marketing = house.served.service("marketing").await;
    let name = slot("seoul", 5);
    open.hospital.mood(Mood::Refuse(Fault::new(Reason::NotReady, "starting")));
    refused(propose(&marketing, proposal(&name)).await, Reason::HospitalUnavailable);

    open.hospital.mood(Mood::Silence);
    let mut request = Request::new(proposal(&name));
    request.set_timeout(Duration::from_millis(700));
    let silent = marketing.clone();
    let call = async move { silent.marketing().propose_capacity_increase(request).await };
    let refusal = refused(within(Duration::from_secs(10), "the call", call).await, Reason::HospitalUnavailable);
    assert!(refusal.retry_after.is_some());
    house.stop().await;

    let (house, _dir) = House::start(Plan::default()).await;
    let marketing = house.served.service("marketing").await;
    refused(propose(&marketing, proposal(&name)).await, Reason::HospitalUnavailable);
    house.stop().await;

    // a server that accepts this service's identity and does not serve HospitalService
    let (dir, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = House::open(beside.path(), Plan::default()).await;
    std::fs::copy(beside.path().join(Signer::FILE), dir.path().join(Signer::FILE)).unwrap();
    let hospital = Some(format!("http://{}", other.served.addr()));
    let house = House::open(dir.path(), Plan { hospital, ..Plan::default() }).await;
    let marketing = house.served.service("marketing").await;
    refused(propose(&marketing, proposal(&name)).await, Reason::HospitalUnavailable);
    house.stop().await;
    other.stop().await;
}
