//! The writer's unit: folds events into items, and notes each change under the next position of its customer's page.

use std::collections::BTreeSet;

use ::store::dead_letter::{self, DeadLetter};
use ::store::inbox::{self, Mark};
use ::store::{Transaction, Unit, micros};
use async_trait::async_trait;
use domain::ids::{CustomerId, ScreeningId};
use domain::mypage::Item;
use domain::screening_fact::ScreeningFact;
use runtime::clock::Clock;
use sea_orm::DbErr;

use crate::policy::SCREENINGS;
use crate::store::{changes, items, pages};

/// One event, decoded; without a fact where it says nothing about a screening.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) mark: Mark,
    pub(crate) fact: Option<ScreeningFact>,
}

/// What changes the view.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes events in.
    Consume(Vec<Arrived>),
    /// Keeps an event that cannot be taken in.
    Bury(DeadLetter, Mark),
    /// Removes a chunk of the changes made before this time, in microseconds, and of those beyond the newest `keep`.
    Prune { older_than: i64, keep: u64 },
}

/// The writer's unit. A command's answer is whether the same command would find more to do.
#[derive(Debug)]
pub(crate) struct Fold {
    clock: Clock,
}

impl Fold {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// Folds facts into the items they are about.
    async fn fold(&self, transaction: &Transaction, facts: &[&ScreeningFact]) -> Result<(), DbErr> {
        let screenings: BTreeSet<ScreeningId> = facts.iter().map(|fact| fact.screening()).collect();
        let before = items::load_for_update(transaction, &screenings).await?;
        let mut after = before.clone();
        let mut changed: Vec<Item> = Vec::new();
        for fact in facts {
            let shown = after.entry(fact.screening()).or_default();
            if shown.apply(fact) {
                changed.extend(shown.item.clone());
            }
        }
        items::save(transaction, &before, &after).await?;

        let customers: BTreeSet<&CustomerId> = changed.iter().map(|item| &item.customer).collect();
        let mut pages = pages::load_for_update(transaction, &customers).await?;
        let known: BTreeSet<CustomerId> = pages.keys().cloned().collect();
        let numbered = changed
            .into_iter()
            .map(|item| {
                let page = pages.entry(item.customer.clone()).or_default();
                (page.advance(item.update_time), item)
            })
            .collect();
        pages::save(transaction, &known, &pages).await?;
        changes::append(transaction, numbered, micros(self.clock.now())).await
    }
}

#[async_trait]
impl Unit for Fold {
    type Command = Command;
    type Answer = bool;

    async fn execute(&self, transaction: &Transaction, batch: &[&Command]) -> Result<Vec<bool>, DbErr> {
        let arrived: Vec<&Arrived> = batch
            .iter()
            .filter_map(|command| if let Command::Consume(events) = command { Some(events) } else { None })
            .flatten()
            .collect();
        let marks: Vec<&Mark> = arrived.iter().map(|event| &event.mark).collect();
        let fresh = inbox::admit(transaction, SCREENINGS, &marks).await?;
        let facts: Vec<&ScreeningFact> =
            arrived.iter().zip(fresh).filter_map(|(event, fresh)| event.fact.as_ref().filter(|_| fresh)).collect();
        self.fold(transaction, &facts).await?;

        let mut answers = Vec::with_capacity(batch.len());
        for command in batch {
            answers.push(match command {
                Command::Consume(_) => false,
                Command::Bury(letter, mark) => {
                    if inbox::admit(transaction, SCREENINGS, &[mark]).await? == [true] {
                        dead_letter::put(transaction, letter).await?;
                    }
                    false
                }
                Command::Prune { older_than, keep } => changes::prune(transaction, *older_than, *keep).await?,
            });
        }
        Ok(answers)
    }
}
