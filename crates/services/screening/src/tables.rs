//! Screening's tables, and the conversion between rows and domain values.
//!
//! Nothing is decided here. Reads for a caller go through a lookup or a list that takes the caller's scope.

pub(crate) mod booking_lookup;
pub(crate) mod limit;
pub(crate) mod list;
pub(crate) mod refusal;
pub(crate) mod row;
pub(crate) mod screening_lookup;
pub(crate) mod versions;
pub(crate) mod watch;

use std::collections::{HashMap, HashSet};

use domain::access::Scope;
use domain::ids::{CustomerId, ScreeningId, SlotId};
use domain::screening::{Screening, State};
use jiff::Timestamp;
use jiff::civil::Date;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Condition, Expr, ExprTrait, SimpleExpr};
use sea_orm::{DbBackend, DbErr, QueryOrder, QuerySelect};
use store::micros;
use store::rows::among;

use row::{Column, Entity};
use store::{Connection, Fetch as _};

/// The rows that a scope admits. Fences are never among them.
fn visible(scope: &Scope) -> Condition {
    let shown = Condition::all().add(Column::Customer.is_not_null());
    match scope {
        Scope::Everything => shown,
        Scope::Customer(own) => shown.add(Column::Customer.eq(own.segment())),
        Scope::Hospitals(listed) => shown.add(Column::Hospital.is_in(listed.iter().map(|hospital| hospital.segment()))),
    }
}

/// Rows by id, of every customer and with fences. The caller has to check [`Screening::is_visible`].
pub(crate) async fn by_ids(
    connection: &dyn Connection,
    ids: impl IntoIterator<Item = ScreeningId>,
) -> Result<HashMap<ScreeningId, Screening>, DbErr> {
    let ids = among(connection, Column::Id, ids.into_iter().map(|id| id.0));
    collect(Entity::find().filter(ids).fetch(connection).await?)
}

/// Rows by id, like [`by_ids`]. Where the database locks rows, they are locked until the transaction ends.
pub(crate) async fn by_ids_for_update(
    transaction: &dyn Connection,
    ids: impl IntoIterator<Item = ScreeningId>,
) -> Result<HashMap<ScreeningId, Screening>, DbErr> {
    let ids = among(transaction, Column::Id, ids.into_iter().map(|id| id.0));
    collect(Entity::find().filter(ids).order_by_asc(Column::Id).lock_exclusive().fetch(transaction).await?)
}

/// Those of these ids that have a row. It needs no lock, because a row is never deleted.
pub(crate) async fn present(connection: &dyn Connection, ids: Vec<ScreeningId>) -> Result<HashSet<ScreeningId>, DbErr> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let select = Entity::find().select_only().column(Column::Id);
    let select = select.filter(among(connection, Column::Id, ids.into_iter().map(|id| id.0)));
    let found: Vec<Uuid> = select.fetch_values(connection).await?;
    Ok(found.into_iter().map(ScreeningId).collect())
}

fn collect(rows: Vec<row::Model>) -> Result<HashMap<ScreeningId, Screening>, DbErr> {
    rows.into_iter().map(|row| row.into_domain().map(|screening| (screening.id, screening))).collect()
}

/// The last part of the unique index by customer and date, in the words of the migration that made it: the same for all
/// active bookings, so that there is at most one, and the own id of any other. With these very words, the index tells a
/// select which rows are active, and it reads those alone.
fn active_key(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => {
            "CASE WHEN state IN (1, 3) THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE id END"
        }
        _ => "CASE WHEN state IN (1, 3) THEN x'' ELSE id END",
    }
}

/// The [`active_key`] of active bookings. No booking has this id.
fn no_id(backend: DbBackend) -> &'static str {
    match backend {
        DbBackend::Postgres => "'00000000-0000-0000-0000-000000000000'::uuid",
        _ => "x''",
    }
}

/// A customer and a date. There is at most one active booking for the pair.
pub(crate) type CustomerDate = (CustomerId, Date);

