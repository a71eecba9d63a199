//! A server for tests, a service that the request instructs, and a client that writes raw HTTP/2.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::marketing::v1::marketing_service_client::MarketingServiceClient;
use contract::marketing::v1::marketing_service_server::{MarketingService, MarketingServiceServer};
use contract::marketing::v1::{
    ListDemandSignalsRequest, ListDemandSignalsResponse, ProposeCapacityIncreaseRequest,
    ProposeCapacityIncreaseResponse,
};
use contract::mypage::v1::my_page_service_client::MyPageServiceClient;
use contract::mypage::v1::my_page_service_server::{MyPageService, MyPageServiceServer};
use contract::mypage::v1::{
    GetMyPageRequest, ListMyPageItemsRequest, ListMyPageItemsResponse, MyPage, WatchMyPageRequest, WatchMyPageResponse,
};
use fault::{Fault, Reason};
use futures::{Stream, StreamExt};
use http::HeaderMap;
use runtime::call::{caller, trace};
use runtime::client::{ClientOptions, Outgoing, connect};
use runtime::clock::Clock;
use runtime::deadline::{Deadline, FAIR};
use runtime::identity::{Claims, Hospitals, Role, Signer, TokenSource, Verifier};
use runtime::lifecycle::{Drain, DrainTrigger, Readiness, drain_pair};
use runtime::limited;
use runtime::server::{Error, Server, ServerOptions};
use runtime::status::status;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Long enough for a loaded machine; a test that waits this long has failed.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Fails after [`TEST_TIMEOUT`] instead of hanging.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TEST_TIMEOUT, future).await.expect("it took too long")
}

/// A service that does what the request's filter says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probe {
    /// Notified whenever a call hangs on purpose.
    pub(crate) hanging: Arc<Notify>,
    /// Lets one hanging call continue.
    pub(crate) release: Arc<Notify>,
    /// The service that `forward` calls.
    pub(crate) peer: Option<Channel>,
}

fn answer(text: impl ToString) -> Result<Response<ListDemandSignalsResponse>, Status> {
    Ok(Response::new(ListDemandSignalsResponse { signals: Vec::new(), next_page_token: text.to_string() }))
}

#[tonic::async_trait]
impl MarketingService for Probe {
    async fn list_demand_signals(
        &self,
        request: Request<ListDemandSignalsRequest>,
    ) -> Result<Response<ListDemandSignalsResponse>, Status> {
        match request.get_ref().filter.as_str() {
            "caller" => answer(caller(&request)),
            "trace" => answer(trace(&request).traceparent()),
            "remaining" => answer(Deadline::from_request(&request).remaining().as_millis()),
            "refuse" => Err(status(Fault::new(Reason::FilterInvalid, "told to refuse").with("filter", "refuse"))),
            "panic" => panic!("told to panic"),
            "hold the process up" => {
                std::thread::sleep(FAIR);
                std::future::pending().await
            }
            "hang" => {
                self.hanging.notify_one();
                self.release.notified().await;
                answer("released")
            }
            "forward" => {
                let peer = self.peer.clone().expect("a peer to forward to");
                let message = ListDemandSignalsRequest { filter: "remaining".into(), ..Default::default() };
                let outgoing = Outgoing::reserving(Duration::from_secs(4));
                let tokens = TokenSource::anonymous();
                let request = outgoing.request(message, &tokens, &trace(&request), Deadline::from_request(&request));
                MarketingServiceClient::new(peer).list_demand_signals(request).await
            }
            _ => answer(""),
        }
    }

    async fn propose_capacity_increase(
        &self,
        _: Request<ProposeCapacityIncreaseRequest>,
    ) -> Result<Response<ProposeCapacityIncreaseResponse>, Status> {
        Ok(Response::new(ProposeCapacityIncreaseResponse::default()))
    }
}

#[tonic::async_trait]
impl MyPageService for Probe {
    async fn get_my_page(&self, _: Request<GetMyPageRequest>) -> Result<Response<MyPage>, Status> {
        Ok(Response::new(MyPage::default()))
    }

    async fn list_my_page_items(
        &self,
        _: Request<ListMyPageItemsRequest>,
    ) -> Result<Response<ListMyPageItemsResponse>, Status> {
        Ok(Response::new(ListMyPageItemsResponse::default()))
    }

    type WatchMyPageStream = Pin<Box<dyn Stream<Item = Result<WatchMyPageResponse, Status>> + Send>>;

