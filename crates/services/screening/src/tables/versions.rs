//! The versions that screenings have in their events.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use domain::ids::ScreeningId;
use domain::retention::Aggregate;
use relay::Versions;
use sea_orm::QuerySelect;
use sea_orm::entity::prelude::*;
use store::rows::among;
use store::{Connection, Fetch as _};

use super::row::{Column, Entity};

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
            Aggregate::Screening(id) => Some(id.0),
            _ => None,
        });
        let select = Entity::find().select_only().columns([Column::Id, Column::Version]);
        let rows = select.filter(among(connection, Column::Id, keys)).fetch_values::<(Uuid, i64)>(connection).await?;
        Ok(rows.into_iter().map(|(id, version)| (Aggregate::Screening(ScreeningId(id)), version)).collect())
    }
}
