//! The gRPC services: caller, role, decoding, ownership, use case, encoding, in this order and nothing else.

mod capacity;
mod hospital;

use domain::access::{Caller, role_required};
use domain::ids::HospitalId;
use domain::request::Request as Identity;
use fault::Fault;
use prost::Message;
use runtime::deadline::Deadline;
use runtime::{call, entropy, status};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::app::{App, Call};
use crate::command::Outcome;
use crate::decode::Asked;

/// Both services; a cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct Rpc {
    app: App,
}

impl Rpc {
    /// Answers from these use cases.
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    /// The common way of the changes that admins make: ownership, then the change under its request id. `bare` is the
    /// message without its request_id.
    async fn administer(
        &self,
        call: &Call,
        method: &'static str,
        asked: Asked,
        bare: &impl Message,
    ) -> Result<Outcome, Fault> {
        call.caller.require_admin_of(&asked.hospital)?;
        let identity = identify(call, method, asked.request_id, bare);
        self.app.ask(call, identity, asked.change).await
    }
}

/// What every method reads of a call besides its message.
fn call_of<T>(request: &Request<T>) -> Call {
    Call { caller: call::caller(request), trace: call::trace(request), deadline: Deadline::from_request(request) }
}

fn identify(call: &Call, method: &'static str, id: Option<Uuid>, bare: &impl Message) -> Identity {
    Identity::new(&call.caller, method, id, entropy::uuid_v4(), bare)
}

fn answer<T>(outcome: Result<T, Fault>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(status::status)
}

/// Refuses everybody but the service that takes places and auditors.
fn require_claim_reader(caller: &Caller) -> Result<(), Fault> {
    caller.require_token()?;
    match caller {
        Caller::Auditor(_) => Ok(()),
        Caller::Service(name) if name == SCREENING => Ok(()),
        _ => Err(role_required("service:screening or auditor")),
    }
}

/// The role check of reading capacity requests: admins, marketing and auditors.
fn require_request_reader(caller: &Caller) -> Result<(), Fault> {
    caller.require_token()?;
    match caller {
        Caller::Auditor(_) | Caller::Admin { .. } => Ok(()),
        Caller::Service(name) if name == MARKETING => Ok(()),
        _ => Err(role_required("admin, auditor or service:marketing")),
    }
}

/// The ownership check of reading capacity requests: admins read those of their hospitals.
fn require_request_owner(caller: &Caller, hospital: &HospitalId) -> Result<(), Fault> {
    match caller {
        Caller::Admin { .. } => caller.require_admin_of(hospital),
        _ => Ok(()),
    }
}

/// The identity of the service that takes and gives back places.
const SCREENING: &str = "screening";
/// The identity of the service that asks for more places.
const MARKETING: &str = "marketing";
