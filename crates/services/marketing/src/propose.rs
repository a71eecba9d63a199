//! The use case of proposing more places: a proposal becomes a capacity request at Hospital, which stores it.
//!
//! Nothing is stored here. A retry reaches Hospital under the same request_id and finds the first call's capacity
//! request. A proposal without a request_id is sent only once.

use std::time::Duration;

use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use contract::hospital::v1::{CapacityRequest, CreateCapacityRequestRequest};
use domain::access::Caller;
use domain::demand::forwarded_request_id;
use fault::{Fault, Reason};
use runtime::client::{Outgoing, Replicas, Silence, is_unreachable};
use runtime::deadline::Deadline;
use runtime::identity::TokenSource;
use runtime::status::{Refusal, refusal_of};
use runtime::trace::TraceContext;
use tokio::time::timeout_at;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::decode::Propose;

/// Time that is left of the caller's deadline for the answer to arrive.
const RESPONSE_RESERVE: Duration = Duration::from_millis(50);
/// How long one replica may take to answer while another one can still be tried.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Proposals {
    hospital: Replicas,
    token: TokenSource,
}

impl Proposals {
    pub(crate) fn new(hospital: Replicas, token: TokenSource) -> Self {
        Self { hospital, token }
    }

    /// Creates a capacity request at Hospital. Returns its name.
    pub(crate) async fn propose(
        &self,
        caller: &Caller,
        command: Propose,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<String, Fault> {
        let (slot, request_id) = (command.slot.to_string(), command.request_id);
        let message = encode(caller, command);
        let mut route = self.hospital.route(&slot);
        // leaves time for the answer to arrive
        let deadline = deadline.earlier_by(RESPONSE_RESERVE);
        loop {
            if deadline.has_passed() {
                return Err(late());
            }
            let attempt = route.next_attempt();
            let more = !message.request_id.is_empty() && route.has_untried();
            let limit = if more { deadline.min(Deadline::within(ATTEMPT_TIMEOUT)) } else { deadline };
            let request = Outgoing::default().request(message.clone(), &self.token, trace, limit);
            let request = route.about_slot(request);
            let mut client = HospitalServiceClient::new(attempt.line());
            let answer = timeout_at(limit.instant(), client.create_capacity_request(request)).await;
            match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
                Err(status) if is_unreachable(&status) => {
                    if attempt.silent(deadline) == Silence::Caller {
                        return Err(late());
                    }
                    if !more || deadline.has_passed() {
                        return Err(passed_on(&status, request_id));
                    }
                }
                answered => {
                    attempt.answered();
                    return answered
                        .map(|made| made.into_inner().name)
                        .map_err(|refused| passed_on(&refused, request_id));
                }
            }
        }
    }
}

fn encode(caller: &Caller, command: Propose) -> CreateCapacityRequestRequest {
    let Propose { slot, additional_capacity, justification, request_id } = command;
    CreateCapacityRequestRequest {
        parent: slot.hospital.to_string(),
        capacity_request: Some(CapacityRequest {
            slot: slot.to_string(),
            additional_capacity,
            justification,
            ..CapacityRequest::default()
        }),
        request_id: request_id.map(|chosen| forwarded_request_id(caller, chosen).to_string()).unwrap_or_default(),
    }
}

/// The answer to a call whose deadline passed while Hospital was asked. Its outcome is unknown.
fn late() -> Fault {
    let message = "the deadline passed before hospital could answer; send the same request_id again, with more time";
    Fault::new(Reason::DeadlineExceeded, message)
}

/// What the caller gets when Hospital does not grant the request. A refusal is passed on as one of this service. No
/// answer becomes HOSPITAL_UNAVAILABLE. If Hospital refuses this service's own identity, the fault is internal.
/// `request_id` is the one that the caller chose.
fn passed_on(status: &Status, request_id: Option<Uuid>) -> Fault {
    if is_unreachable(status) {
        let message = "hospital does not answer; send the same request again";
        return Fault::new(Reason::HospitalUnavailable, message).caused_by(status);
    }
    match (status.code(), refusal_of(status)) {
        (Code::Unauthenticated | Code::PermissionDenied, _) | (_, None) => Fault::internal(status),
        (_, Some(refusal)) => as_own(refusal, request_id).into_fault(),
    }
}

/// Names the fields of the caller's request, and its request_id, in the place of those that Hospital got.
fn as_own(mut refusal: Refusal, request_id: Option<Uuid>) -> Refusal {
    let own = |path: &mut String| {
        if let Some(field) = path.strip_prefix("capacity_request.") {
            *path = field.to_owned();
        }
    };
    refusal.violations.iter_mut().for_each(|violation| own(&mut violation.field));
    if let Some(field) = refusal.metadata.get_mut("field") {
        own(field);
    }
    if let Some((id, chosen)) = refusal.metadata.get_mut("requestId").zip(request_id) {
        *id = chosen.to_string();
    }
    refusal
}
