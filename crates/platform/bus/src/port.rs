//! What a consumer may rely on with every transport.
//!
//! Every message that matches the filter is delivered at least once, until it is acknowledged. A transport may repeat
//! and reorder messages; [`Position`] says how a repetition is recognised. A message carries one or more events; what
//! is said here of an event holds for the whole message.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

/// One message as bytes: a frame of events (see `domain::frame`), or one event of an earlier version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The subject of its events, `checkup.v1.{aggregate type}.{fact}.{producer}`.
    pub subject: String,
    /// The encoded frame.
    pub payload: Vec<u8>,
}

/// One message that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// The id of its frame, by which a broker recognises a repetition.
    pub id: String,
    /// Its subject and bytes.
    pub message: Message,
    /// Headers that it carries besides the broker's own: names and values in ASCII, without line breaks.
    pub headers: Vec<(&'static str, String)>,
}

/// Where an event stands in its transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// In a source that is read strictly in order. The consumer keeps one position per source.
    Ordered {
        /// The name of the source: the producer, or the stream with its identity.
        source: Arc<str>,
        /// The position in the source, from 1.
        position: i64,
    },
    /// On a transport that may repeat and reorder.
    Unordered {
        /// The stream's sequence, under which the transport acknowledges the event.
        sequence: u64,
    },
}

/// One message as a subscription delivers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message; other consumers of this process may hold the same one.
    pub message: Arc<Message>,
    /// Where the message stands in the transport.
    pub position: Position,
}

/// Why a transport fails at the moment; a later try may work.
#[derive(Debug, thiserror::Error)]
#[error("events do not pass {source_name}")]
pub struct Error {
    /// The producer or broker that failed.
    pub source_name: String,
    /// The cause, for logs.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// An error of this producer or broker.
    pub fn new(source_name: impl Into<String>, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source_name: source_name.into(), cause: cause.into() }
    }
}

/// The extent of what a broker holds at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// The stream's identity. It changes, and every sequence with it, when the stream is recreated.
    pub identity: String,
    /// The sequence that its first event had.
    pub origin: u64,
    /// The sequence of the oldest event; one after `last` if there is none.
    pub first: u64,
    /// The sequence of the newest event that was ever stored; 0 if none was.
    pub last: u64,
    /// How many sequences between `first` and `last` no longer have an event.
    pub gaps: u64,
    /// How long the broker holds an event; zero for no limit by age. Older events do not count as missing.
    pub max_age: Duration,
    /// How many bytes its events take.
    pub bytes: u64,
    /// How many bytes it may hold; `None` for as many as there is room for.
    pub max_bytes: Option<u64>,
}

/// Publishes events to a broker.
#[async_trait]
pub trait Publish: Send + Sync {
    /// Sends all events, in this order and without waiting between them. Then waits for the acknowledgements until
    /// `deadline`, which applies to all of them together. The result of each event is its sequence in the stream. An
    /// event that the broker already has under this id is not stored again and keeps its first sequence; an event that
    /// the broker had and lost is stored again. An event whose result is an error may still have been stored.
    async fn publish(&self, events: &[Outbound], deadline: Instant) -> Vec<Result<u64, Error>>;

    /// The extent of the stream. Makes the stream if it is missing.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    async fn state(&self) -> Result<StreamState, Error>;

    /// The id of the event at a sequence; `None` if the sequence has no event, or no longer one.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    async fn id_at(&self, sequence: u64) -> Result<Option<String>, Error>;

    /// The sequences that [`StreamState::gaps`] counts, in ascending order.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    async fn gaps(&self) -> Result<Vec<RangeInclusive<u64>>, Error>;

    /// Tells ordered readers that the stream lost its end and gave those sequences to other events. They notice within
    /// seconds and read the stream from its first event.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    async fn renumbered(&self) -> Result<(), Error>;

    /// Counts the connections made. After a change, callers read [`Self::state`] again.
    fn connections(&self) -> watch::Receiver<u64>;
}

/// A consumer's stream of the events that it subscribed to.
#[async_trait]
pub trait Subscription: Send {
    /// Waits until an event is there and returns at most `limit` deliveries. This subscription does not return an
    /// unsettled delivery again, but the next subscription of the same consumer does. Nothing is lost if this future is
    /// dropped.
    ///
    /// # Errors
    /// [`Error`] if the transport fails; the next call tries again.
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error>;

