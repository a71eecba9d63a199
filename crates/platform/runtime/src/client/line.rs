//! A way to a service: a connection, or a direct call if the service runs in this process.

use std::fmt;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, Either, FutureExt, MapErr, TryFutureExt};
use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::transport::channel::ResponseFuture;
use tower::Service;

use crate::server::Local;

/// The transport of a generated client; cheap to clone.
#[derive(Clone)]
pub enum Line {
    /// A connection over HTTP/2.
    Remote(Channel),
    /// The door of this process's own server, with the same messages, headers and checks but without a socket.
    Here(Local),
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Remote(_) => "Remote",
            Self::Here(_) => "Here",
        })
    }
}

/// The error type that tonic's clients expect: they search it for the cause.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Boxed = fn(tonic::transport::Error) -> Error;

impl Service<Request<Body>> for Line {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Either<MapErr<ResponseFuture, Boxed>, BoxFuture<'static, Result<Response<Body>, Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self {
            Self::Remote(channel) => channel.poll_ready(cx).map_err(Into::into),
            Self::Here(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Self::Remote(channel) => Either::Left(channel.call(request).map_err(Into::into as Boxed)),
            Self::Here(local) => Either::Right(local.call(request).map(Ok).boxed()),
        }
    }
}
