//! Many rows in one statement, and few texts of statements.
//!
//! A statement that spells out every value has another text for every number of rows. Each text is parsed and planned anew and
//! pushes another one out of the connection's cache, which costs as much as the rows. So PostgreSQL is given one array a column,
//! whatever the number of rows. SQLite has no arrays: many rows are written to it in portions that are powers of two, and lists
//! of keys are filled up to one with what changes nothing.
//!
//! SQLite writes every index of a row anew that has a column which is set, be it to what it was. So a row that replaces another is to say
//! what it leaves as it is: `ActiveValue::Unchanged`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::extension::postgres::PgFunc;
use sea_orm::sea_query::{ArrayType, Expr, ExprTrait as _, SimpleExpr};
use sea_orm::{ActiveValue, DbBackend, Iterable, Statement, Value};

/// Rows of one statement at most.
const MOST_ROWS: usize = 1_024;
/// The longest list of keys that is filled up.
const MOST_KEYS: usize = 4_096;

/// What becomes of a row whose key is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Present {
    /// The statement fails.
    Refused,
    /// It stays as it is.
    Kept,
    /// It is overwritten.
    Replaced,
}

/// Inserts rows in this order. A key that is there already is an error.
///
/// # Errors
/// What the database says.
pub async fn insert_all<A: ActiveModelTrait>(transaction: &impl ConnectionTrait, rows: Vec<A>) -> Result<(), DbErr> {
    write(transaction, rows, Present::Refused).await
}

/// Inserts those rows whose primary keys are not there yet.
///
/// # Errors
/// What the database says.
pub async fn insert_missing<A: ActiveModelTrait>(
    transaction: &impl ConnectionTrait,
    rows: Vec<A>,
) -> Result<(), DbErr> {
    write(transaction, rows, Present::Kept).await
}

/// What a row that replaces another has in a column: nothing to write where that is known to be what it was.
pub fn unless<V: Into<Value>>(unchanged: bool, value: V) -> ActiveValue<V> {
    if unchanged { ActiveValue::Unchanged(value) } else { ActiveValue::Set(value) }
}

/// Replaces rows that are there, but for columns that are `Unchanged`.
///
/// # Errors
/// What the database says.
pub async fn replace_all<A: ActiveModelTrait>(transaction: &impl ConnectionTrait, rows: Vec<A>) -> Result<(), DbErr> {
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

/// Writes rows of which each says whether it was there: those that were not are inserted, those that were, and that the
/// transaction has locked, are replaced. A row that somebody else inserted in the meantime is an error and never overwritten;
/// the batch is then run again with it in view.
///
/// # Errors
/// What the database says.
pub async fn save_all<A: ActiveModelTrait>(
    transaction: &impl ConnectionTrait,
    rows: impl IntoIterator<Item = (bool, A)>,
) -> Result<(), DbErr> {
    let (known, new): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(known, _)| *known);
    insert_all(transaction, new.into_iter().map(|(_, row)| row).collect()).await?;
    replace_all(transaction, known.into_iter().map(|(_, row)| row).collect()).await
}

/// Values of one type as one value, for PostgreSQL. There is at least one.
pub(crate) fn array<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Value {
    list(values.into_iter().map(Into::into).collect())
}

fn list(values: Vec<Value>) -> Value {
    let element = values.first().map_or(ArrayType::BigInt, Value::array_type);
    Value::Array(element, Some(Box::new(values)))
}

/// `column` is one of `values`.
#[must_use]
pub fn among<C: ColumnTrait, V: Into<Value>>(
    connection: &impl ConnectionTrait,
    column: C,
    values: impl IntoIterator<Item = V>,
) -> SimpleExpr {
    let mut values: Vec<Value> = values.into_iter().map(Into::into).collect();
    let Some(last) = values.last().cloned() else { return Expr::val(false) };
    if connection.get_database_backend() == DbBackend::Postgres {
        return Expr::col((column.entity_name(), column)).eq(PgFunc::any(Expr::val(list(values))));
    }
    if values.len() <= MOST_KEYS {
        values.resize(values.len().next_power_of_two(), last);
    }
    column.is_in(values)
}

type Columns<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::Column;
type Keys<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::PrimaryKey;

async fn write<A: ActiveModelTrait>(
    transaction: &impl ConnectionTrait,
    mut rows: Vec<A>,
    present: Present,
) -> Result<(), DbErr> {
    let Some(first) = rows.first() else { return Ok(()) };
    let columns: Vec<Columns<A>> =
        Columns::<A>::iter().filter(|column| !matches!(first.get(*column), ActiveValue::NotSet)).collect();
    let on_conflict = on_conflict(first, &columns, present);
    let backend = transaction.get_database_backend();
    let mut rest = rows.as_mut_slice();
    while !rest.is_empty() {
        let most = rest.len().min(MOST_ROWS);
        let portion = if backend == DbBackend::Postgres { most } else { portion(most) };
        let (chunk, others) = rest.split_at_mut(portion);
        let (sql, values) = match backend {
            DbBackend::Postgres => by_column(chunk, &columns, &on_conflict)?,
            _ => by_row(chunk, &columns, &on_conflict)?,
        };
        transaction.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        rest = others;
    }
    Ok(())
}

