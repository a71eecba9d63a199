//! A way to a service: a connection, or no connection at all where the service is in this very process.

use std::fmt;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, Either, FutureExt, MapErr, TryFutureExt};
use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::transport::channel::ResponseFuture;
use tower::Service;

use crate::server::Local;

/// What a generated client calls through; cheap to clone.
#[derive(Clone)]
pub enum Line {
    /// Over HTTP/2.
    Remote(Channel),
    /// To the door of this process's own server: the same messages, headers and checks, without a socket between.
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

/// As tonic's clients take it: they look for the cause inside.
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
