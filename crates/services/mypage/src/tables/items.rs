//! The tables of items: one row per booking as it is shown, and one row per screening that is shown to nobody.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{CustomerId, ScreeningId, parse_date};
use domain::mypage::{Item, Shown};
use domain::page::{Key, KeyKind, Page, Rows};
use domain::screening::State;
use jiff::civil::Date;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use sea_orm::{QueryOrder, QuerySelect};
use store::query::{self, Direction};
use store::rows::{among, save_all, set_unless_unchanged};
use store::{micros, timestamp};

use super::{corrupt, slot};
use store::{Connection, Fetch as _};

pub(crate) mod item {
    //! One row per booking.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "item")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub screening: Uuid,
        pub customer: String,
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

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod hidden {
    //! The greatest version that was applied of a screening that is shown to nobody.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "hidden")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub screening: Uuid,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

impl TryFrom<item::Model> for Item {
    type Error = DbErr;

    fn try_from(row: item::Model) -> Result<Self, DbErr> {
        Ok(Self {
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
        })
    }
}

impl item::ActiveModel {
    /// The row of an item. `before` is the stored item, if there is one. Columns that the index covers are left
    /// `Unchanged` if their values are the same.
    fn new(item: &Item, before: Option<&Item>) -> Self {
        let fixed = before.is_some_and(|before| (&before.customer, before.date) == (&item.customer, item.date));
        Self {
            screening: Set(item.screening.0),
            customer: set_unless_unchanged(fixed, item.customer.to_string()),
            version: Set(item.version),
            hospital_display_name: Set(item.hospital_display_name.clone()),
            slot: Set(item.slot.as_ref().map(ToString::to_string)),
            date: set_unless_unchanged(fixed, item.date.to_string()),
            time_zone: Set(item.time_zone.clone()),
            state: Set(item.state.number()),
            reason: Set(item.reason.clone()),
            message: Set(item.message.clone()),
            update_time: Set(micros(item.update_time)),
        }
    }
}

/// What is stored of these screenings; unknown ones are missing in the map. Where the database locks rows, they are
/// locked until the transaction ends.
pub(crate) async fn load_for_update(
    transaction: &dyn Connection,
    screenings: &BTreeSet<ScreeningId>,
) -> Result<BTreeMap<ScreeningId, Shown>, DbErr> {
    let mut shown: BTreeMap<ScreeningId, Shown> = BTreeMap::new();
    if screenings.is_empty() {
        return Ok(shown);
    }
    let ids = || screenings.iter().map(|screening| screening.0);
    let select = item::Entity::find().filter(among(transaction, item::Column::Screening, ids()));
    for row in select.order_by_asc(item::Column::Screening).lock_exclusive().fetch(transaction).await? {
        let shown = shown.entry(ScreeningId(row.screening)).or_default();
        shown.item = Some(row.try_into()?);
    }
    let select = hidden::Entity::find().filter(among(transaction, hidden::Column::Screening, ids()));
    for row in select.order_by_asc(hidden::Column::Screening).lock_exclusive().fetch(transaction).await? {
        shown.entry(ScreeningId(row.screening)).or_default().hidden_version = row.version;
    }
    Ok(shown)
}

/// Writes those items that differ from what was loaded.
pub(crate) async fn save(
    transaction: &dyn Connection,
    before: &BTreeMap<ScreeningId, Shown>,
    after: &BTreeMap<ScreeningId, Shown>,
) -> Result<(), DbErr> {
    let changed = || after.iter().filter(|(screening, shown)| before.get(screening) != Some(shown));
    let items = changed().filter_map(|(screening, shown)| {
        let before = before.get(screening).and_then(|before| before.item.as_ref());
        Some((before.is_some(), item::ActiveModel::new(shown.item.as_ref()?, before)))
    });
    save_all(transaction, items.collect::<Vec<_>>()).await?;
    let hidden = changed().filter(|(_, shown)| shown.hidden_version > 0).map(|(screening, shown)| {
        let known = before.get(screening).is_some_and(|before| before.hidden_version > 0);
        (known, hidden::ActiveModel { screening: Set(screening.0), version: Set(shown.hidden_version) })
    });
    save_all(transaction, hidden.collect::<Vec<_>>()).await
}

/// How many items there are, of all customers together.
pub(crate) async fn count(connection: &dyn Connection) -> Result<u64, DbErr> {
    item::Entity::find().fetch_count(connection).await
}

/// The greatest version of a screening that was applied; 0 if there was none.
pub(crate) async fn seen_version(connection: &dyn Connection, screening: ScreeningId) -> Result<i64, DbErr> {
    let shown = item::Entity::find_by_id(screening.0).fetch_one(connection).await?.map_or(0, |row| row.version);
    let hidden = hidden::Entity::find_by_id(screening.0).fetch_one(connection).await?.map_or(0, |row| row.version);
    Ok(shown.max(hidden))
}

/// A customer's active bookings from this date on. There is at most one per date, so they are few.
pub(crate) async fn active(connection: &dyn Connection, customer: &CustomerId, from: Date) -> Result<Vec<Item>, DbErr> {
    use item::Column;
    let states = State::ALL.iter().filter(|state| state.is_active()).map(|state| state.number());
    let rows = item::Entity::find()
        .filter(Column::Customer.eq(customer.to_string()))
        .filter(Column::Date.gte(from.to_string()))
        .filter(Column::State.is_in(states))
        .fetch(connection)
        .await?;
    rows.into_iter().map(Item::try_from).collect()
}

/// The kinds of the keys in a page token of [`list`].
pub(crate) const KEYS: [KeyKind; 2] = [KeyKind::Text, KeyKind::Text];

/// A page of a customer's bookings, latest date first.
pub(crate) async fn list(
    connection: &dyn Connection,
    customer: &CustomerId,
    asked: &Page,
) -> Result<Rows<Item>, DbErr> {
    use item::Column;
    let select = item::Entity::find().filter(Column::Customer.eq(customer.to_string()));
    let columns = [(Column::Date, Direction::Descending), (Column::Screening, Direction::Descending)];
    let keys = |row: &item::Model| vec![Key::Text(row.date.clone()), Key::Text(row.screening.to_string())];
    query::list(connection, vec![select], &columns, asked, keys).await?.try_map(Item::try_from)
}
