//! The transport over NATS JetStream: one stream for every event of the system, kept in files.
//!
//! The broker may be absent, restarted, paused or wiped at any time. [`JetStream`] reconnects for ever, makes the
//! stream and its consumers if they are missing, and answers every call within seconds: with a result, or with an
//! [`Error`] after which the caller may try again. Producers publish again what a broker lost;
//! [`StreamState`](crate::StreamState) shows them that something is missing.

mod consumers;
mod durable;
mod ordered;
mod producer_events;
mod publish;
mod pull;
mod stream;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use async_recursion::async_recursion as boxed;
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

pub use consumers::DurableConsumer;
pub use durable::Durable;
pub use ordered::Ordered;
pub use producer_events::ProducerEvents;

use crate::port::Error;

/// How long one request to the broker may take.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);
/// The third unanswered ping ends a connection, so a broker that hangs is noticed within three intervals.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the connection's state is polled, because the client does not report every change.
const STATE_POLL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// The address of the broker and the settings of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JetStreamOptions {
    /// The address of one server, or of several servers of one cluster separated by commas:
    /// `nats://user:password@host:4222`. The first address with a user gives the credentials for all of them.
    pub url: String,
    /// The stream's name: letters, digits, `-` and `_`.
    pub stream: String,
    /// How many servers of a cluster keep the stream.
    pub replicas: usize,
    /// How many bytes of events the stream holds. When it is full it refuses new events, and producers keep them.
    pub max_bytes: i64,
    /// How long the stream holds an event; zero for no limit by age.
    pub max_age: Duration,
    /// How long the stream remembers an event's id after storing it.
    pub duplicate_window: Duration,
    /// How long a durable consumer may hold an event before another replica gets it. Events that a replica held when it
    /// crashed are delayed by as much.
    pub ack_wait: Duration,
    /// Whether this process makes the stream and holds it to these options. One that only reads waits until it is
    /// there.
    pub owns_stream: bool,
    /// The sequence of the first event of a stream that is made; `None` for one at random. An acknowledgement names
    /// only the consumer and the sequence, so a late one for an earlier stream must not name an event of the new one.
    pub first_sequence: Option<u64>,
}

impl JetStreamOptions {
    /// The defaults, with the broker at `url`: stream `checkup`, one replica, 4 GiB, no age limit, ids remembered for
    /// ten minutes, events held for thirty seconds, the owner of the stream.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            stream: "checkup".into(),
            replicas: 1,
            max_bytes: 4 << 30,
            max_age: Duration::ZERO,
            duplicate_window: Duration::from_secs(600),
            ack_wait: Duration::from_secs(30),
            owns_stream: true,
            first_sequence: None,
        }
    }
}

struct Shared {
    client: Client,
    context: Context,
    options: JetStreamOptions,
    connections: watch::Sender<u64>,
    /// The newest thing that the broker refused to this user.
    refusal: Arc<Mutex<Option<String>>>,
}

/// A broker; a cheap handle. It implements [`Publish`](crate::Publish).
#[derive(Clone)]
pub struct JetStream(Arc<Shared>);

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.client.connection_state();
        f.debug_struct("JetStream").field("stream", &self.0.options.stream).field("connection", &state).finish()
    }
}

impl JetStream {
    /// Connects in the background and retries for ever; does not wait for the broker.
    ///
    /// # Errors
    /// [`Error`] only if the options are invalid.
    #[boxed]
    pub async fn connect(options: JetStreamOptions) -> Result<Self, Error> {
        let unusable = |cause: String| Error::new(&options.stream, cause);
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if options.stream.is_empty() || !options.stream.chars().all(named) {
            return Err(unusable("a stream's name consists of letters, digits, - and _".into()));
        }
        let servers: Result<Vec<ServerAddr>, _> = options.url.split(',').map(|url| url.trim().parse()).collect();
        // The message does not contain the address, which may hold a password.
        let servers = servers.map_err(|error| unusable(format!("that is no address of a broker: {error}")))?;
        let connections = watch::Sender::new(0);
        let counted = connections.clone();
        let refusal = Arc::<Mutex<Option<String>>>::default();
        let refused = Arc::clone(&refusal);
        let connecting = ConnectOptions::new()
            .name("checkup")
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(CONNECTION_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            // Longer than any caller here waits, who then says why no answer came.
            .request_timeout(Some(2 * BROKER_TIMEOUT))
            .reconnect_delay_callback(pause)
            .event_callback(move |event| {
                match event {
                    Event::Connected => counted.send_modify(|count| *count += 1),
                    // To a message that its user may not send, a broker gives no other answer than this.
                    Event::ServerError(error) => {
                        *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                    }
                    _ => {}
                }
                std::future::ready(())
            });
        let connecting = with_credentials(connecting, &servers).map_err(unusable)?;
        let client = connecting.connect(servers).await.map_err(|error| Error::new(&options.stream, error))?;
        let context = async_nats::jetstream::new(client.clone());
        Ok(Self(Arc::new(Shared { client, context, options, connections, refusal })))
    }

    /// Subscriptions by durable consumers. All replicas of a service share one consumer; events are acknowledged one by
    /// one and may be repeated and reordered.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable(Arc::clone(&self.0))
    }

