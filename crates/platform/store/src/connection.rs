//! Connections: the settings of a pool on either backend, and the pool for reads.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use async_trait::async_trait;
use sea_orm::sqlx::{self, Connection as _, Row as _};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    IsolationLevel, QueryResult, RuntimeErr, Statement, TransactionOptions, TransactionTrait,
};

use crate::location::Location;
use crate::sealed::Sealed;
use crate::settings::{ACQUIRE_TIMEOUT, PREPARED_STATEMENTS, pragmas};
use crate::simulation::step;
use crate::statement::{Connection, Row};
use crate::transaction::{Trust, WritingPool};
use crate::turns::{Size, Turn, Turns};

/// How long opening a reading connection may take: as long as the writer waits for a server that returns.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The writer's own connection to a server. A file's is a [`crate::file::File`].
    Write,
    /// Reads and, on PostgreSQL, the small writes outside the writer.
    Read,
    /// Changes of the database schema.
    Migrate,
    /// Copying a file's log into the file, without waiting for others.
    Fold,
}

impl Purpose {
    pub(crate) fn connections(self, location: &Location) -> u32 {
        match (self, location) {
            (Self::Write | Self::Migrate | Self::Fold, _) => 1,
            (Self::Read, Location::Sqlite(_)) => 3,
            (Self::Read, Location::Postgres(_)) => POSTGRES_READERS,
        }
    }
}

/// A client that stops in the middle of a transaction, or whose packets are lost, keeps its row locks. These timeouts
/// end it; a normal statement takes milliseconds.
///
/// Every statement of this system finds its rows by an index, so sequential scans are disabled: a cached plan made for
/// an empty table would scan the whole table until the next ANALYZE. JIT compilation is disabled because the high cost
/// of a disabled scan would trigger it.
///
/// The settings are statements and not startup parameters, because a pooler between this process and the server refuses
/// those.
const POSTGRES_SETTINGS: &str = "SET idle_in_transaction_session_timeout = '3s'; SET lock_timeout = '2s'; \
     SET statement_timeout = '5s'; SET tcp_user_timeout = '5s'; SET tcp_keepalives_idle = '2'; \
     SET tcp_keepalives_interval = '1'; SET tcp_keepalives_count = '3'; SET enable_seqscan = off; SET jit = off";

