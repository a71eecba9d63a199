//! What a handler reads about a call besides its message. The server's door put it there; nothing is verified here.

use domain::access::Caller;
use tonic::Request;

use crate::trace::TraceContext;

/// The service that serves a package or a method of the contract: `hospital` for `checkup.hospital.v1`, and for
/// `checkup.capacity.v1`, the one package that is not named like its service. `None` for other names.
#[must_use]
pub fn service_of(name: &str) -> Option<&str> {
    match name.strip_prefix("checkup.")?.split('.').next()? {
        "capacity" => Some("hospital"),
        service => Some(service),
    }
}

/// The caller, as the verified token says; anonymous without a token.
#[must_use]
pub fn caller<T>(request: &Request<T>) -> Caller {
    request.extensions().get::<Caller>().cloned().unwrap_or(Caller::Anonymous)
}

/// The call's position in its trace; a new trace if the call did not pass a door.
#[must_use]
pub fn trace<T>(request: &Request<T>) -> TraceContext {
    request.extensions().get::<TraceContext>().copied().unwrap_or_else(TraceContext::generate)
}
