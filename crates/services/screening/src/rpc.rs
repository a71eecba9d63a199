//! The gRPC service. Each method reads the caller, decodes, calls the use case and encodes.

use std::sync::Arc;

use contract::screening::v1 as message;
use contract::screening::v1::screening_service_server::ScreeningService;
use fault::Fault;
use runtime::call::{caller, trace};
use runtime::deadline::Deadline;
use runtime::status::status;
use tonic::{Request, Response, Status, async_trait};

use crate::app::App;
use crate::{decode, encode};

/// ScreeningService, implemented by the use cases.
#[derive(Debug)]
pub(crate) struct Rpc {
    app: Arc<App>,
}

impl Rpc {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn create(&self, request: Request<message::CreateScreeningRequest>) -> Result<message::Screening, Fault> {
        let (caller, trace, deadline) = (caller(&request), trace(&request), Deadline::from_request(&request));
        caller.require_booker()?;
        let call = decode::create(&caller, request.into_inner())?;
        let screening = self.app.create(&caller, call, trace, deadline).await?;
        Ok(encode::screening(&screening))
    }

    async fn get(&self, request: Request<message::GetScreeningRequest>) -> Result<message::Screening, Fault> {
        let caller = caller(&request);
        caller.require_reader()?;
        let id = decode::get(request.into_inner())?;
        let screening = self.app.get(&caller.scope()?, id).await?;
        Ok(encode::screening(&screening))
    }

    async fn list(
        &self,
        request: Request<message::ListScreeningsRequest>,
    ) -> Result<message::ListScreeningsResponse, Fault> {
        let caller = caller(&request);
        caller.require_reader()?;
        let scope = caller.scope()?;
        let listing = decode::list(&scope, request.into_inner())?;
        let rows = self.app.list(&scope, &listing).await?;
        let (screenings, next_page_token) = listing.page.fill(rows, |row| encode::screening(&row));
        Ok(message::ListScreeningsResponse { screenings, next_page_token })
    }

    async fn cancel(&self, request: Request<message::CancelScreeningRequest>) -> Result<message::Screening, Fault> {
        let (caller, trace, deadline) = (caller(&request), trace(&request), Deadline::from_request(&request));
        caller.require_booker()?;
        let call = decode::cancel(&caller, request.into_inner())?;
        let screening = self.app.cancel(&caller, call, &trace, deadline).await?;
        Ok(encode::screening(&screening))
    }

    async fn reschedule(
        &self,
        request: Request<message::RescheduleScreeningRequest>,
    ) -> Result<message::Screening, Fault> {
        let (caller, trace, deadline) = (caller(&request), trace(&request), Deadline::from_request(&request));
        caller.require_booker()?;
        let call = decode::reschedule(&caller, request.into_inner())?;
        let screening = self.app.reschedule(&caller, call, trace, deadline).await?;
        Ok(encode::screening(&screening))
    }

    async fn update(&self, request: Request<message::UpdateScreeningRequest>) -> Result<message::Screening, Fault> {
        let (caller, trace, deadline) = (caller(&request), trace(&request), Deadline::from_request(&request));
        caller.require_booker()?;
        let call = decode::update(&caller, request.into_inner())?;
        let screening = self.app.rename(&caller, call, &trace, deadline).await?;
        Ok(encode::screening(&screening))
    }

    async fn complete(&self, request: Request<message::CompleteScreeningRequest>) -> Result<message::Screening, Fault> {
        let (caller, trace, deadline) = (caller(&request), trace(&request), Deadline::from_request(&request));
        caller.require_admin()?;
        let call = decode::complete(&caller, request.into_inner())?;
        let screening = self.app.complete(&caller, call, &trace, deadline).await?;
        Ok(encode::screening(&screening))
    }

    async fn no_show(&self, request: Request<message::MarkNoShowRequest>) -> Result<message::Screening, Fault> {
        let (caller, trace, deadline) = (caller(&request), trace(&request), Deadline::from_request(&request));
        caller.require_admin()?;
        let call = decode::mark_no_show(&caller, request.into_inner())?;
        let screening = self.app.mark_no_show(&caller, call, &trace, deadline).await?;
        Ok(encode::screening(&screening))
    }
}

#[async_trait]
impl ScreeningService for Rpc {
    async fn create_screening(
        &self,
        request: Request<message::CreateScreeningRequest>,
    ) -> Result<Response<message::Screening>, Status> {
        self.create(request).await.map(Response::new).map_err(status)
    }

    async fn get_screening(
        &self,
        request: Request<message::GetScreeningRequest>,
    ) -> Result<Response<message::Screening>, Status> {
        self.get(request).await.map(Response::new).map_err(status)
    }

    async fn list_screenings(
        &self,
        request: Request<message::ListScreeningsRequest>,
    ) -> Result<Response<message::ListScreeningsResponse>, Status> {
        self.list(request).await.map(Response::new).map_err(status)
    }

    async fn cancel_screening(
        &self,
        request: Request<message::CancelScreeningRequest>,
    ) -> Result<Response<message::Screening>, Status> {
        self.cancel(request).await.map(Response::new).map_err(status)
    }

    async fn reschedule_screening(
        &self,
        request: Request<message::RescheduleScreeningRequest>,
    ) -> Result<Response<message::Screening>, Status> {
        self.reschedule(request).await.map(Response::new).map_err(status)
    }

    async fn update_screening(
        &self,
        request: Request<message::UpdateScreeningRequest>,
    ) -> Result<Response<message::Screening>, Status> {
        self.update(request).await.map(Response::new).map_err(status)
    }

    async fn complete_screening(
        &self,
        request: Request<message::CompleteScreeningRequest>,
    ) -> Result<Response<message::Screening>, Status> {
        self.complete(request).await.map(Response::new).map_err(status)
    }

    async fn mark_no_show(
        &self,
        request: Request<message::MarkNoShowRequest>,
    ) -> Result<Response<message::Screening>, Status> {
        self.no_show(request).await.map(Response::new).map_err(status)
    }
}
