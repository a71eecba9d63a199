//! The replicas of a service as a well-behaved client uses them: round robin, and the next replica if one does not
//! answer.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use testkit::{Outcome, Party, Refusal};
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::Error;

/// The number of connections to each replica.
const CONNECTIONS: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Reasons of refusals that ask for a retry.
const RETRYABLE_REASONS: [&str; 3] = ["OVERLOADED", "RATE_LIMITED", "REQUEST_IN_PROGRESS"];

/// The replicas of one service. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    channels: Vec<Channel>,
    turn: AtomicUsize,
}

/// How long a client repeats a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// The largest number of attempts. All have the same request_id.
    pub(crate) attempts: u32,
    /// The deadline of each attempt.
    pub(crate) deadline: Duration,
    /// The pause after the first attempt. It doubles up to a second.
    pub(crate) pause: Duration,
    /// No attempt begins later than this after the first.
    pub(crate) limit: Duration,
}

impl RetryPolicy {
    /// A customer: at most seven attempts, the last of which begins within eight seconds.
    pub(crate) const CUSTOMER: Self = Self {
        attempts: 7,
        deadline: Duration::from_secs(4),
        pause: Duration::from_millis(40),
        limit: Duration::from_secs(8),
    };

    /// A client that repeats a call until it is answered or `limit` is over.
    #[must_use]
    pub(crate) fn until_known(limit: Duration) -> Self {
        let (deadline, pause) = (Duration::from_secs(10), Duration::from_millis(40));
        Self { attempts: u32::MAX, deadline, pause, limit }
    }
}

/// The result of a call after all its attempts.
#[derive(Debug)]
pub(crate) struct Ended<T> {
    /// What the client knows about the effect.
    pub(crate) outcome: Outcome<T>,
    /// The number of attempts.
    pub(crate) attempts: u32,
}

impl Pool {
    /// A pool of the replicas at these addresses. A connection is made at its first use, and again after it breaks.
    ///
    /// # Errors
    /// If an address is not valid as an endpoint.
    pub(crate) fn of(addrs: impl IntoIterator<Item = SocketAddr>) -> Result<Self, Error> {
        let addrs: Vec<SocketAddr> = addrs.into_iter().collect();
        // Neighbours in this list are different replicas.
        let channels = std::iter::repeat_n(addrs, CONNECTIONS).flatten().map(channel).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner { channels, turn: AtomicUsize::new(0) })))
    }

    /// The next connection in turn.
    #[must_use]
    pub(crate) fn next(&self) -> Channel {
        let Inner { channels, turn } = self.0.as_ref();
        channels[turn.fetch_add(1, Ordering::Relaxed) % channels.len()].clone()
    }

    /// Repeats a call until the answer is definite or the policy ends: on the next replica each time, after a growing
    /// pause.
    ///
    /// # Errors
    /// A status that no client should see.
    pub(crate) async fn call<T, F>(
        &self,
        token: &str,
        retry_policy: RetryPolicy,
        call: impl Fn(Party) -> F,
    ) -> Result<Ended<T>, String>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        let mut pause = retry_policy.pause;
        let mut attempts = 0;
        let first = self.0.turn.fetch_add(1, Ordering::Relaxed);
        loop {
            let channels = &self.0.channels;
            let channel = channels[(first + attempts as usize) % channels.len()].clone();
            let result = call(Party::new(channel, Some(token)).with_deadline(retry_policy.deadline)).await;
            attempts += 1;
            let hint = result.as_ref().err().and_then(Refusal::of).and_then(|refusal| refusal.retry_after);
            let outcome = match Outcome::of(result)? {
                Outcome::Refused(reason) if RETRYABLE_REASONS.contains(&reason.as_str()) => Outcome::Unknown,
                outcome => outcome,
            };
            let over = attempts >= retry_policy.attempts || begun.elapsed() >= retry_policy.limit;
            if over || !matches!(outcome, Outcome::Unknown) {
                return Ok(Ended { outcome, attempts });
            }
            sleep(pause.max(hint.unwrap_or_default()).min(MAX_PAUSE)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

/// A connection that is made when it is first used.
fn channel(addr: SocketAddr) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"));
    let endpoint = endpoint.map_err(|error| Error::failed(format!("{addr} is no address: {error}")))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
    let endpoint = endpoint.http2_keep_alive_interval(KEEPALIVE_INTERVAL).keep_alive_timeout(KEEPALIVE_INTERVAL);
    Ok(endpoint.keep_alive_while_idle(true).connect_lazy())
}
