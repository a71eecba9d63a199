//! The gRPC service. Each method reads the caller, checks the role, decodes, calls the use case and encodes.

use contract::reservation::v1::reservation_service_server::ReservationService;
use contract::reservation::v1::{
    GetReservationRequest, ListReservationHistoryRequest, ListReservationHistoryResponse, ListReservationsRequest,
    ListReservationsResponse, Reservation,
};
use domain::access::Scope;
use fault::Fault;
use runtime::call::caller;
use runtime::deadline::Deadline;
use runtime::status::status;
use tonic::{Request, Response, Status};

use crate::app::ReservationReader;
use crate::{decode, encode};

/// ReservationService, implemented by the use cases.
#[derive(Debug)]
pub(crate) struct Rpc {
    reader: ReservationReader,
}

impl Rpc {
    pub(crate) fn new(reader: ReservationReader) -> Self {
        Self { reader }
    }

    async fn get(&self, request: Request<GetReservationRequest>) -> Result<Reservation, Fault> {
        let (scope, deadline) = (scope(&request)?, Deadline::from_request(&request));
        let query = decode::get(request.into_inner())?;
        let found = self.reader.get(&scope, query, deadline.instant()).await?;
        Ok(encode::reservation(found))
    }

    async fn list(&self, request: Request<ListReservationsRequest>) -> Result<ListReservationsResponse, Fault> {
        let scope = scope(&request)?;
        let query = decode::list(request.into_inner())?;
        let found = self.reader.list(&scope, &query).await?;
        let (reservations, next_page_token) = query.page.fill(found, encode::reservation);
        Ok(ListReservationsResponse { reservations, next_page_token })
    }

    async fn list_history(
        &self,
        request: Request<ListReservationHistoryRequest>,
    ) -> Result<ListReservationHistoryResponse, Fault> {
        let scope = scope(&request)?;
        let query = decode::list_history(request.into_inner())?;
        let found = self.reader.list_history(&scope, &query).await?;
        let (entries, next_page_token) = query.page.fill(found, encode::entry);
        Ok(ListReservationHistoryResponse { entries, next_page_token })
    }
}

/// The rows that the caller may read. The role is checked before the request is decoded.
fn scope<T>(request: &Request<T>) -> Result<Scope, Fault> {
    let caller = caller(request);
    caller.require_reader()?;
    caller.scope()
}

#[tonic::async_trait]
impl ReservationService for Rpc {
    async fn get_reservation(&self, request: Request<GetReservationRequest>) -> Result<Response<Reservation>, Status> {
        self.get(request).await.map(Response::new).map_err(status)
    }

    async fn list_reservations(
        &self,
        request: Request<ListReservationsRequest>,
    ) -> Result<Response<ListReservationsResponse>, Status> {
        self.list(request).await.map(Response::new).map_err(status)
    }

    async fn list_reservation_history(
        &self,
        request: Request<ListReservationHistoryRequest>,
    ) -> Result<Response<ListReservationHistoryResponse>, Status> {
        self.list_history(request).await.map(Response::new).map_err(status)
    }
}
