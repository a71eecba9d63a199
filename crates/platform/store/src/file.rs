//! Connections to a file without the driver: the writing one, and those of lookups.
//!
//! sea-orm's driver runs each statement on a thread of its own and hands its answer back. A batch has some fifteen
//! statements, each handed over twice. Here a statement runs on the thread that asks for it, through a prepared
//! statement: the writer has a thread that may block, see [`crate::thread`]. The few writes outside the writer hand
//! theirs over.

use std::path::PathBuf;
use std::sync::{Arc, Mutex as Blocking, MutexGuard, PoisonError};

use async_trait::async_trait;
use rusqlite::types::{Null, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, Params, ToSql};
use sea_orm::error::ConnAcquireErr;
use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
use sea_orm::{DbBackend, DbErr, RuntimeErr, Statement, Value, sqlx};
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};
use tokio::time::timeout;

use crate::settings::{ACQUIRE_TIMEOUT, PREPARED_STATEMENTS, pragmas};
use crate::statement::{self, Row};
use crate::thread;

/// The writing connection of a file. One that was lost is opened again when it is next used.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    open: Arc<Mutex<Option<Handle>>>,
}

/// An open connection. Whoever holds the lock of [`File`] is the only one to use it.
#[derive(Debug, Clone)]
struct Handle(Arc<Blocking<Connection>>);

impl Handle {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        // The connection is between two statements, also if a holder of the lock panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work that blocks: here if this thread may block, otherwise on another one.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DbErr> + Send + 'static,
    ) -> Result<T, DbErr> {
        if thread::may_block() {
            return work(&self.lock());
        }
        let handle = self.clone();
        let ended = tokio::task::spawn_blocking(move || work(&handle.lock())).await;
        ended.unwrap_or_else(|error| Err(DbErr::Custom(error.to_string())))
    }

    async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbErr> {
        self.call(move |connection| query(connection, &statement).map_err(|error| DbErr::Query(runtime(error)))).await
    }
}

impl File {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, open: Arc::default() }
    }

    /// Opens the connection, so that a file that cannot be opened is found at the start.
    pub(crate) async fn open(self) -> Result<Self, DbErr> {
        *self.open.lock().await = Some(open(self.path.clone(), write_options).await?);
        Ok(self)
    }

    /// Begins a transaction that may write. It waits for other writes to the file, at most for [`ACQUIRE_TIMEOUT`].
    ///
    /// `nested` is a planted bug: a transaction that is still open is taken for the new one, as a driver does that
    /// counts savepoints.
    pub(crate) async fn begin(&self, nested: bool) -> Result<Writing, DbErr> {
        let taken = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.open).lock_owned()).await;
        let mut held = taken.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?;
        let handle = match &*held {
            Some(handle) => handle.clone(),
            None => held.insert(open(self.path.clone(), write_options).await?).clone(),
        };
        let inner = handle
            .call(move |connection| {
                if connection.is_autocommit() {
                    connection.execute_batch("BEGIN IMMEDIATE").map(|()| false).map_err(exec)
                } else if nested {
                    Ok(true)
                } else {
                    Err(DbErr::Conn(RuntimeErr::Internal("a transaction was left open".to_owned())))
                }
            })
            .await?;
        Ok(Writing { handle, inner, _held: held })
    }

    /// Copies the log into the file and closes the connection. Connections of lookups may still be open.
    pub(crate) async fn close(&self) -> Result<(), DbErr> {
        let Some(handle) = self.open.lock().await.take() else { return Ok(()) };
        // It answers with a row, also if a reader is in the way; the log is then read at the next start.
        let copy = |connection: &Connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(exec)
        };
        handle.call(copy).await
    }

    /// Closes the connection as it is, which ends an open transaction.
    pub(crate) async fn discard(&self) -> Result<(), DbErr> {
        let Some(handle) = self.open.lock().await.take() else { return Ok(()) };
        handle.call(|_| Ok(())).await
    }
}

/// Opens a connection and sets its options.
async fn open(path: PathBuf, options: fn(&Connection) -> rusqlite::Result<()>) -> Result<Handle, DbErr> {
    let opening = move || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(ACQUIRE_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(PREPARED_STATEMENTS);
        options(&connection)?;
        Ok(Handle(Arc::new(Blocking::new(connection))))
    };
    let opened = if thread::may_block() {
        opening()
    } else {
        let ended = tokio::task::spawn_blocking(opening).await;
        ended.map_err(|error| DbErr::Custom(error.to_string()))?
    };
    opened.map_err(|error: rusqlite::Error| DbErr::Conn(runtime(error)))
}

fn write_options(connection: &Connection) -> rusqlite::Result<()> {
    let set: Vec<String> = pragmas().into_iter().map(|(name, value)| format!("PRAGMA {name} = {value}")).collect();
    connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {}", set.join("; ")))
}

fn read_options(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA query_only = ON")
}

/// A connection for one loop that reads a file. It is opened when it is first used.
#[derive(Debug)]
pub(crate) struct ReadingFile {
    path: PathBuf,
    handle: OnceCell<Handle>,
}

impl ReadingFile {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, handle: OnceCell::new() }
    }
}

#[async_trait]
impl statement::Connection for ReadingFile {
    fn backend(&self) -> DbBackend {
        DbBackend::Sqlite
    }

    async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbErr> {
        let handle = self.handle.get_or_try_init(|| open(self.path.clone(), read_options)).await?;
        handle.query(statement).await
    }

