//! Reads that every service needs: keyset pages, and the SQL of filters.

use std::cmp::Ordering;

use crate::micros;
use crate::statement::{Connection, Fetch as _};
use domain::access::Scope;
use domain::filter::{Comparison, Operator, Value as Operand};
use domain::page::{Key, Page, Rows};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Condition, Expr, ExprTrait, Func, LikeExpr, Order, SimpleExpr};
use sea_orm::{ColumnType, QueryFilter, QueryOrder, QuerySelect, Select, TryIntoModel, Value};

/// The direction of a column in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The smallest value first.
    Ascending,
    /// The greatest value first.
    Descending,
}

/// Limits a select to the rows after `page.after` in the order of `columns`, and to one row more than the page holds,
/// so that [`split`] knows whether more rows follow. The columns together must be unique and should have an index in
/// their order.
#[must_use]
pub fn page<E: EntityTrait>(select: Select<E>, columns: &[(E::Column, Direction)], page: &Page) -> Select<E> {
    let mut select = select;
    if let Some(after) = &page.after {
        select = select.filter(beyond(columns, after));
    }
    for (column, direction) in columns {
        let order = match direction {
            Direction::Ascending => Order::Asc,
            Direction::Descending => Order::Desc,
        };
        select = select.order_by(*column, order);
    }
    select.limit(page.size + 1)
}

/// `(c1, c2) > (v1, v2)` if all columns have the same direction, which indexes support; otherwise the same condition
/// column by column.
fn beyond<C: ColumnTrait>(columns: &[(C, Direction)], after: &[Key]) -> SimpleExpr {
    let operands: Vec<_> = columns
        .iter()
        .zip(after)
        .map(|((column, direction), key)| (*column, *direction, key_value(column, key)))
        .collect();
    let uniform = columns.windows(2).all(|pair| pair[0].1 == pair[1].1);
    if uniform {
        let left = Expr::tuple(operands.iter().map(|(column, ..)| Expr::col(*column)));
        let right = Expr::tuple(operands.iter().map(|(.., value)| Expr::val(value.clone())));
        return match columns.first().map(|(_, direction)| *direction) {
            Some(Direction::Descending) => left.lt(right),
            _ => left.gt(right),
        };
    }
    let mut any = Condition::any();
    for (last, (column, direction, value)) in operands.iter().enumerate() {
        let mut all = Condition::all();
        for (column, _, value) in &operands[..last] {
            all = all.add(column.eq(value.clone()));
        }
        let step = match direction {
            Direction::Ascending => column.gt(value.clone()),
            Direction::Descending => column.lt(value.clone()),
        };
        any = any.add(all.add(step));
    }
    any.into()
}

/// The bound value of a key. A UUID travels in tokens as text. A text that does not parse comes from a forged token and
/// cannot reveal another caller's rows, because scopes are separate conditions.
fn key_value<C: ColumnTrait>(column: &C, key: &Key) -> Value {
    match key {
        Key::Text(text) if matches!(column.def().get_column_type(), ColumnType::Uuid) => {
            Uuid::try_parse(text).unwrap_or_default().into()
        }
        Key::Text(text) => text.clone().into(),
        Key::Int(number) => (*number).into(),
        Key::Real(number) => (*number).into(),
    }
}

/// How many hospitals in a scope are queried separately.
const APART: std::ops::RangeInclusive<usize> = 2..=16;

/// The scopes to query for one list, each with a select of its own. An index returns one hospital's rows in order but
/// not those of several hospitals, and sorting all of them would make a page as expensive as the whole list.
#[must_use]
pub fn apart(scope: &Scope) -> Vec<Scope> {
    match scope {
        Scope::Hospitals(listed) if APART.contains(&listed.len()) => {
            listed.iter().map(|hospital| Scope::Hospitals([hospital.clone()].into())).collect()
        }
        Scope::Everything | Scope::Customer(_) | Scope::Hospitals(_) => vec![scope.clone()],
    }
}