/// When a pool opens its connections. [`Trust`] also says whether the planted bug is on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opening<'a> {
    /// Before the pool is returned: its first connection shows whether the database can be used.
    Now(&'a Arc<Trust>),
    /// At their first use, so that the pool can be made while the database is in trouble.
    Later(&'a Arc<Trust>),
}

/// Opens a pool. It never hands out a connection that the driver believes to be in a transaction: a transaction begun
/// there would be a savepoint, and its commit would commit nothing.
pub(crate) async fn connect(
    location: &Location,
    purpose: Purpose,
    opening: Opening<'_>,
) -> Result<DatabaseConnection, DbErr> {
    let (Opening::Now(trust) | Opening::Later(trust)) = opening;
    let mut options = match location {
        Location::Sqlite(path) => sqlite(path.clone(), purpose, Arc::clone(trust)),
        Location::Postgres(url) => postgres(url, purpose, Arc::clone(trust)),
    };
    let now = matches!(opening, Opening::Now(_));
    options
        .max_connections(purpose.connections(location))
        .min_connections(u32::from(now && purpose != Purpose::Read))
        .connect_lazy(!now)
        .test_before_acquire(false)
        .acquire_timeout(if purpose == Purpose::Read { OPEN_TIMEOUT } else { ACQUIRE_TIMEOUT })
        .sqlx_logging(false);
    step(sea_orm::Database::connect(options)).await
}

/// Hands out only connections outside a transaction, unless the planted bug is on.
macro_rules! outside_a_transaction {
    ($pool:expr, $trust:expr) => {{
        let trust = $trust;
        $pool.before_acquire(move |connection, _| {
            let usable = trust.is_blind() || !connection.is_in_transaction();
            Box::pin(std::future::ready(Ok(usable)))
        })
    }};
}

fn sqlite(path: std::path::PathBuf, purpose: Purpose, trust: Arc<Trust>) -> ConnectOptions {
    let mut options = ConnectOptions::new("sqlite::memory:");
    options.map_sqlx_sqlite_opts(move |sqlite| {
        let read_only = purpose == Purpose::Read;
        let sqlite = sqlite
            .in_memory(false)
            .shared_cache(false)
            .filename(&path)
            .create_if_missing(purpose == Purpose::Migrate)
            .read_only(read_only)
            .busy_timeout(if purpose == Purpose::Fold { Duration::ZERO } else { ACQUIRE_TIMEOUT })
            .statement_cache_capacity(PREPARED_STATEMENTS)
            .foreign_keys(false);
        if read_only {
            return sqlite;
        }
        pragmas().into_iter().fold(sqlite, |sqlite, (name, value)| sqlite.pragma(name, value))
    });
    options.map_sqlx_sqlite_pool_opts(move |pool| {
        let pool = outside_a_transaction!(pool, Arc::clone(&trust));
        // A migration may take long, and its connection is closed when it is over.
        if purpose == Purpose::Read { pool } else { pool.idle_timeout(None).max_lifetime(None) }
    });
    options
}

fn postgres(url: &str, purpose: Purpose, trust: Arc<Trust>) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    // Sends no startup parameter that a pooler between this process and the server would refuse.
    options.map_sqlx_postgres_opts(|postgres| postgres.application_name("checkup").extra_float_digits(None));
    // Both checks are in one function, because a second one would replace the first.
    options.map_sqlx_postgres_pool_opts(move |pool| {
        let pool = outside_a_transaction!(pool, Arc::clone(&trust));
        let pool = match purpose {
            Purpose::Migrate | Purpose::Fold => return pool,
            Purpose::Read => pool,
            // A healthy one is never closed: reopening it would lose every cached statement.
            Purpose::Write => pool.idle_timeout(None).max_lifetime(None),
        };
        let trust = Arc::clone(&trust);
        pool.after_connect(move |connection, _| {
            let trust = Arc::clone(&trust);
            Box::pin(async move {
                sqlx::raw_sql(POSTGRES_SETTINGS).execute(&mut *connection).await?;
                trust.incarnations().admit(connection).await
            })
        })
    });
    options
}

/// How often both sessions are asked for their server process.
const PAIRING_ROUNDS: usize = 3;

/// Whether two pools of one connection each have sessions of their own, which prepared statements, settings and locks
/// need. A pooler between this process and the server that works by transactions gives both the same server process, or
/// a different one every time.
pub(crate) async fn have_sessions(one: &DatabaseConnection, other: &DatabaseConnection) -> Result<bool, DbErr> {
    let (mut ones, mut others) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..PAIRING_ROUNDS {
        ones.insert(process(one).await?);
        others.insert(process(other).await?);
    }
    Ok(ones.len() == 1 && others.len() == 1 && ones != others)
}

/// The server process behind a connection, queried without preparing a statement.
async fn process(connection: &DatabaseConnection) -> Result<i32, DbErr> {
    let asking = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection.get_postgres_connection_pool());
    let row = step(asking).await.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))?;
    row.try_get(0).map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))
}

/// The pools of a database. They are replaced together if the server behind them may be gone.
#[derive(Clone)]
pub(crate) struct Pools {
    pub(crate) writer: WritingPool,
    pub(crate) reader: DatabaseConnection,
}

/// The connections for reads. Each statement sees the last commit.
pub struct Reader {
    pools: Sealed<Arc<RwLock<Pools>>>,
    turns: Arc<Turns>,
    size: Size,
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        let pools = Sealed::new(Arc::clone(self.pools.get()));
        Self { pools, turns: Arc::clone(&self.turns), size: self.size }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    /// A reader over a pool with this many connections.
    pub(crate) fn new(pools: Pools, connections: u32) -> Self {
        let turns = Arc::new(Turns::new(connections));
        Self { pools: Sealed::new(Arc::new(RwLock::new(pools))), turns, size: Size::Rows }
    }

