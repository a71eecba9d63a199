//! A consumer's work besides reading: applying dead letters again on request, and removing old inbox rows.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use store::inbox::{self, InboxKey};
use store::{DbErr, dead_letter};
use tokio::time::{Instant, sleep};

use crate::apply::read;
use crate::chain;
use crate::consumer::{ConsumeOptions, Consumer, Incoming};

/// How often the consumer looks for requests to apply a dead letter again.
const REPLAY_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The most dead letters applied per look.
const DEAD_LETTERS_AT_ONCE: u64 = 100;
/// How often old inbox rows are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(crate) async fn upkeep(consumer: Consumer, options: ConsumeOptions, clock: Clock) {
    let mut pruned = Instant::now();
    loop {
        sleep(REPLAY_POLL_INTERVAL).await;
        if let Err(error) = replay(&consumer).await {
            tracing::debug!(consumer = consumer.name, error = chain(&error), "dead letters have to wait");
        }
        if pruned.elapsed() >= PRUNE_INTERVAL {
            pruned = Instant::now();
            let memory = SignedDuration::try_from(options.memory).unwrap_or(SignedDuration::MAX);
            let limit = clock.now().checked_sub(memory).unwrap_or(Timestamp::MIN);
            if let Err(error) = inbox::prune(&consumer.database, consumer.name, limit).await {
                tracing::debug!(consumer = consumer.name, error = chain(&error), "old inbox rows have to wait");
            }
        }
    }
}

/// Applies the dead letters for which somebody asked. If it is cut off and repeated, nothing happens twice: the event
/// is marked as seen in the transaction of its effect.
async fn replay(consumer: &Consumer) -> Result<(), DbErr> {
    let Consumer { name, handler, database, .. } = consumer;
    for dead_letter in dead_letter::asked_for(database.reader(), name, DEAD_LETTERS_AT_ONCE).await? {
        let applied = match read(&dead_letter.payload) {
            // A fact that this version does not know has no effect.
            Ok(None) => Ok(()),
            Ok(Some((envelope, event_id))) => {
                let event = Incoming { envelope, event_id, inbox_key: InboxKey::alone(event_id) };
                handler.handle(&[event]).await.map_err(|fault| format!("{fault:?}"))
            }
            Err(error) => Err(error),
        };
        match applied {
            Ok(()) => {
                tracing::info!(consumer = name, dead_letter = dead_letter.id, "dead letter applied");
                dead_letter::remove(database, dead_letter.id).await?;
            }
            Err(error) => {
                tracing::warn!(consumer = name, dead_letter = dead_letter.id, error, "dead letter not applied");
                dead_letter::keep(database, dead_letter.id, &error).await?;
            }
        }
    }
    Ok(())
}
