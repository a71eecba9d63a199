//! The gRPC service. Each method checks the role, decodes, checks the ownership, calls the use case and encodes.

use contract::marketing::v1::marketing_service_server::MarketingService;
use contract::marketing::v1::{
    ListDemandSignalsRequest, ListDemandSignalsResponse, ProposeCapacityIncreaseRequest,
    ProposeCapacityIncreaseResponse,
};
use domain::demand::{readable, require_proposal_to, require_proposer};
use fault::Fault;
use runtime::call::{caller, trace};
use runtime::deadline::Deadline;
use runtime::status::status;
use tonic::{Request, Response, Status};

use crate::app::Signals;
use crate::propose::Proposals;
use crate::{decode, encode};

/// MarketingService, implemented by the use cases.
#[derive(Debug)]
pub(crate) struct Rpc {
    signals: Signals,
    proposals: Proposals,
}

impl Rpc {
    pub(crate) fn new(signals: Signals, proposals: Proposals) -> Self {
        Self { signals, proposals }
    }

    async fn list(&self, request: Request<ListDemandSignalsRequest>) -> Result<ListDemandSignalsResponse, Fault> {
        let scope = readable(&caller(&request))?;
        let query = decode::list(request.into_inner())?;
        let found = self.signals.list(&scope, &query).await?;
        let (signals, next_page_token) = query.page.fill(found, encode::signal);
        Ok(ListDemandSignalsResponse { signals, next_page_token })
    }

    async fn propose(
        &self,
        request: Request<ProposeCapacityIncreaseRequest>,
    ) -> Result<ProposeCapacityIncreaseResponse, Fault> {
        let (caller, trace, deadline) = (caller(&request), trace(&request), Deadline::from_request(&request));
        require_proposer(&caller)?;
        let command = decode::propose(request.into_inner())?;
        require_proposal_to(&caller, &command.slot.hospital)?;
        let capacity_request = self.proposals.propose(&caller, command, &trace, deadline).await?;
        Ok(ProposeCapacityIncreaseResponse { capacity_request })
    }
}

#[tonic::async_trait]
impl MarketingService for Rpc {
    async fn list_demand_signals(
        &self,
        request: Request<ListDemandSignalsRequest>,
    ) -> Result<Response<ListDemandSignalsResponse>, Status> {
        self.list(request).await.map(Response::new).map_err(status)
    }

    async fn propose_capacity_increase(
        &self,
        request: Request<ProposeCapacityIncreaseRequest>,
    ) -> Result<Response<ProposeCapacityIncreaseResponse>, Status> {
        self.propose(request).await.map(Response::new).map_err(status)
    }
}
