//! Running statements and reading their rows, with code that does not depend on the driver.
//!
//! A server's rows come from sea-orm's driver, a file's rows from SQLite itself. Both are read cell by cell as the
//! types that the entity declares. A [`Connection`] is a trait object, so that what is compiled for an entity is only
//! the conversion of its rows.

use async_trait::async_trait;
use domain::frame::Frame;
use sea_orm::sea_query::{Asterisk, Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ColumnType, DbBackend, DbErr, EntityTrait, Iterable, QueryResult, QuerySelect,
    QueryTrait, Select, Statement, TryGetable, TryIntoModel, Value,
};
use uuid::Uuid;

/// What runs statements: a transaction, a snapshot, or the connections for reads.
#[async_trait]
pub trait Connection: Send + Sync {
    /// The kind of database, which decides the form of a statement.
    fn backend(&self) -> DbBackend;

    /// Runs a statement and returns its rows.
    ///
    /// # Errors
    /// The error that the database returns.
    async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbErr>;

    /// Runs a statement; returns how many rows it changed.
    ///
    /// # Errors
    /// The error that the database returns.
    async fn execute(&self, statement: Statement) -> Result<u64, DbErr>;

    /// Runs one statement for each row, with `width` of the values.
    ///
    /// # Errors
    /// The error that the database returns.
    async fn execute_each(&self, sql: String, width: usize, values: Vec<Value>) -> Result<(), DbErr> {
        let mut values = values.into_iter();
        while values.len() > 0 {
            let row: Vec<Value> = values.by_ref().take(width).collect();
            self.execute(Statement::from_sql_and_values(self.backend(), sql.as_str(), row)).await?;
        }
        Ok(())
    }

    /// Notes the frames that the last statements added to the outbox, for the readers of this process.
    ///
    /// # Errors
    /// The error that the database returns.
    async fn appended(&self, _frames: &[Frame]) -> Result<(), DbErr> {
        Ok(())
    }
}

/// One row of an answer. Each cell is taken once.
#[derive(Debug)]
pub struct Row(Cells);

#[derive(Debug)]
enum Cells {
    /// A row of sea-orm's driver.
    Driver(QueryResult),
    /// A row that was read from a file.
    File(Vec<rusqlite::types::Value>),
}

impl From<QueryResult> for Row {
    fn from(row: QueryResult) -> Self {
        Self(Cells::Driver(row))
    }
}

impl From<Vec<rusqlite::types::Value>> for Row {
    fn from(cells: Vec<rusqlite::types::Value>) -> Self {
        Self(Cells::File(cells))
    }
}

impl Row {
    /// Takes the cell of a column, counted from 0.
    ///
    /// # Errors
    /// An error if there is no such column, or if its value is of another type.
    pub fn take<T: Cell>(&mut self, column: usize) -> Result<T, DbErr> {
        match &mut self.0 {
            Cells::Driver(row) => row.try_get_by_index(column),
            Cells::File(cells) => {
                let cell = cells.get_mut(column).map(|cell| std::mem::replace(cell, rusqlite::types::Value::Null));
                cell.and_then(T::of_file).ok_or_else(|| {
                    DbErr::Type(format!("column {column} is missing or no {}", std::any::type_name::<T>()))
                })
            }
        }
    }

    /// Takes the cell of a column as a value of the type that an entity declares.
    fn value(&mut self, column: usize, declared: &ColumnType) -> Result<Value, DbErr> {
        Ok(match declared {
            ColumnType::Integer => self.take::<Option<i32>>(column)?.into(),
            ColumnType::BigInteger => self.take::<Option<i64>>(column)?.into(),
            ColumnType::Double => self.take::<Option<f64>>(column)?.into(),
            ColumnType::Boolean => self.take::<Option<bool>>(column)?.into(),
            ColumnType::String(_) | ColumnType::Text => self.take::<Option<String>>(column)?.into(),
            ColumnType::Uuid => self.take::<Option<Uuid>>(column)?.into(),
            ColumnType::Blob | ColumnType::VarBinary(_) => self.take::<Option<Vec<u8>>>(column)?.into(),
            other => return Err(DbErr::Type(format!("columns of the type {other:?} are not read here"))),
        })
    }
}

/// A type of a cell.
pub trait Cell: TryGetable {
    /// The value from a file; `None` if it is of another type.
    fn of_file(value: rusqlite::types::Value) -> Option<Self>;
}

impl<T: Cell> Cell for Option<T> {
    fn of_file(value: rusqlite::types::Value) -> Option<Self> {
        if value == rusqlite::types::Value::Null { Some(None) } else { T::of_file(value).map(Some) }
    }
}

macro_rules! cell {
    ($($cell:ty, $stored:ident($value:ident) => $read:expr;)*) => {$(
        impl Cell for $cell {
            fn of_file(value: rusqlite::types::Value) -> Option<Self> {
                match value {
                    rusqlite::types::Value::$stored($value) => $read,
                    _ => None,
                }
            }
        }
    )*};
}

cell! {
    i64, Integer(value) => Some(value);
    i32, Integer(value) => value.try_into().ok();
    bool, Integer(value) => Some(value != 0);
    f64, Real(value) => Some(value);
    String, Text(value) => Some(value);
    Vec<u8>, Blob(value) => Some(value);
    Uuid, Blob(value) => Self::from_slice(&value).ok();
}