    /// The same connections, for whole pages.
    pub(crate) fn of_pages(&self) -> Self {
        Self { size: Size::Page, ..self.clone() }
    }

    /// Waits for a turn at one of the connections.
    pub(crate) async fn turn(&self) -> Result<Turn, DbErr> {
        self.turns.take(self.size).await
    }

    pub(crate) fn pools(&self) -> Pools {
        // Pools are replaced as a whole, so they are consistent even if a holder of the lock panicked.
        self.pools.get().read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace(&self, pools: Pools) -> Pools {
        std::mem::replace(&mut *self.pools.get().write().unwrap_or_else(PoisonError::into_inner), pools)
    }

    #[boxed]
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, DbErr> {
        let turn = self.turn().await?;
        let pool = self.pools().reader;
        let options = match pool.get_database_backend() {
            DbBackend::Postgres => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                ..TransactionOptions::default()
            },
            _ => TransactionOptions::default(),
        };
        let begun = self.turns.record(step(pool.begin_with_options(options)).await)?;
        Ok(Snapshot { begun: Sealed::new(begun), _turn: self.turns.keep(turn) })
    }
}

/// A read transaction: all its statements see the same commit.
#[derive(Debug)]
pub struct Snapshot {
    begun: Sealed<DatabaseTransaction>,
    _turn: Turn,
}

/// Reading connections per PostgreSQL database. After a restart of the server each may be broken, and each reports that
/// once.
const POSTGRES_READERS: u32 = 8;

impl Reader {
    /// Repeats a read until a connection answers. A connection that broke while it was idle reports that only when it
    /// is used, and a read can be repeated.
    async fn ask<A, F>(
        &self,
        statement: Statement,
        ask: impl Fn(DatabaseConnection, Statement) -> F,
    ) -> Result<A, DbErr>
    where
        F: Future<Output = Result<A, DbErr>>,
    {
        let _turn = self.turn().await?;
        if self.get_database_backend() == DbBackend::Postgres {
            for _ in 0..POSTGRES_READERS {
                match step(ask(self.pools().reader, statement.clone())).await {
                    Err(error) if is_broken(&error) => {}
                    answer => return self.turns.record(answer),
                }
            }
        }
        self.turns.record(step(ask(self.pools().reader, statement)).await)
    }
}

/// Whether the error says that the connection is broken, and not that the statement failed.
fn is_broken(error: &DbErr) -> bool {
    let (DbErr::Query(RuntimeErr::SqlxError(cause)) | DbErr::Exec(RuntimeErr::SqlxError(cause))) = error else {
        return false;
    };
    match cause.as_ref() {
        sqlx::Error::Io(_) => true,
        // The code that a server sends to its sessions when it shuts down.
        sqlx::Error::Database(said) => said.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        self.pools().reader.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let _turn = self.turn().await?;
        self.turns.record(step(self.pools().reader.execute_raw(statement)).await)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let _turn = self.turn().await?;
        self.turns.record(step(self.pools().reader.execute_unprepared(sql)).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.ask(statement, |pool, statement| async move { pool.query_one_raw(statement).await }).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.ask(statement, |pool, statement| async move { pool.query_all_raw(statement).await }).await
    }
}

#[async_trait]
impl ConnectionTrait for Snapshot {
    fn get_database_backend(&self) -> DbBackend {
        self.begun.get().get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        step(self.begun.get().execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        step(self.begun.get().execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        step(self.begun.get().query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        step(self.begun.get().query_all_raw(statement)).await
    }
}

macro_rules! by_the_driver {
    ($($connection:ty),*) => {$(
        #[async_trait]
        impl Connection for $connection {
            fn backend(&self) -> DbBackend {
                self.get_database_backend()
            }

            async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbErr> {
                Ok(self.query_all_raw(statement).await?.into_iter().map(Row::from).collect())
            }

            async fn execute(&self, statement: Statement) -> Result<u64, DbErr> {
                Ok(self.execute_raw(statement).await?.rows_affected())
            }
        }
    )*};
}

by_the_driver!(DatabaseConnection, DatabaseTransaction, Reader, Snapshot);