/// One page of several disjoint selects together; see [`page()`] and [`split`].
///
/// # Errors
/// The error that the database returns.
pub async fn list<E: EntityTrait>(
    connection: &dyn Connection,
    selects: Vec<Select<E>>,
    columns: &[(E::Column, Direction)],
    asked: &Page,
    keys: impl Fn(&E::Model) -> Vec<Key>,
) -> Result<Rows<E::Model>, DbErr>
where
    E::ActiveModel: TryIntoModel<E::Model>,
{
    let pages = selects.into_iter().map(|select| page(select, columns, asked).fetch(connection));
    let pages = futures::future::try_join_all(pages).await?;
    let several = pages.len() > 1;
    let mut rows: Vec<E::Model> = pages.into_iter().flatten().collect();
    if several {
        let directions: Vec<Direction> = columns.iter().map(|(_, direction)| *direction).collect();
        rows.sort_by(|one, other| compare_keys(&keys(one), &keys(other), &directions));
    }
    Ok(split(rows, asked, keys))
}

/// Compares two rows as the database orders them. Texts are ordered by bytes, which agrees with the hyphenated form of
/// UUIDs.
fn compare_keys(one: &[Key], other: &[Key], directions: &[Direction]) -> Ordering {
    let parts = one.iter().zip(other).zip(directions).map(|((one, other), direction)| {
        let order = match (one, other) {
            (Key::Text(one), Key::Text(other)) => one.cmp(other),
            (Key::Int(one), Key::Int(other)) => one.cmp(other),
            (Key::Real(one), Key::Real(other)) => one.total_cmp(other),
            // The same column has the same type in every row.
            (Key::Text(_) | Key::Int(_) | Key::Real(_), _) => Ordering::Equal,
        };
        if *direction == Direction::Descending { order.reverse() } else { order }
    });
    parts.fold(Ordering::Equal, Ordering::then)
}

/// Removes the extra row, records whether there was one, and gives each row its position.
#[must_use]
pub fn split<M>(mut rows: Vec<M>, page: &Page, keys: impl Fn(&M) -> Vec<Key>) -> Rows<M> {
    let size = usize::try_from(page.size).unwrap_or(usize::MAX);
    let more = rows.len() > size;
    rows.truncate(size);
    Rows::new(rows.into_iter().map(|row| (keys(&row), row)).collect(), more)
}

/// The SQL condition of a decoded filter. `column` returns the column of a field. `operand` returns the stored form of
/// a value if that differs from the value itself (the number of an enum's name, the segment of a resource name).
#[must_use]
pub fn condition<C: ColumnTrait>(
    comparisons: &[Comparison],
    column: impl Fn(&'static str) -> C,
    operand: impl Fn(&'static str, &Operand) -> Option<Value>,
) -> Condition {
    comparisons.iter().fold(Condition::all(), |all, comparison| {
        let column = column(comparison.field);
        let value = operand(comparison.field, &comparison.value).unwrap_or_else(|| plain(&comparison.value));
        all.add(compare(column, comparison.operator, value))
    })
}

fn plain(value: &Operand) -> Value {
    match value {
        Operand::Text(text) => text.clone().into(),
        Operand::Date(date) => date.to_string().into(),
        Operand::Time(time) => micros(*time).into(),
        Operand::Number(number) => (*number).into(),
    }
}

fn compare<C: ColumnTrait>(column: C, operator: Operator, value: Value) -> SimpleExpr {
    match operator {
        Operator::Equal => column.eq(value),
        Operator::NotEqual => column.ne(value),
        Operator::Less => column.lt(value),
        Operator::LessOrEqual => column.lte(value),
        Operator::Greater => column.gt(value),
        Operator::GreaterOrEqual => column.gte(value),
        Operator::Has => contains(column, &value),
    }
}

/// A substring condition. It ignores the case of A to Z, and of other letters where the database does: SQLite does not,
/// and PostgreSQL as its collation says.
fn contains<C: ColumnTrait>(column: C, value: &Value) -> SimpleExpr {
    let Value::String(Some(needle)) = value else { return Expr::val(false) };
    let (ascii, all) = (needle.to_ascii_lowercase(), needle.to_lowercase());
    if ascii == all { has(column, &all) } else { has(column, &ascii).or(has(column, &all)) }
}

fn has<C: ColumnTrait>(column: C, needle: &str) -> SimpleExpr {
    let mut pattern = String::from("%");
    for character in needle.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    Expr::expr(Func::lower(Expr::col(column))).like(LikeExpr::new(pattern).escape('\\'))
}
