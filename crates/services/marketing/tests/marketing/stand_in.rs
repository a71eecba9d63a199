//! A stand-in for Hospital. It takes capacity requests behind the real door, and fails when a test asks for it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use contract::hospital::v1::{CapacityRequest, CreateCapacityRequestRequest};
use domain::access::Caller;
use fault::Fault;
use http::Response as HttpResponse;
use runtime::call::caller;
use runtime::clock::Clock;
use runtime::deadline::Deadline;
use runtime::entropy::uuid_v7;
use runtime::identity::{Signer, Verifier};
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::server::{Server, ServerOptions};
use runtime::status::status;
use runtime::tasks::{Kind, Tasks};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

/// How the stand-in answers the next calls.
#[derive(Debug, Clone)]
pub(crate) enum Mood {
    Accept,
    Refuse(Fault),
    Silence,
}

/// A call that the stand-in has received.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) message: CreateCapacityRequestRequest,
    pub(crate) remaining: Duration,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    calls: Vec<Call>,
    made: HashMap<String, String>,
}

/// The stand-in. Clones share its state.
#[derive(Debug, Clone)]
pub(crate) struct StandIn(Arc<Mutex<State>>);

/// A stand-in that serves until this is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) hospital: StandIn,
    pub(crate) uri: String,
    _trigger: DrainTrigger,
}

impl StandIn {
    /// Serves a stand-in that accepts the identities of this directory.
    pub(crate) async fn open(dir: &Path) -> Open {
        let state = State { mood: Mood::Accept, calls: Vec::new(), made: HashMap::new() };
        let hospital = Self(Arc::new(Mutex::new(state)));
        let verifier = Verifier::from_jwks(&Signer::load_or_create(dir).unwrap().jwks()).unwrap();
        let mut server = Server::new(ServerOptions::default(), verifier, Clock::system());
        server.add(hospital.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let (trigger, drain) = drain_pair();
        Tasks::new(drain.clone()).spawn(Kind::Essential, "stand-in", server.run(listener, drain));
        Open { hospital, uri, _trigger: trigger }
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    /// Makes a capacity request, or returns the one that an earlier call with this request_id made.
    fn make(&self, message: &CreateCapacityRequestRequest) -> CapacityRequest {
        let made = &mut self.0.lock().unwrap().made;
        let fresh = format!("{}/capacityRequests/{}", message.parent, uuid_v7());
        let id = if message.request_id.is_empty() { fresh.clone() } else { message.request_id.clone() };
        CapacityRequest { name: made.entry(id).or_insert(fresh).clone(), ..CapacityRequest::default() }
    }
}

impl UnaryService<CreateCapacityRequestRequest> for StandIn {
    type Response = CapacityRequest;
    type Future = BoxFuture<Response<CapacityRequest>, Status>;

    fn call(&mut self, request: Request<CreateCapacityRequestRequest>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let remaining = Deadline::from_request(&request).remaining();
            let call = Call { caller: caller(&request), remaining, message: request.into_inner() };
            let mood = {
                let mut state = this.0.lock().unwrap();
                state.calls.push(call.clone());
                state.mood.clone()
            };
            match mood {
                Mood::Accept => Ok(Response::new(this.make(&call.message))),
                Mood::Refuse(fault) => Err(status(fault)),
                Mood::Silence => std::future::pending().await,
            }
        })
    }
}

impl NamedService for StandIn {
    const NAME: &'static str = "checkup.hospital.v1.HospitalService";
}

impl Service<http::Request<Body>> for StandIn {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<HttpResponse<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/checkup.hospital.v1.HospitalService/CreateCapacityRequest" {
                return Ok(Status::unimplemented("").into_http());
            }
            Ok(Grpc::new(ProstCodec::default()).unary(this, request).await)
        })
    }
}
