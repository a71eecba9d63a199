//! What can be configured about a server. What each limit protects is said here, how it is kept elsewhere.

use std::time::Duration;

use serde::Deserialize;

use crate::config::duration;
use crate::deadline;

/// The limits and times of a server; a section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerOptions {
    /// Established connections; one more is closed at once. Each costs a file descriptor and its buffers.
    pub max_connections: usize,
    /// Connections that have not yet said that they speak HTTP/2; one more, and the oldest of them is closed, so that
    /// silent clients keep nobody out.
    pub max_half_open: usize,
    /// How long a connection may take to say so.
    #[serde(with = "duration")]
    pub handshake_timeout: Duration,
    /// Calls at once on one connection; a client's further calls wait in the client.
    pub max_streams_per_connection: u32,
    /// Bytes of the headers of one call, tokens included.
    pub max_header_bytes: u32,
    /// Pings clients that often; with the next one, what ends connections to clients that vanished.
    #[serde(with = "duration")]
    pub keepalive_interval: Duration,
    /// Closes a connection whose ping stays unanswered for so long.
    #[serde(with = "duration")]
    pub keepalive_timeout: Duration,
    /// Asks clients to connect again after so long, and up to half as much more: moves them to new replicas, and
    /// forgets what the protocol counts for the life of a connection.
    #[serde(with = "duration")]
    pub connection_age: Duration,
    /// Unary calls of each service being worked on; one more is refused with OVERLOADED.
    pub max_calls: usize,
    /// Streams that are open; one more is refused with OVERLOADED.
    pub max_streams: usize,
    /// The deadline of a call that names none.
    #[serde(with = "duration")]
    pub default_deadline: Duration,
    /// The longest deadline of a unary call, whatever the caller names.
    #[serde(with = "duration")]
    pub max_deadline: Duration,
    /// How long calls are still taken after the server says that it is not serving: what a load balancer needs to notice.
    #[serde(with = "duration")]
    pub drain_delay: Duration,
    /// How long calls under way may take to end after that.
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
            default_deadline: deadline::DEFAULT,
            max_deadline: Duration::from_secs(60),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