    /// Sends one message and then stays silent; panics if the name says so.
    async fn watch_my_page(
        &self,
        request: Request<WatchMyPageRequest>,
    ) -> Result<Response<Self::WatchMyPageStream>, Status> {
        let first = futures::stream::iter([Ok(WatchMyPageResponse::default())]);
        let panics = request.get_ref().name == "panic";
        let rest = futures::stream::poll_fn(move |_| {
            assert!(!panics, "told to panic");
            std::task::Poll::Pending
        });
        Ok(Response::new(Box::pin(first.chain(rest))))
    }
}

/// Options with a drain of at most ten seconds.
pub(crate) fn options() -> ServerOptions {
    ServerOptions { drain_timeout: Duration::from_secs(10), ..ServerOptions::default() }
}

/// A running server; it drains when this is dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) probe: Probe,
    pub(crate) signer: Signer,
    pub(crate) trigger: DrainTrigger,
    pub(crate) drain: Drain,
    pub(crate) ended: JoinHandle<Result<(), Error>>,
    _dir: tempfile::TempDir,
}

impl Running {
    pub(crate) async fn start(options: ServerOptions) -> Self {
        Self::start_with(options, Probe::default(), Readiness::new()).await
    }

    pub(crate) async fn start_with(options: ServerOptions, probe: Probe, readiness: Readiness) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, options, probe, readiness)
    }

    pub(crate) fn start_on(listener: TcpListener, options: ServerOptions, probe: Probe, readiness: Readiness) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::load_or_create(dir.path()).unwrap();
        let verifier = Verifier::from_jwks(&signer.jwks()).unwrap();
        let mut server = Server::new(options, verifier, Clock::system()).ready_when(readiness);
        server
            .add(limited!(MarketingServiceServer::new(probe.clone())))
            .add(limited!(MyPageServiceServer::new(probe.clone())));
        let addr = listener.local_addr().unwrap();
        let (trigger, drain) = drain_pair();
        let ended = tokio::spawn(server.run(listener, drain.clone()));
        Self { addr, probe, signer, trigger, drain, ended, _dir: dir }
    }

    pub(crate) fn channel(&self) -> Channel {
        connect(format!("http://{}", self.addr).parse().unwrap(), ClientOptions::default())
    }

    pub(crate) fn marketing(&self) -> MarketingServiceClient<Channel> {
        MarketingServiceClient::new(self.channel())
    }

    pub(crate) fn my_page(&self) -> MyPageServiceClient<Channel> {
        MyPageServiceClient::new(self.channel())
    }

    /// A token of this role that is valid for an hour.
    pub(crate) fn token(&self, role: Role, subject: &str) -> String {
        let hospitals = Some("*".parse::<Hospitals>().unwrap());
        self.signer.sign(&Claims::new(role, subject, hospitals, Duration::from_secs(3600))).unwrap()
    }
}

/// A request that instructs the probe.
pub(crate) fn instructed(filter: &str) -> Request<ListDemandSignalsRequest> {
    Request::new(ListDemandSignalsRequest { filter: filter.to_owned(), ..Default::default() })
}

/// The same with this value of the `authorization` metadata.
pub(crate) fn instructed_by(filter: &str, authorization: &str) -> Request<ListDemandSignalsRequest> {
    let mut request = instructed(filter);
    request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    request
}

/// A client that writes HTTP/2 itself. It has no timeouts or limits, so that the server's can be tested.
pub(crate) async fn raw(addr: SocketAddr) -> (h2::client::SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    (sender.ready().await.unwrap(), driver)
}

/// Calls ListDemandSignals with these extra headers and returns the status.
pub(crate) async fn raw_call(
    sender: &mut h2::client::SendRequest<Bytes>,
    filter: &str,
    extra: &[(&str, &str)],
) -> Status {
    let response = raw_response(sender, filter, extra).await;
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let trailers: HeaderMap = soon(async {
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            data.unwrap();
        }
        body.trailers().await.unwrap().unwrap_or_default()
    })
    .await;
    Status::from_header_map(&trailers).expect("a grpc-status")
}

/// The same, but returns the head of the answer.
pub(crate) async fn raw_head(
    sender: &mut h2::client::SendRequest<Bytes>,
    filter: &str,
    extra: &[(&str, &str)],
) -> HeaderMap {
    raw_response(sender, filter, extra).await.headers().clone()
}

async fn raw_response(
    sender: &mut h2::client::SendRequest<Bytes>,
    filter: &str,
    extra: &[(&str, &str)],
) -> http::Response<h2::RecvStream> {
    let mut request = http::Request::post("http://server/checkup.marketing.v1.MarketingService/ListDemandSignals")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in extra {
        request = request.header(*name, *value);
    }
    let message = prost::Message::encode_to_vec(instructed(filter).get_ref());
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    let (response, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(body.into(), true).unwrap();
    soon(response).await.unwrap()
}
