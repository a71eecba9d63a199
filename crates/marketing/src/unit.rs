//! The writer's unit: loads the hospitals and slots a batch of events is about, folds, and saves them with the sets that
//! are counted when they are read.

use std::collections::{BTreeMap, BTreeSet};

use ::store::dead_letter::{self, DeadLetter};
use ::store::inbox::{self, Mark};
use ::store::{Transaction, Unit, micros};
use async_trait::async_trait;
use domain::civil::{last_zone, today};
use domain::demand::{Fact, Hospital, Signal, of_late};
use domain::ids::{HospitalId, SlotId};
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::clock::Clock;
use sea_orm::DbErr;

use crate::store::{hospitals, sets, signals};

/// One event, decoded; without a fact where it says nothing about demand.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) mark: Mark,
    pub(crate) fact: Option<Fact>,
}

/// What changes the demand.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes events of a consumer in.
    Consume(&'static str, Vec<Arrived>),
    /// Keeps an event that a consumer cannot take in.
    Bury(&'static str, DeadLetter, Mark),
    /// Removes a chunk of what counted before this time, and no longer does.
    Prune { since: Timestamp },
}

/// The writer's unit. A command's answer is whether the same command would find more to do.
#[derive(Debug)]
pub(crate) struct Demand {
    clock: Clock,
}

impl Demand {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    async fn fold(&self, transaction: &Transaction, facts: &[&Fact]) -> Result<(), DbErr> {
        if facts.is_empty() {
            return Ok(());
        }
        let since = of_late(self.clock.now());
        let known = fold_hospitals(transaction, facts).await?;
        let facts: Vec<&Fact> = facts.iter().copied().filter(|fact| !is_gone(&known, fact.hospital())).collect();
        fold_signals(transaction, &facts, &known, since).await?;
        let bookings = facts.iter().filter_map(|fact| match fact {
            Fact::Booked { screening, slot, time } => Some(sets::booking_row(*screening, slot, *time)),
            _ => None,
        });
        sets::save_bookings(transaction, bookings.collect(), micros(since)).await?;
        let refusals = facts.iter().filter_map(|fact| match fact {
            Fact::Refused { event_id, slot, count, time } => Some(sets::refusal_row(*event_id, slot, *count, *time)),
            _ => None,
        });
        sets::save_refusals(transaction, refusals.collect(), micros(since)).await
    }
}

type Known = BTreeMap<HospitalId, Hospital>;

fn is_gone(known: &Known, hospital: &HospitalId) -> bool {
    known.get(hospital).is_some_and(|hospital| hospital.gone)
}

/// Takes in what the facts say about hospitals, with what follows for the slots that are there already, and returns all
/// hospitals the facts are about.
async fn fold_hospitals(transaction: &Transaction, facts: &[&Fact]) -> Result<Known, DbErr> {
    let named: BTreeSet<&HospitalId> = facts.iter().map(|fact| fact.hospital()).collect();
    let before = hospitals::load_for_update(transaction, &named).await?;
    let mut known = before.clone();
    for fact in facts {
        if let Fact::Located { hospital, .. } | Fact::Gone { hospital } = fact {
            known.entry(hospital.clone()).or_default().apply(fact);
        }
    }
    let changed: Known = known
        .iter()
        .filter(|(id, now)| before.get(*id) != Some(*now))
        .map(|(id, now)| (id.clone(), now.clone()))
        .collect();
    hospitals::save(transaction, &before, &changed).await?;
    let (gone, located): (Vec<_>, Vec<_>) = changed.iter().partition(|(_, hospital)| hospital.gone);
    signals::delete_of(transaction, gone.into_iter().map(|(id, _)| id)).await?;
    let mut moved = signals::load_of_for_update(transaction, located.into_iter().map(|(id, _)| id)).await?;
    for signal in moved.values_mut() {
        signal.end_time = end_of(&known, &signal.signal.slot);
    }
    let stored = moved.keys().cloned().collect();
    signals::save(transaction, &stored, &moved).await?;
    Ok(known)
}

fn end_of(known: &Known, slot: &SlotId) -> i64 {
    let hospital = known.get(&slot.hospital).cloned().unwrap_or_default();
    micros(hospital.end_of(slot))
}

/// Takes in what the facts say about slots that have not been over for long.
async fn fold_signals(
    transaction: &Transaction,
    facts: &[&Fact],
    known: &Known,
    since: Timestamp,
) -> Result<(), DbErr> {
    let slots: BTreeSet<&SlotId> = facts.iter().filter_map(|fact| slot_of(fact)).collect();
    let mut rows = signals::load_for_update(transaction, &slots).await?;
    let stored = rows.keys().cloned().collect();
    for fact in facts {
        let Some(slot) = slot_of(fact) else { continue };
        let row = rows
            .entry(slot.clone())
            .or_insert_with(|| signals::Row { signal: Signal::unknown(slot.clone()), end_time: end_of(known, slot) });
        match fact {
            Fact::Places(places) => row.signal.apply(places),
            Fact::Booked { time, .. } | Fact::Refused { time, .. } => row.signal.touch(*time),
            Fact::Located { .. } | Fact::Gone { .. } => {}
        }
    }
    rows.retain(|slot, _| slot.date >= first_kept(since));
    signals::save(transaction, &stored, &rows).await
}

/// The first date that is not removed: before it, every date was over everywhere.
fn first_kept(since: Timestamp) -> Date {
    today(since, &last_zone())
}

fn slot_of(fact: &Fact) -> Option<&SlotId> {
    match fact {
        Fact::Places(places) => Some(&places.slot),
        Fact::Booked { slot, .. } | Fact::Refused { slot, .. } => Some(slot),
        Fact::Located { .. } | Fact::Gone { .. } => None,
    }
}

#[async_trait]
impl Unit for Demand {
    type Command = Command;
    type Answer = bool;

    async fn execute(&self, transaction: &Transaction, batch: &[&Command]) -> Result<Vec<bool>, DbErr> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut facts: Vec<&Fact> = Vec::new();
        for command in batch {
            let more = match command {
                Command::Consume(consumer, arrived) => {
                    let marks: Vec<&Mark> = arrived.iter().map(|event| &event.mark).collect();
                    // facts commute and may come again: see `domain::demand`
                    let fresh = inbox::admit_repeatable(transaction, consumer, &marks).await?;
                    let events = arrived.iter().zip(fresh);
                    facts.extend(events.filter_map(|(event, fresh)| event.fact.as_ref().filter(|_| fresh)));
                    false
                }
                Command::Bury(consumer, letter, mark) => {
                    if inbox::admit(transaction, consumer, &[mark]).await? == [true] {
                        dead_letter::put(transaction, letter).await?;
                    }
                    false
                }
                Command::Prune { since } => {
                    let bookings = sets::prune_bookings(transaction, micros(*since)).await?;
                    let refusals = sets::prune_refusals(transaction, micros(*since)).await?;
                    bookings | refusals | signals::prune(transaction, first_kept(*since)).await?
                }
            };
            answers.push(more);
        }
        self.fold(transaction, &facts).await?;
        Ok(answers)
    }
}
