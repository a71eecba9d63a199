//! What a handler reads of a call besides its message. The server's door put it there; nothing is verified here.

use domain::access::Caller;
use tonic::Request;

use crate::trace::TraceContext;

/// Who calls, as the verified token said; anonymous where there was none.
#[must_use]
pub fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Anonymous)
}

/// The call's position in its trace; a new trace where no door was passed.
#[must_use]
pub fn trace<T>(request: &Request<T>) -> TraceContext {
    request.extensions().get::<TraceContext>().copied().unwrap_or_else(TraceContext::generate)
}
