//! The use case of proposing more places: the proposal becomes a capacity request at Hospital, which remembers it.
//!
//! Nothing is kept here. A retry reaches Hospital under the same request_id and finds what the first call made.

use std::time::Duration;

use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use contract::hospital::v1::{CapacityRequest, CreateCapacityRequestRequest};
use domain::access::Caller;
use domain::demand::forwarded_request_id;
use fault::{Fault, Reason};
use runtime::client::{Outgoing, is_unreachable};
use runtime::deadline::Deadline;
use runtime::identity::TokenSource;
use runtime::status::refusal_of;
use runtime::trace::TraceContext;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::decode::Propose;

/// What is kept of the caller's time for the way back.
const RESERVE: Duration = Duration::from_millis(50);

/// Makes proposals.
#[derive(Debug)]
pub(crate) struct Proposals {
    hospital: Channel,
    token: TokenSource,
}

impl Proposals {
    pub(crate) fn new(hospital: Channel, token: TokenSource) -> Self {
        Self { hospital, token }
    }

    /// Proposes, and returns the name of the capacity request.
    pub(crate) async fn propose(
        &self,
        caller: &Caller,
        command: Propose,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<String, Fault> {
        let Propose { slot, additional_capacity, justification, request_id } = command;
        let message = CreateCapacityRequestRequest {
            parent: slot.hospital.to_string(),
            capacity_request: Some(CapacityRequest {
                slot: slot.to_string(),
                additional_capacity,
                justification,
                ..CapacityRequest::default()
            }),
            request_id: request_id.map(|chosen| forwarded_request_id(caller, chosen).to_string()).unwrap_or_default(),
        };
        let request = Outgoing::reserving(RESERVE).request(message, &self.token, trace, deadline);
        let answer = HospitalServiceClient::new(self.hospital.clone()).create_capacity_request(request).await;
        answer.map(|made| made.into_inner().name).map_err(|refused| passed_on(&refused))
    }
}

/// What Hospital's failure means to our caller: a refusal is passed on as it is, silence is out of reach, and a refusal of
/// our own identity is our defect and not the caller's.
fn passed_on(status: &Status) -> Fault {
    if is_unreachable(status) {
        let message = "hospital does not answer; send the same request again";
        return Fault::new(Reason::HospitalUnavailable, message).caused_by(status);
    }
    match (status.code(), refusal_of(status)) {
        (Code::Unauthenticated | Code::PermissionDenied, _) | (_, None) => Fault::internal(status),
        (_, Some(refusal)) => refusal.into_fault(),
    }
}
