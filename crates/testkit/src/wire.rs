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
        let text = |error: h2::Error| error.to_string();
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (answer, mut body) = sender.send_request(self.head(path, headers)?, false).map_err(text)?;
        // A server that has heard enough may have answered already.
        let _ = body.send_data(Bytes::copy_from_slice(frame), true);
        let (head, mut messages) = answer.await.map_err(text)?.into_parts();
        let mut received = BytesMut::new();
        while let Some(chunk) = messages.data().await {
            let chunk = chunk.map_err(text)?;
            messages.flow_control().release_capacity(chunk.len()).map_err(text)?;
            received.put(chunk);
        }
        let trailers = messages.trailers().await.map_err(text)?.unwrap_or_else(HeaderMap::new);
        let status = Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&head.headers));
        let status = status.ok_or_else(|| format!("no grpc-status, HTTP {}", head.status))?;
        Ok(WireAnswer { status, body: received.freeze() })
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
