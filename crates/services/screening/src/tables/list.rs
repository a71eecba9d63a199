//! Reads pages of screenings.

use domain::access::Scope;
use domain::filter::{Comparison, Operator, Value as Operand};
use domain::ids::{CustomerId, HospitalId, SlotId};
use domain::page::{Key, KeyKind, Order, Page, Rows};
use domain::screening::{Screening, State};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Condition, ExprTrait, SimpleExpr};
use sea_orm::{DbErr, Value};
use store::query::{self, Direction, apart, condition};

use super::row::{Column, Entity, Model};
use super::visible;
use store::Connection;

/// The fields that `order_by` accepts.
pub(crate) const ORDERS: &[&str] = &["create_time", "date"];

/// The order of a list that names none: newest first.
pub(crate) const DEFAULT_ORDER: Order = Order { field: "create_time", descending: true };

/// A decoded list request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listing {
    pub(crate) comparisons: Vec<Comparison>,
    /// Whether bookings that wait or waited for a place are listed too, whatever the comparisons.
    pub(crate) shows_waitlisted: bool,
    pub(crate) order: Order,
    pub(crate) page: Page,
}

/// The kinds of the keys in a page token of this order.
pub(crate) fn shape(order: Order) -> &'static [KeyKind] {
    if order.field == "date" { &[KeyKind::Text, KeyKind::Text] } else { &[KeyKind::Int, KeyKind::Text] }
}

fn keys(order: Order, row: &Model) -> Vec<Key> {
    let first = if order.field == "date" { Key::Text(row.slot_date.clone()) } else { Key::Int(row.create_time) };
    vec![first, Key::Text(row.id.to_string())]
}

/// The rows of one page. A list of several hospitals is read per hospital and merged, unless its filter names one.
pub(crate) async fn list(
    connection: &dyn Connection,
    scope: &Scope,
    listing: &Listing,
) -> Result<Rows<Screening>, DbErr> {
    let Listing { comparisons, shows_waitlisted, order, page } = listing;
    let names_one = comparisons
        .iter()
        .any(|comparison| comparison.operator == Operator::Equal && ["hospital", "slot"].contains(&comparison.field));
    let scopes = if names_one { vec![scope.clone()] } else { apart(scope) };
    let selects =
        scopes.iter().map(|scope| Entity::find().filter(visible(scope)).filter(filter(comparisons, *shows_waitlisted)));
    let direction = if order.descending { Direction::Descending } else { Direction::Ascending };
    let first = if order.field == "date" { Column::SlotDate } else { Column::CreateTime };
    let columns = [(first, direction), (Column::Id, direction)];
    let rows = query::list(connection, selects.collect(), &columns, page, |row| keys(*order, row)).await?;
    rows.try_map(Model::into_domain)
}

/// Bookings that wait or waited are left out unless they are asked for, or one state is.
fn filter(comparisons: &[Comparison], shows_waitlisted: bool) -> Condition {
    let is_one_state = |comparison: &Comparison| comparison.field == "state" && comparison.operator == Operator::Equal;
    let all = compared(comparisons);
    if shows_waitlisted || comparisons.iter().any(is_one_state) {
        return all;
    }
    let hidden = State::ALL.iter().filter(|state| !state.is_shown()).map(|state| state.number());
    all.add(Column::State.is_not_in(hidden))
}

fn compared(comparisons: &[Comparison]) -> Condition {
    let (slots, others): (Vec<_>, Vec<_>) =
        comparisons.iter().cloned().partition(|comparison| comparison.field == "slot");
    slots.iter().fold(condition(&others, column, operand), |all, comparison| all.add(slot(comparison)))
}

fn column(field: &'static str) -> Column {
    match field {
        "customer" => Column::Customer,
        "hospital" => Column::Hospital,
        "state" => Column::State,
        "update_time" => Column::UpdateTime,
        _ => Column::SlotDate,
    }
}

/// Converts a filter's resource name or state name to what the column stores.
fn operand(field: &'static str, value: &Operand) -> Option<Value> {
    let Operand::Text(text) = value else { return None };
    match field {
        "customer" => CustomerId::parse(text).ok().map(|customer| customer.segment().into()),
        "hospital" => HospitalId::parse(text).ok().map(|hospital| hospital.segment().into()),
        "state" => State::from_name(text).map(|state| state.number().into()),
        _ => None,
    }
}

/// The condition on a slot's name, which is stored in two columns.
fn slot(comparison: &Comparison) -> SimpleExpr {
    let Operand::Text(name) = &comparison.value else { return SimpleExpr::val(false) };
    let Ok(slot) = SlotId::parse(name) else { return SimpleExpr::val(false) };
    let same = Column::Hospital.eq(slot.hospital.segment()).and(Column::SlotDate.eq(slot.segment()));
    if comparison.operator == Operator::NotEqual { same.not() } else { same }
}
