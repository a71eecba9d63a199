//! The latest changes, for streams that follow or resume: each row is a booking as one change left it.
//!
//! Positions count the changes of one customer without gaps, so a reader notices when its next change has been removed.

use domain::ids::{CustomerId, ScreeningId, parse_date};
use domain::mypage::Item;
use domain::screening::State;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::entity::prelude::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use sea_orm::{QueryOrder, QuerySelect};
use store::rows::insert_all;
use store::{micros, timestamp};

use super::{corrupt, slot};
use store::{Connection, Fetch as _, Run as _};

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod change {
    //! One row per change.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "change")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub customer: String,
        pub position: i64,
        pub time: i64,
        pub screening: Uuid,
        pub version: i64,
        pub hospital_display_name: String,
        pub date: String,
        pub time_zone: String,
        pub state: i32,
        pub reason: String,
        pub message: String,
        pub update_time: i64,
        pub slot: Option<String>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// A change, and its position on its customer's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) position: i64,
    pub(crate) item: Item,
}

impl TryFrom<change::Model> for Change {
    type Error = DbErr;

    fn try_from(row: change::Model) -> Result<Self, DbErr> {
        let item = Item {
            screening: ScreeningId(row.screening),
            customer: CustomerId::parse(&row.customer).map_err(|_| corrupt("customer", row.customer))?,
            version: row.version,
            hospital_display_name: row.hospital_display_name,
            slot: row.slot.as_deref().map(slot).transpose()?,
            date: parse_date(&row.date).ok_or_else(|| corrupt("date", row.date))?,
            time_zone: row.time_zone,
            state: State::from_number(row.state).ok_or_else(|| corrupt("state", row.state))?,
            reason: row.reason,
            message: row.message,
            update_time: timestamp(row.update_time),
        };
        Ok(Self { position: row.position, item })
    }
}

/// Appends changes under their positions, in order. `time` is when they were applied.
pub(crate) async fn append(transaction: &dyn Connection, numbered: Vec<(i64, Item)>, time: i64) -> Result<(), DbErr> {
    let rows = numbered.into_iter().map(|(position, item)| change::ActiveModel {
        id: NotSet,
        customer: Set(item.customer.to_string()),
        position: Set(position),
        time: Set(time),
        screening: Set(item.screening.0),
        version: Set(item.version),
        hospital_display_name: Set(item.hospital_display_name),
        slot: Set(item.slot.as_ref().map(ToString::to_string)),
        date: Set(item.date.to_string()),
        time_zone: Set(item.time_zone),
        state: Set(item.state.number()),
        reason: Set(item.reason),
        message: Set(item.message),
        update_time: Set(micros(item.update_time)),
    });
    insert_all(transaction, rows.collect()).await
}

/// The next changes of a customer's page after a position, at most `limit`. Older ones may have been removed.
pub(crate) async fn read_after(
    connection: &dyn Connection,
    customer: &CustomerId,
    position: i64,
    limit: u64,
) -> Result<Vec<Change>, DbErr> {
    use change::Column;
    let rows = change::Entity::find()
        .filter(Column::Customer.eq(customer.to_string()))
        .filter(Column::Position.gt(position))
        .order_by_asc(Column::Position)
        .limit(limit)
        .fetch(connection)
        .await?;
    rows.into_iter().map(Change::try_from).collect()
}

/// The most rows that one transaction removes.
const CHANGES_PER_PRUNE: u64 = 1_000;

/// Removes the oldest changes that are older than `older_than` or not among the newest `keep`, at most
/// [`CHANGES_PER_PRUNE`]. Returns whether there may be more.
pub(crate) async fn prune(transaction: &dyn Connection, older_than: i64, keep: u64) -> Result<bool, DbErr> {
    use change::Column;
    let newest: Option<i64> = change::Entity::find()
        .select_only()
        .column(Column::Id)
        .order_by_desc(Column::Id)
        .limit(1)
        .fetch_value(transaction)
        .await?;
    let surplus = newest.unwrap_or(0).saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
    let oldest: Vec<(i64, i64)> = change::Entity::find()
        .select_only()
        .columns([Column::Id, Column::Time])
        .order_by_asc(Column::Id)
        .limit(CHANGES_PER_PRUNE)
        .fetch_values(transaction)
        .await?;
    let expired = oldest.iter().take_while(|(id, time)| *id <= surplus || *time < older_than);
    let expired: Vec<i64> = expired.map(|(id, _)| *id).collect();
    if let Some(last) = expired.last() {
        change::Entity::delete_many().filter(Column::Id.lte(*last)).run(transaction).await?;
    }
    Ok(expired.len() as u64 == CHANGES_PER_PRUNE)
}
