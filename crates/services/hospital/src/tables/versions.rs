//! The versions that claims have in their events.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use domain::ids::{ClaimId, ScreeningId};
use domain::retention::Aggregate;
use relay::Versions;
use sea_orm::QuerySelect;
use sea_orm::entity::prelude::*;
use store::rows::among;
use store::{Connection, Fetch as _};

use super::claim::{Column, Entity};

/// Reads them from the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableVersions;

#[async_trait]
impl Versions for TableVersions {
    async fn of(
        &self,
        connection: &dyn Connection,
        aggregates: HashSet<Aggregate>,
    ) -> Result<HashMap<Aggregate, i64>, DbErr> {
        let keys = aggregates.iter().filter_map(|aggregate| match aggregate {
            Aggregate::Claim(id) => Some(id.screening.0),
            _ => None,
        });
        let select = Entity::find().select_only().columns([Column::Screening, Column::Generation, Column::Version]);
        let select = select.filter(among(connection, Column::Screening, keys));
        let claim = |(screening, generation, version)| {
            (Aggregate::Claim(ClaimId { screening: ScreeningId(screening), generation }), version)
        };
        let rows = select.fetch_values::<(Uuid, i32, i64)>(connection).await?;
        Ok(rows.into_iter().map(claim).collect())
    }
}
