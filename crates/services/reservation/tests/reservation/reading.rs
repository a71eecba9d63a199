//! Single reads: who may see what, reads that wait for a write, and malformed requests.

use std::time::{Duration, Instant};

use contract::reservation::v1::reservation::State;
use contract::reservation::v1::{GetReservationRequest, ListReservationHistoryRequest, ListReservationsRequest};
use fault::Reason;
use testkit::{Party, refused, within};
use tonic::Request;

use crate::support::{Booking, House, get, history};

const SLOT: &str = "hospitals/seoul/slots/2027-03-01";

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_tell_foreign_from_missing() {
    let (house, _dir) = House::start().await;
    let (booking, missing) = (Booking::new(1, "kim", SLOT), Booking::new(2, "kim", SLOT));
    house.feed(&[booking.event(1, "CONFIRMED")]).await;

    let tokens = house.served.tokens();
    let seoul = house.served.party(Some(tokens.admin("lee", "seoul"))).await;
    let busan = house.served.party(Some(tokens.admin("park", "busan"))).await;
    let kim = house.served.customer("kim").await;
    for sees in [&kim, &seoul, &house.served.admin().await, &house.served.auditor().await] {
        assert_eq!(get(sees, &booking.name(), "").await.unwrap().name, booking.name());
        assert_eq!(history(sees, &booking.name(), 0).await.unwrap().len(), 1);
    }
    let stranger = house.served.customer("lee").await;
    for blind in [&stranger, &busan] {
        let foreign = refused(get(blind, &booking.name(), "").await, Reason::NotOwner);
        let unknown = refused(get(blind, &missing.name(), "").await, Reason::NotOwner);
        assert_eq!((foreign.message, foreign.metadata), (unknown.message, unknown.metadata));
        refused(history(blind, &booking.name(), 0).await, Reason::NotOwner);
    }
    refused(get(&kim, &missing.name(), "").await, Reason::NotOwner);
    refused(get(&seoul, &missing.name(), "").await, Reason::NotOwner);
    let refusal = refused(get(&house.served.admin().await, &missing.name(), "").await, Reason::ReservationNotFound);
    assert_eq!(refusal.value("reservation"), missing.name());
    assert_eq!(refusal.resource, Some(("Reservation".into(), missing.name())));
    refused(history(&house.served.auditor().await, &missing.name(), 0).await, Reason::ReservationNotFound);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_is_checked_before_the_request() {
    let (house, _dir) = House::start().await;
    let nobody = house.served.party(None).await;
    refused(get(&nobody, "nonsense", "").await, Reason::CredentialsMissing);
    refused(history(&nobody, "nonsense", -1).await, Reason::CredentialsMissing);
    let marketing = house.served.service("marketing").await;
    refused(get(&marketing, "nonsense", "").await, Reason::RoleRequired);
    let list = marketing.reservation().list_reservations(ListReservationsRequest::default()).await;
    refused(list, Reason::RoleRequired);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_named_at_once() {
    let (house, _dir) = House::start().await;
    let kim = house.served.customer("kim").await;
    let refusal = refused(get(&kim, "screenings/7", "?").await, Reason::FieldInvalid);
    assert_eq!(refusal.fields(), ["name", "min_consistency_token"]);
    let request = ListReservationsRequest {
        page_size: -1,
        page_token: "?".into(),
        filter: "state=PENDING".into(),
        order_by: "name".into(),
    };
    let refusal = refused(kim.reservation().list_reservations(request).await, Reason::FieldInvalid);
    let complaints = [
        ("page_size", "FIELD_INVALID"),
        ("page_token", "PAGE_TOKEN_INVALID"),
        ("filter", "FILTER_INVALID"),
        ("order_by", "FIELD_INVALID"),
    ];
    assert_eq!(refusal.complaints(), complaints);
    let request = ListReservationHistoryRequest { parent: "x".into(), page_size: -1, page_token: "?".into() };
    let refusal = refused(kim.reservation().list_reservation_history(request).await, Reason::FieldInvalid);
    assert_eq!(refusal.fields(), ["parent", "page_size", "page_token"]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_write_it_names() {
    let (house, _dir) = House::start().await;
    let kim = house.served.customer("kim").await;
    let booking = Booking::new(1, "kim", SLOT);
    house.feed(&[booking.event(1, "CONFIRMED")]).await;
    let (name, token) = (booking.name(), booking.token(2));
    let wait = async { get(&kim, &name, &token).await.unwrap() };
    let write = async { house.feed(&[booking.event(2, "CANCELLED")]).await };
    let (read, ()) = within(Duration::from_secs(20), "the read", async { tokio::join!(wait, write) }).await;
    assert_eq!((read.state(), read.screening_version), (State::Cancelled, 2));

    // a read also waits for a token of another screening, even of one without a reservation
    let pending = Booking::new(2, "kim", SLOT);
    let token = pending.token(1);
    let wait = async { get(&kim, &name, &token).await.unwrap() };
    let write = async { house.feed(&[pending.event(1, "PENDING")]).await };
    let (read, ()) = within(Duration::from_secs(20), "the read", async { tokio::join!(wait, write) }).await;
    assert_eq!(read.name, name);
    refused(get(&kim, &pending.name(), &token).await, Reason::NotOwner);
    house.stop().await;
}

async fn get_within(party: &Party, name: &str, token: &str, timeout: Duration) -> Result<State, tonic::Status> {
    let message = GetReservationRequest { name: name.into(), min_consistency_token: token.into() };
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    party.reservation().get_reservation(request).await.map(|answer| answer.get_ref().state())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_does_not_come_is_a_lagging_view() {
    let (house, _dir) = House::start().await;
    let kim = house.served.customer("kim").await;
    let booking = Booking::new(1, "kim", SLOT);
    house.feed(&[booking.event(1, "CONFIRMED")]).await;

    let short = Duration::from_millis(700);
    let refusal = refused(get_within(&kim, &booking.name(), &booking.token(2), short).await, Reason::ViewLagging);
    assert!(refusal.retry_after.is_some());
    assert_eq!(refusal.value("screening"), booking.screening.to_string());
    assert_eq!(refusal.value("version"), "2");

    let begin = Instant::now();
    let long = Duration::from_secs(60);
    refused(get_within(&kim, &booking.name(), &booking.token(2), long).await, Reason::ViewLagging);
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_millis(4_900) && waited < Duration::from_secs(20), "{waited:?}");
    house.stop().await;
}
