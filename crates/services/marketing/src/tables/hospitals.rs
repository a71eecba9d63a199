//! The table of hospitals. The row of a deleted hospital stays, so that a late event cannot bring its slots back.

use std::collections::{BTreeMap, BTreeSet};

use domain::demand::Hospital;
use domain::ids::HospitalId;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::{DbErr, EntityTrait, QueryFilter};
use sea_orm::{QueryOrder, QuerySelect};
use store::rows::{among, save_all};

use super::corrupt;
use store::{Connection, Fetch as _};

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod hospital {
    //! One row per hospital.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "hospital")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub hospital: String,
        pub time_zone: String,
        pub gone: bool,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Reads these hospitals; unknown ones are missing in the map. Where the database locks rows, they are locked until the
/// transaction ends.
pub(crate) async fn load_for_update(
    transaction: &dyn Connection,
    named: &BTreeSet<&HospitalId>,
) -> Result<BTreeMap<HospitalId, Hospital>, DbErr> {
    use hospital::{Column, Entity};
    let select = Entity::find().filter(among(transaction, Column::Hospital, named.iter().map(ToString::to_string)));
    let rows = select.order_by_asc(Column::Hospital).lock_exclusive().fetch(transaction).await?;
    let read = |row: hospital::Model| {
        let id = HospitalId::parse(&row.hospital).map_err(|_| corrupt("hospital", &row.hospital))?;
        Ok((id, Hospital { time_zone: row.time_zone, gone: row.gone }))
    };
    rows.into_iter().map(read).collect()
}

/// Writes hospitals. Those in `before` are replaced, the others inserted.
pub(crate) async fn save(
    transaction: &dyn Connection,
    before: &BTreeMap<HospitalId, Hospital>,
    hospitals: &BTreeMap<HospitalId, Hospital>,
) -> Result<(), DbErr> {
    let rows = hospitals.iter().map(|(id, hospital)| {
        let row = hospital::ActiveModel {
            hospital: Set(id.to_string()),
            time_zone: Set(hospital.time_zone.clone()),
            gone: Set(hospital.gone),
        };
        (before.contains_key(id), row)
    });
    save_all(transaction, rows.collect::<Vec<_>>()).await
}
