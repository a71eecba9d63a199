//! The record of one call in logs and metrics, from its arrival to the end of its answer.

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

/// Follows a call. If it is dropped without a code, the client went away before it had its answer.
#[derive(Debug)]
pub(super) struct Record {
    method: Arc<Method>,
    span: Span,
    arrival: Instant,
    code: Option<Code>,
}

impl Record {
    /// Begins the record of a call.
    pub(super) fn begin(method: Arc<Method>) -> Self {
        gauge!(CALLS_IN_FLIGHT).increment(1.0);
        Self { method, span: Span::none(), arrival: Instant::now(), code: None }
    }

    /// Makes the span of the call. It is called once the caller is known, or known to be unknown, because adding a
    /// field later would write all fields again.
    pub(super) fn enter(&mut self, trace: &TraceContext, caller: Option<&Caller>) -> Span {
        let caller = caller.map(tracing::field::display);
        self.span = tracing::info_span!("call", method = %self.method.name, trace = %trace.trace_id(), caller);
        self.span.clone()
    }

    /// The span of the call; no span before [`Self::enter`].
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Records a request that was no gRPC call, as a mistake of its sender.
    pub(super) fn no_call(&mut self) {
        self.code = Some(Code::InvalidArgument);
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

/// The meters of a method's OK answers. They are kept because finding them by name and labels costs more than counting.
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
