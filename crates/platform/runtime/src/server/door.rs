//! The door that every call passes, in the same order for all: record, admission, limits, deadline, caller, the
//! caller's share, panic guard.
//!
//! It knows methods only by their descriptors. It does not decide what a caller may do.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use domain::access::Caller;
use fault::{Fault, Reason};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use super::ServerOptions;
use super::body::{CallBody, Stream, StreamPlace};
use super::held::take_what_is_not_ours;
use super::methods::{Method, Methods};
use super::places::{Places, Share};
use super::protocol;
use super::record::Record;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::identity::Verifier;
use crate::language::Languages;
use crate::lifecycle::Readiness;
use crate::scope;
use crate::status::status;
use crate::tasks::panic_text;
use crate::trace::TraceContext;

/// The rules by which calls are admitted.
#[derive(Debug)]
pub(super) struct Rules {
    methods: Methods,
    verifier: Verifier,
    clock: Clock,
    readiness: Readiness,
    /// The places for streams of all services.
    streams: Arc<Places>,
    default_deadline: Duration,
    max_deadline: Duration,
    end: End,
}

/// The stages of the server's shutdown.
#[derive(Debug, Clone, Default)]
pub(super) struct End {
    /// New calls are refused, except those that calls under way make.
    pub(super) leaving: CancellationToken,
    /// The unary calls under way, without those of the system's own services.
    pub(super) under_way: TaskTracker,
    /// Clients get GOAWAY, and streams end.
    pub(super) goaway: CancellationToken,
    /// The remaining connections are cut.
    pub(super) cut: CancellationToken,
}

impl Rules {
    pub(super) fn new(
        options: &ServerOptions,
        verifier: Verifier,
        clock: Clock,
        readiness: Readiness,
        end: End,
    ) -> Result<Self, prost::DecodeError> {
        Ok(Self {
            methods: Methods::from_descriptors(options)?,
            verifier,
            clock,
            readiness,
            streams: Arc::new(Places::new("streams", options.max_streams, options)),
            default_deadline: options.default_deadline,
            max_deadline: options.max_deadline,
            end,
        })
    }

    /// Takes a call through the door to its handler.
    async fn pass(&self, routes: Routes, request: Request<Body>) -> Response<CallBody> {
        let arrival = Instant::now();
        let method = self.methods.find(request.uri().path());
        let mut record = Record::begin(Arc::clone(&method));
        if let Some(refusal) = protocol::no_call(&request) {
            record.no_call();
            return refusal.map(|body| CallBody::new(body, record, None));
        }
        let trace = protocol::trace(request.headers());
        let admitted = self.admitted(&method, request.headers());
        // Time beyond what the caller named is no wait of the caller's.
        let named = admitted.as_ref().ok().and_then(|admitted| admitted.named).unwrap_or(Duration::MAX);
        let languages = Languages::of(request.headers());
        let scope = record.enter(trace, admitted.as_ref().ok().map(|admitted| &admitted.caller), languages);
        let (mut response, stream) = scope::within(scope, async {
            let answered = match admitted {
                Ok(admitted) => self.answer(routes, request, &method, trace, admitted).await,
                Err(fault) => Err(fault),
            };
            answered.unwrap_or_else(|fault| (status(fault).into_http(), None))
        })
        .await;
        record.status_in(response.headers());
        let elsewhere = take_what_is_not_ours(response.headers_mut(), arrival.elapsed().min(named));
        response.map(|body| CallBody::new(body, record, stream).ending_with(elsewhere))
    }

