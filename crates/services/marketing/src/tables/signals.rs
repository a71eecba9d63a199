//! The table of signals: one row per known slot, except slots of deleted hospitals.

use std::collections::{BTreeMap, BTreeSet};

use domain::access::Scope;
use domain::demand::Signal;
use domain::filter::Comparison;
use domain::ids::{HospitalId, SlotId};
use domain::page::{Key, KeyKind, Order, Page, Rows};
use jiff::civil::Date;
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::entity::prelude::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use sea_orm::{Condition, QueryOrder, QuerySelect};
use store::query::{self, Direction, apart, condition};
use store::rows::{among, save_all};
use store::{micros, timestamp};

use super::corrupt;

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod signal {
    //! One row per slot.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "signal")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub slot: String,
        pub hospital: String,
        pub date: String,
        pub slot_version: i64,
        pub capacity: i32,
        pub booked: i32,
        pub fill_ratio: f64,
        pub end_time: i64,
        pub update_time: i64,
        pub waiting: i32,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

use signal::{ActiveModel, Column, Entity, Model};
use store::{Connection, Fetch as _, Run as _};

/// A signal, and when its slot's date is over, in microseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) signal: Signal,
    pub(crate) end_time: i64,
}

impl TryFrom<Model> for Row {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let slot = SlotId::parse(&row.slot).map_err(|_| corrupt("slot", &row.slot))?;
        let Model { slot_version, capacity, booked, waiting, end_time, .. } = row;
        let signal = Signal { slot, slot_version, capacity, booked, waiting, update_time: timestamp(row.update_time) };
        Ok(Self { signal, end_time })
    }
}

fn by_slot(rows: Vec<Model>) -> Result<BTreeMap<SlotId, Row>, DbErr> {
    let read = |row| Row::try_from(row).map(|row| (row.signal.slot.clone(), row));
    rows.into_iter().map(read).collect()
}

/// Reads the signals of these slots. Where the database locks rows, they are locked until the transaction ends.
pub(crate) async fn load_for_update(
    transaction: &dyn Connection,
    slots: &BTreeSet<&SlotId>,
) -> Result<BTreeMap<SlotId, Row>, DbErr> {
    let select = Entity::find().filter(among(transaction, Column::Slot, slots.iter().map(ToString::to_string)));
    by_slot(select.order_by_asc(Column::Slot).lock_exclusive().fetch(transaction).await?)
}

/// Like [`load_for_update`], for all slots of these hospitals.
pub(crate) async fn load_of_for_update(
    transaction: &dyn Connection,
    hospitals: impl Iterator<Item = &HospitalId>,
) -> Result<BTreeMap<SlotId, Row>, DbErr> {
    let names: Vec<String> = hospitals.map(ToString::to_string).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let select = Entity::find().filter(Column::Hospital.is_in(names));
    by_slot(select.order_by_asc(Column::Slot).lock_exclusive().fetch(transaction).await?)
}

pub(crate) async fn delete_of(
    transaction: &dyn Connection,
    hospitals: impl Iterator<Item = &HospitalId>,
) -> Result<(), DbErr> {
    let names: Vec<String> = hospitals.map(ToString::to_string).collect();
    if !names.is_empty() {
        Entity::delete_many().filter(Column::Hospital.is_in(names)).run(transaction).await?;
    }
    Ok(())
}

/// Writes signals. Those in `known` are replaced, the others inserted.
pub(crate) async fn save(
    transaction: &dyn Connection,
    known: &BTreeSet<SlotId>,
    rows: &BTreeMap<SlotId, Row>,
) -> Result<(), DbErr> {
    let rows = rows.iter().map(|(slot, Row { signal, end_time })| {
        let row = ActiveModel {
            slot: Set(slot.to_string()),
            // these never change for a slot; unchanged columns leave their indexes alone
            hospital: Unchanged(slot.hospital.to_string()),
            date: Unchanged(slot.date.to_string()),
            slot_version: Set(signal.slot_version),
            capacity: Set(signal.capacity),
            booked: Set(signal.booked),
            fill_ratio: Set(signal.fill_ratio()),
            end_time: Set(*end_time),
            update_time: Set(micros(signal.update_time)),
            waiting: Set(signal.waiting),
        };
        (known.contains(slot), row)
    });
    save_all(transaction, rows.collect::<Vec<_>>()).await
}

/// Removes a chunk of the signals of dates before `date`. Returns whether there may be more.
pub(crate) async fn prune(transaction: &dyn Connection, date: Date) -> Result<bool, DbErr> {
    super::prune::<Entity, _>(transaction, Column::Date, date.to_string()).await
}

/// The kinds of the keys in a page token of this order: the ordered column, then the slot.
pub(crate) fn keys(order: Order) -> [KeyKind; 2] {
    match order.field {
        "fill_ratio" => [KeyKind::Real, KeyKind::Text],
        _ => [KeyKind::Text, KeyKind::Text],
    }
}

fn within(scope: &Scope) -> Condition {
    match scope {
        Scope::Everything => Condition::all(),
        // customers may not read demand
        Scope::Customer(_) => Condition::all().add(Column::SlotVersion.lt(0)),
        Scope::Hospitals(listed) => {
            Condition::all().add(Column::Hospital.is_in(listed.iter().map(ToString::to_string)))
        }
    }
}

/// What the list shows at the time `now`, in microseconds since 1970: slots whose date is not over. `earliest` is the
/// earliest today on earth. It only tells the index of dates where the first page begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Present {
    pub(crate) now: i64,
    pub(crate) earliest: Date,
}

/// A page of the signals that the scope admits.
pub(crate) async fn list(
    connection: &dyn Connection,
    scope: &Scope,
    present: Present,
    filter: &[Comparison],
    order: Order,
    asked: &Page,
) -> Result<Rows<Signal>, DbErr> {
    let by_ratio = order.field == "fill_ratio";
    let column = if by_ratio { Column::FillRatio } else { Column::Date };
    let direction = if order.descending { Direction::Descending } else { Direction::Ascending };
    let columns = [(column, direction), (Column::Slot, direction)];
    let field = |field| match field {
        "hospital" => Column::Hospital,
        "fill_ratio" => Column::FillRatio,
        "update_time" => Column::UpdateTime,
        _ => Column::Date,
    };
    // a later page begins at its token, and a second lower bound would keep the database from using the index
    let begin = (!by_ratio && asked.after.is_none()).then(|| Column::Date.gte(present.earliest.to_string()));
    let select = |scope| {
        Entity::find()
            .filter(Column::SlotVersion.gt(0))
            .filter(Column::EndTime.gt(present.now))
            .filter(Condition::all().add_option(begin.clone()))
            .filter(within(scope))
            .filter(condition(filter, field, |_, _| None))
    };
    let selects = apart(scope).iter().map(select).collect();
    let keys = |row: &Model| {
        let first = if by_ratio { Key::Real(row.fill_ratio) } else { Key::Text(row.date.clone()) };
        vec![first, Key::Text(row.slot.clone())]
    };
    let rows = query::list(connection, selects, &columns, asked, keys).await?;
    rows.try_map(|row| Row::try_from(row).map(|row| row.signal))
}
