//! The tables of pages: how many changes each page has had, and the epoch of the view.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::CustomerId;
use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::{DbErr, EntityTrait, QueryFilter, Uuid};
use sea_orm::{QueryOrder, QuerySelect};
use store::rows::{among, save_all};
use store::{micros, timestamp};

use super::corrupt;
use store::{Connection, Fetch as _};

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod page {
    //! One row per customer who has a booking.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "page")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub customer: String,
        pub position: i64,
        pub update_time: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod life {
    //! A single row with the epoch of this view.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "life")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub epoch: Uuid,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) const LIFE: i32 = 1;

/// The progress of a customer's page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PageRow {
    /// How many changes the page has had. It is the position of the last one.
    pub(crate) position: i64,
    /// When a booking on the page changed last; `None` if it has no booking.
    pub(crate) update_time: Option<Timestamp>,
}

impl From<page::Model> for PageRow {
    fn from(row: page::Model) -> Self {
        Self { position: row.position, update_time: Some(timestamp(row.update_time)) }
    }
}

impl PageRow {
    /// Counts a change of this time. Returns its position.
    pub(crate) fn advance(&mut self, time: Timestamp) -> i64 {
        self.position += 1;
        self.update_time = self.update_time.max(Some(time));
        self.position
    }
}

/// The pages of these customers; those without a booking are missing in the map. Where the database locks rows, they
/// are locked until the transaction ends.
pub(crate) async fn load_for_update(
    transaction: &dyn Connection,
    customers: &BTreeSet<&CustomerId>,
) -> Result<BTreeMap<CustomerId, PageRow>, DbErr> {
    if customers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names = customers.iter().map(ToString::to_string);
    let select = page::Entity::find().filter(among(transaction, page::Column::Customer, names));
    let rows = select.order_by_asc(page::Column::Customer).lock_exclusive().fetch(transaction).await?;
    let read = |row: page::Model| {
        let customer = CustomerId::parse(&row.customer).map_err(|_| corrupt("customer", &row.customer))?;
        Ok((customer, row.into()))
    };
    rows.into_iter().map(read).collect()
}

/// One customer's page. Without a booking it is at position 0.
pub(crate) async fn find(connection: &dyn Connection, customer: &CustomerId) -> Result<PageRow, DbErr> {
    let row = page::Entity::find_by_id(customer.to_string()).fetch_one(connection).await?;
    Ok(row.map(PageRow::from).unwrap_or_default())
}

/// Writes pages. Those in `known` are replaced, the others inserted.
pub(crate) async fn save(
    transaction: &dyn Connection,
    known: &BTreeSet<CustomerId>,
    pages: &BTreeMap<CustomerId, PageRow>,
) -> Result<(), DbErr> {
    let rows = pages.iter().map(|(customer, row)| {
        let page = page::ActiveModel {
            customer: Set(customer.to_string()),
            position: Set(row.position),
            update_time: Set(row.update_time.map_or(0, micros)),
        };
        (known.contains(customer), page)
    });
    save_all(transaction, rows.collect::<Vec<_>>()).await
}

/// The epoch of this view. A rebuilt view has another one.
pub(crate) async fn epoch(connection: &dyn Connection) -> Result<Uuid, DbErr> {
    let row = life::Entity::find_by_id(LIFE).fetch_one(connection).await?;
    row.map(|row| row.epoch).ok_or_else(|| corrupt("life", LIFE))
}
