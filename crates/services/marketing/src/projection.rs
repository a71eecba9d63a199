//! Folds a batch of facts into demand: loads the hospitals and slots that the facts name, folds, and saves them
//! together with the bookings and refusals that are counted on reading.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use domain::civil::{last_zone, today};
use domain::demand::{Fact, Hospital, Signal, of_late};
use domain::ids::{HospitalId, Malformed, SlotId};
use jiff::Timestamp;
use jiff::civil::Date;
use relay::{Admission, Incoming, Projection};
use runtime::clock::Clock;
use sea_orm::DbErr;
use store::{Transaction, micros};

use crate::tables::{hospitals, sets, signals};

/// Folds facts into the demand per slot.
#[derive(Debug)]
pub(crate) struct DemandProjection {
    clock: Clock,
}

impl DemandProjection {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock }
    }
}

#[async_trait]
impl Projection for DemandProjection {
    type Fact = Fact;

    // facts commute and may be repeated: see `domain::demand`
    const ADMISSION: Admission = Admission::Repeatable;

    fn decode(event: &Incoming) -> Result<Option<Fact>, Malformed> {
        Fact::decode(&event.envelope)
    }

    async fn fold(&self, transaction: &Transaction, facts: Vec<&Fact>) -> Result<(), DbErr> {
        let since = of_late(self.clock.now());
        let known = fold_hospitals(transaction, &facts).await?;
        let facts: Vec<&Fact> = facts.into_iter().filter(|fact| !is_gone(&known, fact.hospital())).collect();
        fold_signals(transaction, &facts, &known, since).await?;
        let bookings = facts.iter().filter_map(|fact| match fact {
            Fact::Booked { id, slot, time } => Some(sets::booking_row(*id, slot, *time)),
            _ => None,
        });
        sets::save_bookings(transaction, bookings.collect(), micros(since)).await?;
        let refusals = facts.iter().filter_map(|fact| match fact {
            Fact::Refused { event_id, slot, count, time } => Some(sets::refusal_row(*event_id, slot, *count, *time)),
            _ => None,
        });
        sets::save_refusals(transaction, refusals.collect(), micros(since)).await
    }

    async fn prune(&self, transaction: &Transaction, now: Timestamp) -> Result<bool, DbErr> {
        let since = of_late(now);
        let bookings = sets::prune_bookings(transaction, micros(since)).await?;
        let refusals = sets::prune_refusals(transaction, micros(since)).await?;
        Ok(bookings | refusals | signals::prune(transaction, first_kept(since)).await?)
    }
}

type Known = BTreeMap<HospitalId, Hospital>;

fn is_gone(known: &Known, hospital: &HospitalId) -> bool {
    known.get(hospital).is_some_and(|hospital| hospital.gone)
}

/// Folds facts about hospitals, and updates or removes the stored signals of these hospitals. Returns every hospital
/// that the facts name.
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

/// Folds facts about slots, except slots whose date was over everywhere before `since`.
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

/// The first date whose signals are kept. Every earlier date was over everywhere at `since`.
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
