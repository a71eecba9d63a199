//! Calls to other services: the channel, the metadata of every call, and the meaning of failures.
//!
//! It does not retry, because only the caller knows which calls may be repeated. [`Replicas`] chooses where each
//! attempt goes.

mod line;
mod replicas;

use std::time::Duration;

use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use crate::deadline::{Deadline, FAIR};
use crate::identity::TokenSource;
use crate::status::reason_of;
use crate::trace::{TRACEPARENT, TraceContext};

pub use self::line::Line;
pub use self::replicas::{Attempt, Replicas, Route, SLOT, Silence};

/// The settings by which a channel notices that its peer is gone.
#[derive(Debug, Clone, Copy)]
pub struct ClientOptions {
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// How often the peer is pinged, with or without calls under way. Without pings, every call to a peer that vanished
    /// would hang until its own deadline.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered before the connection is given up.
    pub keepalive_timeout: Duration,
    /// Connections per replica, at least one. At either end one thread at a time works on a connection.
    pub connections: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(2),
            connections: 2,
        }
    }
}

/// Statuses travel in headers. Those of this system are small, but a proxy's may not be.
const MAX_HEADERS: u32 = 64 * 1024;

/// HTTP/2 counts the streams that an endpoint resets over the whole life of a connection, and ends the connection with
/// all its calls when there are too many. Calls that run out of time count, so the library's 1,024 is too low for a
/// busy day.
const MAX_RESET_STREAMS: usize = 16 * 1024;

/// One channel that connects at its first use and reconnects when needed. It never fails; its calls do. Tools use it;
/// services use [`Replicas`].
#[must_use]
pub fn connect(uri: Uri, options: ClientOptions) -> Channel {
    endpoint(uri, options).connect_lazy()
}

/// The endpoint of [`connect`], for callers with a connector of their own.
pub fn endpoint(uri: Uri, options: ClientOptions) -> Endpoint {
    Endpoint::from(uri)
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_max_local_error_reset_streams(MAX_RESET_STREAMS)
}

/// Reads the addresses of replicas in the form of the configuration: `http://HOST:PORT`, separated by commas.
///
/// # Errors
/// The fault in the text, in words for its author.
pub fn addresses(text: &str) -> Result<Vec<Uri>, String> {
    let address = |text: &str| {
        let uri: Option<Uri> = text.parse().ok();
        let usable =
            uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty()));
        usable.ok_or_else(|| format!("{text:?} is not of the form http://HOST:PORT"))
    };
    text.split(',').map(|part| address(part.trim())).collect()
}

/// Makes the requests of outgoing calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing {
    reserve: Duration,
}

impl Outgoing {
    /// Reserves this part of the caller's time for work after the answer.
    #[must_use]
    pub fn reserving(reserve: Duration) -> Self {
        Self { reserve }
    }

    /// A request with this process's token, the trace, and the rest of the deadline. If no token is available, the call
    /// goes out without one, and the peer's refusal says so.
    ///
    /// The named time is at least [`FAIR`], whatever remains, because a proxy on the way enforces the named time and
    /// counts its expiry against the peer. A caller with less time cancels the call itself at its deadline. Nobody is
    /// blamed for that, and the peer stops working on a cancelled call.
    #[must_use]
    pub fn request<T>(&self, message: T, tokens: &TokenSource, trace: &TraceContext, deadline: Deadline) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Some(bearer) = tokens.bearer() {
            metadata.insert("authorization", bearer);
        }
        if let Ok(traceparent) = AsciiMetadataValue::try_from(trace.traceparent()) {
            metadata.insert(TRACEPARENT, traceparent);
        }
        request.set_timeout(deadline.earlier_by(self.reserve).remaining().max(FAIR));
        request
    }
}

/// Whether a call failed without an answer of the service, so that the outcome is unknown and the same request may be
/// sent again. CANCELLED comes from tonic's own client if the timeout of a request passes before the peer answers
/// DEADLINE_EXCEEDED. UNKNOWN and INTERNAL without this system's ErrorInfo are the transport's codes for a broken
/// stream. RESOURCE_EXHAUSTED without it is a connection whose peer told it to slow down. UNIMPLEMENTED is a server
/// that does not run the service.
#[must_use]
pub fn is_unreachable(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Unimplemented => true,
        Code::Cancelled | Code::Unknown | Code::Internal | Code::ResourceExhausted => reason_of(status).is_none(),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

#[cfg(test)]
mod tests {
    use fault::{Fault, Reason};

    use super::*;
    use crate::status::status;

    #[test]
    fn refusals_are_answers_and_broken_streams_are_not() {
        for reason in Reason::ALL {
            let code = reason.code();
            let silent = matches!(code, fault::Code::Unavailable | fault::Code::DeadlineExceeded);
            assert_eq!(is_unreachable(&status(Fault::new(*reason, "x"))), silent, "{}", reason.name());
        }
        assert!(is_unreachable(&Status::unknown("h2 protocol error: error reading a body from connection")));
        assert!(is_unreachable(&Status::resource_exhausted("h2 protocol error: too many resets")));
        assert!(is_unreachable(&Status::unimplemented("")));
        assert!(is_unreachable(&Status::cancelled("Timeout expired")));
    }

    #[test]
    fn addresses_are_separated_by_commas() {
        let two = addresses("http://10.0.0.1:8080, http://hospital-1:8080").unwrap();
        assert_eq!(two, ["http://10.0.0.1:8080", "http://hospital-1:8080"].map(Uri::from_static));
        for wrong in ["", "http://a:1,", "hospital:8080", "https://a:1", "http://:1"] {
            assert!(addresses(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_carries_what_remains_of_the_deadline() {
        let deadline = Deadline::within(Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(4)).await;
        let trace = TraceContext::generate();
        let outgoing = Outgoing::reserving(Duration::from_secs(1));
        let request = outgoing.request((), &TokenSource::fixed("t"), &trace, deadline);
        let metadata = request.metadata();
        let timeout = Deadline::parse_timeout(metadata.get("grpc-timeout").unwrap().to_str().unwrap());
        assert_eq!(timeout, Some(Duration::from_secs(5)));
        assert_eq!(metadata.get("authorization").unwrap(), "Bearer t");
        let sent = TraceContext::parse(metadata.get(TRACEPARENT).unwrap().to_str().unwrap()).unwrap();
        assert_eq!(sent.trace_id(), trace.trace_id());
        // A caller with little time cancels the call itself; no proxy on the way is to enforce its time.
        let hurried =
            outgoing.request((), &TokenSource::fixed("t"), &trace, Deadline::within(Duration::from_millis(3)));
        let timeout = hurried.metadata().get("grpc-timeout").unwrap().to_str().unwrap().to_owned();
        assert_eq!(Deadline::parse_timeout(&timeout), Some(FAIR));
    }
}
