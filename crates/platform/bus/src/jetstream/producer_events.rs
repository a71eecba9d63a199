//! The events of one producer that the stream still has. A service that lost its own past reads them to learn what it
//! announced.

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{ErrorCode, stream::Stream};
use async_recursion::async_recursion as boxed;

use super::ordered::CONSUMER_IDLE_LIMIT;
use super::pull::Pull;
use super::stream::identity;
use super::{JetStream, Shared};
use crate::port::{Error, Message};

/// The most messages per call of `next`.
const MESSAGES_PER_PULL: usize = 128;

/// The subject filter that matches every event of a producer.
fn subjects(producer: &str) -> String {
    format!("checkup.v1.*.*.{producer}")
}

/// Events of one producer, oldest first.
pub struct ProducerEvents {
    shared: std::sync::Arc<Shared>,
    pull: Pull,
    /// How many events are still to come.
    waiting: u64,
}

impl std::fmt::Debug for ProducerEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerEvents").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl ProducerEvents {
    /// The next events with their sequences; empty once all events have been returned that existed when the reading
    /// began.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    #[boxed]
    pub async fn next(&mut self) -> Result<Vec<(u64, Message)>, Error> {
        if self.waiting == 0 {
            return Ok(Vec::new());
        }
        let mut events = Vec::new();
        let taken = self.pull.take(&self.shared, MESSAGES_PER_PULL).await?;
        self.waiting = self.waiting.saturating_sub(taken.len() as u64);
        for message in taken {
            let sequence = message.info().map_err(|error| self.shared.error(error))?.stream_sequence;
            let subject = message.message.subject.to_string();
            events.push((sequence, Message { subject, payload: message.message.payload.to_vec() }));
        }
        Ok(events)
    }
}

impl JetStream {
    /// The newest event of a producer; `None` if the stream has none or there is no stream. Makes no stream.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    #[boxed]
    pub async fn newest_of(&self, producer: &str) -> Result<Option<Message>, Error> {
        let Some(stream) = self.0.existing().await? else { return Ok(None) };
        let subjects = subjects(producer);
        match self.0.ask(stream.get_last_raw_message_by_subject(&subjects)).await? {
            Ok(message) => {
                Ok(Some(Message { subject: message.subject.to_string(), payload: message.payload.to_vec() }))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.0.error(error)),
        }
    }

    /// The events of a producer after a sequence of the stream `known`; all of them if the stream is another one by
    /// now. `None` if there is no stream.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    #[boxed]
    pub async fn events_of(&self, producer: &str, known: &str, sequence: u64) -> Result<Option<ProducerEvents>, Error> {
        let Some(stream) = self.0.existing().await? else { return Ok(None) };
        let same = identity(stream.cached_info()) == known;
        let config = Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: if same { sequence + 1 } else { 1 } },
            ack_policy: AckPolicy::None,
            filter_subjects: vec![subjects(producer)],
            inactive_threshold: CONSUMER_IDLE_LIMIT,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let pull = Pull::begin(&self.0, config).await?;
        let info = pull.info(&self.0).await?;
        let waiting = info.num_pending + info.delivered.consumer_sequence;
        Ok(Some(ProducerEvents { shared: std::sync::Arc::clone(&self.0), pull, waiting }))
    }

    /// Makes a durable consumer begin again at the first event. A consumer that remembers what it applied applies
    /// nothing twice.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    #[boxed]
    pub async fn read_again(&self, consumer: &str) -> Result<(), Error> {
        let Some(stream) = self.0.existing().await? else { return Ok(()) };
        self.0.delete_consumer(&stream, consumer).await.map(drop)
    }
}

impl Shared {
    /// The stream, or `None` if there is none.
    pub(super) async fn existing(&self) -> Result<Option<Stream>, Error> {
        match self.ask(self.context.get_stream(&self.options.stream)).await? {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(self.error(error)),
            },
        }
    }
}
