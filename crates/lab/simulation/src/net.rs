//! The simulated network under the real server and the real client.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use runtime::client::{ClientOptions, Line, Replicas, endpoint};
use runtime::server::Listener;
use tonic::transport::{Channel, Uri};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

/// The port that every host serves on.
const PORT: u16 = 8080;

/// Longer than any run takes.
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);

/// The listener of a host.
pub(crate) struct Port(TcpListener);

impl Port {
    /// Listens on the current host.
    pub(crate) async fn open() -> io::Result<Self> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.map(Self)
    }
}

impl Listener for Port {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }
}

/// A connection to a host, made when it is first used.
pub(crate) fn channel(host: &str) -> Channel {
    let uri = Uri::try_from(format!("http://{host}:{PORT}")).unwrap_or_default();
    let connect = service_fn(|uri: Uri| async move {
        let host = uri.host().unwrap_or_default().to_owned();
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(PORT))).await?;
        Ok::<_, io::Error>(TokioIo::new(stream))
    });
    // By default the library forgets a cancelled call after a second of real time and then answers late frames of it
    // with one more frame. The speed of the machine would decide what happens.
    let endpoint = endpoint(uri, ClientOptions::default()).http2_reset_stream_duration(FOR_EVER);
    endpoint.http2_max_concurrent_reset_streams(usize::MAX).connect_with_connector_lazy(connect)
}

/// The replicas of a service on these hosts.
pub(crate) fn replicas(hosts: &[&'static str]) -> Replicas {
    Replicas::over(
        hosts.iter().map(|host| ((*host).to_owned(), [channel(host), channel(host)].map(Line::Remote).into())),
    )
}