    /// Checks whether a call may begin, and determines its caller.
    fn admitted<'a>(&self, method: &'a Method, headers: &HeaderMap) -> Result<Admitted<'a>, Fault> {
        if !method.infrastructure && !self.readiness.has_started() {
            let why = self.readiness.refusal();
            return Err(Fault::new(Reason::NotReady, why.unwrap_or_else(|| "the service is starting".to_owned())));
        }
        // Before the caller is known, because a full server does not check signatures. Nothing waits in between, so a
        // caller that has its share already keeps no place from others.
        let permit = self.admit(method)?;
        let named = protocol::timeout(headers)?;
        let deadline = self.deadline(method, named);
        let caller = self.caller(method, headers)?;
        let admission = permit.shared(method, &self.streams, &caller)?;
        Ok(Admitted { admission, named, deadline, caller })
    }

    async fn answer(
        &self,
        mut routes: Routes,
        mut request: Request<Body>,
        method: &Method,
        trace: TraceContext,
        admitted: Admitted<'_>,
    ) -> Result<(Response<Body>, Option<Stream>), Fault> {
        let Admitted { admission, named, deadline, caller } = admitted;
        let _under_way = self.let_in(method, &caller)?;
        // Checked here because a timer counts in milliseconds and would fire late.
        if deadline.has_passed() {
            return Err(Fault::new(Reason::DeadlineExceeded, "the deadline has passed"));
        }
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(trace);

        let handled = AssertUnwindSafe(routes.call(request)).catch_unwind();
        let response = match timeout_at(deadline.instant(), handled).await {
            Ok(Ok(response)) => response.unwrap_or_else(|never: Infallible| match never {}),
            Ok(Err(panic)) => return Err(Fault::internal(panic_text(panic.as_ref()))),
            Err(_) => return Err(Fault::new(Reason::DeadlineExceeded, "the deadline has passed")),
        };
        if is_undecodable(response.headers()) {
            return Err(Fault::new(Reason::FieldInvalid, "the request is not an encoded message of this method"));
        }
        Ok((response, admission.stream(named.map(|_| deadline), &self.end.goaway)))
    }

    /// Refuses new calls once the server is leaving, and counts the others until their answer begins. Calls of the
    /// system's own services are always accepted, because calls under way need them.
    fn let_in(&self, method: &Method, caller: &Caller) -> Result<Option<TaskTrackerToken>, Fault> {
        if method.infrastructure || matches!(caller, Caller::Service(_)) {
            return Ok(None);
        }
        // Counted before the check, so that no call slips in between.
        let token = (!method.streams).then(|| self.end.under_way.token());
        if self.end.leaving.is_cancelled() {
            return Err(Fault::new(Reason::NotReady, "the server is shutting down; send the same request again"));
        }
        Ok(token)
    }

    /// Takes a place for the call.
    fn admit<'a>(&self, method: &'a Method) -> Result<Permit<'a>, Fault> {
        Ok(match method {
            Method { streams: true, .. } => Permit::Stream(self.streams.take_owned()?),
            Method { places: None, .. } => Permit::Free,
            Method { places: Some(places), .. } => Permit::Unary(places, places.take()?),
        })
    }

    /// The instant by which the head of the answer is due. The longest deadline applies only to unary calls, because
    /// the caller of a stream names the time for which it wants to watch.
    fn deadline(&self, method: &Method, named: Option<Duration>) -> Deadline {
        // The library enforces the header too, outside this door, and answers CANCELLED without a reason.
        const AHEAD_OF_THE_LIBRARY: Duration = Duration::from_millis(5);
        let named = named.map(|named| named.saturating_sub(AHEAD_OF_THE_LIBRARY));
        let span = named.unwrap_or(self.default_deadline);
        Deadline::within(if method.streams { span } else { span.min(self.max_deadline) })
    }

    /// The caller. An invalid token is refused even if the method needs none, so that its owner learns of it. Health
    /// and reflection ignore tokens, so that a tool can always find out what a refusal means.
    fn caller(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, Fault> {
        if method.infrastructure {
            return Ok(Caller::Anonymous);
        }
        match protocol::bearer(headers)? {
            Some(token) => self.verifier.verify_at(token, self.clock.now()),
            None => Ok(Caller::Anonymous),
        }
    }
}

/// Whether the library could not decode the request. It answers INTERNAL then, which a mesh would count against this
/// process. An INTERNAL of this system carries details.
fn is_undecodable(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|status| status == "13") && !headers.contains_key("grpc-status-details-bin")
}

/// A call that may begin, with its permit and caller.
struct Admitted<'a> {
    admission: Admission<'a>,
    /// The time that the caller gave the call, if it named one.
    named: Option<Duration>,
    deadline: Deadline,
    caller: Caller,
}

/// One of the places of all callers.
enum Permit<'a> {
    Free,
    Unary(&'a Places, SemaphorePermit<'a>),
    Stream(OwnedSemaphorePermit),
}

impl<'a> Permit<'a> {
    /// The same as one of the places that the caller may have.
    fn shared(self, method: &Method, streams: &Arc<Places>, caller: &Caller) -> Result<Admission<'a>, Fault> {
        Ok(match self {
            Self::Free => Admission::Free,
            Self::Unary(places, permit) => {
                Admission::Unary { _permit: permit, _share: Places::share(places, caller, method.lists)? }
            }
            Self::Stream(permit) => {
                let share = Places::share(Arc::clone(streams), caller, false)?;
                Admission::Stream(StreamPlace { _permit: permit, _share: share })
            }
        })
    }
}

/// The place of a call. It is held until the head of the answer, for a stream until the stream's end.
enum Admission<'a> {
    Free,
    Unary { _permit: SemaphorePermit<'a>, _share: Option<Share<&'a Places>> },
    Stream(StreamPlace),
}

impl Admission<'_> {
    fn stream(self, deadline: Option<Deadline>, goaway: &CancellationToken) -> Option<Stream> {
        match self {
            Self::Free | Self::Unary { .. } => None,
            Self::Stream(place) => Some(Stream::new(deadline, goaway.clone(), place)),
        }
    }
}

/// The door in front of a server's routes.
#[derive(Debug, Clone)]
pub(super) struct Door {
    rules: Arc<Rules>,
    routes: Routes,
}

impl Door {
    pub(super) fn new(rules: Arc<Rules>, routes: Routes) -> Self {
        Self { rules, routes }
    }
}

impl Service<Request<Body>> for Door {
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<CallBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The routes are always ready: excess calls are refused, not queued.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (rules, routes) = (Arc::clone(&self.rules), self.routes.clone());
        Box::pin(async move { Ok(rules.pass(routes, request).await) })
    }
}
