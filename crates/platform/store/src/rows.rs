//! Writes of many rows, with few different statement texts.
//!
//! A statement that lists every value has another text for each number of rows. Each text is parsed and planned again
//! and evicts another one from the connection's cache, which costs as much as the rows. So PostgreSQL gets one array
//! per column, whatever the number of rows. SQLite has no arrays, and a statement costs no trip there: each row is one
//! execution of the same statement. Lists of keys are padded to a power of two with repeated keys.
//!
//! SQLite rewrites every index with a column that is set, even if the value stays the same. So a row that replaces
//! another marks the columns that stay the same as `ActiveValue::Unchanged`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::statement::Connection;
use async_recursion::async_recursion as boxed;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::extension::postgres::PgFunc;
use sea_orm::sea_query::{ArrayType, Expr, ExprTrait as _, SimpleExpr};
use sea_orm::{ActiveValue, DbBackend, Iterable, Statement, Value};

/// The most rows per statement.
const MAX_ROWS: usize = 1_024;
/// The longest list of keys that is padded.
const MAX_PADDED_KEYS: usize = 4_096;

/// The relations of every entity: none. Each slice reads its tables by key and joins nothing.
///
/// An entity module takes it as its `Relation`. `#[sea_orm::model]` would make one for each entity, and beside it types
/// for loading related entities, which cost more to compile than the rest of the entity.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum NoRelation {}

/// What happens to a row whose key exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Present {
    /// The statement fails.
    Refused,
    /// The existing row stays as it is.
    Kept,
    /// The existing row is overwritten.
    Replaced,
}

/// Inserts rows in this order. An existing key is an error.
///
/// # Errors
/// The error that the database returns.
pub async fn insert_all<A: ActiveModelTrait>(transaction: &dyn Connection, rows: Vec<A>) -> Result<(), DbErr> {
    write(transaction, rows, Present::Refused).await
}

/// Inserts the rows whose primary keys do not exist yet.
///
/// # Errors
/// The error that the database returns.
pub async fn insert_missing<A: ActiveModelTrait>(transaction: &dyn Connection, rows: Vec<A>) -> Result<(), DbErr> {
    write(transaction, rows, Present::Kept).await
}

/// The value of a column in a row that replaces another: `Unchanged` if it is known to be the same.
pub fn set_unless_unchanged<V: Into<Value>>(unchanged: bool, value: V) -> ActiveValue<V> {
    if unchanged { ActiveValue::Unchanged(value) } else { ActiveValue::Set(value) }
}

/// Replaces existing rows, except columns that are `Unchanged`.
///
/// # Errors
/// The error that the database returns.
pub async fn replace_all<A: ActiveModelTrait>(transaction: &dyn Connection, rows: Vec<A>) -> Result<(), DbErr> {
    let mut alike: BTreeMap<Vec<bool>, Vec<A>> = BTreeMap::new();
    for row in rows {
        let set = Columns::<A>::iter().map(|column| matches!(row.get(column), ActiveValue::Set(_))).collect();
        alike.entry(set).or_default().push(row);
    }
    for rows in alike.into_values() {
        write(transaction, rows, Present::Replaced).await?;
    }
    Ok(())
}

/// Writes rows, each with a flag that says whether it existed. New rows are inserted; existing rows, which the
/// transaction must have locked, are replaced. If another process has inserted a new row meanwhile, that is an error
/// and the row is not overwritten; the batch then runs again and sees it.
///
/// # Errors
/// The error that the database returns.
pub async fn save_all<A: ActiveModelTrait>(
    transaction: &dyn Connection,
    rows: impl IntoIterator<Item = (bool, A)>,
) -> Result<(), DbErr> {
    let (known, new): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(known, _)| *known);
    insert_all(transaction, new.into_iter().map(|(_, row)| row).collect()).await?;
    replace_all(transaction, known.into_iter().map(|(_, row)| row).collect()).await
}

/// An array of values of one type, as one value for PostgreSQL. There is at least one value.
pub(crate) fn array<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Value {
    list(values.into_iter().map(Into::into).collect())
}

fn list(values: Vec<Value>) -> Value {
    let element = values.first().map_or(ArrayType::BigInt, Value::array_type);
    Value::Array(element, Some(Box::new(values)))
}

/// The condition that `column` has one of `values`.
#[must_use]
pub fn among<C: ColumnTrait, V: Into<Value>>(
    connection: &dyn Connection,
    column: C,
    values: impl IntoIterator<Item = V>,
) -> SimpleExpr {
    let mut values: Vec<Value> = values.into_iter().map(Into::into).collect();
    let Some(last) = values.last().cloned() else { return Expr::val(false) };
    if connection.backend() == DbBackend::Postgres {
        return Expr::col((column.entity_name(), column)).eq(PgFunc::any(Expr::val(list(values))));
    }
    if values.len() <= MAX_PADDED_KEYS {
        values.resize(values.len().next_power_of_two(), last);
    }
    column.is_in(values)
}

type Columns<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::Column;
type Keys<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::PrimaryKey;

/// A column of the rows to write.
struct Column {
    name: &'static str,
    /// Whether it is part of the primary key.
    is_key: bool,
    /// Whether it may be NULL.
    may_be_null: bool,
    /// Whether an existing row gets the new value.
    is_set: bool,
}

/// Rows of one table with the same columns, without the type of their entity, so that the code that writes them is
/// compiled once.
struct Table {
    name: String,
    columns: Vec<Column>,
    /// The values row by row, one per column.
    values: Vec<Value>,
}

