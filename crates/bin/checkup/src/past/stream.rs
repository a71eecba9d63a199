//! Compares services' logs with the stream.

use std::collections::BTreeMap;

use bus::jetstream::JetStream;
use contract::event::v1::EventEnvelope;
use domain::civil::decode_time;
use domain::frame::Opened;
use store::{Database, DbErr, micros, outbox};
use uuid::Uuid;

use super::{Lost, Witness};
use crate::service::Service;

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

/// The services whose log lacks the newest event that the stream has of them.
///
/// # Errors
/// Fails if a database or the broker does.
pub async fn of_stream(databases: &BTreeMap<Service, Database>, broker: &JetStream) -> Result<Vec<Lost>, NotAsked> {
    let mut lost = Vec::new();
    for (service, database) in databases {
        let Some(message) = broker.newest_of(service.name()).await? else { continue };
        let Some(Published { frame_id, occur_time, events }) = read(&message.payload) else { continue };
        let Some(newest) = events.into_iter().next_back() else { continue };
        if !outbox::knows(database.reader(), frame_id, occur_time).await? {
            let EventEnvelope { aggregate, event_id, .. } = newest;
            lost.push(Lost { service: *service, witness: Witness::Stream { aggregate, event_id } });
        }
    }
    Ok(lost)
}

/// A frame of events as the stream has it.
pub(crate) struct Published {
    pub(crate) frame_id: Uuid,
    /// When the newest of its events occurred, in microseconds since 1970.
    pub(crate) occur_time: i64,
    pub(crate) events: Vec<EventEnvelope>,
}

/// Reads a message of the stream. `None` for bytes that no service wrote.
pub(crate) fn read(payload: &[u8]) -> Option<Published> {
    let opened = Opened::new(payload);
    let (frame_id, events) = (opened.id()?, opened.decode().ok()?);
    let occurred = events.iter().filter_map(|event| event.occur_time.as_ref().and_then(decode_time)).max()?;
    Some(Published { frame_id, occur_time: micros(occurred), events })
}
