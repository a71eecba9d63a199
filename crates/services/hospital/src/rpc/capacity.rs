//! CapacityService: takes and gives back places, for Screening alone. Screening and auditors read claims.

use contract::capacity::v1::capacity_service_server::CapacityService;
use contract::capacity::v1::reserve_capacity_result::Result as Outcome;
use contract::capacity::v1::{
    BatchReserveCapacityRequest, BatchReserveCapacityResponse, CapacityClaim, GetCapacityClaimRequest,
    ListCapacityClaimsRequest, ListCapacityClaimsResponse, ReleaseCapacityRequest, ReserveCapacityRequest,
    ReserveCapacityResult,
};
use fault::Fault;
use futures::future::join_all;
use runtime::deadline::Deadline;
use runtime::status::{embed, status};
use runtime::trace::TraceContext;
use tonic::{Request, Response, Status};

use super::{Rpc, SCREENING, answer, call_of, require_claim_reader};
use crate::app::Call;
use crate::decode::{BatchedCall, Wanted};
use crate::tables::read::ClaimView;
use crate::{decode, encode};

impl Rpc {
    async fn reserve(&self, call: &Call, message: &ReserveCapacityRequest) -> Result<CapacityClaim, Fault> {
        call.caller.require_service(SCREENING)?;
        self.reserve_decoded(call, decode::reserve(message)?).await
    }

    async fn reserve_decoded(&self, call: &Call, wanted: Wanted) -> Result<CapacityClaim, Fault> {
        let (view, terms) = self.app.reserve(call, wanted).await?;
        Ok(encode::claim(&view, terms))
    }

    /// All of them wait for the writer together, which takes them into as few transactions as it can.
    async fn batch_reserve(
        &self,
        call: &Call,
        message: &BatchReserveCapacityRequest,
    ) -> Result<BatchReserveCapacityResponse, Fault> {
        call.caller.require_service(SCREENING)?;
        let results = decode::batch(message)?.into_iter().map(async |part| {
            let BatchedCall { wanted, timeout, traceparent } = part;
            let deadline = timeout.map_or(call.deadline, |timeout| call.deadline.min(Deadline::within(timeout)));
            let trace = TraceContext::parse(&traceparent).unwrap_or(call.trace);
            let call = Call { caller: call.caller.clone(), trace, deadline };
            let result = match self.reserve_decoded(&call, wanted).await {
                Ok(claim) => Outcome::Claim(claim),
                Err(fault) => Outcome::Error(embed(&status(fault))),
            };
            ReserveCapacityResult { result: Some(result) }
        });
        Ok(BatchReserveCapacityResponse { results: join_all(results).await })
    }

    async fn release(&self, call: &Call, message: &ReleaseCapacityRequest) -> Result<CapacityClaim, Fault> {
        call.caller.require_service(SCREENING)?;
        let ReleaseCapacityRequest { slot, claim_id } = message;
        let (slot, claim) = decode::claim(slot, claim_id)?;
        let claim = self.app.release(call, slot, claim).await?;
        Ok(encode::claim(&ClaimView { claim, position: 0 }, None))
    }

    async fn claim(&self, call: &Call, message: &GetCapacityClaimRequest) -> Result<CapacityClaim, Fault> {
        require_claim_reader(&call.caller)?;
        let GetCapacityClaimRequest { slot, claim_id } = message;
        let (slot, claim) = decode::claim(slot, claim_id)?;
        Ok(encode::claim(&self.app.claim(&slot, claim).await?, None))
    }

    async fn claims(
        &self,
        call: &Call,
        message: &ListCapacityClaimsRequest,
    ) -> Result<ListCapacityClaimsResponse, Fault> {
        require_claim_reader(&call.caller)?;
        let list = decode::list_capacity_claims(message)?;
        let claims = self.app.claims(list.parent.as_ref(), &list.filter, &list.page).await?;
        let (claims, next_page_token) = list.page.fill(claims, |view| encode::claim(&view, None));
        Ok(ListCapacityClaimsResponse { claims, next_page_token })
    }
}

#[tonic::async_trait]
impl CapacityService for Rpc {
    async fn reserve_capacity(
        &self,
        request: Request<ReserveCapacityRequest>,
    ) -> Result<Response<CapacityClaim>, Status> {
        answer(self.reserve(&call_of(&request), request.get_ref()).await)
    }

    async fn batch_reserve_capacity(
        &self,
        request: Request<BatchReserveCapacityRequest>,
    ) -> Result<Response<BatchReserveCapacityResponse>, Status> {
        answer(self.batch_reserve(&call_of(&request), request.get_ref()).await)
    }

    async fn release_capacity(
        &self,
        request: Request<ReleaseCapacityRequest>,
    ) -> Result<Response<CapacityClaim>, Status> {
        answer(self.release(&call_of(&request), request.get_ref()).await)
    }

    async fn get_capacity_claim(
        &self,
        request: Request<GetCapacityClaimRequest>,
    ) -> Result<Response<CapacityClaim>, Status> {
        answer(self.claim(&call_of(&request), request.get_ref()).await)
    }

    async fn list_capacity_claims(
        &self,
        request: Request<ListCapacityClaimsRequest>,
    ) -> Result<Response<ListCapacityClaimsResponse>, Status> {
        answer(self.claims(&call_of(&request), request.get_ref()).await)
    }
}
