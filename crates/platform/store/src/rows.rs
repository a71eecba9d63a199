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
const MAX_ROWS: usize = 1_024;
/// The longest list of keys that is filled up.
const MAX_PADDED_KEYS: usize = 4_096;

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
pub fn set_unless_unchanged<V: Into<Value>>(unchanged: bool, value: V) -> ActiveValue<V> {
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
    if values.len() <= MAX_PADDED_KEYS {
        values.resize(values.len().next_power_of_two(), last);
    }
    column.is_in(values)
}

type Columns<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::Column;
type Keys<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::PrimaryKey;

/// A column of rows to write.
struct Column {
    name: &'static str,
    /// Part of the primary key.
    is_key: bool,
    /// It may be NULL.
    may_be_null: bool,
    /// A row that is there already gets the new value.
    is_set: bool,
}

/// Rows of one table that have the same columns, without the type of their entity: what writes them is compiled once.
struct Table {
    name: String,
    columns: Vec<Column>,
    /// Row by row, a value for each column.
    values: Vec<Value>,
}

impl Table {
    /// None where there are no rows.
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

async fn write<A: ActiveModelTrait>(
    transaction: &impl ConnectionTrait,
    rows: Vec<A>,
    present: Present,
) -> Result<(), DbErr> {
    let Some(table) = Table::of(rows)? else { return Ok(()) };
    for statement in statements(table, present, transaction.get_database_backend())? {
        transaction.execute_raw(statement).await?;
    }
    Ok(())
}

/// The statements that write a table's rows, in order.
fn statements(table: Table, present: Present, backend: DbBackend) -> Result<Vec<Statement>, DbErr> {
    let Table { name, columns, values } = table;
    let on_conflict = on_conflict(&columns, present);
    let mut left = values.len() / columns.len();
    let mut values = values.into_iter();
    let mut statements = Vec::new();
    while left > 0 {
        let largest = left.min(MAX_ROWS);
        let count = if backend == DbBackend::Postgres { largest } else { portion(largest) };
        let chunk: Vec<Value> = values.by_ref().take(count * columns.len()).collect();
        let (mut sql, values) = match backend {
            DbBackend::Postgres => by_column(&name, &columns, chunk)?,
            _ => by_row(&name, &columns, chunk),
        };
        sql.push_str(&on_conflict);
        statements.push(Statement::from_sql_and_values(backend, sql, values));
        left -= count;
    }
    Ok(statements)
}

/// How many of so many rows the next statement on SQLite takes.
fn portion(rows: usize) -> usize {
    /// Up to here every number has a text of its own.
    const MAX_EXACT_ROWS: usize = 32;
    /// A statement has a place for every value, and its connection keeps it: the longer, the more memory.
    const MAX_STATEMENT_ROWS: usize = 128;
    if rows <= MAX_EXACT_ROWS { rows } else { 1 << rows.min(MAX_STATEMENT_ROWS).ilog2() }
}

/// What a row has in a column; all rows of a statement have the same ones.
fn cell(value: ActiveValue<Value>, column: &str) -> Result<Value, DbErr> {
    match value {
        ActiveValue::Set(value) | ActiveValue::Unchanged(value) => Ok(value),
        ActiveValue::NotSet => Err(DbErr::Custom(format!("a row without {column} among rows with it"))),
    }
}

/// `INSERT … SELECT … FROM unnest(…)`: an array a column. Arrays hold no NULL here, so a column that may be NULL has another that
/// says where it is.
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

/// `INSERT … VALUES …`: every value by itself.
fn by_row(table: &str, columns: &[Column], values: Vec<Value>) -> (String, Vec<Value>) {
    let mut sql = into(table, columns);
    let (rows, row) = (values.len() / columns.len(), format!("({})", vec!["?"; columns.len()].join(",")));
    sql.reserve(rows * (row.len() + 1) + 128);
    sql.push_str("VALUES ");
    for index in 0..rows {
        sql.push_str(if index == 0 { "" } else { "," });
        sql.push_str(&row);
    }
    (sql, values)
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
