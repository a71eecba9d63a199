//! The ledger's tables, and how they are read and written.
//!
//! Reads of customers' rows take the caller's scope. Instants are stored as microseconds since 1970, resources by their
//! names and states by their numbers in the contract.

use std::collections::{BTreeMap, BTreeSet};

use domain::access::Scope;
use domain::filter::{Comparison, Value as Operand};
use domain::ids::{CustomerId, ScreeningId, SlotId};
use domain::page::{Key, KeyKind, Order, Page, Rows};
use domain::reservation::{Entry, Ledger, Reservation, State};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::entity::prelude::*;
use sea_orm::{Condition, QueryOrder, QuerySelect, Value};
use store::query::{self, Direction, apart, condition};
use store::rows::{among, save_all, set_unless_unchanged};
use store::{Connection, Fetch as _};
use store::{micros, timestamp};

pub(crate) mod history;
pub(crate) mod versions;

pub(crate) mod reservation {
    //! One row per reservation.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "reservation")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub screening: Uuid,
        pub customer: String,
        pub hospital: String,
        pub slot: String,
        pub date: String,
        pub state: i32,
        pub screening_version: i64,
        pub version: i64,
        pub create_time: i64,
        pub update_time: i64,
        /// The version of the screening that began the reservation; see [`super::history::registration`]. NULL if the
        /// history has a row for it.
        pub registered_version: Option<i64>,
        pub registered_actor: Option<String>,
        pub registered_event_id: Option<Uuid>,
        pub registered_time: Option<i64>,
        pub registered_request_id: Option<Uuid>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod unregistered {
    //! The greatest version that was applied of a screening that registers nothing: PENDING, REJECTED, WAITLISTED, the
    //! end of a wait in vain, or a fence.
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "unregistered")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub screening: Uuid,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

fn corrupt(what: &str, value: impl std::fmt::Debug) -> DbErr {
    DbErr::Custom(format!("the stored {what} {value:?} cannot be read"))
}

impl TryFrom<reservation::Model> for Reservation {
    type Error = DbErr;

    fn try_from(row: reservation::Model) -> Result<Self, DbErr> {
        // the hospital and the date are parts of the slot's name; they have columns of their own for filters
        let reservation::Model { screening, customer, hospital: _, slot, date: _, .. } = row;
        Ok(Self {
            screening: ScreeningId(screening),
            customer: CustomerId::parse(&customer).map_err(|_| corrupt("customer", customer))?,
            slot: SlotId::parse(&slot).map_err(|_| corrupt("slot", slot))?,
            state: State::from_number(row.state).ok_or_else(|| corrupt("state", row.state))?,
            screening_version: row.screening_version,
            version: row.version,
            create_time: timestamp(row.create_time),
            update_time: timestamp(row.update_time),
        })
    }
}

impl reservation::ActiveModel {
    /// The row of a reservation. `before` is the stored one, if there is one. Columns that an index covers are left
    /// `Unchanged` if their values are the same.
    fn new(reservation: &Reservation, before: Option<&Reservation>) -> Self {
        let fixed = before.is_some_and(|Reservation { customer, slot, create_time, .. }| {
            (customer, slot, create_time) == (&reservation.customer, &reservation.slot, &reservation.create_time)
        });
        Self {
            screening: Set(reservation.screening.0),
            customer: set_unless_unchanged(fixed, reservation.customer.to_string()),
            hospital: set_unless_unchanged(fixed, reservation.slot.hospital.to_string()),
            slot: set_unless_unchanged(fixed, reservation.slot.to_string()),
            date: set_unless_unchanged(fixed, reservation.slot.date.to_string()),
            state: Set(reservation.state.number()),
            screening_version: Set(reservation.screening_version),
            version: Set(reservation.version),
            create_time: set_unless_unchanged(fixed, micros(reservation.create_time)),
            update_time: Set(micros(reservation.update_time)),
            registered_version: NotSet,
            registered_actor: NotSet,
            registered_event_id: NotSet,
            registered_time: NotSet,
            registered_request_id: NotSet,
        }
    }
}

/// What is stored of some screenings; unknown ones are missing.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) ledgers: BTreeMap<ScreeningId, Ledger>,
    /// The version whose history entry is part of the reservation's row.
    pub(crate) registered: BTreeMap<ScreeningId, i64>,
}

/// Reads what is stored of these screenings. Where the database locks rows, they are locked until the transaction ends.
pub(crate) async fn load_for_update(
    transaction: &dyn Connection,
    screenings: &BTreeSet<ScreeningId>,
) -> Result<Stored, DbErr> {
    let mut stored = Stored::default();
    if screenings.is_empty() {
        return Ok(stored);
    }
    let ids = || screenings.iter().map(|screening| screening.0);
    let select = reservation::Entity::find().filter(among(transaction, reservation::Column::Screening, ids()));
    for row in select.order_by_asc(reservation::Column::Screening).lock_exclusive().fetch(transaction).await? {
        let screening = ScreeningId(row.screening);
        stored.registered.extend(row.registered_version.map(|version| (screening, version)));
        stored.ledgers.entry(screening).or_default().reservation = Some(Reservation::try_from(row)?);
    }
    let select = unregistered::Entity::find().filter(among(transaction, unregistered::Column::Screening, ids()));
    for row in select.order_by_asc(unregistered::Column::Screening).lock_exclusive().fetch(transaction).await? {
        stored.ledgers.entry(ScreeningId(row.screening)).or_default().unregistered_version = row.version;
    }
    Ok(stored)
}

