//! The durable consumers that the broker keeps, whoever made them.

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use async_nats::jetstream::{ErrorCode, stream};
use async_recursion::async_recursion as boxed;
use futures::TryStreamExt;

use super::{BROKER_TIMEOUT, JetStream, Shared};
use crate::port::Error;

/// A durable consumer, as the broker describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableConsumer {
    /// Its name.
    pub name: String,
    /// The subjects that it selects; none for all.
    pub filter: Vec<String>,
    /// How many messages nobody has received from it yet.
    pub waiting: u64,
    /// How many messages readers hold without an acknowledgement.
    pub unacknowledged: u64,
    /// Whether somebody waits for its next message.
    pub is_read: bool,
}

impl JetStream {
    /// The durable consumers of the stream, in the order of their names; none if there is no stream. Consumers that
    /// live only as long as their connection are left out.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    #[boxed]
    pub async fn consumers(&self) -> Result<Vec<DurableConsumer>, Error> {
        let Some(stream) = self.0.existing().await? else { return Ok(Vec::new()) };
        let listed = tokio::time::timeout(BROKER_TIMEOUT, stream.consumers().try_collect::<Vec<Info>>()).await;
        let listed = listed.map_err(|_| self.0.error(self.0.silence("the broker does not answer")))?;
        let listed: Result<Vec<Info>, stream::ConsumersError> = listed;
        let mut found: Vec<_> = listed.map_err(|error| self.0.error(error))?.into_iter().filter_map(durable).collect();
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes a durable consumer for good; false if there is none of this name. If somebody makes it again, it begins
    /// at the first event.
    ///
    /// # Errors
    /// [`Error`] if the broker does not answer.
    #[boxed]
    pub async fn remove_consumer(&self, name: &str) -> Result<bool, Error> {
        match self.0.existing().await? {
            Some(stream) => self.0.delete_consumer(&stream, name).await,
            None => Ok(false),
        }
    }
}

impl Shared {
    /// Deletes a consumer; false if there is none.
    pub(super) async fn delete_consumer(&self, stream: &Stream, name: &str) -> Result<bool, Error> {
        match self.ask(stream.delete_consumer(name)).await? {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                ConsumerErrorKind::JetStream(said) if said.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(false),
                _ => Err(self.error(error)),
            },
        }
    }
}

fn durable(info: Info) -> Option<DurableConsumer> {
    let config = info.config;
    let name = config.durable_name?;
    let mut filter = config.filter_subjects;
    if !config.filter_subject.is_empty() {
        filter.push(config.filter_subject);
    }
    let (waiting, unacknowledged) = (info.num_pending, info.num_ack_pending as u64);
    Some(DurableConsumer { name, filter, waiting, unacknowledged, is_read: info.num_waiting > 0 })
}
