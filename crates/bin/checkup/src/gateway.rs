//! One address for a mesh on this machine: every call is forwarded to a replica of the service it names.
//!
//! It takes the place of Istio's gateway for grpcurl and for the tools of this binary. It prefers replicas that are
//! ready, tries the next replica if one refuses the connection, and sends one caller's my-page calls to one replica,
//! because a resume token is valid only for the file it was made from. It makes no other decision and reads no message.
//!
//! It answers calls about the whole mesh itself: reflection, which is the same in every process, and health, because
//! each replica knows only its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use fault::{Fault, Reason};
use futures::future::BoxFuture;
use http::header::ACCEPT_LANGUAGE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use prost::Message;
use prost_types::FileDescriptorSet;
use runtime::call::service_of;
use runtime::client::{ClientOptions, connect};
use runtime::limited;
use runtime::server::{MAX_MESSAGE, protocol, with_reflection};
use runtime::status::status_of_call;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::{Service, ServiceExt};

use crate::exit::chain;
use crate::service::Service as CheckupService;

const CONNECTIONS: usize = 2;
/// Bytes that gRPC puts before each message.
const FRAME: usize = 5;
/// The most streams that a client may have open on one connection.
const STREAMS: u32 = 4_096;

/// One replica, and whether it is ready.
#[derive(Debug)]
pub struct Upstream {
    channels: Vec<Channel>,
    ready: AtomicBool,
    next: AtomicUsize,
}

impl Upstream {
    /// A replica that is not ready yet.
    ///
    /// # Errors
    /// Fails if the address makes no URI.
    pub fn new(addr: SocketAddr) -> Result<Self, http::uri::InvalidUri> {
        let uri: http::Uri = format!("http://{addr}").parse()?;
        let channels = (0..CONNECTIONS).map(|_| connect(uri.clone(), ClientOptions::default())).collect();
        Ok(Self { channels, ready: AtomicBool::new(false), next: AtomicUsize::new(0) })
    }

    /// Sets whether calls should prefer this replica.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn channel(&self) -> Channel {
        self.channels[self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len()].clone()
    }
}

/// Forwards calls. The replicas are keyed by the part of a method's name that names the service: `hospital` in
/// `checkup.hospital.v1.HospitalService`.
#[derive(Debug, Clone)]
pub struct Gateway {
    upstreams: Arc<HashMap<String, Vec<Arc<Upstream>>>>,
    health: Health,
    /// Reflection and health, which the gateway answers itself.
    own: Routes,
    turn: Arc<AtomicUsize>,
}

/// The health of every service of the mesh. The empty name stands for all of them.
#[derive(Debug, Clone)]
struct Health {
    reporter: HealthReporter,
    /// The gRPC services of each upstream, by upstream.
    names: Arc<HashMap<String, Vec<String>>>,
    /// What was reported last, because only changes are reported to watchers.
    last_reported: Arc<Mutex<HashMap<String, bool>>>,
}

impl Health {
    fn new(upstreams: &HashMap<String, Vec<Arc<Upstream>>>) -> Result<Self, runtime::server::Error> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for file in FileDescriptorSet::decode(contract::DESCRIPTORS)?.file {
            let Some(upstream) = service_of(file.package()).filter(|name| upstreams.contains_key(*name)) else {
                continue;
            };
            let listed = file.service.iter().map(|service| format!("{}.{}", file.package(), service.name()));
            names.entry(upstream.to_owned()).or_default().extend(listed);
        }
        Ok(Self { reporter: HealthReporter::new(), names: Arc::new(names), last_reported: Arc::default() })
    }

    /// Reports whether a gRPC service serves, if that has changed.
    async fn report(&self, name: &str, serves: bool) {
        let before = self.last_reported.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), serves);
        if before != Some(serves) {
            let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(name, status).await;
        }
    }
}

impl Gateway {
    /// A gateway to these replicas.
    ///
    /// # Errors
    /// Fails if the descriptors of the contract cannot be served, which is a defect of the build.
    pub fn new(upstreams: HashMap<String, Vec<Arc<Upstream>>>) -> Result<Self, runtime::server::Error> {
        let health = Health::new(&upstreams)?;
        let served = HealthServer::new(HealthService::from_health_reporter(health.reporter.clone()));
        let own = with_reflection(Routes::default().add_service(limited!(served)))?.prepare();
        Ok(Self { upstreams: Arc::new(upstreams), health, own, turn: Arc::default() })
    }

    /// Updates the health of every service, for checks and watchers. A service is SERVING if one of its replicas is.
    pub async fn report_health(&self) {
        let mut all_serve = true;
        for (upstream, names) in self.health.names.iter() {
            let replicas = self.upstreams.get(upstream).map(Vec::as_slice).unwrap_or_default();
            let serves = replicas.iter().any(|replica| replica.ready.load(Ordering::Relaxed));
            all_serve &= serves;
            for name in names {
                self.health.report(name, serves).await;
            }
        }
        self.health.report("", all_serve).await;
    }

