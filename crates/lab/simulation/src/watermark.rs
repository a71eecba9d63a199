//! A relay as it must not be: it remembers how far it has read, not which events the broker has.

use std::sync::Arc;
use std::time::Duration;

use bus::{Message, Outbound, Publish};
use store::{Database, outbox};
use tokio::time::{Instant, sleep, timeout};

/// How often it looks for what nobody told it of.
const COMMIT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Publishes what comes after the last event it has published.
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
