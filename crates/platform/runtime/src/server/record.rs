//! The record of one call in logs and metrics, from its arrival to the end of its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::access::Caller;
use http::HeaderMap;
use metrics::{counter, histogram};
use tonic::Code;

use super::meters::{Meters, OK};
use super::methods::Method;
use crate::call::service_of;
use crate::language::Languages;
use crate::metrics::{CALL_SECONDS, CALLS};
use crate::scope::{self, Scope};
use crate::spans::{self, Ended};
use crate::trace::TraceContext;

/// Follows a call. If it is dropped without a code, the client went away before it had its answer.
#[derive(Debug)]
pub(super) struct Record {
    method: Arc<Method>,
    scope: Option<Arc<Scope>>,
    arrival: Instant,
    code: Option<Code>,
}

impl Record {
    /// Begins the record of a call.
    pub(super) fn begin(method: Arc<Method>) -> Self {
        method.meters.get_or_init(|| Meters::of(&method.name)).in_flight.increment(1.0);
        Self { method, scope: None, arrival: Instant::now(), code: None }
    }

    /// Makes the scope of the call. It is called once the caller is known, or known to be unknown.
    pub(super) fn enter(
        &mut self,
        trace: TraceContext,
        caller: Option<&Caller>,
        languages: Option<Languages>,
    ) -> Arc<Scope> {
        let scope = Scope { method: Arc::clone(&self.method.name), trace, caller: caller.cloned(), languages };
        Arc::clone(self.scope.insert(Arc::new(scope)))
    }

    /// Runs a function in the scope of the call; in none before [`Self::enter`].
    pub(super) fn within<T>(scope: Option<Arc<Scope>>, function: impl FnOnce() -> T) -> T {
        match scope {
            Some(scope) => scope::within_sync(scope, function),
            None => function(),
        }
    }

    /// The scope of the call; none before [`Self::enter`].
    pub(super) fn scope(&self) -> Option<Arc<Scope>> {
        self.scope.clone()
    }

    /// Records a request that was no gRPC call, as a mistake of its sender.
    pub(super) fn no_call(&mut self) {
        self.code = Some(Code::InvalidArgument);
    }

    /// Records the code of an answer.
    pub(super) fn answered(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// Takes the answer's status from these headers or trailers, if they have one.
    pub(super) fn status_in(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let code = code_name(self.code.unwrap_or(Code::Cancelled));
        let elapsed = self.arrival.elapsed();
        let meters = self.method.meters.get_or_init(|| Meters::of(&self.method.name));
        meters.in_flight.decrement(1.0);
        if code == OK {
            meters.answered.increment(1);
            meters.seconds.record(elapsed);
        } else {
            counter!(CALLS, "method" => Arc::clone(&self.method.name), "code" => code).increment(1);
            histogram!(CALL_SECONDS, "method" => Arc::clone(&self.method.name)).record(elapsed);
        }
        Self::within(self.scope(), || tracing::debug!(code, ?elapsed, "call answered"));
        // probes come every few seconds and belong to no trace
        if let Some(scope) = self.scope.as_ref().filter(|_| !self.method.infrastructure) {
            spans::ended(&scope.trace, || span_of(scope, code, elapsed));
        }
    }
}

/// The span of a call, as OpenTelemetry names what gRPC has.
fn span_of(scope: &Scope, code: &'static str, elapsed: Duration) -> Ended {
    let (service, method) = scope.method.split_once('/').unwrap_or((&scope.method, ""));
    let mut attributes = vec![
        ("rpc.system", "grpc".to_owned()),
        ("rpc.service", service.to_owned()),
        ("rpc.method", method.to_owned()),
        ("rpc.response.status_code", code.to_owned()),
    ];
    // the role alone: who a customer is stays in this process's log
    let role = |caller: &Caller| caller.to_string().split(':').next().unwrap_or_default().to_owned();
    attributes.extend(scope.caller.as_ref().map(|caller| ("enduser.role", role(caller))));
    // as OpenTelemetry has it, a server's span fails only by what its own operator has to look at
    let failed =
        matches!(code, "UNKNOWN" | "DEADLINE_EXCEEDED" | "UNIMPLEMENTED" | "INTERNAL" | "UNAVAILABLE" | "DATA_LOSS");
    Ended {
        service: service_of(service).unwrap_or(service).to_owned(),
        name: scope.method.to_string(),
        call: true,
        elapsed,
        failure: failed.then(|| code.to_owned()),
        attributes,
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => OK,
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
