//! The checks that make a request a gRPC call, and the headers that it may carry only once.
//!
//! A request that is no gRPC call gets an HTTP status, so that a browser, a crawler or the owner of a wrong proxy
//! setting understands the refusal.

use fault::{Fault, Reason};
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tonic::body::Body;

use crate::deadline::Deadline;
use crate::spans;
use crate::trace::{TRACEPARENT, TraceContext};

/// The HTTP answer to a request that is no gRPC call: 405 if it is no POST, 415 if its content type is not gRPC's.
/// `None` for a gRPC call. A refused request must not be carried out, whatever its path.
#[must_use]
pub fn no_call<B>(request: &Request<B>) -> Option<Response<Body>> {
    let (status, why) = if request.method() != Method::POST {
        (StatusCode::METHOD_NOT_ALLOWED, "gRPC calls are made with POST; grpcurl makes them from a shell\n")
    } else if !carries_grpc(request.headers()) {
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "gRPC calls have the content-type application/grpc\n")
    } else {
        return None;
    };
    let body = if request.method() == Method::HEAD { Body::empty() } else { Body::new(why.to_owned()) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    Some(response)
}

/// Whether there is exactly one content type and it is gRPC's. Messages are decoded as Protocol Buffers, so no other
/// encoding is accepted.
fn carries_grpc(headers: &HeaderMap) -> bool {
    let Ok(Some(value)) = once(headers, CONTENT_TYPE.as_str()) else { return false };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].iter().any(|known| essence.eq_ignore_ascii_case(known))
}

/// A header that occurs more than once, so that it is unclear which value is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Twice;

/// The value of a header that occurs at most once.
fn once<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Twice> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(Twice) } else { Ok(first) }
}

/// The time that a caller gives its call; `None` if it names none.
///
/// # Errors
/// FIELD_INVALID if `grpc-timeout` is malformed or occurs more than once. Ignoring it could mean working for a caller
/// that is long gone.
pub fn timeout(headers: &HeaderMap) -> Result<Option<std::time::Duration>, Fault> {
    let refused = |why: &str| {
        let mut violations = fault::Violations::new();
        violations.add("grpc-timeout", Reason::FieldInvalid, why);
        violations.finish()
    };
    match once(headers, "grpc-timeout") {
        Ok(None) => return Ok(None),
        Ok(Some(value)) => {
            if let Some(span) = value.to_str().ok().and_then(Deadline::parse_timeout) {
                return Ok(Some(span));
            }
            refused("must be one to eight digits and one of the units H, M, S, m, u, n, such as 250m")?;
        }
        Err(Twice) => refused("must be there once at most")?,
    }
    Ok(None)
}

/// The token in `authorization`; `None` if there is none.
///
/// # Errors
/// CREDENTIALS_INVALID if the value is no bearer token, or if it occurs more than once, so that the caller is unclear.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let invalid = |why| Err(Fault::new(Reason::CredentialsInvalid, why));
    let value = match once(headers, AUTHORIZATION.as_str()) {
        Ok(None) => return Ok(None),
        Ok(Some(value)) => value,
        Err(Twice) => return invalid("the metadata authorization is there more than once; send one token"),
    };
    match value.to_str().ok().and_then(|text| text.split_once(' ')) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => invalid("the metadata authorization is not of the form: Bearer TOKEN"),
    }
}

/// The trace that the call continues. A new trace if the call names none, several, or an unreadable one, as W3C
/// requires.
pub(super) fn trace(headers: &HeaderMap) -> TraceContext {
    let named = once(headers, TRACEPARENT).ok().flatten().and_then(|value| value.to_str().ok());
    let caller = named.and_then(TraceContext::parse);
    match caller {
        Some(caller) => caller.child(),
        None if spans::sampled() => TraceContext::generate(),
        None => TraceContext::background(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, types: &[&str]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/a.B/C");
        for one in types {
            request = request.header(CONTENT_TYPE, *one);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn only_posts_of_grpc_messages_are_calls() {
        let grpc = ["application/grpc", "application/grpc+proto", "Application/gRPC", "application/grpc;charset=utf-8"];
        for one in grpc {
            assert!(no_call(&request("POST", &[one])).is_none(), "{one}");
        }
        let others: [&[&str]; 9] = [
            &[],
            &[""],
            &["application/json"],
            &["application/grpc-web"],
            &["application/grpc-web+proto"],
            &["application/grpc+json"],
            &["application/grpcx"],
            &["text/plain; application/grpc"],
            &["application/grpc", "application/json"],
        ];
        for types in others {
            let refused = no_call(&request("POST", types)).unwrap();
            assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{types:?}");
        }
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
            let refused = no_call(&request(method, &["application/grpc"])).unwrap();
            assert_eq!((refused.status().as_u16(), &refused.headers()[ALLOW]), (405, &"POST".parse().unwrap()));
            assert_eq!(http_body::Body::is_end_stream(refused.body()), method == "HEAD", "{method}");
        }
    }

    #[test]
    fn what_may_be_there_once_is_not_guessed_at_when_it_is_there_twice() {
        let headers = |name: &'static str, values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            headers
        };
        assert_eq!(timeout(&headers("grpc-timeout", &["250m"])), Ok(Some(std::time::Duration::from_millis(250))));
        assert_eq!(timeout(&HeaderMap::new()), Ok(None));
        for wrong in [&["250m", "250m"][..], &["-1S"], &["123456789S"], &["10"], &[""], &["1\u{fffd}"]] {
            let fault = timeout(&headers("grpc-timeout", wrong)).unwrap_err();
            assert_eq!(fault.violations()[0].field, "grpc-timeout", "{wrong:?}");
        }
        assert_eq!(bearer(&headers("authorization", &["bearer  x "])), Ok(Some("x")));
        for wrong in [&["Bearer x", "Bearer x"][..], &["Bearer"], &["Basic a2lt"], &[""]] {
            let fault = bearer(&headers("authorization", wrong)).unwrap_err();
            assert_eq!(fault.reason(), Reason::CredentialsInvalid, "{wrong:?}");
        }
        const SAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = TraceContext::parse(SAMPLE).unwrap();
        assert_eq!(trace(&headers(TRACEPARENT, &[SAMPLE])).trace_id(), parent.trace_id());
        assert_ne!(trace(&headers(TRACEPARENT, &[SAMPLE, SAMPLE])).trace_id(), parent.trace_id());
    }
}