    async fn execute(&self, _: Statement) -> Result<u64, DbErr> {
        Err(DbErr::Custom("this connection reads".to_owned()))
    }
}

/// A transaction that may write. If it is dropped, it stays open: its connection must not be used again.
#[derive(Debug)]
pub(crate) struct Writing {
    handle: Handle,
    /// The planted bug: this is part of a transaction that was left open.
    inner: bool,
    _held: OwnedMutexGuard<Option<Handle>>,
}

impl Writing {
    pub(crate) async fn commit(self) -> Result<(), DbErr> {
        self.end("COMMIT").await
    }

    pub(crate) async fn roll_back(self) -> Result<(), DbErr> {
        self.end("ROLLBACK").await
    }

    async fn end(self, with: &'static str) -> Result<(), DbErr> {
        if self.inner {
            return Ok(());
        }
        self.batch(with).await
    }

    /// Runs a text without values.
    pub(crate) async fn batch(&self, sql: &'static str) -> Result<(), DbErr> {
        self.handle.call(move |connection| connection.execute_batch(sql).map_err(exec)).await
    }

    pub(crate) async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbErr> {
        self.handle.query(statement).await
    }

    pub(crate) async fn execute(&self, statement: Statement) -> Result<u64, DbErr> {
        let values = statement.values.map(|values| values.0).unwrap_or_default();
        let run = move |connection: &Connection| connection.prepare_cached(&statement.sql)?.execute(bound(&values));
        self.handle.call(move |connection| run(connection).map(|rows| rows as u64).map_err(exec)).await
    }

    /// Runs one statement for each row, with `width` of the values.
    pub(crate) async fn execute_each(&self, sql: String, width: usize, values: Vec<Value>) -> Result<(), DbErr> {
        let run = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            values.chunks(width).try_for_each(|row| statement.execute(bound(row)).map(drop))
        };
        self.handle.call(move |connection| run(connection).map_err(exec)).await
    }
}

fn query(connection: &Connection, statement: &Statement) -> Result<Vec<Row>, rusqlite::Error> {
    let mut prepared = connection.prepare_cached(&statement.sql)?;
    let columns = prepared.column_count();
    let values = statement.values.as_ref().map_or(&[][..], |values| &values.0);
    let mut found = prepared.query(bound(values))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let cells: Result<Vec<rusqlite::types::Value>, _> = (0..columns).map(|column| row.get(column)).collect();
        rows.push(cells?.into());
    }
    Ok(rows)
}

fn bound(values: &[Value]) -> impl Params {
    rusqlite::params_from_iter(values.iter().map(Bound))
}

/// A value of sea-orm, bound as sea-orm's driver binds it: a UUID is its 16 bytes.
struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let borrowed = |value| Ok(ToSqlOutput::Borrowed(value));
        match self.0 {
            Value::Bool(Some(value)) => borrowed(ValueRef::Integer(i64::from(*value))),
            Value::Int(Some(value)) => borrowed(ValueRef::Integer(i64::from(*value))),
            Value::BigInt(Some(value)) => borrowed(ValueRef::Integer(*value)),
            Value::Unsigned(Some(value)) => borrowed(ValueRef::Integer(i64::from(*value))),
            Value::BigUnsigned(Some(value)) => match i64::try_from(*value) {
                Ok(value) => borrowed(ValueRef::Integer(value)),
                Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
            },
            Value::Double(Some(value)) => borrowed(ValueRef::Real(*value)),
            Value::String(Some(value)) => borrowed(ValueRef::Text(value.as_bytes())),
            Value::Bytes(Some(value)) => borrowed(ValueRef::Blob(value)),
            Value::Uuid(Some(value)) => borrowed(ValueRef::Blob(value.as_bytes())),
            value if *value == value.as_null() => Null.to_sql(),
            other => Err(rusqlite::Error::ToSqlConversionFailure(format!("{other:?} cannot be bound").into())),
        }
    }
}

fn exec(error: rusqlite::Error) -> DbErr {
    DbErr::Exec(runtime(error))
}

/// The same error as sea-orm's driver makes of it, so that there is one classification of failures.
fn runtime(error: rusqlite::Error) -> RuntimeErr {
    let error = match error {
        rusqlite::Error::SqliteFailure(code, text) => {
            let text = text.unwrap_or_else(|| code.to_string());
            sqlx::Error::Database(Box::new(Refused { code: code.extended_code, text }))
        }
        other => sqlx::Error::Encode(Box::new(other)),
    };
    RuntimeErr::SqlxError(error.into())
}

/// What SQLite answered instead of doing it.
#[derive(Debug)]
struct Refused {
    /// The extended result code.
    code: i32,
    text: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "(code: {}) {}", self.code, self.text)
    }
}

impl std::error::Error for Refused {}

impl DatabaseError for Refused {
    fn message(&self) -> &str {
        &self.text
    }

    fn code(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some(self.code.to_string().into())
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }

    /// By <https://www.sqlite.org/rescode.html>.
    fn kind(&self) -> ErrorKind {
        match self.code {
            // SQLITE_CONSTRAINT_UNIQUE, _PRIMARYKEY
            2_067 | 1_555 => ErrorKind::UniqueViolation,
            // SQLITE_CONSTRAINT_FOREIGNKEY
            787 => ErrorKind::ForeignKeyViolation,
            // SQLITE_CONSTRAINT_NOTNULL
            1_299 => ErrorKind::NotNullViolation,
            // SQLITE_CONSTRAINT_CHECK
            275 => ErrorKind::CheckViolation,
            _ => ErrorKind::Other,
        }
    }
}
