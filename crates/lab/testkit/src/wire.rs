//! HTTP/2 without a gRPC library: a client that sends whatever a test wants and shows the status it gets.
//!
//! A gRPC library enforces the deadline it sends, so it never sees how a server answers an expired one.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Status;

/// One HTTP/2 connection.
#[derive(Debug)]
pub struct Wire {
    addr: SocketAddr,
    sender: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The gRPC answer to a call.
#[derive(Debug)]
pub struct WireAnswer {
    /// The gRPC status, from the headers or trailers.
    pub status: Status,
    /// The bytes of the messages with their gRPC frames.
    pub body: Bytes,
}

/// The whole HTTP answer to a request.
#[derive(Debug)]
pub struct Exchange {
    /// The HTTP status code.
    pub status: u16,
    /// The headers before the body.
    pub headers: HeaderMap,
    /// The bytes of the body.
    pub body: Bytes,
    /// The trailers after the body.
    pub trailers: HeaderMap,
}

impl Exchange {
    /// The gRPC status, from the trailers or the headers; `None` if neither has one.
    #[must_use]
    pub fn grpc(&self) -> Option<Status> {
        Status::from_header_map(&self.trailers).or_else(|| Status::from_header_map(&self.headers))
    }

    /// Whether the headers have the gRPC status, where proxies look for it.
    #[must_use]
    pub fn is_said_in_the_head(&self) -> bool {
        self.headers.contains_key("grpc-status")
    }
}

impl Wire {
    /// Opens an HTTP/2 connection without TLS.
    ///
    /// # Errors
    /// If nobody listens, or the HTTP/2 handshake fails.
    pub async fn connect(addr: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
        let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(async move {
            // The calls on the connection see how it ends.
            let _ = connection.await;
        });
        Ok(Self { addr, sender, driver })
    }

    /// Makes a unary call with these headers beside the usual ones.
    ///
    /// # Errors
    /// If the connection or the stream breaks before a status.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Result<WireAnswer, String> {
        self.call_with_frame(path, headers, &framed(message)).await
    }

    /// Makes a unary call whose body is exactly these bytes, which need not be a gRPC frame.
    ///
    /// # Errors
    /// If the connection or the stream breaks before a status.
    pub async fn call_with_frame(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        frame: &[u8],
    ) -> Result<WireAnswer, String> {
        let answer = self.exchange(self.head(path, headers)?, frame).await?;
        let status = answer.grpc().ok_or_else(|| format!("no grpc-status, HTTP {}", answer.status))?;
        Ok(WireAnswer { status, body: answer.body })
    }

    /// Sends any HTTP request to a path of this server, with exactly these headers.
    ///
    /// # Errors
    /// If the connection or the stream breaks before the end of the answer.
    pub async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Exchange, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.exchange(request.body(()).map_err(|error| error.to_string())?, body).await
    }

    /// Makes a call as [`Self::call`] does and returns the whole HTTP answer.
    ///
    /// # Errors
    /// If the connection or the stream breaks before the end of the answer.
    pub async fn call_whole(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Result<Exchange, String> {
        self.exchange(self.head(path, headers)?, &framed(message)).await
    }

    async fn exchange(&self, request: Request<()>, body: &[u8]) -> Result<Exchange, String> {
        let text = |error: h2::Error| error.to_string();
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (answer, mut sending) = sender.send_request(request, false).map_err(text)?;
        // The server may have answered already, without reading the body.
        let _ = sending.send_data(Bytes::copy_from_slice(body), true);
        let (head, mut messages) = answer.await.map_err(text)?.into_parts();
        let mut received = BytesMut::new();
        while let Some(chunk) = messages.data().await {
            let chunk = chunk.map_err(text)?;
            messages.flow_control().release_capacity(chunk.len()).map_err(text)?;
            received.put(chunk);
        }
        let trailers = messages.trailers().await.map_err(text)?.unwrap_or_default();
        Ok(Exchange { status: head.status.as_u16(), headers: head.headers, body: received.freeze(), trailers })
    }

    /// Opens a call and resets it at once, without waiting for anything.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_and_reset(&self, path: &str, headers: &[(&str, &str)]) -> Result<(), String> {
        let text = |error: h2::Error| error.to_string();
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (_, mut body) = sender.send_request(self.head(path, headers)?, false).map_err(text)?;
        body.send_reset(h2::Reason::CANCEL);
        Ok(())
    }

    /// Opens a call and leaves it unfinished until the handle is dropped.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_and_hold(&self, path: &str, headers: &[(&str, &str)]) -> Result<Held, String> {
        let text = |error: h2::Error| error.to_string();
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (answer, body) = sender.send_request(self.head(path, headers)?, false).map_err(text)?;
        Ok(Held { _answer: answer, _body: body })
    }

    fn head(&self, path: &str, headers: &[(&str, &str)]) -> Result<Request<()>, String> {
        let mut request = Request::post(format!("http://{}{path}", self.addr))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).map_err(|error| error.to_string())
    }
}

/// An unfinished call. Dropping it resets the call.
#[derive(Debug)]
pub struct Held {
    _answer: h2::client::ResponseFuture,
    _body: h2::SendStream<Bytes>,
}

/// A message in a gRPC frame: uncompressed, after its length.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}
