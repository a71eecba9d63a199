//! Every list of the contract that grows, behind one type.

use contract::capacity::v1 as capacity;
use contract::hospital::v1 as hospital;
use contract::marketing::v1::ListDemandSignalsRequest;
use contract::mypage::v1::ListMyPageItemsRequest;
use contract::reservation::v1::ListReservationsRequest;
use contract::screening::v1::ListScreeningsRequest;
use domain::civil::encode_date;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::ToSpan;
use jiff::civil::Date;
use tonic::Status;

use crate::Error;
use crate::caller::{Caller, Token};
use crate::testbed::Testbed;

/// The number of rows of a page, and the token of the next page.
pub(in crate::goal) struct Page {
    pub(in crate::goal) rows: usize,
    pub(in crate::goal) next: String,
}

type Fetch = Box<dyn Fn(String, i32) -> BoxFuture<'static, Result<Page, Status>> + Send + Sync>;

/// A list of the contract.
pub(in crate::goal) struct List {
    pub(in crate::goal) name: &'static str,
    /// Fetches a page by its token and size.
    pub(in crate::goal) fetch: Fetch,
}

/// Makes a [`List`] from its name, caller, client method, request and field of rows.
macro_rules! list {
    ($name:expr, $caller:expr, $client:ident($($index:expr)?).$method:ident, $request:expr, $rows:ident) => {{
        let (caller, request): (Caller, _) = ($caller.clone(), $request);
        let fetch: Fetch = Box::new(move |page_token, page_size| {
            let (caller, mut request) = (caller.clone(), request.clone());
            (request.page_token, request.page_size) = (page_token, page_size);
            async move {
                let page = caller.$client($($index)?).$method(caller.request(request)).await?.into_inner();
                Ok(Page { rows: page.$rows.len(), next: page.next_page_token })
            }
            .boxed()
        });
        List { name: $name, fetch }
    }};
}

/// The hospital, the customer and the date whose rows are listed.
pub(in crate::goal) struct Subjects {
    pub(in crate::goal) hospital: String,
    pub(in crate::goal) customer: String,
    /// The first date of the searched month.
    pub(in crate::goal) date: Date,
}

/// Every list of the services.
pub(in crate::goal) fn lists(testbed: &Testbed, subjects: &Subjects) -> Result<Vec<List>, Error> {
    let auditor = |service| testbed.caller(service, Token::auditor(&testbed.signer)?);
    let (hospitals, screenings) = (auditor("hospital")?, auditor("screening")?);
    let (ledger, all_hospitals) = (auditor("reservation")?, hospital::ListHospitalsRequest::default());
    let Subjects { hospital: parent, customer, date } = subjects;
    let slot = format!("{parent}/slots/{date}");
    let (start_date, end_date) = (Some(encode_date(*date)), Some(encode_date(*date + 31.days())));
    let of_hospital = ListScreeningsRequest { filter: format!("hospital=\"{parent}\""), ..Default::default() };
    let by_date = ListScreeningsRequest { order_by: "date".to_owned(), ..of_hospital.clone() };
    let search = hospital::SearchAvailabilityRequest { start_date, end_date, ..Default::default() };
    let claims = capacity::ListCapacityClaimsRequest { slot, ..Default::default() };
    let requests = hospital::ListCapacityRequestsRequest { parent: parent.clone(), ..Default::default() };
    let items = ListMyPageItemsRequest { parent: format!("{customer}/myPage"), ..Default::default() };
    Ok(vec![
        list!("ListScreenings", screenings, screening(0).list_screenings, ListScreeningsRequest::default(), screenings),
        list!("ListScreenings of a hospital", screenings, screening(0).list_screenings, of_hospital, screenings),
        list!("ListScreenings of a hospital by date", screenings, screening(0).list_screenings, by_date, screenings),
        list!(
            "ListReservations",
            ledger,
            reservation().list_reservations,
            ListReservationsRequest::default(),
            reservations
        ),
        list!("ListMyPageItems of a customer", auditor("mypage")?, my_page(0).list_my_page_items, items, items),
        list!("ListHospitals", hospitals, hospital().list_hospitals, all_hospitals, hospitals),
        list!("SearchAvailability of a month", hospitals, hospital().search_availability, search, available_slots),
        list!("ListCapacityClaims of a slot", hospitals, capacity(0).list_capacity_claims, claims, claims),
        list!(
            "ListCapacityRequests of a hospital",
            hospitals,
            hospital().list_capacity_requests,
            requests,
            capacity_requests
        ),
        list!(
            "ListDemandSignals",
            testbed.caller("marketing", Token::admin(&testbed.signer)?)?,
            marketing().list_demand_signals,
            ListDemandSignalsRequest::default(),
            signals
        ),
    ])
}
