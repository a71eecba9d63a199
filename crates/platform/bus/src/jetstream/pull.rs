//! Reading from a consumer of the stream, durable or ordered.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::{Config, Stream};
use async_nats::jetstream::consumer::{Consumer, Info};
use futures::StreamExt;

use super::Shared;
use crate::port::Error;

/// Messages per request, each of up to 128 KiB. The client sends the next request when half of them have arrived, so
/// that reading never pauses.
const MESSAGES_PER_REQUEST: usize = 128;
/// How long a request waits for events.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the broker sends a heartbeat; missing two of them is an error.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// The messages of one consumer.
pub(super) struct Pull {
    consumer: Consumer<Config>,
    messages: Stream,
    /// An error that occurred behind events that had to be returned first.
    failed: Option<Error>,
}

impl Pull {
    /// Makes the consumer, or finds it, and begins to read.
    pub(super) async fn begin(shared: &Shared, config: Config) -> Result<Self, Error> {
        let making = shared.context.create_consumer_on_stream(config, &shared.options.stream);
        let consumer: Consumer<Config> = shared.answer(making).await?;
        let reading = consumer
            .stream()
            .max_messages_per_batch(MESSAGES_PER_REQUEST)
            .expires(REQUEST_TIMEOUT)
            .heartbeat(HEARTBEAT_INTERVAL);
        let messages = shared.answer(reading.messages()).await?;
        Ok(Self { consumer, messages, failed: None })
    }

    /// Waits for one event and returns it with all that are ready, at most `limit`. Nothing is lost if this future is
    /// dropped.
    pub(super) async fn take(&mut self, shared: &Shared, limit: usize) -> Result<Vec<Message>, Error> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        poll_fn(|context| {
            let mut taken = Vec::new();
            while taken.len() < limit.max(1) {
                let failed = match self.messages.poll_next_unpin(context) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok(message))) => {
                        taken.push(message);
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => shared.error(error),
                    Poll::Ready(None) => shared.error("the consumer is gone"),
                };
                if taken.is_empty() {
                    return Poll::Ready(Err(failed));
                }
                self.failed = Some(failed);
                break;
            }
            if taken.is_empty() { Poll::Pending } else { Poll::Ready(Ok(taken)) }
        })
        .await
    }

    /// The broker's information about the consumer.
    pub(super) async fn info(&self, shared: &Shared) -> Result<Info, Error> {
        shared.answer(self.consumer.get_info()).await
    }
}
