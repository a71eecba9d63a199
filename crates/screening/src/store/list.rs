//! Pages of screenings.

use ::store::query::{Direction, condition, page, split};
use domain::access::Scope;
use domain::filter::{Comparison, Operator, Value as Operand};
use domain::ids::{CustomerId, HospitalId, SlotId};
use domain::page::{Key, KeyKind, Order, Page};
use domain::screening::{Screening, State};
use futures::future::try_join_all;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Condition, ExprTrait, SimpleExpr};
use sea_orm::{DbErr, Value};

use super::row::{Column, Entity, Model};
use super::visible;

/// The list's orders, as `order_by` names them; the first is the default, newest first.
pub(crate) const ORDERS: &[&str] = &["create_time", "date"];

/// The order of a list that names none.
pub(crate) const DEFAULT_ORDER: Order = Order { field: "create_time", descending: true };

/// A decoded list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listing {
    /// Which rows.
    pub(crate) comparisons: Vec<Comparison>,
    /// In which order.
    pub(crate) order: Order,
    /// Which of them.
    pub(crate) page: Page,
}

/// The kinds of the keys that an order's page tokens carry.
pub(crate) fn shape(order: Order) -> &'static [KeyKind] {
    if order.field == "date" { &[KeyKind::Text, KeyKind::Text] } else { &[KeyKind::Int, KeyKind::Text] }
}

fn keys(order: Order, row: &Model) -> Vec<Key> {
    let first = if order.field == "date" { Key::Text(row.slot_date.clone()) } else { Key::Int(row.create_time) };
    vec![first, Key::Text(row.id.to_string())]
}

/// Hospitals for which each is asked for its own page: an index yields one hospital's rows in order, but not several
/// hospitals' together.
const SEPARATELY: std::ops::RangeInclusive<usize> = 2..=16;

/// One page, and the token of the next.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    scope: &Scope,
    listing: &Listing,
) -> Result<(Vec<Screening>, String), DbErr> {
    let names_one = listing
        .comparisons
        .iter()
        .any(|comparison| comparison.operator == Operator::Equal && ["hospital", "slot"].contains(&comparison.field));
    let rows = match scope {
        Scope::Hospitals(listed) if SEPARATELY.contains(&listed.len()) && !names_one => {
            let scopes: Vec<_> = listed.iter().map(|one| Scope::Hospitals([one.clone()].into())).collect();
            let pages = try_join_all(scopes.iter().map(|scope| select(connection, scope, listing))).await?;
            merge(pages, listing)
        }
        Scope::Everything | Scope::Customer(_) | Scope::Hospitals(_) => select(connection, scope, listing).await?,
    };
    let (rows, token) = split(rows, &listing.page, |row| keys(listing.order, row));
    let screenings: Result<_, DbErr> = rows.into_iter().map(Model::into_domain).collect();
    Ok((screenings?, token))
}

/// A page and one row more.
async fn select(connection: &impl ConnectionTrait, scope: &Scope, listing: &Listing) -> Result<Vec<Model>, DbErr> {
    let direction = if listing.order.descending { Direction::Descending } else { Direction::Ascending };
    let first = if listing.order.field == "date" { Column::SlotDate } else { Column::CreateTime };
    let rows = Entity::find().filter(visible(scope)).filter(filter(&listing.comparisons));
    page(rows, &[(first, direction), (Column::Id, direction)], &listing.page).all(connection).await
}

/// Sorts pages into one; [`split`] cuts it.
fn merge(pages: Vec<Vec<Model>>, listing: &Listing) -> Vec<Model> {
    let mut rows: Vec<Model> = pages.into_iter().flatten().collect();
    rows.sort_by(|one, other| {
        let order = match listing.order.field {
            "date" => one.slot_date.cmp(&other.slot_date),
            _ => one.create_time.cmp(&other.create_time),
        };
        let order = order.then(one.id.cmp(&other.id));
        if listing.order.descending { order.reverse() } else { order }
    });
    rows
}

fn filter(comparisons: &[Comparison]) -> Condition {
    let (slots, others): (Vec<_>, Vec<_>) =
        comparisons.iter().cloned().partition(|comparison| comparison.field == "slot");
    slots.iter().fold(condition(&others, column, operand), |all, comparison| all.add(slot(comparison)))
}

fn column(field: &'static str) -> Column {
    match field {
        "customer" => Column::Customer,
        "hospital" => Column::Hospital,
        "state" => Column::State,
        _ => Column::SlotDate,
    }
}

/// Columns hold segments and numbers where filters hold names.
fn operand(field: &'static str, value: &Operand) -> Option<Value> {
    let Operand::Text(text) = value else { return None };
    match field {
        "customer" => CustomerId::parse(text).ok().map(|customer| customer.segment().into()),
        "hospital" => HospitalId::parse(text).ok().map(|hospital| hospital.segment().into()),
        "state" => State::from_name(text).map(|state| state.number().into()),
        _ => None,
    }
}

/// A slot's name stands for two columns.
fn slot(comparison: &Comparison) -> SimpleExpr {
    let Operand::Text(name) = &comparison.value else { return SimpleExpr::val(false) };
    let Ok(slot) = SlotId::parse(name) else { return SimpleExpr::val(false) };
    let same = Column::Hospital.eq(slot.hospital.segment()).and(Column::SlotDate.eq(slot.date.to_string()));
    if comparison.operator == Operator::NotEqual { same.not() } else { same }
}
