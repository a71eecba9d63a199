//! The batch handler of a projection's writer: events are admitted and applied in one transaction.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use store::dead_letter::{self, DeadLetter};
use store::inbox::{self, InboxKey};
use store::{BatchHandler, DbErr, Transaction};

use super::{Admission, AnyFact, Untyped};

/// A decoded event; it has no fact if it does not concern the projection.
pub(super) struct Arrived {
    pub(super) inbox_key: InboxKey,
    pub(super) fact: Option<Box<AnyFact>>,
}

/// A change of a projection.
pub(super) enum Command {
    /// Applies events of a consumer.
    Consume { consumer: &'static str, events: Arc<[Arrived]> },
    /// Stores an event that a consumer cannot apply.
    StoreDeadLetter { consumer: &'static str, dead_letter: DeadLetter, inbox_key: InboxKey },
    /// Removes a chunk of the rows that no longer count at this time.
    Prune(Timestamp),
}

/// The batch handler of the writer. The answer to a command is whether the same command would find more to do.
pub(super) struct Batch {
    projection: Arc<dyn Untyped>,
}

impl Batch {
    pub(super) fn new(projection: Arc<dyn Untyped>) -> Self {
        Self { projection }
    }

    /// The facts of the events that the inbox does not know yet.
    async fn admit<'a>(
        &self,
        transaction: &Transaction,
        consumer: &str,
        events: &'a [Arrived],
    ) -> Result<Vec<&'a AnyFact>, DbErr> {
        let inbox_keys: Vec<&InboxKey> = events.iter().map(|event| &event.inbox_key).collect();
        let fresh = match self.projection.admission() {
            Admission::Once => inbox::admit(transaction, consumer, &inbox_keys).await?,
            Admission::Repeatable => inbox::admit_repeatable(transaction, consumer, &inbox_keys).await?,
        };
        let fresh = events.iter().zip(fresh).filter(|(_, fresh)| *fresh);
        Ok(fresh.filter_map(|(event, _)| event.fact.as_deref()).collect())
    }
}

#[async_trait]
impl BatchHandler for Batch {
    type Command = Command;
    type Answer = bool;

    async fn execute(&self, transaction: &Transaction, batch: &[&Command]) -> Result<Vec<bool>, DbErr> {
        let mut facts = Vec::new();
        for command in batch {
            if let Command::Consume { consumer, events } = command {
                facts.extend(self.admit(transaction, consumer, events).await?);
            }
        }
        if !facts.is_empty() {
            self.projection.fold(transaction, &facts).await?;
        }
        let mut answers = Vec::with_capacity(batch.len());
        for command in batch {
            answers.push(match command {
                Command::Consume { .. } => false,
                Command::StoreDeadLetter { consumer, dead_letter, inbox_key } => {
                    if inbox::admit(transaction, consumer, &[inbox_key]).await? == [true] {
                        dead_letter::put(transaction, dead_letter).await?;
                    }
                    false
                }
                Command::Prune(now) => self.projection.prune(transaction, *now).await?,
            });
        }
        Ok(answers)
    }
}
