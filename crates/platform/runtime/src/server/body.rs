//! The body of an answer. It limits a stream, and keeps the record of the call open until the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use fault::{Fault, Reason};
use futures::FutureExt;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::places::{Places, Share};
use super::record::Record;
use crate::deadline::Deadline;
use crate::status::status;
use crate::tasks::panic_text;

/// The place of a stream among those of all callers, and in its caller's share.
#[derive(Debug)]
pub(super) struct StreamPlace {
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) _share: Option<Share<Arc<Places>>>,
}

/// The conditions that end a stream from outside, and the stream's place.
#[derive(Debug)]
pub(super) struct Stream {
    deadline: Option<Pin<Box<Sleep>>>,
    goaway: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: StreamPlace,
}

impl Stream {
    /// A stream that ends at the deadline its caller named, and when the server sends GOAWAY. The drain does not wait
    /// for streams, because waiting could take all its time; the client resumes elsewhere.
    pub(super) fn new(deadline: Option<Deadline>, goaway: CancellationToken, place: StreamPlace) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline.instant())));
        Self { deadline, goaway: Box::pin(goaway.cancelled_owned()), _place: place }
    }

    fn ended(&mut self, cx: &mut Context<'_>) -> Option<Fault> {
        if self.deadline.as_mut().is_some_and(|deadline| deadline.poll_unpin(cx).is_ready()) {
            return Some(Fault::new(Reason::DeadlineExceeded, "the deadline of the stream has passed"));
        }
        let leaving = self.goaway.poll_unpin(cx).is_ready();
        leaving.then(|| Fault::new(Reason::NotReady, "the server is shutting down; resume the stream"))
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct CallBody {
    inner: Body,
    record: Record,
    stream: Option<Stream>,
    /// If present, the trailers that replace the inner body.
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl CallBody {
    /// The body of a handler's answer.
    pub(super) fn new(inner: Body, record: Record, stream: Option<Stream>) -> Self {
        Self { inner, record, stream, trailers: None, ended: false }
    }

    /// The same body, or only these trailers if there are any.
    pub(super) fn ending_with(self, trailers: Option<HeaderMap>) -> Self {
        Self { trailers, ..self }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(trailers) = self.trailers.take() {
            self.ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if let Some(fault) = self.stream.as_mut().and_then(|stream| stream.ended(cx)) {
            return Poll::Ready(Some(self.end_with(fault)));
        }
        // A panic here would end the connection, with the calls of all who share it.
        let polled = catch_unwind(AssertUnwindSafe(|| http_body::Body::poll_frame(Pin::new(&mut self.inner), cx)));
        match polled {
            Ok(polled) => polled,
            Err(panic) => Poll::Ready(Some(self.end_with(Fault::internal(panic_text(panic.as_ref()))))),
        }
    }

    fn end_with(&mut self, fault: Fault) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        status(fault).add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let scope = this.record.scope();
        let frame = ready!(Record::within(scope, || this.poll_inner(cx)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.record.status_in(trailers);
                }
            }
            Some(Err(_)) | None => this.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.trailers.is_none() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // An exact size would become a content-length although there is no body.
        if self.trailers.is_some() { SizeHint::default() } else { self.inner.size_hint() }
    }
}
