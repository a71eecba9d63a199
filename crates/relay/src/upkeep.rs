//! What a consumer does besides reading: it applies dead letters again where somebody asked for that, and forgets what it has
//! seen long ago.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use store::inbox::{self, Mark};
use store::{DbErr, dead_letter};
use tokio::time::{Instant, sleep};

use crate::apply::read;
use crate::chain;
use crate::consume::{ConsumeOptions, Consumer};

/// How often wishes are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Letters applied again in one look.
const LETTERS: u64 = 100;
/// How often old marks are forgotten.
const PRUNE: Duration = Duration::from_secs(60);

/// Runs until it is cut off.
pub(crate) async fn upkeep(consumer: Consumer, options: ConsumeOptions, clock: Clock) {
    let mut pruned = Instant::now();
    loop {
        sleep(LOOK).await;
        if let Err(error) = replay(&consumer).await {
            tracing::debug!(consumer = consumer.name, error = chain(&error), "dead letters have to wait");
        }
        if pruned.elapsed() >= PRUNE {
            pruned = Instant::now();
            let memory = SignedDuration::try_from(options.memory).unwrap_or(SignedDuration::MAX);
            let limit = clock.now().checked_sub(memory).unwrap_or(Timestamp::MIN);
            if let Err(error) = inbox::prune(&consumer.database, consumer.name, limit).await {
                tracing::debug!(consumer = consumer.name, error = chain(&error), "old marks have to wait");
            }
        }
    }
}

/// Applies the letters that somebody asked for. Cut off in between, it does so once more and nothing happens twice: the event
/// is marked as seen in the transaction of its effect.
async fn replay(consumer: &Consumer) -> Result<(), DbErr> {
    let Consumer { name, handler, database, .. } = consumer;
    for letter in dead_letter::asked_for(database.reader(), name, LETTERS).await? {
        let applied = match read(&letter.payload, |event_id| Mark::Unordered { event_id }) {
            // a fact that this version does not know has no effect
            Ok(None) => Ok(()),
            Ok(Some(event)) => handler.handle(&[event]).await.map_err(|fault| format!("{fault:?}")),
            Err(error) => Err(error),
        };
        match applied {
            Ok(()) => {
                tracing::info!(consumer = name, letter = letter.id, "dead letter applied");
                dead_letter::remove(database, letter.id).await?;
            }
            Err(error) => {
                tracing::warn!(consumer = name, letter = letter.id, error, "dead letter not applied");
                dead_letter::keep(database, letter.id, &error).await?;
            }
        }
    }
    Ok(())
}
