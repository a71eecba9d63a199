//! HTTP/2 without a gRPC library: what a client that keeps its own rules can send, and the status it gets.
//!
//! A gRPC library enforces the deadline it sends, so it never sees how a server answers one; this does.

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

/// What a call got.
#[derive(Debug)]
pub struct WireAnswer {
    /// The status in the headers or trailers.
    pub status: Status,
    /// The bytes of the messages, frames included.
    pub body: Bytes,
}

/// Everything that came back for a request, as HTTP has it.
#[derive(Debug)]
pub struct Exchange {
    /// HTTP's own status.
    pub status: u16,
    /// The head.
    pub headers: HeaderMap,
    /// The body, frames included.
    pub body: Bytes,
    /// What follows the body.
    pub trailers: HeaderMap,
}

impl Exchange {
    /// gRPC's status, where one was said, in the head or in the trailers.
    #[must_use]
    pub fn grpc(&self) -> Option<Status> {
        Status::from_header_map(&self.trailers).or_else(|| Status::from_header_map(&self.headers))
    }

    /// Whether it was said in the head, where proxies look for it.
    #[must_use]
    pub fn is_said_in_the_head(&self) -> bool {
        self.headers.contains_key("grpc-status")
    }
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens, or not in HTTP/2.
    pub async fn connect(addr: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
        let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(async move {
            // How the connection ends is seen by the calls on it.
            let _ = connection.await;
        });
        Ok(Self { addr, sender, driver })
    }

    /// A unary call with these headers beside the usual ones.
    ///
    /// # Errors
    /// Where the connection or the stream breaks before a status.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Result<WireAnswer, String> {
        self.call_with_frame(path, headers, &framed(message)).await
    }

    /// A unary call whose body is these bytes and no others, be they a gRPC frame or not.
    ///
    /// # Errors
    /// Where the connection or the stream breaks before a status.
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

    /// Any request of HTTP at all, to a path of this server, with these headers and no others.
    ///
    /// # Errors
    /// Where the connection or the stream breaks before the answer is over.
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

    /// A call like [`Self::call`] with all that came back for it.
    ///
    /// # Errors
    /// Where the connection or the stream breaks before the answer is over.
    pub async fn call_whole(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Result<Exchange, String> {
        self.exchange(self.head(path, headers)?, &framed(message)).await
    }

    async fn exchange(&self, request: Request<()>, body: &[u8]) -> Result<Exchange, String> {
        let text = |error: h2::Error| error.to_string();
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (answer, mut sending) = sender.send_request(request, false).map_err(text)?;
        // A server that has heard enough may have answered already.
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
    /// Where the connection is gone.
    pub async fn open_and_reset(&self, path: &str, headers: &[(&str, &str)]) -> Result<(), String> {
        let text = |error: h2::Error| error.to_string();
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (_, mut body) = sender.send_request(self.head(path, headers)?, false).map_err(text)?;
        body.send_reset(h2::Reason::CANCEL);
        Ok(())
    }

    /// Opens a call and leaves it there, unfinished.
    ///
    /// # Errors
    /// Where the connection is gone.
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

/// A call that was begun and not ended. Dropping it resets it.
#[derive(Debug)]
pub struct Held {
    _answer: h2::client::ResponseFuture,
    _body: h2::SendStream<Bytes>,
}

/// A message as gRPC frames it: uncompressed, with its length before it.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}
