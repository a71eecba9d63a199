//! A relay with a bug: it remembers how far it has read, not which events the broker has acknowledged.

use std::sync::Arc;
use std::time::Duration;

use bus::{Message, Outbound, Publish};
use store::{Database, outbox};
use tokio::time::{Instant, sleep, timeout};

/// How often it looks for commits that it was not notified of.
const COMMIT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Publishes the events after the last published one, for ever.
pub(crate) async fn publish(database: Database, transport: Arc<dyn Publish>) {
    let (mut watermark, mut commits) = (0, database.commits());
    loop {
        let rows = outbox::read_after(database.reader(), watermark, 64).await.unwrap_or_default();
        if rows.is_empty() {
            drop(timeout(COMMIT_POLL_INTERVAL, commits.changed()).await);
            continue;
        }
        let last = rows.last().map_or(watermark, |row| row.position);
        let outbound = rows.into_iter().map(|row| Outbound {
            id: row.event_id.to_string(),
            message: Message { subject: row.subject, payload: row.payload },
            headers: Vec::new(),
        });
        let outbound: Vec<Outbound> = outbound.collect();
        let acknowledged = transport.publish(&outbound, Instant::now() + Duration::from_secs(2)).await;
        if acknowledged.iter().all(Result::is_ok) {
            watermark = last;
        } else {
            sleep(COMMIT_POLL_INTERVAL).await;
        }
    }
}
