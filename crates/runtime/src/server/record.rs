//! One call in logs and metrics, from its arrival to the end of its answer.

use std::sync::Arc;
use std::time::Instant;

use domain::access::Caller;
use http::HeaderMap;
use metrics::{counter, gauge, histogram};
use tonic::Code;
use tracing::Span;
use tracing::field::Empty;

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
    pub(super) fn begin(method: Arc<Method>, trace: &TraceContext) -> Self {
        let span =
            tracing::info_span!("call", method = %method.name, trace = %trace.trace_id(), caller = Empty, code = Empty);
        gauge!(CALLS_IN_FLIGHT).increment(1.0);
        Self { method, span, arrival: Instant::now(), code: None }
    }

    /// The span of the call.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// The caller is known.
    pub(super) fn caller(&self, caller: &Caller) {
        self.span.record("caller", tracing::field::display(caller));
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
        counter!(CALLS, "method" => Arc::clone(&self.method.name), "code" => code).increment(1);
        histogram!(CALL_SECONDS, "method" => Arc::clone(&self.method.name)).record(elapsed);
        self.span.record("code", code);
        self.span.in_scope(|| tracing::debug!(?elapsed, "call answered"));
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
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
