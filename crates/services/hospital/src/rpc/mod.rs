//! The gRPC services. Each method reads the caller, checks the role, decodes, checks the ownership, calls the use case
//! and encodes, in this order.

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
use crate::watch::Watches;

/// Both gRPC services. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Rpc {
    app: App,
    watches: Watches,
}

impl Rpc {
    pub(crate) fn new(app: App, watches: Watches) -> Self {
        Self { app, watches }
    }

    /// Makes a change for an admin: checks the ownership, then makes the change under its request id. `bare` is the
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

/// Reads what the metadata of a call says.
fn call_of<T>(request: &Request<T>) -> Call {
    Call { caller: call::caller(request), trace: call::trace(request), deadline: Deadline::from_request(request) }
}

fn identify(call: &Call, method: &'static str, id: Option<Uuid>, bare: &impl Message) -> Identity {
    Identity::new(&call.caller, method, id, entropy::uuid_v4(), bare)
}

fn answer<T>(outcome: Result<T, Fault>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(status::status)
}

/// Refuses everybody except Screening and auditors.
fn require_claim_reader(caller: &Caller) -> Result<(), Fault> {
    caller.require_token()?;
    match caller {
        Caller::Auditor(_) => Ok(()),
        Caller::Service(name) if name == SCREENING => Ok(()),
        _ => Err(role_required("service:screening or auditor")),
    }
}

/// Refuses everybody except admins, Marketing and auditors.
fn require_request_reader(caller: &Caller) -> Result<(), Fault> {
    caller.require_token()?;
    match caller {
        Caller::Auditor(_) | Caller::Admin { .. } => Ok(()),
        Caller::Service(name) if name == MARKETING => Ok(()),
        _ => Err(role_required("admin, auditor or service:marketing")),
    }
}

/// Refuses an admin of another hospital.
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
