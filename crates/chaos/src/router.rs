//! One address for one replica of each service, as `checkup verify` wants to see a mesh.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Server};
use tower::{Service, ServiceExt};

use crate::Error;

/// Serves until its handle goes.
#[derive(Debug)]
pub(crate) struct Router {
    addr: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Router {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Router {
    /// Routes `checkup.NAME.v1.…` to the channel of that name.
    pub(crate) async fn start(channels: HashMap<String, Channel>) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Error::system("listen on a free port"))?;
        let addr = listener.local_addr().map_err(Error::system("listen on a free port"))?;
        let serving = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            // it ends with its handle, and with nothing else
            let _ = Server::builder().serve_with_incoming(Routes(Arc::new(channels)), incoming).await;
        });
        Ok(Self { addr, serving })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

#[derive(Clone)]
struct Routes(Arc<HashMap<String, Channel>>);

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = request.uri().path().strip_prefix("/checkup.").and_then(|rest| rest.split('.').next());
        let channel = service.and_then(|service| self.0.get(service)).cloned();
        Box::pin(async move {
            let Some(mut channel) = channel else {
                return Ok(Status::unimplemented("no service of this mesh has this method").into_http());
            };
            let answer = match channel.ready().await {
                Ok(channel) => channel.call(request).await,
                Err(error) => Err(error),
            };
            Ok(answer.unwrap_or_else(|error| Status::unavailable(format!("{error:?}")).into_http()))
        })
    }
}
