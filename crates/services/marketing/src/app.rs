//! The use case of reading demand signals, limited to the caller's scope.

use std::collections::HashMap;

use domain::access::Scope;
use domain::civil::{last_zone, today};
use domain::demand::{Signal, of_late};
use domain::page::Rows;
use fault::Fault;
use runtime::clock::Clock;
use sea_orm::DbErr;
use store::{Database, micros, read};

use crate::decode::List;
use crate::tables::sets::{count_bookings, count_refusals};
use crate::tables::signals::{Present, list};

/// A signal, with the counts of the last seven days.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) signal: Signal,
    pub(crate) bookings: i64,
    pub(crate) refused: i64,
}

#[derive(Debug)]
pub(crate) struct Signals {
    database: Database,
    clock: Clock,
}

impl Signals {
    pub(crate) fn new(database: Database, clock: Clock) -> Self {
        Self { database, clock }
    }

    /// A page of the signals of slots whose date is not over.
    pub(crate) async fn list(&self, scope: &Scope, query: &List) -> Result<Rows<Counted>, Fault> {
        scope.require_filter(&query.filter)?;
        self.read(scope, query).await.map_err(read::failed)
    }

    async fn read(&self, scope: &Scope, query: &List) -> Result<Rows<Counted>, DbErr> {
        let List { filter, order, page } = query;
        // Counts and signals come from one snapshot. Otherwise an answer could show refusals without the bookings
        // before them.
        let (snapshot, now) = (self.database.snapshot().await?, self.clock.now());
        let present = Present { now: micros(now), earliest: today(now, &last_zone()) };
        let signals = list(&snapshot, scope, present, filter, *order, page).await?;
        let slots: Vec<String> = signals.iter().map(|signal| signal.slot.to_string()).collect();
        let since = micros(of_late(now));
        let bookings = count_bookings(&snapshot, &slots, since).await?;
        let refused = count_refusals(&snapshot, &slots, since).await?;
        Ok(signals.map(|signal| {
            let slot = signal.slot.to_string();
            let of = |counts: &HashMap<String, i64>| counts.get(&slot).copied().unwrap_or(0);
            Counted { bookings: of(&bookings), refused: of(&refused), signal }
        }))
    }
}
