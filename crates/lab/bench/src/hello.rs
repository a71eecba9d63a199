//! The baseline of every rate: a unary call that does nothing, by the same tonic and runtime, in a process of its own.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use mesh::child::Child;
use mesh::{Signal, port};
use runtime::identity::Signer;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::caller::{Caller, Lines, Token};
use crate::load::{Answer, Work};
use crate::{Error, Plan};

const PATH: &str = "/bench.Hello/Say";
/// The number of bytes of the text, which is echoed.
const SIZE: usize = 64;
/// How long the process may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The request and the answer.
#[derive(Clone, PartialEq, prost::Message)]
struct Hello {
    #[prost(string, tag = "1")]
    text: String,
}

/// Serves the baseline on this address until the process ends.
///
/// # Errors
/// If it cannot listen on the address.
pub async fn serve(addr: SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind(addr).await.map_err(Error::system(format!("listen on {addr}")))?;
    // As in the services. Delayed small packets would slow the baseline and flatter everything that is compared with
    // it.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = tonic::transport::Server::builder().add_service(Greeter).serve_with_incoming(incoming).await;
    served.map_err(|error| Error::failed(format!("the baseline's server failed: {error}")))
}

/// What `tonic-prost-build` would generate for one unary method.
#[derive(Debug, Clone)]
struct Greeter;

impl NamedService for Greeter {
    const NAME: &'static str = "bench.Hello";
}

impl tower::Service<http::Request<Body>> for Greeter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut server = tonic::server::Grpc::new(ProstCodec::<Hello, Hello>::default());
            Ok(server.unary(Say, request).await)
        })
    }
}

struct Say;

impl tonic::server::UnaryService<Hello> for Say {
    type Response = Hello;
    type Future = Ready<Result<Response<Hello>, Status>>;

    fn call(&mut self, request: Request<Hello>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

/// The baseline's process, and its caller.
#[derive(Debug)]
pub(crate) struct Baseline {
    caller: Caller,
    child: Child,
}

impl Baseline {
    /// Starts the process and waits until it accepts connections.
    pub(crate) async fn start(plan: &Plan, signer: &Signer) -> Result<(Self, Greeting), Error> {
        let addr = SocketAddr::from(([127, 0, 0, 1], port::free()?));
        let mut command = Command::new(&plan.binary);
        command.args(["bench", "--serve-hello", &addr.to_string()]);
        let child = Child::spawn("the baseline's server", command, Signal::KILL, None)?;
        let end = tokio::time::Instant::now() + START_TIMEOUT;
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            if tokio::time::Instant::now() > end {
                return Err(Error::failed(format!(
                    "the baseline's server does not answer: {}",
                    child.output().tail(5)
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The baseline reads no token, but its callers send one, as they do to the services.
        let caller = Caller::new(Lines::to(addr, plan.connections)?, Token::admin(signer)?);
        let greeting = Greeting { caller: caller.clone() };
        Ok((Self { caller, child }, greeting))
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Makes one call, which must succeed.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        say(&self.caller, 0).await.map_err(Error::call("the baseline's call"))
    }
}

/// A hello-world call.
#[derive(Debug)]
pub(crate) struct Greeting {
    caller: Caller,
}

impl Work for Greeting {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        say(&self.caller, caller).await.map(|()| Answer::Done)
    }
}

async fn say(caller: &Caller, index: usize) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(caller.channel(index));
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = caller.request(Hello { text: "x".repeat(SIZE) });
    let codec = ProstCodec::<Hello, Hello>::default();
    client.unary(request, PathAndQuery::from_static(PATH), codec).await.map(drop)
}
