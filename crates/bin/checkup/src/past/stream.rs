//! Compares services' logs with the stream.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bus::Message;
use bus::jetstream::{JetStream, ProducerEvents};
use contract::event::v1::EventEnvelope;
use domain::civil::decode_time;
use domain::frame::Opened;
use store::{Database, DbErr, micros, outbox, past};
use uuid::Uuid;

use super::{Lost, Witness};
use crate::service::Service;

/// The stream, as whoever looks for a lost past reads it.
#[async_trait]
pub trait Stream: Send + Sync {
    /// The newest event of a producer; `None` if the stream has none or there is no stream.
    ///
    /// # Errors
    /// Fails if the broker does not answer.
    async fn newest_of(&self, producer: &str) -> Result<Option<Message>, bus::Error>;

    /// The events of a producer after a sequence of the stream `known`; all of them if the stream is another one by
    /// now. `None` if there is no stream.
    ///
    /// # Errors
    /// Fails if the broker does not answer.
    async fn events_of(
        &self,
        producer: &str,
        known: &str,
        sequence: u64,
    ) -> Result<Option<Box<dyn Events>>, bus::Error>;

    /// Makes a durable consumer begin again at the first event.
    ///
    /// # Errors
    /// Fails if the broker does not answer.
    async fn read_again(&self, consumer: &str) -> Result<(), bus::Error>;
}

/// Events of one producer, oldest first.
#[async_trait]
pub trait Events: Send {
    /// The next events with their sequences; empty at the end.
    ///
    /// # Errors
    /// Fails if the broker does not answer.
    async fn next(&mut self) -> Result<Vec<(u64, Message)>, bus::Error>;
}

#[async_trait]
impl Stream for JetStream {
    async fn newest_of(&self, producer: &str) -> Result<Option<Message>, bus::Error> {
        Self::newest_of(self, producer).await
    }

    async fn events_of(
        &self,
        producer: &str,
        known: &str,
        sequence: u64,
    ) -> Result<Option<Box<dyn Events>>, bus::Error> {
        let events = Self::events_of(self, producer, known, sequence).await?;
        Ok(events.map(|events| Box::new(events) as Box<dyn Events>))
    }

    async fn read_again(&self, consumer: &str) -> Result<(), bus::Error> {
        Self::read_again(self, consumer).await
    }
}

#[async_trait]
impl Events for ProducerEvents {
    async fn next(&mut self) -> Result<Vec<(u64, Message)>, bus::Error> {
        Self::next(self).await
    }
}

/// The reason why nobody could tell whether a service lost its past.
#[derive(Debug, thiserror::Error)]
pub enum NotAsked {
    /// A database did not answer.
    #[error("a database does not answer")]
    Database(#[from] DbErr),
    /// The broker did not answer.
    #[error("the broker does not answer")]
    Broker(#[from] bus::Error),
}

/// The services whose log lacks the newest event that the stream has of them, although it was not removed by age.
///
/// # Errors
/// Fails if a database or the broker does.
pub async fn of_stream(databases: &BTreeMap<Service, Database>, broker: &dyn Stream) -> Result<Vec<Lost>, NotAsked> {
    let mut lost = Vec::new();
    for (service, database) in databases.iter().filter(|(service, _)| service.row().relay.is_some()) {
        let Some(message) = broker.newest_of(service.name()).await? else { continue };
        let Some(Published { frame_id, occur_time, events }) = read(&message.payload) else { continue };
        let Some(newest) = events.into_iter().next_back() else { continue };
        let knows = outbox::knows(database.reader(), frame_id, occur_time).await?;
        if !knows && !past::may_have_had(database.reader(), occur_time).await? {
            let EventEnvelope { aggregate, event_id, .. } = newest;
            lost.push(Lost { service: *service, witness: Witness::Stream { aggregate, event_id } });
        }
    }
    Ok(lost)
}

/// A frame of events as the stream has it.
pub(crate) struct Published {
    pub(crate) frame_id: Uuid,
    /// When the newest of its events occurred or, where they are repeated, when they were, in microseconds since 1970:
    /// the time that its row in the outbox has.
    pub(crate) occur_time: i64,
    pub(crate) events: Vec<EventEnvelope>,
}

/// Reads a message of the stream. `None` for bytes that no service wrote.
pub(crate) fn read(payload: &[u8]) -> Option<Published> {
    let opened = Opened::new(payload);
    let (frame_id, events) = (opened.id()?, opened.decode().ok()?);
    let occurred = events.iter().filter_map(|event| event.occur_time.as_ref().and_then(decode_time)).max()?;
    let occur_time = micros(opened.repeat_time.unwrap_or(occurred));
    Some(Published { frame_id, occur_time, events })
}

#[cfg(test)]
mod tests {
    use domain::civil::encode_time;
    use domain::frame;
    use jiff::Timestamp;
    use prost::Message as _;

    use super::*;

    /// Otherwise a log that lost the frame would look like one from which age removed it.
    #[test]
    fn a_repeated_frame_is_as_old_as_its_repetition() {
        let second = |second| Timestamp::from_second(second).expect("a time");
        let event = EventEnvelope {
            event_id: Uuid::from_u128(7).to_string(),
            occur_time: Some(encode_time(second(1_000))),
            ..EventEnvelope::default()
        };
        let bytes = event.encode_to_vec();
        let published = frame::Published { envelope: event.clone(), bytes: &bytes, subject: "checkup.v1.a.b.c".into() };
        let repeated = frame::repeated(&[published], second(9_000)).expect("a frame").remove(0);
        let first = frame::frames(&[event]).expect("a frame").remove(0);
        for (frame, time) in [(first, 1_000_000_000), (repeated, 9_000_000_000)] {
            let read = read(&frame.payload).expect("a frame");
            assert_eq!((read.frame_id, read.occur_time), (frame.id, time));
            assert_eq!(micros(frame.occur_time), time, "the row says the same");
        }
    }
}
