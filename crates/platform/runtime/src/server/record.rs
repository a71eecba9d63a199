//! One call in logs and metrics, from its arrival to the end of its answer.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use domain::access::Caller;
use http::HeaderMap;
use metrics::{Counter, Histogram, counter, gauge, histogram};
use tonic::Code;
use tracing::Span;

use super::methods::Method;
use crate::metrics::{CALL_SECONDS, CALLS, CALLS_IN_FLIGHT};
use crate::trace::TraceContext;

/// Follows a call. Dropped without a code, the client went away before it had its answer.
#[derive(Debug)]
pub(super) struct Record {
    method: Arc<Method>,
    span: Span,
    arrival: Instant,
    code: Option<Code>,
}

impl Record {
    /// The call begins.
    pub(super) fn begin(method: Arc<Method>) -> Self {
        gauge!(CALLS_IN_FLIGHT).increment(1.0);
        Self { method, span: Span::none(), arrival: Instant::now(), code: None }
    }

    /// The span of the call, once it is known who calls, or that it will not be. A field that was added later would have the
    /// others written anew.
    pub(super) fn enter(&mut self, trace: &TraceContext, caller: Option<&Caller>) -> Span {
        let caller = caller.map(tracing::field::display);
        self.span = tracing::info_span!("call", method = %self.method.name, trace = %trace.trace_id(), caller);
        self.span.clone()
    }

    /// The span of the call.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// It was no gRPC call and is counted as what it was: a mistake of whoever made it.
    pub(super) fn no_call(&mut self) {
        self.code = Some(Code::InvalidArgument);
    }

    /// The answer's status, where these headers or trailers hold one.
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
        gauge!(CALLS_IN_FLIGHT).decrement(1.0);
        if code == OK {
            let meters = self.method.meters.get_or_init(|| Meters::of(&self.method));
            meters.answered.increment(1);
            meters.seconds.record(elapsed);
        } else {
            counter!(CALLS, "method" => Arc::clone(&self.method.name), "code" => code).increment(1);
            histogram!(CALL_SECONDS, "method" => Arc::clone(&self.method.name)).record(elapsed);
        }
        self.span.in_scope(|| tracing::debug!(code, ?elapsed, "call answered"));
    }
}

const OK: &str = "OK";

/// What counts the calls of a method that were answered with OK: looking it up by name and labels each time costs more than
/// counting.
#[derive(Clone)]
pub(super) struct Meters {
    answered: Counter,
    seconds: Histogram,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    fn of(method: &Method) -> Self {
        Self {
            answered: counter!(CALLS, "method" => Arc::clone(&method.name), "code" => OK),
            seconds: histogram!(CALL_SECONDS, "method" => Arc::clone(&method.name)),
        }
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