/// How many of so many rows the next statement on SQLite takes.
fn portion(rows: usize) -> usize {
    /// Up to here every number has a text of its own.
    const FEW: usize = 32;
    /// A statement has a place for every value, and its connection keeps it: the longer, the more memory.
    const MOST: usize = 128;
    if rows <= FEW { rows } else { 1 << rows.min(MOST).ilog2() }
}

/// What a row has in a column; all rows of a statement have the same ones.
fn cell<A: ActiveModelTrait>(row: &mut A, column: Columns<A>) -> Result<Value, DbErr> {
    match row.take(column) {
        ActiveValue::Set(value) | ActiveValue::Unchanged(value) => Ok(value),
        ActiveValue::NotSet => Err(DbErr::Custom(format!("a row without {} among rows with it", column.as_str()))),
    }
}

/// `INSERT … SELECT … FROM unnest(…)`: an array a column. Arrays hold no NULL here, so a column that may be NULL has another that
/// says where it is.
fn by_column<A: ActiveModelTrait>(
    rows: &mut [A],
    columns: &[Columns<A>],
    on_conflict: &str,
) -> Result<(String, Vec<Value>), DbErr> {
    let (mut arrays, mut selected, mut given, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut array = |values: Vec<Value>, name: String| -> Result<(), DbErr> {
        let element = values.first().map_or(ArrayType::BigInt, Value::array_type);
        given.push(format!("${}::{}[]", arrays.len() + 1, type_name(&element)?));
        arrays.push(list(values));
        names.push(name);
        Ok(())
    };
    for (index, column) in columns.iter().enumerate() {
        let mut values = rows.iter_mut().map(|row| cell(row, *column)).collect::<Result<Vec<_>, _>>()?;
        let name = format!("v{index}");
        if column.def().is_null() {
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
    let mut sql = into::<A>(columns);
    let (selected, given, names) = (selected.join(", "), given.join(", "), names.join(", "));
    write_to(&mut sql, format_args!("SELECT {selected} FROM unnest({given}) AS given({names})"));
    sql.push_str(on_conflict);
    Ok((sql, arrays))
}

/// `INSERT … VALUES …`: every value by itself.
fn by_row<A: ActiveModelTrait>(
    rows: &mut [A],
    columns: &[Columns<A>],
    on_conflict: &str,
) -> Result<(String, Vec<Value>), DbErr> {
    let mut values = Vec::with_capacity(rows.len() * columns.len());
    let mut sql = into::<A>(columns);
    let row = format!("({})", vec!["?"; columns.len()].join(","));
    sql.reserve(rows.len() * (row.len() + 1) + 128);
    sql.push_str("VALUES ");
    for (index, cells) in rows.iter_mut().enumerate() {
        sql.push_str(if index == 0 { "" } else { "," });
        sql.push_str(&row);
        for column in columns {
            values.push(cell(cells, *column)?);
        }
    }
    sql.push_str(on_conflict);
    Ok((sql, values))
}

fn into<A: ActiveModelTrait>(columns: &[Columns<A>]) -> String {
    let table = A::Entity::default();
    let names: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.as_str())).collect();
    format!("INSERT INTO \"{}\" ({}) ", table.table_name(), names.join(", "))
}

fn on_conflict<A: ActiveModelTrait>(row: &A, columns: &[Columns<A>], present: Present) -> String {
    let is_key = |column: &&Columns<A>| Keys::<A>::iter().any(|key| key.into_column().as_str() == column.as_str());
    let keys: Vec<String> = columns.iter().filter(is_key).map(|column| format!("\"{}\"", column.as_str())).collect();
    let keys = keys.join(", ");
    match present {
        Present::Refused => String::new(),
        Present::Kept => format!(" ON CONFLICT ({keys}) DO NOTHING"),
        Present::Replaced => {
            let changes = |column: &&Columns<A>| !is_key(column) && matches!(row.get(**column), ActiveValue::Set(_));
            let names = columns.iter().filter(changes).map(|column| column.as_str());
            let set: Vec<String> = names.map(|name| format!("\"{name}\" = excluded.\"{name}\"")).collect();
            if set.is_empty() {
                return format!(" ON CONFLICT ({keys}) DO NOTHING");
            }
            format!(" ON CONFLICT ({keys}) DO UPDATE SET {}", set.join(", "))
        }
    }
}

/// A string takes whatever is written to it.
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
