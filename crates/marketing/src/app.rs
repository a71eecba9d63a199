//! The use case of reading demand, as far as a caller's scope goes.

use ::store::{Database, micros, read};
use domain::access::Scope;
use domain::civil::{last_zone, today};
use domain::demand::{Signal, of_late};
use fault::Fault;
use runtime::clock::Clock;
use sea_orm::DbErr;

use crate::decode::List;
use crate::store::sets::{count_bookings, count_refusals};
use crate::store::signals::{Present, list};

/// A signal with what is counted when it is read.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) signal: Signal,
    pub(crate) bookings: i64,
    pub(crate) refused: i64,
}

/// Reads demand.
#[derive(Debug)]
pub(crate) struct Signals {
    database: Database,
    clock: Clock,
}

impl Signals {
    pub(crate) fn new(database: Database, clock: Clock) -> Self {
        Self { database, clock }
    }

    /// A page of the demand for slots whose date is not over, and the token of the next one.
    pub(crate) async fn list(&self, scope: &Scope, query: List) -> Result<(Vec<Counted>, String), Fault> {
        scope.require_filter(&query.filter)?;
        self.read(scope, query).await.map_err(read::failed)
    }

    async fn read(&self, scope: &Scope, query: List) -> Result<(Vec<Counted>, String), DbErr> {
        let List { filter, order, page } = query;
        // Counts and signals come from one commit, or an answer could show refusals without the bookings before them.
        let (snapshot, now) = (self.database.snapshot().await?, self.clock.now());
        let present = Present { now: micros(now), earliest: today(now, &last_zone()) };
        let (signals, next) = list(&snapshot, scope, present, &filter, order, &page).await?;
        let slots: Vec<String> = signals.iter().map(|signal| signal.slot.to_string()).collect();
        let since = micros(of_late(now));
        let bookings = count_bookings(&snapshot, &slots, since).await?;
        let refused = count_refusals(&snapshot, &slots, since).await?;
        let counted = signals.into_iter().zip(&slots).map(|(signal, slot)| Counted {
            signal,
            bookings: bookings.get(slot).copied().unwrap_or(0),
            refused: refused.get(slot).copied().unwrap_or(0),
        });
        Ok((counted.collect(), next))
    }
}
