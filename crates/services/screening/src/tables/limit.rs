//! Customers whose bookings a hospital limits: how many they have there, and the table that makes transactions which
//! count them wait for each other.

use std::collections::{BTreeSet, HashMap, HashSet};

use domain::ids::{CustomerId, HospitalId, Malformed, ScreeningId};
use domain::screening::{CustomerBookings, State};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::{DbErr, QueryOrder, QuerySelect};
use store::rows::NoRelation as Relation;
use store::rows::{among, insert_all};
use store::{Connection, Fetch as _};

use super::row::{self, customer};

/// A customer who has booked at a hospital that limits it. The row has no content: it is there to be locked.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "limited_customer")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) customer: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) hospital: String,
}

impl ActiveModelBehavior for ActiveModel {}

/// A customer at a hospital.
pub(crate) type CustomerHospital = (CustomerId, HospitalId);

fn hospital(segment: &str) -> Result<HospitalId, DbErr> {
    HospitalId::from_segment(segment)
        .map_err(|Malformed(_)| DbErr::Custom("a stored screening has a malformed hospital".into()))
}

/// Has this transaction wait until no other one counts the bookings of these customers, and returns those that had
/// counted before. Of the others two transactions may count at once; the second one that calls [`insert`] fails, and
/// is decided again.
pub(crate) async fn lock(
    transaction: &dyn Connection,
    limited: &BTreeSet<CustomerHospital>,
) -> Result<HashSet<CustomerHospital>, DbErr> {
    if limited.is_empty() {
        return Ok(HashSet::new());
    }
    let customers = among(transaction, Column::Customer, limited.iter().map(|(customer, _)| customer.segment()));
    let select = Entity::find().filter(customers).order_by_asc(Column::Customer).order_by_asc(Column::Hospital);
    let rows = select.lock_exclusive().fetch(transaction).await?;
    let keys = rows.into_iter().map(|row| Ok((customer(&row.customer)?, hospital(&row.hospital)?)));
    let known: HashSet<CustomerHospital> = keys.collect::<Result<_, DbErr>>()?;
    Ok(known)
}

/// Remembers customers whom [`lock`] did not find.
pub(crate) async fn insert(
    transaction: &dyn Connection,
    limited: impl Iterator<Item = &CustomerHospital>,
) -> Result<(), DbErr> {
    let rows = limited.map(|(customer, hospital)| ActiveModel {
        customer: Set(customer.segment().to_owned()),
        hospital: Set(hospital.segment().to_owned()),
    });
    insert_all(transaction, rows.collect()).await
}

/// The bookings that count against the limits of these hospitals. Who has none there may be missing.
pub(crate) async fn held(
    connection: &dyn Connection,
    limited: Vec<(&CustomerId, &HospitalId)>,
) -> Result<HashMap<CustomerHospital, CustomerBookings>, DbErr> {
    if limited.is_empty() {
        return Ok(HashMap::new());
    }
    let (customers, hospitals): (HashSet<&str>, HashSet<&str>) =
        limited.iter().map(|(customer, hospital)| (customer.segment(), hospital.segment())).unzip();
    let states = State::ALL.iter().filter(|state| CustomerBookings::counts(**state)).map(|state| state.number());
    let rows: Vec<(Uuid, String, String, String)> = row::Entity::find()
        .select_only()
        .columns([row::Column::Id, row::Column::Customer, row::Column::Hospital, row::Column::SlotDate])
        .filter(among(connection, row::Column::Customer, customers))
        .filter(row::Column::Hospital.is_in(hospitals))
        .filter(row::Column::State.is_in(states))
        .fetch_values(connection)
        .await?;
    let mut found: HashMap<CustomerHospital, CustomerBookings> = HashMap::new();
    for (id, booker, at, date) in rows {
        let key = (customer(&booker)?, hospital(&at)?);
        found.entry(key).or_default().add(ScreeningId(id), row::date(&date)?);
    }
    Ok(found)
}
