//! One service's database: a single writing connection and a small pool that only reads.
//!
//! SQLite runs in WAL with synchronous=FULL, and every write transaction begins IMMEDIATE: a deferred one that upgrades
//! fails at once when another commit came in between, whatever the busy timeout.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{
    ConnectOptions, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use sea_orm_migration::MigratorTrait;
use tokio::sync::watch;

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// One file, made when it is missing; its `-wal` and `-shm` files lie beside it.
    Sqlite(PathBuf),
}

/// Why a database could not be opened.
#[derive(Debug)]
pub struct Error {
    location: Location,
    cause: DbErr,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Location::Sqlite(path) = &self.location;
        write!(f, "cannot open the database {}", path.display())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// What a [`Nemesis`] does to one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Commit,
    /// Rolls back and reports an error.
    Lose,
    /// Commits and reports an error all the same: the unknown outcome of a connection that broke at the wrong moment.
    CommitAndFail,
}

/// Decides the fate of commits in tests. Production has none.
pub trait Nemesis: Send + Sync {
    /// Called once before each commit.
    fn at_commit(&self) -> Verdict;
}

const READERS: u32 = 2;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A cheap handle.
#[derive(Clone)]
pub struct Database {
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    commits: Arc<watch::Sender<u64>>,
    nemesis: Option<Arc<dyn Nemesis>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("commits", &*self.commits.borrow()).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the database, making it and running `M`'s migrations where needed.
    ///
    /// # Errors
    /// [`Error`] where the file cannot be opened or a migration fails.
    pub async fn open<M: MigratorTrait>(location: &Location) -> Result<Self, Error> {
        let failed = |cause| Error { location: location.clone(), cause };
        let writer = connect(location, 1, false).await.map_err(failed)?;
        M::up(&writer, None).await.map_err(failed)?;
        let reader = connect(location, READERS, true).await.map_err(failed)?;
        Ok(Self { writer, reader, commits: Arc::new(watch::Sender::new(0)), nemesis: None })
    }

    /// Puts every later commit of this handle and its clones under a nemesis.
    #[must_use]
    pub fn with_nemesis(mut self, nemesis: Arc<dyn Nemesis>) -> Self {
        self.nemesis = Some(nemesis);
        self
    }

    /// A pool for reads outside of the writer. Each statement sees the last commit; see [`Database::snapshot`].
    #[must_use]
    pub fn reader(&self) -> &DatabaseConnection {
        &self.reader
    }

    /// A reading transaction, for answers made of several statements: all of them see the same commit.
    ///
    /// # Errors
    /// What the database says.
    pub async fn snapshot(&self) -> Result<DatabaseTransaction, DbErr> {
        self.reader.begin().await
    }

    /// Counts the writer's commits; it changes after each of them, and never before its rows can be read.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    pub(crate) async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.writer.begin_with_options(options).await
    }

    pub(crate) async fn commit(&self, transaction: DatabaseTransaction) -> Result<(), DbErr> {
        match self.nemesis.as_ref().map_or(Verdict::Commit, |nemesis| nemesis.at_commit()) {
            Verdict::Commit => transaction.commit().await?,
            Verdict::Lose => {
                transaction.rollback().await?;
                return Err(DbErr::Custom("the commit was lost by the nemesis".into()));
            }
            Verdict::CommitAndFail => {
                transaction.commit().await?;
                return Err(DbErr::Custom("the answer to the commit was lost by the nemesis".into()));
            }
        }
        self.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }

    /// Closes both pools; SQLite then folds its write-ahead log into the file.
    pub async fn close(self) {
        for pool in [self.reader, self.writer] {
            if let Err(error) = pool.close().await {
                tracing::warn!(%error, "database did not close cleanly");
            }
        }
    }
}

async fn connect(location: &Location, connections: u32, read_only: bool) -> Result<DatabaseConnection, DbErr> {
    let Location::Sqlite(path) = location;
    let path = path.clone();
    let mut options = ConnectOptions::new("sqlite::memory:");
    options
        .max_connections(connections)
        .min_connections(u32::from(!read_only))
        .test_before_acquire(false)
        .acquire_timeout(BUSY_TIMEOUT)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(move |sqlite| {
            let sqlite = sqlite
                .in_memory(false)
                .shared_cache(false)
                .filename(&path)
                .create_if_missing(!read_only)
                .read_only(read_only)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(false);
            if read_only { sqlite } else { sqlite.pragma("journal_mode", "WAL").pragma("synchronous", "FULL") }
        });
    if !read_only {
        // The writing connection is never given up: reopening it would cost every cached statement.
        options.map_sqlx_sqlite_pool_opts(|pool| pool.idle_timeout(None).max_lifetime(None));
    }
    sea_orm::Database::connect(options).await
}