    /// Serves until `stop` ends.
    ///
    /// # Errors
    /// Fails if the transport does.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        tonic::transport::Server::builder()
            .max_concurrent_streams(STREAMS)
            .tcp_nodelay(true)
            .serve_with_incoming_shutdown(self, TcpListenerStream::new(listener), stop)
            .await
    }

    /// The replicas that a call may go to: ready ones first, each group starting at another replica per call, or per
    /// caller for my-page.
    fn candidates(&self, head: &Parts) -> Vec<Arc<Upstream>> {
        let Some(service) = head.uri.path().strip_prefix('/').and_then(service_of) else { return Vec::new() };
        let Some(replicas) = self.upstreams.get(service) else { return Vec::new() };
        let first = if service == CheckupService::MyPage.name() {
            let mut hasher = DefaultHasher::new();
            head.headers.get(http::header::AUTHORIZATION).map(HeaderValue::as_bytes).hash(&mut hasher);
            hasher.finish() as usize % replicas.len()
        } else {
            self.turn.fetch_add(1, Ordering::Relaxed)
        };
        let turned = (0..replicas.len()).map(|index| Arc::clone(&replicas[(first + index) % replicas.len()]));
        let (ready, others): (Vec<_>, Vec<_>) = turned.partition(|replica| replica.ready.load(Ordering::Relaxed));
        ready.into_iter().chain(others).collect()
    }

    async fn forward(self, request: Request<Body>) -> Response<Body> {
        if request.uri().path().starts_with("/grpc.") {
            return self.own.clone().call(request).await.unwrap_or_else(|never| match never {});
        }
        let (head, body) = request.into_parts();
        // Requests are small and not streamed, so a request can be sent again.
        let message = match Limited::new(body, FRAME + MAX_MESSAGE).collect().await {
            Ok(message) => message.to_bytes(),
            Err(error) => {
                let why = "the request cannot be read, or is larger than 256 KiB";
                return refuse(Fault::new(Reason::FieldInvalid, why).caused_by(error), &head.headers);
            }
        };
        let candidates = self.candidates(&head);
        if candidates.is_empty() {
            return Status::unimplemented("no service of this mesh has this method").into_http();
        }
        let mut why = String::new();
        for upstream in candidates {
            let request = Request::from_parts(head.clone(), Body::new(Full::new(message.clone())));
            let mut channel = upstream.channel();
            let answer = match channel.ready().await {
                Ok(channel) => channel.call(request).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => return response,
                Err(error) if is_late(&error) => return late(&head.headers),
                Err(error) => {
                    why = chain(&error);
                    // a request that was sent may have taken effect, and only the caller knows whether it may be
                    // repeated
                    if !was_not_sent(&error) {
                        break;
                    }
                }
            }
        }
        let fault = Fault::new(Reason::NotReady, "no replica answers; send the same request again").caused_by(why);
        refuse(fault, &head.headers)
    }
}

fn refuse(fault: Fault, headers: &HeaderMap) -> Response<Body> {
    status_of_call(fault, headers).into_http()
}

fn late(headers: &HeaderMap) -> Response<Body> {
    refuse(Fault::new(Reason::DeadlineExceeded, "the deadline has passed"), headers)
}

/// The error and its causes.
fn causes(error: &tonic::transport::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
}

/// Whether the connection was refused, so that nothing was sent.
fn was_not_sent(error: &tonic::transport::Error) -> bool {
    let refused = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    causes(error).any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(refused))
}

/// Whether the channel ended the call because its deadline passed.
fn is_late(error: &tonic::transport::Error) -> bool {
    causes(error).any(|cause| cause.is::<tonic::TimeoutExpired>())
}

impl Service<Request<Body>> for Gateway {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Without it, tonic would answer first, without a reason.
        const AHEAD_OF_THE_LIBRARY: Duration = Duration::from_millis(2);
        let gateway = self.clone();
        Box::pin(async move {
            if let Some(refusal) = protocol::no_call(&request) {
                return Ok(refusal);
            }
            let named = match protocol::timeout(request.headers()) {
                Ok(Some(named)) => named,
                Ok(None) => return Ok(gateway.forward(request).await),
                Err(fault) => return Ok(refuse(fault, request.headers())),
            };
            let limit = named.saturating_sub(AHEAD_OF_THE_LIBRARY);
            let languages = request.headers().get_all(ACCEPT_LANGUAGE).iter();
            let languages = languages.map(|value| (ACCEPT_LANGUAGE, value.clone())).collect();
            Ok(timeout(limit, gateway.forward(request)).await.unwrap_or_else(|_| late(&languages)))
        })
    }
}
