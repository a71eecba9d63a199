//! The table of bookings as pages show them, one row for each change of one.
//!
//! A row is a booking as one change left it. The row of its newest version is the booking as it stands; it has no
//! `replace_time`. The others are kept for a while, for streams that resume: see [`super::changes`]. So a change is one
//! row, and what a page shows needs no row of its own.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{CustomerId, ScreeningId, parse_date};
use domain::mypage::{Item, Shown};
use domain::page::{Key, KeyKind, Page, Rows};
use domain::screening::State;
use domain::screening_fact::ScreeningFact;
use jiff::Timestamp;
use jiff::civil::Date;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::entity::prelude::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use sea_orm::sea_query::Expr;
use sea_orm::{Condition, QueryOrder, QuerySelect};
use store::query::{self, Direction};
use store::rows::{among, insert_all, save_all};
use store::{micros, timestamp};

use super::{corrupt, slot};
use store::{Connection, Fetch as _, Run as _};

pub(crate) mod item {
    //! One row per change of a booking.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "item_version")]
    pub struct Model {
        /// Which change of all customers together it is.
        #[sea_orm(primary_key)]
        pub id: i64,
        pub screening: Uuid,
        pub version: i64,
        pub customer: String,
        /// Which change of its customer's page it is, from 1.
        pub position: i64,
        /// When it was applied.
        pub time: i64,
        /// The latest `update_time` of this and all earlier changes of the page.
        pub page_update_time: i64,
        /// When a newer version replaced it; NULL for the newest one.
        pub replace_time: Option<i64>,
        pub hospital_display_name: String,
        /// NULL if the row was written by a version that did not keep it.
        pub slot: Option<String>,
        pub date: String,
        pub time_zone: String,
        pub state: i32,
        pub reason: String,
        pub message: String,
        pub update_time: i64,
        pub waitlist_position: i32,
        /// See [`super::Version::is_withdrawn`].
        pub withdrawn: bool,
        /// See [`super::Version::waited_in_vain`].
        pub waited_in_vain: bool,
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
            waitlist_position: row.waitlist_position,
            reason: row.reason,
            message: row.message,
            update_time: timestamp(row.update_time),
        })
    }
}

/// A booking as a change left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) item: Item,
    /// Whether pages that leave out what waits showed the booking before this version and do not show it any more.
    pub(crate) is_withdrawn: bool,
    /// Whether the booking waited and ended without a place. Its state does not tell if it was cancelled, and a
    /// recovery must not take it for a booking that had one.
    pub(crate) waited_in_vain: bool,
}

impl Version {
    /// The version that a fact brought. `was_shown` says whether such pages showed the one before it.
    pub(crate) fn new(fact: &ScreeningFact, was_shown: bool, item: Item) -> Self {
        let is_withdrawn = was_shown && !item.state.is_shown();
        let waited_in_vain = matches!(fact, ScreeningFact::Booking(booking) if booking.waited_in_vain());
        Self { item, is_withdrawn, waited_in_vain }
    }
}

impl TryFrom<item::Model> for Version {
    type Error = DbErr;

    fn try_from(row: item::Model) -> Result<Self, DbErr> {
        let (is_withdrawn, waited_in_vain) = (row.withdrawn, row.waited_in_vain);
        Ok(Self { item: row.try_into()?, is_withdrawn, waited_in_vain })
    }
}

/// A change of a customer's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which change of the page it is, from 1.
    pub(crate) position: i64,
    /// When a booking on the page changed last, up to this change.
    pub(crate) page_update_time: Timestamp,
    pub(crate) version: Version,
}

impl TryFrom<item::Model> for Change {
    type Error = DbErr;

    fn try_from(row: item::Model) -> Result<Self, DbErr> {
        let (position, page_update_time) = (row.position, timestamp(row.page_update_time));
        Ok(Self { position, page_update_time, version: row.try_into()? })
    }
}