/// Writes those ledgers that differ from what was loaded, and the history entries. If a version has an entry already,
/// that one stays.
pub(crate) async fn save(
    transaction: &dyn Connection,
    before: &Stored,
    after: &BTreeMap<ScreeningId, Ledger>,
    entries: Vec<Entry>,
) -> Result<(), DbErr> {
    let begun: BTreeSet<ScreeningId> = after
        .iter()
        .filter(|(id, ledger)| {
            ledger.reservation.is_some() && before.ledgers.get(id).is_none_or(|before| before.reservation.is_none())
        })
        .map(|(id, _)| *id)
        .collect();
    let (mut registrations, rest) = history::registrations(&begun, &before.registered, entries);
    let changed = || after.iter().filter(|(screening, ledger)| before.ledgers.get(screening) != Some(ledger));
    let reservations = changed().filter_map(|(screening, ledger)| {
        let before = before.ledgers.get(screening).and_then(|before| before.reservation.as_ref());
        let row = reservation::ActiveModel::new(ledger.reservation.as_ref()?, before);
        Some(match before {
            Some(_) => (true, row),
            None => (false, row.with_registration(registrations.remove(screening))),
        })
    });
    save_all(transaction, reservations.collect::<Vec<_>>()).await?;
    let unregistered = changed().filter(|(_, ledger)| ledger.unregistered_version > 0).map(|(screening, ledger)| {
        let known = before.ledgers.get(screening).is_some_and(|before| before.unregistered_version > 0);
        (known, unregistered::ActiveModel { screening: Set(screening.0), version: Set(ledger.unregistered_version) })
    });
    save_all(transaction, unregistered.collect::<Vec<_>>()).await?;
    history::save(transaction, rest).await
}

/// The greatest version of a screening that was applied; 0 if there was none.
pub(crate) async fn seen_version(connection: &dyn Connection, screening: ScreeningId) -> Result<i64, DbErr> {
    let registered = reservation::Entity::find_by_id(screening.0).fetch_one(connection).await?;
    let unregistered = unregistered::Entity::find_by_id(screening.0).fetch_one(connection).await?;
    let registered = registered.map_or(0, |row| row.screening_version);
    Ok(registered.max(unregistered.map_or(0, |row| row.version)))
}

fn within(scope: &Scope) -> Condition {
    use reservation::Column;
    match scope {
        Scope::Everything => Condition::all(),
        Scope::Customer(own) => Condition::all().add(Column::Customer.eq(own.to_string())),
        Scope::Hospitals(listed) => {
            Condition::all().add(Column::Hospital.is_in(listed.iter().map(ToString::to_string)))
        }
    }
}

/// The row of one reservation, if the scope admits it.
pub(crate) async fn find(
    connection: &dyn Connection,
    scope: &Scope,
    screening: ScreeningId,
) -> Result<Option<reservation::Model>, DbErr> {
    reservation::Entity::find_by_id(screening.0).filter(within(scope)).fetch_one(connection).await
}

/// The kinds of the keys in a page token of this order: the ordered column, then the screening.
pub(crate) fn keys(order: Order) -> [KeyKind; 2] {
    match order.field {
        "date" => [KeyKind::Text, KeyKind::Text],
        _ => [KeyKind::Int, KeyKind::Text],
    }
}

/// A page of the reservations that the scope admits.
pub(crate) async fn list(
    connection: &dyn Connection,
    scope: &Scope,
    filter: &[Comparison],
    order: Order,
    asked: &Page,
) -> Result<Rows<Reservation>, DbErr> {
    use reservation::Column;
    let by_date = order.field == "date";
    let column = if by_date { Column::Date } else { Column::CreateTime };
    let direction = if order.descending { Direction::Descending } else { Direction::Ascending };
    let columns = [(column, direction), (Column::Screening, direction)];
    let select = |scope| reservation::Entity::find().filter(within(scope)).filter(matching(filter));
    let selects = apart(scope).iter().map(select).collect();
    let keys = |row: &reservation::Model| {
        let first = if by_date { Key::Text(row.date.clone()) } else { Key::Int(row.create_time) };
        vec![first, Key::Text(row.screening.to_string())]
    };
    query::list(connection, selects, &columns, asked, keys).await?.try_map(Reservation::try_from)
}

fn matching(filter: &[Comparison]) -> Condition {
    use reservation::Column;
    let column = |field| match field {
        "customer" => Column::Customer,
        "hospital" => Column::Hospital,
        "slot" => Column::Slot,
        "state" => Column::State,
        "update_time" => Column::UpdateTime,
        _ => Column::Date,
    };
    let number = |field, operand: &Operand| match (field, operand) {
        ("state", Operand::Text(name)) => State::from_name(name).map(|state| Value::from(state.number())),
        _ => None,
    };
    condition(filter, column, number)
}
