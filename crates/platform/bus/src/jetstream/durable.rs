//! Durable consumers: the broker keeps track of acknowledgements, and all replicas of a service read from the same
//! consumer.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_trait::async_trait;
use tokio::time::timeout;

use super::pull::Pull;
use super::stream::identity;
use super::{BROKER_TIMEOUT, Connection, Shared};
use crate::port::{Delivery, Error, Message, Position, Subscribe, Subscription};

/// The most messages that all replicas together may hold without an acknowledgement, postponed ones included.
const MAX_UNACKNOWLEDGED: i64 = 10_000;

/// Serves subscriptions from durable consumers. A missing consumer is made again and starts at the first event.
#[derive(Clone)]
pub struct Durable(pub(super) Arc<Shared>);

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Durable").field(&self.0.options.stream).finish()
    }
}

#[async_trait]
impl Subscribe for Durable {
    async fn subscribe(
        &self,
        name: &str,
        filter: &[String],
        _from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let identity = identity(&self.0.stream().await?);
        let connection = self.0.connection();
        let config = Config {
            // The name as it is, because a broker permits a user whole names only.
            durable_name: Some(name.to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.0.options.ack_wait,
            // A consumer gives up on an event by acknowledging it. With a limit the broker would drop the event
            // silently.
            max_deliver: -1,
            max_ack_pending: MAX_UNACKNOWLEDGED,
            filter_subjects: filter.to_vec(),
            inactive_threshold: Duration::ZERO,
            ..Config::default()
        };
        let pull = Pull::begin(&self.0, config).await?;
        let shared = Arc::clone(&self.0);
        Ok(Box::new(Reader { shared, pull, identity, connection, held: HashMap::new() }))
    }
}

struct Reader {
    shared: Arc<Shared>,
    pull: Pull,
    identity: String,
    connection: Connection,
    /// The reply subject for the acknowledgement of each delivery that was handed over and not settled, by sequence.
    held: HashMap<u64, Subject>,
}

impl Reader {
    /// An error if the stream is no longer the one that this reads from. If the broker does not answer, it may still
    /// have the stream.
    async fn same_stream(&self) -> Result<(), Error> {
        match self.shared.stream().await {
            Ok(info) if identity(&info) != self.identity => Err(self.shared.error("the stream was made anew")),
            _ => Ok(()),
        }
    }

    /// Sends the same acknowledgement for all these deliveries without waiting for the broker.
    async fn settle(&mut self, deliveries: &[Delivery], kind: AckKind) -> Result<(), Error> {
        let payload = bytes::Bytes::from(kind);
        let sending = async {
            for delivery in deliveries {
                let Position::Unordered { sequence } = delivery.position else { continue };
                if let Some(reply) = self.held.remove(&sequence) {
                    self.shared.client.publish(reply, payload.clone()).await?;
                }
            }
            Ok::<(), async_nats::PublishError>(())
        };
        match timeout(BROKER_TIMEOUT, sending).await {
            Ok(sent) => sent.map_err(|error| self.shared.error(error)),
            Err(_) => Err(self.shared.error("the broker takes nothing")),
        }
    }
}

#[async_trait]
impl Subscription for Reader {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        let messages = loop {
            tokio::select! {
                messages = self.pull.take(&self.shared, limit) => break messages?,
                () = self.connection.replaced(&self.shared) => {
                    let connection = self.shared.connection();
                    self.same_stream().await?;
                    // Set only now: if this future is dropped earlier, the next wait must check again.
                    self.connection = connection;
                }
            }
        };
        let mut deliveries = Vec::with_capacity(messages.len());
        for message in messages {
            let sequence = message.info().map_err(|error| self.shared.error(error))?.stream_sequence;
            if let Some(reply) = message.message.reply {
                self.held.insert(sequence, reply);
            }
            let subject = message.message.subject.to_string();
            let message = Message { subject, payload: message.message.payload.to_vec() };
            deliveries.push(Delivery { message: Arc::new(message), position: Position::Unordered { sequence } });
        }
        Ok(deliveries)
    }

    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), Error> {
        self.settle(deliveries, AckKind::Ack).await
    }

    async fn postpone(&mut self, deliveries: &[Delivery], pause: Duration) -> Result<(), Error> {
        self.settle(deliveries, AckKind::Nak(Some(pause))).await
    }

    /// How many events nobody has received yet, plus those that other subscriptions hold unsettled.
    async fn lag(&mut self) -> Result<u64, Error> {
        let info = self.pull.info(&self.shared).await?;
        let unsettled = (info.num_ack_pending as u64).saturating_sub(self.held.len() as u64);
        Ok(info.num_pending + unsettled)
    }
}