impl Table {
    /// `None` if there are no rows.
    fn of<A: ActiveModelTrait>(rows: Vec<A>) -> Result<Option<Self>, DbErr> {
        let Some(first) = rows.first() else { return Ok(None) };
        let columns: Vec<Columns<A>> =
            Columns::<A>::iter().filter(|column| !matches!(first.get(*column), ActiveValue::NotSet)).collect();
        if columns.is_empty() {
            return Err(DbErr::Custom("a row without values".to_owned()));
        }
        let described = columns.iter().map(|column| Column {
            name: column.as_str(),
            is_key: Keys::<A>::iter().any(|key| key.into_column().as_str() == column.as_str()),
            may_be_null: column.def().is_null(),
            is_set: matches!(first.get(*column), ActiveValue::Set(_)),
        });
        let (name, described) = (A::Entity::default().table_name().to_owned(), described.collect());
        let mut values = Vec::with_capacity(rows.len() * columns.len());
        for mut row in rows {
            for column in &columns {
                values.push(cell(row.take(*column), column.as_str())?);
            }
        }
        Ok(Some(Self { name, columns: described, values }))
    }
}

async fn write<A: ActiveModelTrait>(transaction: &dyn Connection, rows: Vec<A>, present: Present) -> Result<(), DbErr> {
    match Table::of(rows)? {
        Some(table) => table.write(transaction, present).await,
        None => Ok(()),
    }
}

impl Table {
    #[boxed]
    async fn write(self, transaction: &dyn Connection, present: Present) -> Result<(), DbErr> {
        let Self { name, columns, mut values } = self;
        let on_conflict = on_conflict(&columns, present);
        if transaction.backend() != DbBackend::Postgres {
            let places = vec!["?"; columns.len()].join(",");
            let sql = format!("{}VALUES ({places}){on_conflict}", into(&name, &columns));
            return transaction.execute_each(sql, columns.len(), values).await;
        }
        while !values.is_empty() {
            let rest = values.split_off(values.len().min(MAX_ROWS * columns.len()));
            let (sql, arrays) = by_column(&name, &columns, values)?;
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql + &on_conflict, arrays);
            transaction.execute(statement).await?;
            values = rest;
        }
        Ok(())
    }
}

/// The value of a row in a column. All rows of a statement have the same columns.
fn cell(value: ActiveValue<Value>, column: &str) -> Result<Value, DbErr> {
    match value {
        ActiveValue::Set(value) | ActiveValue::Unchanged(value) => Ok(value),
        ActiveValue::NotSet => Err(DbErr::Custom(format!("a row without {column} among rows with it"))),
    }
}

/// `INSERT … SELECT … FROM unnest(…)`, with one array per column. The arrays hold no NULL, so a column that may be NULL
/// has a second array that says where it is.
fn by_column(table: &str, columns: &[Column], values: Vec<Value>) -> Result<(String, Vec<Value>), DbErr> {
    let (mut arrays, mut selected, mut given, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut array = |values: Vec<Value>, name: String| -> Result<(), DbErr> {
        let element = values.first().map_or(ArrayType::BigInt, Value::array_type);
        given.push(format!("${}::{}[]", arrays.len() + 1, type_name(&element)?));
        arrays.push(list(values));
        names.push(name);
        Ok(())
    };
    let mut by_column: Vec<Vec<Value>> = columns.iter().map(|_| Vec::new()).collect();
    for (index, value) in values.into_iter().enumerate() {
        by_column[index % columns.len()].push(value);
    }
    for (index, (column, mut values)) in columns.iter().zip(by_column).enumerate() {
        let name = format!("v{index}");
        if column.may_be_null {
            let is_there = values.iter().map(|value| (*value != value.as_null()).into()).collect();
            for value in &mut values {
                if *value == value.as_null() {
                    *value = value.dummy_value();
                }
            }
            array(is_there, format!("t{index}"))?;
            selected.push(format!("CASE WHEN t{index} THEN {name} END"));
        } else {
            selected.push(name.clone());
        }
        array(values, name)?;
    }
    let mut sql = into(table, columns);
    let (selected, given, names) = (selected.join(", "), given.join(", "), names.join(", "));
    write_to(&mut sql, format_args!("SELECT {selected} FROM unnest({given}) AS given({names})"));
    Ok((sql, arrays))
}

fn into(table: &str, columns: &[Column]) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    format!("INSERT INTO \"{table}\" ({}) ", names.join(", "))
}

fn on_conflict(columns: &[Column], present: Present) -> String {
    let keys: Vec<String> =
        columns.iter().filter(|column| column.is_key).map(|column| format!("\"{}\"", column.name)).collect();
    let keys = keys.join(", ");
    match present {
        Present::Refused => String::new(),
        Present::Kept => format!(" ON CONFLICT ({keys}) DO NOTHING"),
        Present::Replaced => {
            let changed = columns.iter().filter(|column| !column.is_key && column.is_set).map(|column| column.name);
            let set: Vec<String> = changed.map(|name| format!("\"{name}\" = excluded.\"{name}\"")).collect();
            if set.is_empty() {
                return format!(" ON CONFLICT ({keys}) DO NOTHING");
            }
            format!(" ON CONFLICT ({keys}) DO UPDATE SET {}", set.join(", "))
        }
    }
}

/// Writing to a string cannot fail.
fn write_to(sql: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = sql.write_fmt(text);
}

fn type_name(element: &ArrayType) -> Result<&'static str, DbErr> {
    Ok(match element {
        ArrayType::Bool => "bool",
        ArrayType::SmallInt => "int2",
        ArrayType::Int => "int4",
        ArrayType::BigInt => "int8",
        ArrayType::Double => "float8",
        ArrayType::String => "text",
        ArrayType::Bytes => "bytea",
        ArrayType::Uuid => "uuid",
        other => return Err(DbErr::Custom(format!("rows with values of the type {other:?} are not written here"))),
    })
}
