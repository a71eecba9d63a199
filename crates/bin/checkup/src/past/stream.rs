//! Compares services' logs with the stream.

use std::collections::BTreeMap;

use bus::jetstream::JetStream;
use contract::event::v1::EventEnvelope;
use domain::civil::decode_time;
use prost::Message as _;
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
        let Some((event_id, occurred, envelope)) = read(&message.payload) else { continue };
        if !outbox::knows(database.reader(), event_id, occurred).await? {
            let EventEnvelope { aggregate, event_id, .. } = envelope;
            lost.push(Lost { service: *service, witness: Witness::Stream { aggregate, event_id } });
        }
    }
    Ok(lost)
}

/// An event with its id and the microseconds since 1970 at which it occurred. `None` for bytes that no service wrote.
pub(crate) fn read(payload: &[u8]) -> Option<(Uuid, i64, EventEnvelope)> {
    let envelope = EventEnvelope::decode(payload).ok()?;
    let event_id = Uuid::try_parse(&envelope.event_id).ok()?;
    let occurred = envelope.occur_time.as_ref().and_then(decode_time)?;
    Some((event_id, micros(occurred), envelope))
}
