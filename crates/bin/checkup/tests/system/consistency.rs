//! Consistency tokens: a read that names a write never answers anything older than that write.

use std::time::Duration;

use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use fault::Reason;
use mypage::{GetMyPageRequest, ListMyPageItemsRequest};
use reservation::GetReservationRequest;
use reservation::reservation::State as ReservationState;
use screening::screening::State;
use testkit::{Desk, Party, refused, rush};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{embedded, launch};

async fn reservation_of(party: &Party, one: &screening::Screening) -> Result<reservation::Reservation, Status> {
    let request = GetReservationRequest {
        name: one.name.replace("screenings/", "reservations/"),
        min_consistency_token: one.consistency_token.clone(),
    };
    party.reservation().get_reservation(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_names_a_write_sees_it_at_once() {
    const CUSTOMERS: usize = 40;
    let checkup = launch().start().await;
    let slot = Desk::of(&checkup.admin().await).open("read-your-writes", &[7], 1_000).await.remove(0);
    let customers = checkup.served().customers("reader", CUSTOMERS, 4).await;
    rush(CUSTOMERS, |i| {
        let (party, slot, customer) = (customers[i].clone(), slot.clone(), format!("reader-{i}"));
        async move {
            let desk = Desk::of(&party);
            let booked = desk.book(&customer, &slot, "").await.expect("a place");
            let row = reservation_of(&party, &booked).await.expect("never from before");
            assert_eq!((row.state(), row.screening_version), (ReservationState::Registered, 1));
            let cancelled = desk.cancel(&booked.name, "").await.expect("cancelled");
            assert_ne!(cancelled.consistency_token, booked.consistency_token);
            let page = GetMyPageRequest {
                name: format!("customers/{customer}/myPage"),
                min_consistency_token: cancelled.consistency_token.clone(),
                ..GetMyPageRequest::default()
            };
            let page = party.my_page().get_my_page(page).await.expect("never from before").into_inner();
            assert_eq!((page.active_count, page.upcoming.len()), (0, 0), "{page:?}");
            let row = reservation_of(&party, &cancelled).await.expect("never from before");
            assert_eq!((row.state(), row.screening_version), (ReservationState::Cancelled, 2));
            let items = ListMyPageItemsRequest {
                parent: format!("customers/{customer}/myPage"),
                min_consistency_token: cancelled.consistency_token,
                ..ListMyPageItemsRequest::default()
            };
            let items = party.my_page().list_my_page_items(items).await.expect("never from before").into_inner().items;
            let shown: Vec<_> = items.iter().map(|item| (item.screening_version, item.state.as_str())).collect();
            assert_eq!(shown, [(2, "CANCELLED")]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_cannot_catch_up_says_so_before_the_deadline() {
    let here = launch().start().await;
    let elsewhere = launch().start().await;
    let slot = Desk::of(&elsewhere.admin().await).open("elsewhere", &[7], 5).await.remove(0);
    let booked_elsewhere = Desk::of(&elsewhere.customer("kim").await).book("kim", &slot, "").await.expect("a place");
    let kim = here.customer("kim").await;
    for (deadline, at_least) in [(300, 200), (1_000, 850)] {
        let deadline = Duration::from_millis(deadline);
        let mut request = Request::new(GetMyPageRequest {
            name: "customers/kim/myPage".to_owned(),
            min_consistency_token: booked_elsewhere.consistency_token.clone(),
            ..GetMyPageRequest::default()
        });
        request.set_timeout(deadline);
        let asked = Instant::now();
        refused(kim.my_page().get_my_page(request).await, Reason::ViewLagging);
        let waited = asked.elapsed();
        assert!(waited >= Duration::from_millis(at_least) && waited < deadline, "{waited:?} of {deadline:?}");
    }
    // A call with a long deadline is refused after five seconds.
    let asked = Instant::now();
    refused(reservation_of(&here.auditor().await, &booked_elsewhere).await, Reason::ViewLagging);
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_millis(4_800) && waited < Duration::from_secs(7), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_pending_booking_works_too() {
    let checkup = embedded().without("hospital").start().await;
    let kim = checkup.customer("kim").await;
    let slot = format!("hospitals/far-away/slots/{}", testkit::in_days(Desk::ZONE, 7));
    let request = screening::CreateScreeningRequest {
        screening: Some(screening::Screening {
            customer: "customers/kim".to_owned(),
            slot,
            ..screening::Screening::default()
        }),
        accept_pending: true,
        ..screening::CreateScreeningRequest::default()
    };
    let pending = kim.screening().create_screening(request).await.expect("accepted").into_inner();
    assert_eq!(pending.state(), State::Pending);
    let page = GetMyPageRequest {
        name: "customers/kim/myPage".to_owned(),
        min_consistency_token: pending.consistency_token.clone(),
        ..GetMyPageRequest::default()
    };
    let page = kim.my_page().get_my_page(page).await.expect("never from before").into_inner();
    assert_eq!(page.active_count, 1, "my-page shows what is pending");
    // The ledger has read the event and has no row for it, so a customer gets the same refusal as for any foreign
    // reservation.
    refused(reservation_of(&kim, &pending).await, Reason::NotOwner);
    refused(reservation_of(&checkup.auditor().await, &pending).await, Reason::ReservationNotFound);
}
