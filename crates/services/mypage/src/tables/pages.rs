//! How many changes each page has had, and the epoch of the view.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::CustomerId;
use jiff::Timestamp;
use sea_orm::entity::prelude::{ColumnTrait, DbErr, EntityTrait, QueryFilter, Uuid};
use sea_orm::sea_query::ArrayType;
use sea_orm::{DbBackend, QueryOrder, QuerySelect, Statement, Value};
use store::statement::{Row, Values};
use store::timestamp;
use store::{Connection, Fetch as _};

use super::corrupt;
use super::items::item::{Column, Entity};

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
        /// The id up to which changes are forgotten.
        pub horizon: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) const LIFE: i32 = 1;

/// The progress of a customer's page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many changes the page has had. It is the position of the last one.
    pub(crate) position: i64,
    /// When a booking on the page changed last; `None` if it has no booking.
    pub(crate) update_time: Option<Timestamp>,
}

impl Progress {
    fn read(position: i64, update_time: i64) -> Self {
        Self { position, update_time: Some(timestamp(update_time)) }
    }

    /// Counts a change of this time. Returns the page's latest one.
    pub(crate) fn advance(&mut self, time: Timestamp) -> Timestamp {
        self.position += 1;
        let latest = self.update_time.map_or(time, |latest| latest.max(time));
        self.update_time = Some(latest);
        latest
    }
}

/// Locks the pages of these customers until the transaction ends, where several replicas may write. Another replica
/// that changes one of them waits. Locks of rows do not suffice: a page without a booking has no row, and a replica
/// that waited for a booking's newest row would find it replaced, without the row that replaced it.
pub(crate) async fn lock(transaction: &dyn Connection, customers: &BTreeSet<&CustomerId>) -> Result<(), DbErr> {
    /// Tells these locks from others of the database.
    const PAGES: i32 = 0x7061_6765;
    if transaction.backend() != DbBackend::Postgres || customers.is_empty() {
        return Ok(());
    }
    // In one order, so that no two replicas wait for each other.
    let text = "SELECT pg_advisory_xact_lock($1, hash)::text FROM \
        (SELECT DISTINCT hashtext(name) AS hash FROM unnest($2::text[]) AS name ORDER BY hash OFFSET 0) AS hashes";
    let names = texts(customers.iter().map(ToString::to_string));
    transaction.query(Statement::from_sql_and_values(DbBackend::Postgres, text, [PAGES.into(), names])).await?;
    Ok(())
}

/// The progress of these customers' pages; those without a booking are missing in the map.
pub(crate) async fn load(
    transaction: &dyn Connection,
    customers: &BTreeSet<&CustomerId>,
) -> Result<BTreeMap<CustomerId, Progress>, DbErr> {
    if customers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let backend = transaction.backend();
    let names = customers.iter().map(ToString::to_string);
    let (given, names) = match backend {
        DbBackend::Postgres => ("unnest($1::text[]) AS given(value)", texts(names)),
        _ => ("json_each(?) AS given", serde_json::Value::from_iter(names).to_string().into()),
    };
    // Only the last entry of each customer is read, however many there are.
    let text = format!(
        "SELECT last.customer, last.position, last.page_update_time FROM {given} JOIN item_version AS last ON \
         last.customer = given.value AND \
         last.position = (SELECT max(position) FROM item_version WHERE customer = given.value)"
    );
    let rows = transaction.query(Statement::from_sql_and_values(backend, text, [names])).await?;
    let read = |row: Row| {
        let (customer, position, update_time): (String, i64, i64) = Values::of(row)?;
        let customer = CustomerId::parse(&customer).map_err(|_| corrupt("customer", &customer))?;
        Ok((customer, Progress::read(position, update_time)))
    };
    rows.into_iter().map(read).collect()
}

fn texts(names: impl Iterator<Item = String>) -> Value {
    Value::Array(ArrayType::String, Some(Box::new(names.map(Value::from).collect())))
}

/// The progress of one customer's page. Without a booking it is at position 0.
pub(crate) async fn find(connection: &dyn Connection, customer: &CustomerId) -> Result<Progress, DbErr> {
    let last: Option<(i64, i64)> = Entity::find()
        .select_only()
        .columns([Column::Position, Column::PageUpdateTime])
        .filter(Column::Customer.eq(customer.to_string()))
        .order_by_desc(Column::Position)
        .fetch_value(connection)
        .await?;
    Ok(last.map(|(position, update_time)| Progress::read(position, update_time)).unwrap_or_default())
}

/// The epoch of this view. A rebuilt view has another one.
pub(crate) async fn epoch(connection: &dyn Connection) -> Result<Uuid, DbErr> {
    let row = life::Entity::find_by_id(LIFE).fetch_one(connection).await?;
    row.map(|row| row.epoch).ok_or_else(|| corrupt("life", LIFE))
}
