//! Reading from a consumer of the stream, whichever kind it is.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::{Config, Stream};
use async_nats::jetstream::consumer::{Consumer, Info};
use futures::StreamExt;

use super::Shared;
use crate::port::Error;

/// Events asked for at once. The next request leaves when half of them have come, so that the stream never stands still.
const EVENTS_PER_REQUEST: usize = 1_000;
/// How long a request waits for events that are not there.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The broker says this often that it is there; missing it twice is an error.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// Events as they come from a consumer.
pub(super) struct Pull {
    consumer: Consumer<Config>,
    messages: Stream,
    /// What went wrong behind events that were handed over first.
    failed: Option<Error>,
}

impl Pull {
    /// Makes the consumer, or finds it, and begins to read.
    pub(super) async fn begin(shared: &Shared, config: Config) -> Result<Self, Error> {
        let making = shared.context.create_consumer_on_stream(config, &shared.options.stream);
        let consumer: Consumer<Config> = shared.answer(making).await?;
        let reading = consumer
            .stream()
            .max_messages_per_batch(EVENTS_PER_REQUEST)
            .expires(REQUEST_TIMEOUT)
            .heartbeat(HEARTBEAT_INTERVAL);
        let messages = shared.answer(reading.messages()).await?;
        Ok(Self { consumer, messages, failed: None })
    }

    /// Waits for one event and takes those that are there with it, at most `limit`. Nothing is lost when this is dropped.
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

    /// What the broker knows of the consumer.
    pub(super) async fn info(&self, shared: &Shared) -> Result<Info, Error> {
        shared.answer(self.consumer.get_info()).await
    }
}