    /// Subscriptions in strict order, for a single reader that keeps its own cursor in its database.
    #[must_use]
    pub fn ordered(&self) -> Ordered {
        Ordered(Arc::clone(&self.0))
    }

    /// Flushes pending messages, for at most a few seconds, and ends the connection for every other handle too.
    #[boxed]
    pub async fn close(self) {
        // Without a broker nothing can be flushed, and the client would wait for one; hence the timeouts.
        let _ = timeout(CONNECTION_TIMEOUT, self.0.client.flush()).await;
        let _ = timeout(CONNECTION_TIMEOUT, self.0.client.drain()).await;
    }
}

impl Shared {
    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    fn connection(&self) -> Connection {
        let changes = self.connections.subscribe();
        Connection { number: self.connects(), changes }
    }

    fn error(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::new(&self.options.stream, cause)
    }

    /// Waits for the broker's answer, at most [`BROKER_TIMEOUT`], and turns a refusal into an [`Error`].
    async fn answer<T, E>(&self, question: impl Future<Output = Result<T, E>>) -> Result<T, Error>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        self.ask(question).await?.map_err(|error| self.error(error))
    }

    /// As [`Self::answer`], but returns the broker's refusal to the caller.
    async fn ask<T>(&self, question: impl Future<Output = T>) -> Result<T, Error> {
        let end = Instant::now() + BROKER_TIMEOUT;
        self.connected(end).await.map_err(|error| self.error(error))?;
        self.forget_refusal();
        timeout_at(end, question).await.map_err(|_| self.error(self.silence("the broker does not answer")))
    }

    fn forget_refusal(&self) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Why no answer came: what the broker refused meanwhile, if it refused anything.
    fn silence(&self, otherwise: &str) -> String {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.as_ref().map_or_else(|| otherwise.to_owned(), |refusal| format!("the broker refuses: {refusal}"))
    }

    /// Waits for a connection. Without one the client would queue the message and might send it after its deadline.
    async fn connected(&self, deadline: Instant) -> Result<(), String> {
        let mut connections = self.connections.subscribe();
        while self.client.connection_state() != State::Connected {
            if Instant::now() >= deadline {
                return Err("not connected".into());
            }
            let next_poll = deadline.min(Instant::now() + STATE_POLL_INTERVAL);
            let _ = timeout_at(next_poll, connections.changed()).await;
        }
        Ok(())
    }
}

/// The connection that existed when this was made.
struct Connection {
    /// How many connections the client had made by then. The client counts one before it reports that it is connected,
    /// and calls back later.
    number: u64,
    changes: watch::Receiver<u64>,
}

impl Connection {
    /// Waits until the client has made another connection.
    async fn replaced(&mut self, shared: &Shared) {
        while shared.connects() == self.number {
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The credentials for the broker, from the first address that has any. The client itself reads only the hosts of
/// addresses. A name without a password is a token, as in other NATS clients. Characters with a meaning in addresses
/// are percent-encoded, for example as %40.
fn with_credentials(connecting: ConnectOptions, servers: &[ServerAddr]) -> Result<ConnectOptions, String> {
    let Some(address) = servers.iter().find(|address| address.has_user_pass()) else { return Ok(connecting) };
    let plain = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(Cow::into_owned).map_err(|_| "the broker's user or password is not UTF-8".to_owned())
    };
    let user = plain(address.username().unwrap_or_default())?;
    Ok(match address.password() {
        Some(password) => {
            // Answers arrive where no other user may listen.
            let connecting = connecting.custom_inbox_prefix(format!("_INBOX.{user}"));
            connecting.user_and_password(user, plain(password)?)
        }
        None => connecting.token(user),
    })
}

/// The pause before a connection attempt: none before the first, then doubling up to half a second, because the broker
/// may return at any moment.
fn pause(attempts: usize) -> Duration {
    match u32::try_from(attempts) {
        Ok(attempts @ 2..=9) => Duration::from_millis(1 << attempts).min(MAX_RECONNECT_DELAY),
        Ok(0 | 1) => Duration::ZERO,
        _ => MAX_RECONNECT_DELAY,
    }
}
