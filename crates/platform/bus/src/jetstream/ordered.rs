//! Readers in strict order, which keep their own cursor.
//!
//! The broker stores nothing for them. A consumer lives as long as its connection. When the connection is lost, the
//! reader gets an error and subscribes again from the cursor in its own database.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};

use super::pull::Pull;
use super::stream::numbering;
use super::{Connection, Shared};
use crate::port::{Delivery, Error, Follow, Message, Position, Subscribe, Subscription};

/// The broker deletes a consumer that nobody has read from for this long.
pub(super) const CONSUMER_IDLE_LIMIT: Duration = Duration::from_secs(30);

/// How often a reader checks that its positions still have the same meaning.
const POSITION_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Serves subscriptions of single readers. Their source is `{stream}@{identity}`. A stream that was recreated is
/// another source and is read from its first event. So is a stream that gave out sequences again, see
/// [`Publish::renumbered`](crate::Publish::renumbered).
#[derive(Clone)]
pub struct Ordered(pub(super) Arc<Shared>);

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ordered").field(&self.0.options.stream).finish()
    }
}

#[async_trait]
impl Subscribe for Ordered {
    async fn subscribe(
        &self,
        _name: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let info = self.0.stream().await?;
        let connection = self.0.connection();
        let numbering = numbering(&info);
        let base = format!("{}@{numbering}", self.0.options.stream);
        let (source, position) = cursor(base, info.state.last_sequence, &from);
        let config = Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: position + 1 },
            ack_policy: AckPolicy::None,
            filter_subjects: filter.to_vec(),
            inactive_threshold: CONSUMER_IDLE_LIMIT,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let pull = Pull::begin(&self.0, config).await?;
        let (shared, source, next_check) =
            (Arc::clone(&self.0), source.into(), Instant::now() + POSITION_CHECK_INTERVAL);
        Ok(Box::new(Reader { shared, pull, source, numbering, next_check, connection, delivered: 0 }))
    }
}

#[async_trait]
impl Follow for Ordered {
    /// All producers share the stream, and its positions.
    async fn head(&self, _producer: &str) -> Result<(String, i64), Error> {
        let info = self.0.stream().await?;
        let source = format!("{}@{}", self.0.options.stream, numbering(&info));
        let last = i64::try_from(info.state.last_sequence).map_err(|error| self.0.error(error))?;
        Ok((source, last))
    }
}

/// The source and position where a reader continues. A reader whose position is beyond the end of the stream has read
/// events that a power failure took from the broker. Other events get those sequences now, so the reader begins again
/// under a source name that its old cursor does not belong to.
fn cursor(base: String, last: u64, from: &HashMap<String, i64>) -> (String, u64) {
    let position = |source: &str| u64::try_from(from.get(source).copied().unwrap_or(0)).unwrap_or(0);
    let mut source = base.clone();
    let mut generation = 0;
    while position(&source) > last {
        generation += 1;
        source = format!("{base}.{generation}");
    }
    let position = position(&source);
    (source, position)
}

struct Reader {
    shared: Arc<Shared>,
    pull: Pull,
    source: Arc<str>,
    /// The stream's numbering at the subscription; it is compared again at `next_check`.
    numbering: String,
    next_check: Instant,
    connection: Connection,
    /// How many events this reader has handed over; the broker counts its own deliveries.
    delivered: u64,
}

impl Reader {
    /// An error if positions have another meaning now. If the broker does not answer, nothing is known and the check
    /// passes.
    async fn same_numbering(&self) -> Result<(), Error> {
        match self.shared.stream().await {
            Ok(info) if numbering(&info) != self.numbering => {
                Err(self.shared.error("the stream gave out sequences again, or was made anew"))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Subscription for Reader {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        let messages = loop {
            tokio::select! {
                biased;
                () = self.connection.replaced(&self.shared) => return Err(self.shared.error("the connection was lost")),
                () = sleep_until(self.next_check) => {
                    self.same_numbering().await?;
                    // Set only now: if this future is dropped earlier, the next wait must check again.
                    self.next_check = Instant::now() + POSITION_CHECK_INTERVAL;
                }
                messages = self.pull.take(&self.shared, limit) => break messages?,
            }
        };
        let mut deliveries = Vec::with_capacity(messages.len());
        for message in messages {
            let info = message.info().map_err(|error| self.shared.error(error))?;
            if info.consumer_sequence != self.delivered + 1 {
                return Err(self.shared.error("events were lost on the way"));
            }
            self.delivered += 1;
            let position = i64::try_from(info.stream_sequence).map_err(|error| self.shared.error(error))?;
            let subject = message.message.subject.to_string();
            let message = Arc::new(Message { subject, payload: message.message.payload.to_vec() });
            deliveries
                .push(Delivery { message, position: Position::Ordered { source: Arc::clone(&self.source), position } });
        }
        Ok(deliveries)
    }

    async fn acknowledge(&mut self, _deliveries: &[Delivery]) -> Result<(), Error> {
        Ok(())
    }

    async fn postpone(&mut self, _deliveries: &[Delivery], _pause: Duration) -> Result<(), Error> {
        Err(self.shared.error("it is read in order: nothing can be put off"))
    }

    /// How many matching events of the stream the reader does not have yet.
    async fn lag(&mut self) -> Result<u64, Error> {
        let info = self.pull.info(&self.shared).await?;
        Ok(info.num_pending + info.delivered.consumer_sequence.saturating_sub(self.delivered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_beyond_the_end_is_not_used() {
        let from = HashMap::from([("s@1".to_owned(), 5), ("s@1.1".to_owned(), 3)]);
        assert_eq!(cursor("s@1".into(), 5, &from), ("s@1".into(), 5));
        assert_eq!(cursor("s@1".into(), 4, &from), ("s@1.1".into(), 3));
        assert_eq!(cursor("s@1".into(), 2, &from), ("s@1.2".into(), 0));
        assert_eq!(cursor("s@2".into(), 0, &from), ("s@2".into(), 0));
    }
}