/// The cells of a row: one, or a tuple of them in the order of the columns.
pub trait Values: Sized + Send {
    /// Takes them from a row.
    ///
    /// # Errors
    /// The errors of [`Row::take`].
    fn of(row: Row) -> Result<Self, DbErr>;
}

impl<T: Cell + Send> Values for T {
    fn of(mut row: Row) -> Result<Self, DbErr> {
        row.take(0)
    }
}

impl<A: Cell + Send, B: Cell + Send> Values for (A, B) {
    fn of(mut row: Row) -> Result<Self, DbErr> {
        Ok((row.take(0)?, row.take(1)?))
    }
}

impl<A: Cell + Send, B: Cell + Send, C: Cell + Send> Values for (A, B, C) {
    fn of(mut row: Row) -> Result<Self, DbErr> {
        Ok((row.take(0)?, row.take(1)?, row.take(2)?))
    }
}

impl<A: Cell + Send, B: Cell + Send, C: Cell + Send, D: Cell + Send> Values for (A, B, C, D) {
    fn of(mut row: Row) -> Result<Self, DbErr> {
        Ok((row.take(0)?, row.take(1)?, row.take(2)?, row.take(3)?))
    }
}

/// Rows of an entity's table, with all columns in their order.
fn models<E: EntityTrait>(rows: Vec<Row>) -> Result<Vec<E::Model>, DbErr>
where
    E::ActiveModel: TryIntoModel<E::Model>,
{
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    // Once for all rows, because the entity makes each definition anew.
    let columns: Vec<_> = E::Column::iter().map(|column| (column, column.def())).collect();
    let model = |mut row: Row| {
        let mut model = <E::ActiveModel as ActiveModelTrait>::default();
        for (index, (column, declared)) in columns.iter().enumerate() {
            model.try_set(*column, row.value(index, declared.get_column_type())?)?;
        }
        model.try_into_model()
    };
    rows.into_iter().map(model).collect()
}

/// The ends of a select.
pub trait Fetch<E: EntityTrait>: Sized {
    /// Every row.
    ///
    /// # Errors
    /// The error that the database returns.
    fn fetch(self, connection: &dyn Connection) -> impl Future<Output = Result<Vec<E::Model>, DbErr>> + Send
    where
        E::ActiveModel: TryIntoModel<E::Model>;

    /// The first row; `None` if there is none.
    ///
    /// # Errors
    /// The error that the database returns.
    fn fetch_one(self, connection: &dyn Connection) -> impl Future<Output = Result<Option<E::Model>, DbErr>> + Send
    where
        E::ActiveModel: TryIntoModel<E::Model>;

    /// The chosen columns of every row; see [`QuerySelect::select_only`].
    ///
    /// # Errors
    /// The error that the database returns.
    fn fetch_values<V: Values>(self, connection: &dyn Connection)
    -> impl Future<Output = Result<Vec<V>, DbErr>> + Send;

    /// The chosen columns of the first row; `None` if there is none.
    ///
    /// # Errors
    /// The error that the database returns.
    fn fetch_value<V: Values>(
        self,
        connection: &dyn Connection,
    ) -> impl Future<Output = Result<Option<V>, DbErr>> + Send;

    /// How many rows there are.
    ///
    /// # Errors
    /// The error that the database returns.
    fn fetch_count(self, connection: &dyn Connection) -> impl Future<Output = Result<u64, DbErr>> + Send;
}

impl<E: EntityTrait> Fetch<E> for Select<E> {
    async fn fetch(self, connection: &dyn Connection) -> Result<Vec<E::Model>, DbErr>
    where
        E::ActiveModel: TryIntoModel<E::Model>,
    {
        let statement = self.build(connection.backend());
        drop(self);
        models::<E>(connection.query(statement).await?)
    }

    async fn fetch_one(self, connection: &dyn Connection) -> Result<Option<E::Model>, DbErr>
    where
        E::ActiveModel: TryIntoModel<E::Model>,
    {
        let statement = self.limit(1).build(connection.backend());
        Ok(models::<E>(connection.query(statement).await?)?.into_iter().next())
    }

    async fn fetch_values<V: Values>(self, connection: &dyn Connection) -> Result<Vec<V>, DbErr> {
        let statement = self.build(connection.backend());
        drop(self);
        connection.query(statement).await?.into_iter().map(V::of).collect()
    }

    async fn fetch_value<V: Values>(self, connection: &dyn Connection) -> Result<Option<V>, DbErr> {
        let statement = self.limit(1).build(connection.backend());
        connection.query(statement).await?.into_iter().next().map(V::of).transpose()
    }

    async fn fetch_count(self, connection: &dyn Connection) -> Result<u64, DbErr> {
        let counted = self.select_only().expr(Expr::col(Asterisk).count());
        let count = counted.fetch_value::<i64>(connection).await?;
        Ok(count.and_then(|count| count.try_into().ok()).unwrap_or(0))
    }
}

/// The end of a statement that changes rows.
pub trait Run: Sized {
    /// Runs the statement; returns how many rows it changed.
    ///
    /// # Errors
    /// The error that the database returns.
    fn run(self, connection: &dyn Connection) -> impl Future<Output = Result<u64, DbErr>> + Send;
}

impl<Q: QueryTrait + Send> Run for Q {
    async fn run(self, connection: &dyn Connection) -> Result<u64, DbErr> {
        let statement = self.build(connection.backend());
        drop(self);
        connection.execute(statement).await
    }
}
