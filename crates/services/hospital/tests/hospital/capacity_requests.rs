//! Capacity requests, from their creation to the decision.

use contract::event::v1::event_envelope::Payload;
use contract::hospital::v1;
use fault::Reason;
use jiff::SignedDuration;
use runtime::clock::Clock;
use testkit::{Party, refused};
use tonic::{Response, Status};
use v1::CapacityRequest;
use v1::capacity_request::State;

use crate::support::{House, get_slot, request_id};

fn increase(slot: &str, additional_capacity: i32) -> v1::CreateCapacityRequestRequest {
    let request = CapacityRequest {
        slot: slot.into(),
        additional_capacity,
        justification: "everybody asks for it".into(),
        state: State::Approved.into(),
        decision_note: "ignored".into(),
        ..CapacityRequest::default()
    };
    v1::CreateCapacityRequestRequest {
        parent: slot.split("/slots").next().unwrap().into(),
        capacity_request: Some(request),
        request_id: request_id(),
    }
}

async fn ask(party: &Party, request: v1::CreateCapacityRequestRequest) -> Result<CapacityRequest, Status> {
    party.hospital().create_capacity_request(request).await.map(Response::into_inner)
}

async fn approve(party: &Party, name: &str, etag: &str, request_id: &str) -> Result<CapacityRequest, Status> {
    let (name, note, etag) = (name.to_owned(), "gladly".to_owned(), etag.to_owned());
    let request = v1::ApproveCapacityRequestRequest { name, note, etag, request_id: request_id.into() };
    party.hospital().approve_capacity_request(request).await.map(Response::into_inner)
}

async fn reject(party: &Party, name: &str) -> Result<CapacityRequest, Status> {
    let request = v1::RejectCapacityRequestRequest { name: name.into(), note: "no".into(), ..Default::default() };
    party.hospital().reject_capacity_request(request).await.map(Response::into_inner)
}

async fn get(party: &Party, name: &str) -> Result<CapacityRequest, Status> {
    let request = v1::GetCapacityRequestRequest { name: name.into() };
    party.hospital().get_capacity_request(request).await.map(Response::into_inner)
}

