//! What a consumer may rely on, whichever transport brings its events.
//!
//! Every event that matches the filter is delivered at least once, for as long as it is not acknowledged; a transport may repeat
//! and reorder, and says by [`Position`] how a repetition is recognised.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

/// One event as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `checkup.v1.{aggregate type}.{fact}.{producer}`.
    pub subject: String,
    /// The encoded envelope.
    pub payload: Vec<u8>,
}

/// One event on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// The event's id: what a broker recognises a repetition by.
    pub id: String,
    /// The event.
    pub message: Message,
}

/// Where a delivery stands on its transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// In a source that is read strictly in order; its consumer keeps one position.
    Ordered {
        /// The producer's name.
        source: Arc<str>,
        /// From 1.
        position: i64,
    },
    /// On a transport that may repeat and reorder.
    Unordered {
        /// What the transport acknowledges it by.
        sequence: u64,
    },
}

/// One event, delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The event; other consumers of this process may hold the same one.
    pub message: Arc<Message>,
    /// Where it stands.
    pub position: Position,
}

/// Why a transport does not carry at the moment; it may again later.
#[derive(Debug, thiserror::Error)]
#[error("events do not pass {source_name}")]
pub struct Error {
    /// The producer or broker.
    pub source_name: String,
    /// Why.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    /// Something went wrong at this producer or broker.
    pub fn new(source_name: impl Into<String>, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source_name: source_name.into(), cause: cause.into() }
    }
}

/// What a broker holds at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// Changes when the stream was made anew, and with it every sequence.
    pub identity: String,
    /// The sequence of the oldest event; one after `last` where there is none.
    pub first: u64,
    /// The sequence of the newest event there ever was, 0 where there never was one.
    pub last: u64,
    /// How many sequences between those two have no event any more.
    pub gaps: u64,
    /// How long the broker holds an event; zero for as long as there is room. Older events are not missing.
    pub max_age: Duration,
}

/// Hands events to a broker.
#[async_trait]
pub trait Publish: Send + Sync {
    /// Sends all of them, in this order and without waiting between them, and waits for the acknowledgements until
    /// `deadline`, one deadline for all. The result of each: its sequence in the stream. An event that the broker has under
    /// this id already is not stored again and has the sequence it got the first time; one that the broker had and lost is
    /// stored again. An event whose result is an error may be stored all the same.
    async fn publish(&self, events: &[Outbound], deadline: Instant) -> Vec<Result<u64, Error>>;

    /// What the broker holds. Makes the stream where it is missing.
    ///
    /// # Errors
    /// [`Error`].
    async fn state(&self) -> Result<StreamState, Error>;

    /// The id of the event at a sequence; `None` where there is none, or none any more.
    ///
    /// # Errors
    /// [`Error`].
    async fn id_at(&self, sequence: u64) -> Result<Option<String>, Error>;

    /// The sequences that [`StreamState::gaps`] counts, in ascending order.
    ///
    /// # Errors
    /// [`Error`].
    async fn gaps(&self) -> Result<Vec<RangeInclusive<u64>>, Error>;

    /// Tells readers in strict order that the stream lost its end and gave those sequences to other events, so that they read
    /// it from its first event. They hear of it within seconds.
    ///
    /// # Errors
    /// [`Error`].
    async fn renumbered(&self) -> Result<(), Error>;

    /// Counts the connections made. A change is a reason to look at [`Self::state`] again.
    fn connections(&self) -> watch::Receiver<u64>;
}

/// One consumer's view of the events it asked for.
#[async_trait]
pub trait Subscription: Send {
    /// Waits until something is there and hands over at most `limit` deliveries. What was handed over and not settled is not
    /// handed over again by this subscription, but by the next one of the same consumer. Nothing is lost where the wait is
    /// given up.
    ///
    /// # Errors
    /// [`Error`]; the next call tries again.
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error>;

    /// Settles deliveries for good, after their effects have been committed.
    ///
    /// # Errors
    /// [`Error`]; the deliveries may then come again.
    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), Error>;

    /// Asks for deliveries again after a pause; what follows them overtakes them meanwhile. Only where their position is
    /// [`Position::Unordered`]: on a transport in strict order nothing can be put off, its consumer insists on what is at hand.
    ///
    /// # Errors
    /// [`Error`], always where the transport is in strict order. Otherwise the deliveries come again all the same, by time-out.
    async fn postpone(&mut self, deliveries: &[Delivery], pause: Duration) -> Result<(), Error>;

    /// Events that wait for this consumer, as far as the transport can tell.
    ///
    /// # Errors
    /// [`Error`].
    async fn lag(&mut self) -> Result<u64, Error>;
}

/// Makes subscriptions.
#[async_trait]
pub trait Subscribe: Send + Sync {
    /// Subscribes the durable consumer `name` to the subjects that match `filter` (tokens separated by dots, `*` for exactly
    /// one). `from` says how far it has read each ordered source; a consumer that is new starts from the first event.
    ///
    /// # Errors
    /// [`Error`].
    async fn subscribe(
        &self,
        name: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error>;
}

/// Subjects that a consumer asked for.
#[derive(Debug, Clone)]
pub(crate) struct Filter(Vec<Pattern>);

#[derive(Debug, Clone)]
enum Pattern {
    /// A beginning, dot included, that exactly one more token follows: what every consumer here asks for.
    Followed(String),
    /// Anything else, token by token.
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

    /// Whether one of the patterns matches.
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
