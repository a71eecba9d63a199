//! Takes connections, and closes those that nobody should wait for.
//!
//! A client that connects and says nothing is closed after a while, the oldest first when there are many of them; one
//! that speaks HTTP/2 counts as established and is watched by keepalive from then on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use metrics::{counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::ServerOptions;
use crate::metrics::{CONNECTIONS, CONNECTIONS_REFUSED};

/// What every HTTP/2 client says first has so many bytes.
const PREFACE_BYTES: usize = 24;

/// How long to wait after a failed accept: it is out of file descriptors, and trying at once would only burn the CPU.
const ACCEPT_FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Where a server's connections come from: the machine's network, or one that only behaves like one.
pub trait Listener: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next one. Dropped before it is there, it loses none.
    ///
    /// # Errors
    /// Where there is none to be had at the moment.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Ok(stream)
    }
}

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct Incoming<L> {
    listener: L,
    established: Arc<Semaphore>,
    half_open: VecDeque<Arc<Opening>>,
    max_half_open: usize,
    handshake_timeout: Duration,
    leaving: CancellationToken,
    cut: CancellationToken,
}

/// A connection whose client has not said yet what it wants.
#[derive(Debug, Default)]
struct Opening {
    over: AtomicBool,
    evicted: CancellationToken,
}

impl<L: Listener> Incoming<L> {
    /// No connection is taken any more once `leaving` is cancelled, and all of them end when `cut` is.
    pub(super) fn new(
        listener: L,
        options: &ServerOptions,
        leaving: CancellationToken,
        cut: CancellationToken,
    ) -> Self {
        Self {
            listener,
            established: Arc::new(Semaphore::new(options.max_connections)),
            half_open: VecDeque::new(),
            max_half_open: options.max_half_open,
            handshake_timeout: options.handshake_timeout,
            leaving,
            cut,
        }
    }

    /// Accepts until the server leaves. The stream does not end then: its end would close every connection.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Connection<L::Stream>, Infallible>> {
        let leaving = self.leaving.clone();
        let accepted = futures::stream::unfold(self, |mut incoming| async move {
            let connection = incoming.accept().await;
            Some((Ok(connection), incoming))
        });
        accepted.take_until(leaving.cancelled_owned()).chain(futures::stream::pending())
    }

    async fn accept(&mut self) -> Connection<L::Stream> {
        loop {
            match self.listener.accept().await {
                Ok(stream) => return self.admit(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_FAILURE_PAUSE).await;
                }
            }
        }
    }

    fn admit(&mut self, stream: L::Stream) -> Connection<L::Stream> {
        self.half_open.retain(|opening| !opening.over.load(Ordering::Relaxed));
        while self.half_open.len() >= self.max_half_open.max(1) {
            if let Some(oldest) = self.half_open.pop_front() {
                counter!(CONNECTIONS_REFUSED, "why" => "half_open").increment(1);
                oldest.evicted.cancel();
            }
        }
        let opening = Arc::<Opening>::default();
        self.half_open.push_back(Arc::clone(&opening));
        gauge!(CONNECTIONS).increment(1.0);
        let half_open = HalfOpen {
            evicted: Box::pin(opening.evicted.clone().cancelled_owned()),
            timer: Box::pin(tokio::time::sleep(self.handshake_timeout)),
            established: Arc::clone(&self.established),
            opening,
            seen: 0,
        };
        Connection { stream, state: State::HalfOpen(half_open), cut: Box::pin(self.cut.clone().cancelled_owned()) }
    }
}

#[derive(Debug)]
struct HalfOpen {
    opening: Arc<Opening>,
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
    established: Arc<Semaphore>,
    seen: usize,
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.opening.over.store(true, Ordering::Relaxed);
    }
}

impl HalfOpen {
    /// An error once it has been waited for long enough.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.evicted.poll_unpin(cx).is_ready() {
            return Err(io::Error::new(ErrorKind::TimedOut, "closed in favour of newer connections"));
        }
        if self.timer.poll_unpin(cx).is_ready() {
            counter!(CONNECTIONS_REFUSED, "why" => "handshake_timeout").increment(1);
            return Err(io::Error::new(ErrorKind::TimedOut, "the client did not say that it speaks HTTP/2"));
        }
        Ok(())
    }

    fn establish(&self) -> io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.established).try_acquire_owned().map_err(|_| {
            counter!(CONNECTIONS_REFUSED, "why" => "max_connections").increment(1);
            tracing::warn!("closing a connection because there are too many");
            io::Error::new(ErrorKind::ConnectionRefused, "too many connections")
        })
    }
}

#[derive(Debug)]
enum State {
    HalfOpen(HalfOpen),
    Established { _permit: OwnedSemaphorePermit },
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    state: State,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1.0);
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // the protocol always reads, so this is where a connection notices that it has to end
        if this.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(ErrorKind::ConnectionAborted, "the drain is over")));
        }
        if let State::HalfOpen(half_open) = &mut this.state {
            half_open.check(cx)?;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if let State::HalfOpen(half_open) = &mut this.state {
            half_open.seen += buf.filled().len() - before;
            if half_open.seen >= PREFACE_BYTES {
                this.state = State::Established { _permit: half_open.establish()? };
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
