//! CapacityService: takes and gives back places, for Screening alone. Screening and auditors read claims.

use contract::capacity::v1::capacity_service_server::CapacityService;
use contract::capacity::v1::{
    CapacityClaim, GetCapacityClaimRequest, ListCapacityClaimsRequest, ListCapacityClaimsResponse,
    ReleaseCapacityRequest, ReserveCapacityRequest,
};
use fault::Fault;
use tonic::{Request, Response, Status};

use super::{Rpc, SCREENING, answer, call_of, require_claim_reader};
use crate::app::Call;
use crate::{decode, encode};

impl Rpc {
    async fn reserve(&self, call: &Call, message: &ReserveCapacityRequest) -> Result<CapacityClaim, Fault> {
        call.caller.require_service(SCREENING)?;
        let ReserveCapacityRequest { slot, claim_id } = message;
        let (slot, claim) = decode::claim(slot, claim_id)?;
        let (claim, terms) = self.app.reserve(call, slot, claim).await?;
        Ok(encode::claim(&claim, terms))
    }

    async fn release(&self, call: &Call, message: &ReleaseCapacityRequest) -> Result<CapacityClaim, Fault> {
        call.caller.require_service(SCREENING)?;
        let ReleaseCapacityRequest { slot, claim_id } = message;
        let (slot, claim) = decode::claim(slot, claim_id)?;
        Ok(encode::claim(&self.app.release(call, slot, claim).await?, None))
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
        let (claims, next_page_token) = list.page.fill(claims, |claim| encode::claim(&claim, None));
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
