//! The use cases: reads of the ledger, limited to the caller's scope.

use domain::access::Scope;
use domain::ids::ScreeningId;
use domain::page::Rows;
use domain::reservation::{Entry, Reservation};
use fault::{Fault, Reason};
use store::{Database, read};
use tokio::time::Instant;

use crate::decode::{Get, List, ListHistory};
use crate::tables;

#[derive(Debug)]
pub(crate) struct ReservationReader {
    database: Database,
}

impl ReservationReader {
    pub(crate) fn new(database: Database) -> Self {
        Self { database }
    }

    /// One reservation. If the query names a write, the answer is not older than that write.
    pub(crate) async fn get(&self, scope: &Scope, query: Get, deadline: Instant) -> Result<Reservation, Fault> {
        if let Some(token) = query.not_before {
            let seen = || tables::seen_version(self.database.reader(), token.screening);
            read::wait_for(&self.database, token, deadline, seen).await?;
        }
        let row = self.find(scope, query.screening).await?;
        row.try_into().map_err(read::failed)
    }

    pub(crate) async fn list(&self, scope: &Scope, query: &List) -> Result<Rows<Reservation>, Fault> {
        scope.require_filter(&query.filter)?;
        let List { filter, order, page } = query;
        tables::list(self.database.pages(), scope, filter, *order, page).await.map_err(read::failed)
    }

    pub(crate) async fn list_history(&self, scope: &Scope, query: &ListHistory) -> Result<Rows<Entry>, Fault> {
        let row = self.find(scope, query.screening).await?;
        tables::history::list(self.database.pages(), &row, &query.page).await.map_err(read::failed)
    }

    async fn find(&self, scope: &Scope, screening: ScreeningId) -> Result<tables::reservation::Model, Fault> {
        let found = tables::find(self.database.reader(), scope, screening).await.map_err(read::failed)?;
        found.ok_or_else(|| scope.absent(not_found(screening), "reservation"))
    }
}

fn not_found(screening: ScreeningId) -> Fault {
    let name = screening.reservation_name();
    Fault::new(Reason::ReservationNotFound, format!("there is no {name}"))
        .with("reservation", &name)
        .about("Reservation", &name)
}