impl item::ActiveModel {
    fn new(change: Change, time: i64, replace_time: Option<i64>) -> Self {
        let Change { position, page_update_time, version: Version { item, is_withdrawn, waited_in_vain } } = change;
        Self {
            id: NotSet,
            screening: Set(item.screening.0),
            version: Set(item.version),
            customer: Set(item.customer.to_string()),
            position: Set(position),
            time: Set(time),
            page_update_time: Set(micros(page_update_time)),
            replace_time: Set(replace_time),
            hospital_display_name: Set(item.hospital_display_name),
            slot: Set(item.slot.as_ref().map(ToString::to_string)),
            date: Set(item.date.to_string()),
            time_zone: Set(item.time_zone),
            state: Set(item.state.number()),
            reason: Set(item.reason),
            message: Set(item.message),
            update_time: Set(micros(item.update_time)),
            waitlist_position: Set(item.waitlist_position),
            withdrawn: Set(is_withdrawn),
            waited_in_vain: Set(waited_in_vain),
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
    let select = item::Entity::find()
        .filter(among(transaction, item::Column::Screening, ids()))
        .filter(item::Column::ReplaceTime.is_null());
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

/// Writes those versions that are shown to nobody and differ from what was loaded.
pub(crate) async fn save_hidden(
    transaction: &dyn Connection,
    before: &BTreeMap<ScreeningId, Shown>,
    after: &BTreeMap<ScreeningId, Shown>,
) -> Result<(), DbErr> {
    let was = |screening| before.get(screening).map_or(0, |before| before.hidden_version);
    let changed = after.iter().filter(|(screening, shown)| shown.hidden_version > was(screening));
    let hidden = changed.map(|(screening, shown)| {
        let row = hidden::ActiveModel { screening: Set(screening.0), version: Set(shown.hidden_version) };
        (was(screening) > 0, row)
    });
    save_all(transaction, hidden.collect::<Vec<_>>()).await
}

/// Adds changes, in order, and marks what they replace. `before` is what was loaded of their screenings, `time` is now.
pub(crate) async fn append(
    transaction: &dyn Connection,
    before: &BTreeMap<ScreeningId, Shown>,
    changes: Vec<Change>,
    time: i64,
) -> Result<(), DbErr> {
    let mut newest: BTreeMap<ScreeningId, i64> = BTreeMap::new();
    for Change { version: Version { item, .. }, .. } in &changes {
        let newest = newest.entry(item.screening).or_default();
        *newest = item.version.max(*newest);
    }
    let stored = |screening: &&ScreeningId| before.get(screening).is_some_and(|before| before.item.is_some());
    let replaced: Vec<_> = newest.keys().filter(stored).map(|screening| screening.0).collect();
    if !replaced.is_empty() {
        item::Entity::update_many()
            .col_expr(item::Column::ReplaceTime, Expr::val(time))
            .filter(among(transaction, item::Column::Screening, replaced))
            .filter(item::Column::ReplaceTime.is_null())
            .run(transaction)
            .await?;
    }
    let row = |change: Change| {
        let item = &change.version.item;
        let is_newest = newest.get(&item.screening) == Some(&item.version);
        item::ActiveModel::new(change, time, (!is_newest).then_some(time))
    };
    insert_all(transaction, changes.into_iter().map(row).collect()).await
}

/// How many bookings there are, of all customers together.
pub(crate) async fn count(connection: &dyn Connection) -> Result<u64, DbErr> {
    item::Entity::find().filter(item::Column::ReplaceTime.is_null()).fetch_count(connection).await
}

/// The greatest version of a screening that was applied; 0 if there was none.
pub(crate) async fn seen_version(connection: &dyn Connection, screening: ScreeningId) -> Result<i64, DbErr> {
    let newest = item::Entity::find()
        .select_only()
        .column(item::Column::Version)
        .filter(item::Column::Screening.eq(screening.0))
        .order_by_desc(item::Column::Version);
    let shown: Option<i64> = newest.fetch_value(connection).await?;
    let hidden = hidden::Entity::find_by_id(screening.0).fetch_one(connection).await?.map_or(0, |row| row.version);
    Ok(shown.unwrap_or(0).max(hidden))
}

/// A customer's bookings from this date on that are active or, with `show_waitlisted`, wait. At most one per date is
/// active, and at most one per slot waits, so they are few.
pub(crate) async fn open(
    connection: &dyn Connection,
    customer: &CustomerId,
    show_waitlisted: bool,
    from: Date,
) -> Result<Vec<Item>, DbErr> {
    use item::Column;
    let is_open = |state: &&State| state.is_active() || (show_waitlisted && **state == State::Waitlisted);
    let states = State::ALL.iter().filter(is_open).map(|state| state.number());
    let rows = item::Entity::find()
        .filter(Column::Customer.eq(customer.to_string()))
        .filter(Column::ReplaceTime.is_null())
        .filter(Column::Date.gte(from.to_string()))
        .filter(Column::State.is_in(states))
        .fetch(connection)
        .await?;
    rows.into_iter().map(Item::try_from).collect()
}

/// The kinds of the keys in a page token of [`list`].
pub(crate) const KEYS: [KeyKind; 2] = [KeyKind::Text, KeyKind::Text];

/// A page of a customer's bookings, latest date first. Those that wait or never got a place are left out unless
/// `show_waitlisted`.
pub(crate) async fn list(
    connection: &dyn Connection,
    customer: &CustomerId,
    show_waitlisted: bool,
    asked: &Page,
) -> Result<Rows<Item>, DbErr> {
    use item::Column;
    let hidden = State::ALL.iter().filter(|state| !state.is_shown()).map(|state| state.number());
    let shown = (!show_waitlisted).then(|| Column::State.is_not_in(hidden));
    let select = item::Entity::find()
        .filter(Column::Customer.eq(customer.to_string()))
        .filter(Column::ReplaceTime.is_null())
        .filter(Condition::all().add_option(shown));
    let columns = [(Column::Date, Direction::Descending), (Column::Screening, Direction::Descending)];
    let keys = |row: &item::Model| vec![Key::Text(row.date.clone()), Key::Text(row.screening.to_string())];
    query::list(connection, vec![select], &columns, asked, keys).await?.try_map(Item::try_from)
}
