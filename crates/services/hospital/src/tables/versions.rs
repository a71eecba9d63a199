//! The versions that hospitals, slots, claims and capacity requests have in their events.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use domain::retention::Aggregate;
use relay::Versions;
use sea_orm::QuerySelect;
use sea_orm::entity::prelude::*;
use store::rows::among;
use store::{Connection, Fetch as _};

use super::{capacity_request, claim, hospital, slot, slot_key};

/// Reads them from the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableVersions;

#[async_trait]
impl Versions for TableVersions {
    async fn of(
        &self,
        connection: &dyn Connection,
        aggregates: HashSet<Aggregate>,
    ) -> Result<HashMap<Aggregate, i64>, DbErr> {
        let hospitals = hospitals(connection, &aggregates).await?;
        let slots = slots(connection, &aggregates).await?;
        let claims = claims(connection, &aggregates).await?;
        let requests = requests(connection, &aggregates).await?;
        let version = |aggregate: &Aggregate| match aggregate {
            Aggregate::Hospital(id) => hospitals.get(id.segment()),
            Aggregate::Slot(id) => slots.get(&slot_key(id)),
            Aggregate::Claim(_, id) => claims.get(&(id.screening.0, id.generation)),
            Aggregate::CapacityRequest(id) => requests.get(&id.uid),
            // other services tell of these
            Aggregate::Screening(_) | Aggregate::Reservation(_) => None,
        };
        Ok(aggregates.into_iter().filter_map(|one| version(&one).copied().map(|version| (one, version))).collect())
    }
}

async fn hospitals(
    connection: &dyn Connection,
    aggregates: &HashSet<Aggregate>,
) -> Result<HashMap<String, i64>, DbErr> {
    use hospital::{Column, Entity};
    let keys = aggregates.iter().filter_map(|aggregate| match aggregate {
        Aggregate::Hospital(id) => Some(id.segment()),
        _ => None,
    });
    let select = Entity::find().select_only().columns([Column::Id, Column::Version]);
    let rows = select.filter(among(connection, Column::Id, keys)).fetch_values::<(String, i64)>(connection).await?;
    Ok(rows.into_iter().collect())
}

async fn slots(connection: &dyn Connection, aggregates: &HashSet<Aggregate>) -> Result<HashMap<String, i64>, DbErr> {
    use slot::{Column, Entity};
    let keys = aggregates.iter().filter_map(|aggregate| match aggregate {
        Aggregate::Slot(id) => Some(slot_key(id)),
        _ => None,
    });
    let select = Entity::find().select_only().columns([Column::Id, Column::AdminVersion]);
    let rows = select.filter(among(connection, Column::Id, keys)).fetch_values::<(String, i64)>(connection).await?;
    Ok(rows.into_iter().collect())
}

async fn claims(
    connection: &dyn Connection,
    aggregates: &HashSet<Aggregate>,
) -> Result<HashMap<(Uuid, i32), i64>, DbErr> {
    use claim::{Column, Entity};
    let keys = aggregates.iter().filter_map(|aggregate| match aggregate {
        Aggregate::Claim(_, id) => Some(id.screening.0),
        _ => None,
    });
    let select = Entity::find().select_only().columns([Column::Screening, Column::Generation, Column::Version]);
    let select = select.filter(among(connection, Column::Screening, keys));
    let rows = select.fetch_values::<(Uuid, i32, i64)>(connection).await?;
    Ok(rows.into_iter().map(|(screening, generation, version)| ((screening, generation), version)).collect())
}

async fn requests(connection: &dyn Connection, aggregates: &HashSet<Aggregate>) -> Result<HashMap<Uuid, i64>, DbErr> {
    use capacity_request::{Column, Entity};
    let keys = aggregates.iter().filter_map(|aggregate| match aggregate {
        Aggregate::CapacityRequest(id) => Some(id.uid),
        _ => None,
    });
    let select = Entity::find().select_only().columns([Column::Uid, Column::Version]);
    let rows = select.filter(among(connection, Column::Uid, keys)).fetch_values::<(Uuid, i64)>(connection).await?;
    Ok(rows.into_iter().collect())
}