/// The active bookings of these customers, on every date.
pub(crate) async fn active<'a>(
    connection: &dyn Connection,
    customers: impl IntoIterator<Item = &'a CustomerId>,
) -> Result<HashMap<CustomerDate, ScreeningId>, DbErr> {
    let customers: Vec<&str> = customers.into_iter().map(CustomerId::segment).collect();
    if customers.is_empty() {
        return Ok(HashMap::new());
    }
    // Without a filter on dates: as long as PostgreSQL has not analysed the table, it would read every booking of the
    // date, thousands per batch on a busy one.
    let backend = connection.backend();
    let rows: Vec<(Uuid, String, String)> = Entity::find()
        .select_only()
        .columns([Column::Id, Column::Customer, Column::SlotDate])
        .filter(among(connection, Column::Customer, customers))
        .filter(Expr::cust(active_key(backend)).eq(Expr::cust(no_id(backend))))
        .fetch_values(connection)
        .await?;
    let mut found = HashMap::new();
    for (id, customer, date) in rows {
        found.insert((row::customer(&customer)?, row::date(&date)?), ScreeningId(id));
    }
    Ok(found)
}

/// A customer and a slot. There is at most one WAITLISTED booking for the pair.
pub(crate) type CustomerSlot = (CustomerId, SlotId);

/// The rows in this state. The number is a literal instead of a bound value, so that SQLite can use the indexes of
/// those rows alone.
fn in_state(state: State) -> SimpleExpr {
    Expr::col(Column::State).eq(Expr::cust(state.number().to_string()))
}

/// The WAITLISTED bookings of these customers, on every slot.
pub(crate) async fn waiting<'a>(
    connection: &dyn Connection,
    customers: impl IntoIterator<Item = &'a CustomerId>,
) -> Result<HashMap<CustomerSlot, ScreeningId>, DbErr> {
    let customers: Vec<&str> = customers.into_iter().map(CustomerId::segment).collect();
    if customers.is_empty() {
        return Ok(HashMap::new());
    }
    let select = Entity::find().filter(among(connection, Column::Customer, customers));
    let mut found = HashMap::new();
    for row in select.filter(in_state(State::Waitlisted)).fetch(connection).await? {
        let row = row.into_domain()?;
        found.extend(row.customer.map(|customer| ((customer, row.slot), row.id)));
    }
    Ok(found)
}

/// The instant from which a booking gets no place any more, and the booking: where a page of [`over`] ends.
pub(crate) type Close = (Timestamp, ScreeningId);

/// At most `limit` WAITLISTED bookings that get no place any more at `now`, those of the earliest time first, after
/// `after`.
pub(crate) async fn over(
    connection: &dyn Connection,
    now: Timestamp,
    after: Option<Close>,
    limit: u64,
) -> Result<Vec<Screening>, DbErr> {
    let mut select = Entity::find().filter(in_state(State::Waitlisted));
    select = select.filter(Column::PromotionCloseTime.lte(micros(now)));
    if let Some((close, id)) = after {
        let position = [Column::PromotionCloseTime, Column::Id].map(Expr::col);
        select = select.filter(Expr::tuple(position).gt(Expr::tuple([Expr::val(micros(close)), Expr::val(id.0)])));
    }
    let select = select.order_by_asc(Column::PromotionCloseTime).order_by_asc(Column::Id).limit(limit);
    select.fetch(connection).await?.into_iter().map(row::Model::into_domain).collect()
}

/// How many bookings are WAITLISTED.
pub(crate) async fn count_waiting(connection: &dyn Connection) -> Result<u64, DbErr> {
    Entity::find().filter(in_state(State::Waitlisted)).fetch_count(connection).await
}

/// At most `limit` PENDING bookings in the order of their ids, after `after`.
pub(crate) async fn pending(
    connection: &dyn Connection,
    after: Option<ScreeningId>,
    limit: u64,
) -> Result<Vec<Screening>, DbErr> {
    let mut select = Entity::find().filter(in_state(State::Pending));
    if let Some(after) = after {
        select = select.filter(Column::Id.gt(after.0));
    }
    let rows = select.order_by_asc(Column::Id).limit(limit).fetch(connection).await?;
    rows.into_iter().map(row::Model::into_domain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state that joins the active ones needs a new index, and these words with it.
    #[test]
    fn the_index_knows_every_active_state() {
        let numbers = State::ALL.iter().filter(|state| state.is_active()).map(|state| state.number().to_string());
        let expected = format!("state IN ({})", numbers.collect::<Vec<_>>().join(", "));
        for backend in [DbBackend::Sqlite, DbBackend::Postgres] {
            assert!(active_key(backend).contains(&expected) && active_key(backend).contains(no_id(backend)));
            let migration = include_str!("migration.rs");
            assert!(migration.contains(active_key(backend)), "the index was made with other words");
        }
    }
}
