//! The configuration of a server: what each limit protects. The enforcement is elsewhere.

use std::time::Duration;

use serde::Deserialize;

use crate::config::duration;
use crate::deadline;

/// The limits and times of a server; a section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerOptions {
    /// The most established connections; a further one is closed at once. Each costs a file descriptor and its buffers.
    pub max_connections: usize,
    /// The most connections that have not sent the HTTP/2 preface yet. A further one closes the oldest of them, so that
    /// silent clients keep nobody out.
    pub max_half_open: usize,
    /// How long a connection may take to send the preface.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// The most concurrent calls per connection; a client's further calls wait in the client.
    pub max_streams_per_connection: u32,
    /// The most bytes of a call's headers, tokens included.
    pub max_header_bytes: u32,
    /// How often clients are pinged. Together with `keepalive_timeout` it ends connections to clients that vanished.
    #[serde(with = "duration")]
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered before its connection is closed.
    #[serde(with = "duration")]
    pub keepalive_timeout: Duration,
    /// Asks clients to reconnect after this time plus at most half of it. That moves them to new replicas, and resets
    /// what the protocol counts per connection.
    #[serde(with = "duration")]
    pub connection_age: Duration,
    /// The most unary calls that each service works on at once; a further one is refused with OVERLOADED.
    pub max_calls: usize,
    /// The most open streams; a further one is refused with OVERLOADED.
    pub max_streams: usize,
    /// The most unary calls of one service, and the most open streams, that one customer may have under way; a further
    /// one is refused with RATE_LIMITED. An eighth of them, rounded up, may be lists, counted apart. At least 1.
    pub max_calls_per_customer: usize,
    /// The same for an admin or an auditor. All calls without a token together have half of the places. The system's
    /// own services have no limit of their own, because they call for many customers.
    pub max_calls_per_caller: usize,
    /// The deadline of a call that names none.
    #[serde(with = "duration")]
    pub default_deadline: Duration,
    /// The longest deadline of a unary call, whatever the caller names.
    #[serde(with = "duration")]
    pub max_deadline: Duration,
    /// How long the server still accepts calls after it reports NOT_SERVING, so that load balancers can notice.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// How long calls under way may take to end after that, before connections are cut.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 512,
            max_half_open: 128,
            handshake_timeout: Duration::from_secs(5),
            max_streams_per_connection: 1024,
            max_header_bytes: 16 * 1024,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            connection_age: Duration::from_secs(10 * 60),
            max_calls: 4096,
            max_streams: 4096,
            max_calls_per_customer: 32,
            max_calls_per_caller: 1024,
            default_deadline: deadline::DEFAULT,
            max_deadline: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
