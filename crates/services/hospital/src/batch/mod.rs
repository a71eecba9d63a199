//! The writer's batch handler: one transaction for all waiting commands.
//!
//! It collects the keys that a batch names, locks and loads each table once, decides in memory by the rules of
//! `domain`, and writes the changed rows table by table. Releases are decided before all other commands, and both
//! groups in order of arrival. A batch of refusals writes nothing.

mod decide;
mod load;
mod plan;
mod table;
mod world;

use async_trait::async_trait;
use runtime::clock::Clock;
use sea_orm::DbErr;
use store::dead_letter::{self, DeadLetter};
use store::inbox::{self, InboxKey};
use store::{BatchHandler, Transaction, micros, request_record, timestamp};

use self::plan::LoadPlan;
use self::world::World;
use crate::CONSUMER;
use crate::command::{Answer, Command, Event, Outcome};

/// Claims that one transaction revokes per deletion or cancellation, at most.
pub(crate) const CLAIMS_PER_CHUNK: usize = 1_000;

#[derive(Debug)]
pub(crate) struct HospitalBatchHandler {
    clock: Clock,
}

impl HospitalBatchHandler {
    /// `clock` gives the time that rules are judged at.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock }
    }
}

#[async_trait]
impl BatchHandler for HospitalBatchHandler {
    type Command = Command;
    type Answer = Answer;

    async fn execute(&self, transaction: &Transaction, batch: &[&Command]) -> Result<Vec<Answer>, DbErr> {
        // As precise as the database stores it, so that an answer and a later read agree.
        let now = timestamp(micros(self.clock.now()));
        let mut fresh = admit(transaction, batch).await?.into_iter();
        let mut world = World::load(transaction, LoadPlan::of(batch), now).await?;
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        let mut ignored = Vec::new();
        for (command, answer) in batch.iter().zip(&mut answers) {
            match command {
                Command::Release(claim_request) => *answer = Some(world.release(claim_request)),
                Command::Consume(events) => {
                    let fresh: Vec<&Event> = events.iter().filter(|_| fresh.next() == Some(true)).collect();
                    ignored.extend(world.consume(&fresh));
                    *answer = Some(Ok(Outcome::Done));
                }
                _ => {}
            }
        }
        for (command, answer) in batch.iter().zip(&mut answers) {
            match command {
                Command::Release(_) | Command::Consume(_) => {}
                Command::Reserve(claim_request, allow_waitlist) => {
                    *answer = Some(world.reserve(claim_request, *allow_waitlist));
                }
                Command::Ask(ask) => *answer = Some(world.ask(ask)),
                Command::Revoke(target) => *answer = Some(Ok(Outcome::Revoked { more: world.revoke_chunk(target) })),
                Command::StoreDeadLetter(dead_letter, inbox_key) => {
                    store_dead_letter(transaction, dead_letter, inbox_key).await?;
                    *answer = Some(Ok(Outcome::Done));
                }
                Command::Purge(before) => {
                    request_record::purge(transaction, *before).await?;
                    *answer = Some(Ok(Outcome::Done));
                }
            }
        }
        world.save(transaction).await?;
        inbox::record_ignored(transaction, ignored).await?;
        answers
            .into_iter()
            .map(|answer| answer.ok_or_else(|| DbErr::Custom("a command without answer".into())))
            .collect()
    }
}

/// Stores a dead letter and marks its event as seen. Running it again changes nothing.
async fn store_dead_letter(
    transaction: &Transaction,
    dead_letter: &DeadLetter,
    inbox_key: &InboxKey,
) -> Result<(), DbErr> {
    let fresh = inbox::admit(transaction, CONSUMER, &[inbox_key]).await?;
    if fresh == [true] {
        dead_letter::put(transaction, dead_letter).await?;
    }
    Ok(())
}

/// Marks every event of the batch as seen. Returns, in order, which of them were new.
async fn admit(transaction: &Transaction, batch: &[&Command]) -> Result<Vec<bool>, DbErr> {
    let inbox_keys: Vec<&InboxKey> = batch
        .iter()
        .filter_map(|command| if let Command::Consume(events) = command { Some(events) } else { None })
        .flatten()
        .map(|event| &event.inbox_key)
        .collect();
    if inbox_keys.is_empty() {
        return Ok(Vec::new());
    }
    inbox::admit(transaction, CONSUMER, &inbox_keys).await
}
