//! gRPC below the generated clients: any method, any bytes.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use crate::client::Party;

/// One method, by its path on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMethod {
    path: PathAndQuery,
}

impl RawMethod {
    /// Makes `/{service}/{method}`, where the service has its package.
    ///
    /// # Panics
    /// If that is not a valid path.
    #[must_use]
    pub fn new(service: &str, method: &str) -> Self {
        Self { path: format!("/{service}/{method}").parse().expect("a service and a method make a path") }
    }
}

impl fmt::Display for RawMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)
    }
}

/// The answer to a raw call.
#[derive(Debug)]
pub enum Answer {
    /// The bytes of the first messages, at most eight.
    Messages(Vec<Bytes>),
    /// The status of a call without an answer.
    Refused(Status),
}

/// A codec that passes bytes through.
#[derive(Debug, Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Sends `payload` as the only request message and reads the answer as a stream. A unary method gives one message. A
/// streaming method gives at most eight, unless `deadline` ends the call first.
pub async fn call_raw(party: &Party, method: &RawMethod, payload: Bytes, deadline: Duration) -> Answer {
    match tokio::time::timeout(deadline, read(party, method, payload, deadline)).await {
        Ok(answer) => answer,
        Err(_) => Answer::Refused(Status::deadline_exceeded("the client stopped waiting")),
    }
}

async fn read(party: &Party, method: &RawMethod, payload: Bytes, deadline: Duration) -> Answer {
    let mut grpc = Grpc::new(party.authorised());
    if let Err(error) = grpc.ready().await {
        return Answer::Refused(Status::unavailable(format!("no connection: {error}")));
    }
    let mut request = Request::new(payload);
    request.set_timeout(deadline);
    let mut stream = match grpc.server_streaming(request, method.path.clone(), Plain).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Answer::Refused(status),
    };
    let mut messages = Vec::new();
    while messages.len() < 8 {
        match stream.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => break,
            Err(_) if !messages.is_empty() => break,
            Err(status) => return Answer::Refused(status),
        }
    }
    Answer::Messages(messages)
}

/// One HTTP/2 frame, for clients that break the protocol.
#[must_use]
pub fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