async fn list(party: &Party, filter: &str) -> Vec<String> {
    let request = v1::ListCapacityRequestsRequest {
        parent: "hospitals/seoul".into(),
        page_size: 2,
        filter: filter.into(),
        ..Default::default()
    };
    let mut request = request;
    let mut names = Vec::new();
    loop {
        let page = party.hospital().list_capacity_requests(request.clone()).await.unwrap().into_inner();
        names.extend(page.capacity_requests.into_iter().map(|request| request.name));
        if page.next_page_token.is_empty() {
            return names;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn an_approved_request_raises_the_capacity_once() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let (marketing, admin) = (house.marketing().await, house.admin_of("seoul").await);
    let request = increase(&slot, 5);
    let pending = ask(&marketing, request.clone()).await.unwrap();
    assert_eq!((pending.state(), pending.decision_note.as_str()), (State::Pending, ""));
    let fortnight = pending.expire_time.unwrap().seconds - pending.create_time.unwrap().seconds;
    assert_eq!(fortnight, 14 * 24 * 3_600);
    assert_eq!(ask(&marketing, request).await.unwrap(), pending, "a replay answers it");
    assert_eq!(get_slot(&admin, &slot).await.capacity, 10, "asking changes nothing");
    refused(approve(&admin, &pending.name, "\"7\"", "").await, Reason::EtagMismatch);
    let id = request_id();
    let approved = approve(&admin, &pending.name, &pending.etag, &id).await.unwrap();
    assert_eq!((approved.state(), approved.decision_note.as_str()), (State::Approved, "gladly"));
    assert_eq!(approve(&admin, &pending.name, &pending.etag, &id).await.unwrap(), approved);
    assert_eq!(get_slot(&admin, &slot).await.capacity, 15);
    let decided = refused(reject(&admin, &pending.name).await, Reason::CapacityRequestDecided);
    assert_eq!(decided.value("state"), "APPROVED");
    let events = house.sound_events().await;
    let [.., asked, raised, event] = events.as_slice() else { panic!("too few events") };
    assert!(matches!(asked.payload, Some(Payload::CapacityIncreaseRequested(_))));
    let Some(Payload::SlotCapacityChanged(changed)) = &raised.payload else { panic!("another fact") };
    assert_eq!((changed.capacity_request.as_str(), changed.new_capacity), (pending.name.as_str(), 15));
    let Some(Payload::CapacityIncreaseDecided(decision)) = &event.payload else { panic!("another fact") };
    assert!(decision.approved);
    house.stop().await;
}

#[tokio::test]
async fn a_rejected_request_changes_no_capacity() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let (marketing, admin) = (house.marketing().await, house.admin_of("seoul").await);
    let pending = ask(&marketing, increase(&slot, 5)).await.unwrap();
    let rejected = reject(&admin, &pending.name).await.unwrap();
    assert_eq!((rejected.state(), rejected.decision_note.as_str()), (State::Rejected, "no"));
    for party in [&marketing, &admin, &house.served.auditor().await] {
        assert_eq!(get(party, &pending.name).await.unwrap(), rejected);
    }
    refused(approve(&admin, &pending.name, "", "").await, Reason::CapacityRequestDecided);
    assert_eq!(get_slot(&admin, &slot).await.capacity, 10);
    house.stop().await;
}

#[tokio::test]
async fn asking_is_refused_where_nothing_could_come_of_it() {
    let (house, _dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let (marketing, admin) = (house.marketing().await, house.admin().await);
    let unknown = format!("hospitals/seoul/slots/{}", house.day(5));
    refused(ask(&marketing, increase(&unknown, 1)).await, Reason::SlotNotFound);
    refused(ask(&marketing, increase("hospitals/nowhere/slots/2999-01-01", 1)).await, Reason::HospitalNotFound);
    let above = refused(ask(&marketing, increase(&slot, 99_991)).await, Reason::FieldInvalid);
    assert_eq!(above.fields(), ["capacity_request.additional_capacity"]);
    let mut late = increase(&slot, 1);
    let now = house.now().as_second();
    late.capacity_request.as_mut().unwrap().expire_time = Some(prost_types::Timestamp { seconds: now - 1, nanos: 0 });
    assert_eq!(refused(ask(&marketing, late).await, Reason::FieldInvalid).fields(), ["capacity_request.expire_time"]);
    let pending = ask(&marketing, increase(&slot, 1)).await.unwrap();
    let close = v1::CloseSlotRequest { name: slot.clone(), ..Default::default() };
    admin.hospital().close_slot(close).await.unwrap();
    refused(approve(&admin, &pending.name, "", "").await, Reason::SlotClosed);
    assert_eq!(get(&admin, &pending.name).await.unwrap().state(), State::Pending, "a refusal decides nothing");
    house.stop().await;
}

#[tokio::test]
async fn a_request_that_nobody_decided_in_time_has_expired() {
    let (house, dir) = House::start().await;
    let slot = house.slot("seoul", 10).await;
    let first = ask(&house.marketing().await, increase(&slot, 1)).await.unwrap();
    let second = ask(&house.marketing().await, increase(&slot, 2)).await.unwrap();
    reject(&house.admin().await, &second.name).await.unwrap();
    assert_eq!(list(&house.admin().await, "state=PENDING").await, [first.name.as_str()]);
    assert_eq!(list(&house.admin().await, "state!=EXPIRED").await, [second.name.as_str(), &first.name]);
    house.stop().await;
    let later = Clock::shifted(SignedDuration::from_hours(24 * 16));
    let house = House::open(dir.path(), later, None).await;
    let admin = house.admin().await;
    assert_eq!(get(&admin, &first.name).await.unwrap().state(), State::Expired);
    assert_eq!(get(&admin, &second.name).await.unwrap().state(), State::Rejected);
    let decided = refused(approve(&admin, &first.name, "", "").await, Reason::CapacityRequestDecided);
    assert_eq!(decided.value("state"), "EXPIRED");
    assert_eq!(list(&admin, "state=PENDING").await, Vec::<String>::new());
    assert_eq!(list(&admin, "state=EXPIRED").await, [first.name.as_str()]);
    assert_eq!(list(&admin, "state!=EXPIRED").await, [second.name.as_str()]);
    house.stop().await;
}

#[tokio::test]
async fn a_list_is_newest_first_and_filtered_by_slot_and_state() {
    let (house, _dir) = House::start().await;
    let slots = house.hospital("seoul", &[1, 2], 10).await;
    let marketing = house.marketing().await;
    let mut names = Vec::new();
    for i in 0..5 {
        names.insert(0, ask(&marketing, increase(&slots[i % 2], 1)).await.unwrap().name);
    }
    assert_eq!(list(&marketing, "").await, names);
    let filter = format!("slot=\"{}\" AND state=PENDING", slots[1]);
    assert_eq!(list(&marketing, &filter).await, [names[1].as_str(), &names[3]]);
    assert_eq!(list(&marketing, &format!("slot!=\"{}\"", slots[1])).await.len(), 3);
    let wrong = v1::ListCapacityRequestsRequest {
        parent: "hospitals/seoul".into(),
        filter: "additional_capacity=1".into(),
        ..Default::default()
    };
    refused(marketing.hospital().list_capacity_requests(wrong).await, Reason::FilterInvalid);
    house.stop().await;
}
