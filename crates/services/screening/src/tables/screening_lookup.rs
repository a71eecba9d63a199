//! Reads single bookings, for several callers in one statement.

use async_trait::async_trait;
use domain::access::Scope;
use domain::ids::ScreeningId;
use domain::screening::Screening;
use sea_orm::DbErr;
use store::{Connection, Lookup};

use super::by_ids;

/// A read of one booking.
#[derive(Debug)]
pub(crate) struct ScreeningQuery {
    /// The bookings that the caller may see.
    pub(crate) scope: Scope,
    pub(crate) id: ScreeningId,
}

#[derive(Debug)]
pub(crate) struct ScreeningLookup;

#[async_trait]
impl Lookup for ScreeningLookup {
    type Query = ScreeningQuery;
    type Answer = Option<Screening>;

    async fn look_up(
        &self,
        connection: &dyn Connection,
        queries: &[&ScreeningQuery],
    ) -> Result<Vec<Option<Screening>>, DbErr> {
        let rows = by_ids(connection, queries.iter().map(|query| query.id)).await?;
        let found = |query: &&ScreeningQuery| rows.get(&query.id).filter(|row| row.is_visible(&query.scope)).cloned();
        Ok(queries.iter().map(found).collect())
    }
}
