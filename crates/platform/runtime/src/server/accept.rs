//! Accepts connections, and closes those that stay silent.
//!
//! A client that connects and sends nothing is closed after a while, or earlier if there are many of them, the oldest
//! first. A connection that speaks HTTP/2 counts as established, and keepalive watches it from then on.

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

/// The length of the preface that every HTTP/2 client sends first.
const PREFACE_BYTES: usize = 24;

/// The pause after a failed accept. The usual cause is a lack of file descriptors, and trying at once would only burn
/// the CPU.
const ACCEPT_FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// A source of connections: the machine's network, or a simulated one.
pub trait Listener: Send + 'static {
    /// The type of a connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection. No connection is lost if this future is dropped.
    ///
    /// # Errors
    /// An I/O error if no connection can be accepted at the moment.
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

/// Accepts the connections of a listener within the limits.
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

/// A connection that has not sent the HTTP/2 preface yet.
#[derive(Debug, Default)]
struct Opening {
    over: AtomicBool,
    evicted: CancellationToken,
}

impl<L: Listener> Incoming<L> {
    /// `leaving` ends the accepting of connections; `cut` ends all connections.
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

    /// A stream of connections that stops when the server leaves. It does not end then, because its end would close
    /// every connection.
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
    /// An error once the connection has been silent for too long or was evicted.
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

/// An accepted connection, which counts as established after the preface.
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
        // The protocol always reads, so a read is where the connection notices that it must end.
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