    /// Settles deliveries for good, after their effects have been committed.
    ///
    /// # Errors
    /// [`Error`] if the transport fails; the deliveries may then be repeated.
    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), Error>;

    /// Asks for deliveries again after a pause; later events overtake them meanwhile. This works only for
    /// [`Position::Unordered`]. On a transport in strict order nothing can be postponed, so the consumer retries the
    /// event itself.
    ///
    /// # Errors
    /// [`Error`] always on a transport in strict order. Elsewhere the deliveries are repeated all the same, after a
    /// time-out.
    async fn postpone(&mut self, deliveries: &[Delivery], pause: Duration) -> Result<(), Error>;

    /// How many events wait for this consumer, as far as the transport can tell.
    ///
    /// # Errors
    /// [`Error`] if the transport fails.
    async fn lag(&mut self) -> Result<u64, Error>;
}

/// Makes the subscriptions of a transport.
#[async_trait]
pub trait Subscribe: Send + Sync {
    /// Subscribes the durable consumer `name` to the subjects that match `filter` (tokens separated by dots, `*` for
    /// exactly one token). `from` holds the position up to which it has read each ordered source. A new consumer starts
    /// at the first event.
    ///
    /// # Errors
    /// [`Error`] if the transport fails.
    async fn subscribe(
        &self,
        name: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error>;
}

/// A transport in strict order, near whose end a subscription can begin.
#[async_trait]
pub trait Follow: Subscribe {
    /// The source that a producer's events are read from, and the newest position there; 0 if there is none.
    ///
    /// # Errors
    /// [`Error`] if the transport fails.
    async fn head(&self, producer: &str) -> Result<(String, i64), Error>;
}

/// The subject patterns of a consumer.
#[derive(Debug, Clone)]
pub(crate) struct Filter(Vec<Pattern>);

#[derive(Debug, Clone)]
enum Pattern {
    /// A prefix that ends in a dot and is followed by exactly one more token. All consumers of this system use this
    /// form.
    Followed(String),
    /// Any other pattern, which is compared token by token.
    Tokens(String),
}

impl Filter {
    pub(crate) fn new(patterns: &[String]) -> Self {
        let pattern = |text: &String| match text.strip_suffix('*') {
            Some(begin) if begin.ends_with('.') && !begin.contains('*') => Pattern::Followed(begin.to_owned()),
            _ => Pattern::Tokens(text.clone()),
        };
        Self(patterns.iter().map(pattern).collect())
    }

    /// Whether one of the patterns matches the subject.
    pub(crate) fn matches(&self, subject: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Followed(begin) => subject.strip_prefix(begin.as_str()).is_some_and(|last| !last.contains('.')),
            Pattern::Tokens(filter) => matches(filter, subject),
        })
    }
}

fn matches(filter: &str, subject: &str) -> bool {
    let mut wanted = filter.split('.');
    let mut given = subject.split('.');
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;

    fn matches(filter: &str, subject: &str) -> bool {
        Filter::new(&[filter.to_owned()]).matches(subject)
    }

    #[test]
    fn a_star_stands_for_exactly_one_token() {
        assert!(matches("checkup.v1.claim.capacity_reserved.*", "checkup.v1.claim.capacity_reserved.hospitals_a"));
        assert!(!matches("checkup.v1.claim.capacity_reserved.*", "checkup.v1.claim.capacity_reserved"));
        assert!(!matches("checkup.v1.claim.capacity_reserved.*", "checkup.v1.claim.capacity_reserved.x.y"));
        assert!(!matches("checkup.v1.claim.capacity_reserved.*", "checkup.v1.claim.capacity_released.x"));
        assert!(!matches("checkup.v1.claim.*", "checkup.v1.claim.capacity_reserved.x"));
        assert!(matches("checkup.*.claim.*", "checkup.v1.claim.capacity_reserved"));
        assert!(!matches("checkup.*.claim.*", "checkup.v1.slot.capacity_reserved"));
        assert!(matches("checkup.v1.claim", "checkup.v1.claim"));
        assert!(!matches("checkup.v1.claim*", "checkup.v1.claims"));
    }
}
